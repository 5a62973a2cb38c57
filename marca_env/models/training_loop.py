"""Mini-batch training loop that the fitted models share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from marca_env.utils.progress import ProgressCallback


def minimise(
    net: nn.Module,
    loss: Callable[[Tensor], Tensor],
    n_rows: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    weight_decay: float = 1e-5,
    min_steps: int = 1,
    progress: ProgressCallback | None = None,
) -> None:
    """Minimise a loss over shuffled batches with AdamW and a one-cycle learning rate, then set ``net`` to evaluation.

    Args:
        net: network to train in place.
        loss: row indices (batch_size,) → scalar loss.
        n_rows: rows of the data; batches are at most an eighth of them.
        epochs: passes over the rows.
        batch_size: rows of a batch.
        learning_rate: highest rate of the cycle.
        seed: seed of the shuffling.
        weight_decay: AdamW's decay.
        min_steps: least number of steps; a small log is passed over more often.
        progress: called after each step.
    """
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, max(n_rows // 8, 1))
    per_epoch = n_rows // batch_size
    steps = max(epochs * per_epoch, min_steps)
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps + 1)
    net.train()
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(n_rows, generator=generator).to(device)
        start = step % per_epoch * batch_size
        optimizer.zero_grad(set_to_none=True)
        loss(order[start : start + batch_size]).backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    net.eval()
