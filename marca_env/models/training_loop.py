"""Mini-batch minimisation that the fitted models share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def minimise(
    net: nn.Module,
    loss: Callable[[Tensor], Tensor],
    n: int,
    *,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    decay: float = 1e-5,
    least: int = 1,
    progress: Progress | None = None,
) -> None:
    """Adam with a one-cycle learning rate over shuffled batches; ``loss`` takes row indices (batch,) out of ``n``.

    A small log is gone through more often, so that there are ``least`` steps.
    """
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    batch = min(batch, max(n // 8, 1))
    per_epoch = n // batch
    steps = max(epochs * per_epoch, least)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps + 1)
    net.train()
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(n, generator=generator).to(device)
        start = step % per_epoch * batch
        optimizer.zero_grad(set_to_none=True)
        loss(order[start : start + batch]).backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    net.eval()
