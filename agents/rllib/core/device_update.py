"""An update that never waits for the device: its decisions are tensors, and it can be captured as a CUDA graph.

RLlib's learner reads numbers in every update: whether gradients are finite, each metric, the learning rate. On a GPU
each of them stops the stream. Here losses, the gradients' norm and the counts of skipped updates stay on the device and
are read once an iteration; Adam itself leaves the weights alone where ``found_inf`` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from agents.team.turn_plan import HOST_KEY, PLAN_KEY, is_static
from marca_env.utils.errors import one_line

logger = logging.getLogger(__name__)

MOST_GRAPHS = 4
"""Number of shapes and patterns of turns of which graphs are kept."""
WARM_UPS = 3
"""Updates before a capture, which CUDA's libraries need to set themselves up; they are undone."""


class DeviceUpdate:
    """Gradient steps of one module with one fused Adam.

    Args:
        module: has ``forward_train(batch)``, which returns ``loss`` and other scalars.
        optimizer: ``torch.optim.Adam(fused=True)``; with ``captures`` also ``capturable=True``.
        clip: largest global norm of the gradients; ``None``: not clipped.
        captures: whether to capture the update as a CUDA graph.
    """

    def __init__(self, module: Any, optimizer: torch.optim.Optimizer, clip: float | None, *, captures: bool) -> None:
        self.module, self.optimizer, self.clip, self.captures = module, optimizer, clip, captures
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.graphs: dict[Any, _Graph] = {}
        self.skips = torch.zeros(3, device=self.parameters[0].device)
        """Updates skipped since :meth:`read_skips`: all, in a row now, most in a row."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Take one gradient step; return detached scalars: the loss, its parts and ``grad_norm``.

        A captured update returns the same tensors each time.
        """
        plan = batch[PLAN_KEY]
        if not self.captures or not is_static(plan):
            return self.step(batch)
        tensors = {name: x for name, x in batch.items() if isinstance(x, Tensor)}
        key = (plan, *((name, x.shape, x.dtype) for name, x in sorted(tensors.items())))
        if key not in self.graphs:
            try:
                graph = _Graph(self, tensors, plan)
            except Exception as error:
                self.captures = False
                torch.cuda.synchronize()
                logger.warning("compile: updates run without a CUDA graph: %s", one_line(error))
                return self.step(batch)
            if len(self.graphs) == MOST_GRAPHS:
                self.graphs.pop(next(iter(self.graphs)))
            self.graphs[key] = graph
        return self.graphs[key].replay(tensors)

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Take one gradient step, operator by operator."""
        self.optimizer.zero_grad(set_to_none=True)
        out = self.module.forward_train(batch)
        out["loss"].backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        skipped = norm.isfinite().logical_not().float()  # as Adam wants it
        if self.clip is not None:
            torch._foreach_mul_(gradients, self.clip / (norm + 1e-6).clamp(min=self.clip))
        self._apply(skipped)
        self._count(skipped)
        return {name: value.detach() for name, value in out.items()} | {"grad_norm": norm}

    def _apply(self, skipped: Tensor) -> None:
        optimizer: Any = self.optimizer
        optimizer.found_inf = skipped  # 1: Adam leaves weights and statistics as they are
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf

    def _count(self, skipped: Tensor) -> None:
        total, row, most = self.skips.unbind()
        row = (row + skipped) * skipped
        self.skips.copy_(torch.stack([total + skipped, row, torch.maximum(most, row)]))

    def read_skips(self) -> tuple[int, int, int]:
        """Return the updates skipped since the last call: all, in a row now, most in a row; waits for the device.

        The row goes on to count.
        """
        total, row, most = (int(x) for x in self.skips.tolist())
        self.skips.copy_(torch.stack([self.skips[1] * 0, self.skips[1], self.skips[1]]))
        return total, row, most


class _Graph:
    """A captured update for one batch shape and pattern of turns."""

    def __init__(self, update: DeviceUpdate, tensors: dict[str, Tensor], plan: Any) -> None:
        self.inputs = {name: x.clone() for name, x in tensors.items()}
        batch = {**self.inputs, PLAN_KEY: plan}
        device = update.parameters[0].device
        for group in update.optimizer.param_groups:
            group["lr"] = torch.as_tensor(float(group["lr"]), device=device)  # a graph reads its learning rate anew
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        randomness = torch.cuda.get_rng_state(device)
        saved = _Saved(update)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                update.step(batch)
        torch.cuda.current_stream(device).wait_stream(side)
        saved.restore(update)
        torch.cuda.set_rng_state(randomness, device)
        update.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = update.step(batch)

    def replay(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, x in tensors.items():
            self.inputs[name].copy_(x, non_blocking=True)
        self.graph.replay()
        return self.outputs


class _Saved:
    """Weights, buffers and the optimizer's statistics before warm-up updates."""

    def __init__(self, update: DeviceUpdate) -> None:
        self.tensors = [(x, x.detach().clone()) for x in _tensors(update)]

    @torch.no_grad()
    def restore(self, update: DeviceUpdate) -> None:
        known = {id(x) for x, _ in self.tensors}
        for x, value in self.tensors:
            x.copy_(value)
        for x in _tensors(update):
            if id(x) not in known:
                x.zero_()  # made by the first step of the optimizer


def _tensors(update: DeviceUpdate) -> Iterable[Tensor]:
    """Return every tensor that an update changes."""
    statistics = [x for state in update.optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    return [*update.module.parameters(), *update.module.buffers(), *statistics, update.skips]


def host_free(batch: dict[str, Any], plan: Any) -> dict[str, Any]:
    """Return a batch with its plan in place of the columns from which it was made."""
    return {**{name: x for name, x in batch.items() if name != HOST_KEY}, PLAN_KEY: plan}
