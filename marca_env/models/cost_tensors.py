"""The cost model of a fixed list of joint actions as tensors, so that a pass over many states stays on one device.

The numbers are those of :class:`marca_env.CostModel` to the last bit: the network's products do not depend on the rest
of the batch, and the curves of the cost map are computed in the same order. Shapes: U states, W columns of a state,
n joint actions, D decisions, S stages, R results, G clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from marca_env.models.cost_map import CostMap, Curve, has_channels, model_component
from marca_env.models.cost_model import AnalyticCostModel, CostModel
from marca_env.models.deterministic_linear import chunks
from marca_env.scenario.encoding import InputEncoder


def has_tensors(cost_model: Any) -> bool:
    """Return whether a cost model is a fitted network with a cost map of curves."""
    is_fitted = isinstance(cost_model, CostModel) and not isinstance(cost_model, AnalyticCostModel)
    return is_fitted and isinstance(cost_model.cost_map, CostMap)


class CurveTensor:
    """A :class:`~marca_env.models.cost_map.Curve` on a device.

    Args:
        curve: the curve.
        device: torch device.
    """

    def __init__(self, curve: Curve, device: str | torch.device) -> None:
        self._first, self._last = float(curve.lengths[0]), float(curve.lengths[-1])
        rise = float(curve.costs[-1] - curve.costs[0])
        self._slope = rise / (self._last - self._first) if self._last != self._first else 0.0
        steps = np.diff(curve.costs) / np.diff(curve.lengths)
        knots = (curve.lengths, curve.costs, np.append(steps, 0.0))  # beyond the last knot its value holds
        self._lengths, self._costs, self._steps = (torch.as_tensor(x, device=device) for x in knots)

    def __call__(self, lengths: Tensor) -> Tensor:
        """Return the value at ``lengths`` of any shape, float64."""
        x = lengths.double().contiguous()
        inside = x.clamp(self._first, self._last)
        knot = torch.searchsorted(self._lengths, inside, right=True).sub_(1)
        value = self._steps[knot] * (inside - self._lengths[knot]) + self._costs[knot]
        if self._first == self._last:
            return value
        outside = (x - self._first).clamp(max=0.0) + (x - self._last).clamp(min=0.0)
        return (value + self._slope * outside).clamp(min=0.0)


class CostTensors:
    """Results and costs of n joint actions for many states.

    Args:
        cost_model: a fitted cost model, see :func:`has_tensors`; its network runs on its own device.
        actions: (n, D) option indices.
    """

    def __init__(self, cost_model: CostModel, actions: np.ndarray) -> None:
        self.scenario, self.device = cost_model.scenario, cost_model.device
        self._net, self._encoder = cost_model._net, InputEncoder(cost_model.scenario)
        states = np.zeros((len(actions), len(self.scenario.state_columns)), dtype=np.int64)
        of_actions = self._encoder.inputs(states, actions) * self._encoder.of_actions
        self._of_actions = self._tensor(of_actions)  # n I
        self._filler = np.asarray(actions)[:1]
        self._of_states = (~self._encoder.of_actions).astype(np.float32)
        scale = cost_model._scale
        self._counts, self._mean, self._std = (self._tensor(x) for x in (scale.counts, scale.mean, scale.std))
        self._stages = [
            _StageCost(cost_model.cost_map, k, np.asarray(actions), self.device) for k in range(self._n_stages)
        ]

    @property
    def _n_stages(self) -> int:
        return len(self.scenario.stages)

    def results(self, states: np.ndarray) -> Tensor:
        """Return candidates, then signals: ``states`` (U, W) → (U, n, R) float32."""
        filler = np.broadcast_to(self._filler, (len(states), self._filler.shape[1]))
        of_states = self._tensor(self._encoder.inputs(states, filler) * self._of_states)  # U I
        n = len(self._of_actions)
        outputs = of_states.new_empty(len(states) * n, self._n_stages + len(self._mean))
        every = torch.arange(len(outputs), device=outputs.device)
        with torch.inference_mode():
            for part in chunks(len(outputs), self.device):
                rows = every[part]
                outputs[part] = self._net(of_states[rows // n] + self._of_actions[rows % n])
            counts, signals = outputs.split([self._n_stages, len(self._mean)], dim=1)
            scaled = [counts.clamp(0.0, 1.0) * self._counts, signals * self._std + self._mean]
            return torch.cat(scaled, dim=1).view(len(states), n, -1)

    def costs(self, states: np.ndarray, results: Tensor) -> Tensor:
        """Return core-seconds per request on each cluster: states (U, W), results (U, n, R) → (U, n, G) float64."""
        total = results.new_zeros((*results.shape[:2], len(self.scenario.clusters)), dtype=torch.float64)
        site = self.scenario.site_of(states)
        places = None if site is None else torch.as_tensor(site, device=results.device)[:, None]
        for k, stage in enumerate(self._stages):
            cost = stage(results[..., k])
            for place, clusters in enumerate(self.scenario.stage_clusters):
                total[..., clusters[k]] += cost if places is None else cost * (places == place)
        return total

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class _StageCost:
    """Cost of one stage for n joint actions; see :meth:`marca_env.models.cost_map.CostMap.stage_cost`."""

    def __init__(self, cost_map: CostMap, index: int, actions: np.ndarray, device: str) -> None:
        scenario, curves = cost_map.scenario, cost_map.curves
        stage = scenario.stages[index]

        def on_device(key: tuple[str, str]) -> CurveTensor:
            return CurveTensor(curves[key], device)

        self._base = float(curves[stage.name, "base"](np.zeros(())))
        self._queue = on_device((stage.name, "queue")) if (stage.name, "queue") in curves else None
        self._channels: Tensor | None = None
        if has_channels(stage):
            self._channels = torch.as_tensor(cost_map._channels(stage, actions), device=device)  # n
        self._models: list[tuple[CurveTensor, Tensor]] = []
        for decision in stage.decisions:
            if decision.kind == "model":
                chosen = torch.as_tensor(actions[:, scenario.decision_names.index(decision.name)], device=device)
                for k, option in enumerate(decision.options):
                    if option != "off":
                        curve: Any = on_device((stage.name, model_component(decision, option)))
                        self._models.append((curve, chosen == k))

    def __call__(self, processed: Tensor) -> Tensor:
        """Return core-seconds per request: ``processed`` candidates (U, n) → (U, n) float64."""
        cost = torch.full_like(processed, self._base, dtype=torch.float64)
        if self._queue is not None:
            cost += self._queue(processed)
        if self._channels is not None:
            cost += self._channels
        for curve, is_on in self._models:
            cost += torch.where(is_on, curve(processed), 0.0)
        return cost
