"""Observations as tensors: what :class:`~marca_env.envs.observations.ObservationEncoder` encodes, on any device.

For requests without windows and without a latency limit. Shapes as in :mod:`marca_env.envs.observations`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from marca_env.envs.observation_layout import Layout
from marca_env.envs.observations import ObservationEncoder
from marca_env.scenario.encoding import NUMBER_LIMIT
from marca_env.utils.errors import InputError

STATE = ""
"""Name of the state for centralised training among the agents' observations."""


class ObservationTensors:
    """Encoder of states, actions and results as tensors on one device, equal to the last bit to those in NumPy.

    Args:
        encoder: encoder of the scenario's observations.
        device: torch device.
        prices: (G,) currency per core-second, the same for all requests; ``None``: zeros.

    Raises:
        InputError: observations hold service times or the state of clusters.
    """

    def __init__(
        self, encoder: ObservationEncoder, device: str | torch.device, prices: np.ndarray | None = None
    ) -> None:
        if encoder.latency_map is not None or encoder.has_clusters:
            raise InputError(
                f"scenario {encoder.scenario.name!r}: a latency limit or windows of requests have no tensors; "
                "use the batched environment"
            )
        self.encoder, self.device = encoder, torch.device(device)
        limits = (self._tensor(x) for x in encoder.result_limits)
        self._scale, self._least, self._most = limits
        scaled = encoder.scale_prices(prices)
        self._prices = None if scaled is None else self._tensor(scaled)
        layouts = {**encoder.layouts, STATE: encoder.state_layout}
        self._vectors = {name: _VectorTensors(layout, self.device) for name, layout in layouts.items()}
        self._masks = {
            agent: self._tensor(np.concatenate([encoder.masks(t, 1)[agent] for t in range(encoder.n_turns + 1)]))
            for agent in encoder.agents
        }

    def encode(
        self, names: Sequence[str], states: Tensor, actions: Tensor, results: Tensor | None, turn: int
    ) -> list[Tensor]:
        """Return the observation (B, O) float32 of each named agent; :data:`STATE` names the state.

        Args:
            names: agents, or :data:`STATE`.
            states: (B, W), int64, or float64 where features are numbers.
            actions: (B, D) int64; only the decisions before ``turn`` are used.
            results: (B, R) float32, of which only settled ones are used; ``None``: zeros.
            turn: 0 … D.
        """
        codes = torch.cat([states.long(), actions, actions.new_zeros(len(states), 1)], dim=1)
        scaled = None if results is None else (results / self._scale).clamp(self._least, self._most)
        return [self._vector(self._vectors[name], states, codes, scaled, turn) for name in names]

    def _vector(
        self, vector: _VectorTensors, states: Tensor, codes: Tensor, scaled: Tensor | None, turn: int
    ) -> Tensor:
        """Return one vector for all requests, (B, O)."""
        out = torch.zeros(len(states), vector.size, device=self.device)
        index, start = vector.one_hots[turn]
        out.scatter_(1, codes[:, index] + start, 1.0)
        if len(vector.number_columns):
            numbers = states[:, vector.numbers].clamp(-NUMBER_LIMIT, NUMBER_LIMIT)
            out[:, vector.number_columns] = numbers.float()
        stages, columns = vector.settled_results[turn]
        if scaled is not None and len(stages):
            out[:, columns] = scaled[:, stages]
        if self._prices is not None:
            out[:, vector.prices :] = self._prices
        return out

    def mask(self, agent: str, turn: int) -> Tensor:
        """Return the agent's legal actions at ``turn``, (A,) bool, the same for all requests."""
        return self._masks[agent][turn]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class _VectorTensors:
    """Positions of the parts of one vector as index tensors."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        def indices(pairs: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
            index, column = torch.tensor(pairs, dtype=torch.int64, device=device).reshape(-1, 2).T
            return index.contiguous(), column.contiguous()

        self.size, self.prices = layout.size, layout.prices
        self.one_hots = [indices(pairs) for pairs in layout.one_hots]
        self.settled_results = [tuple(torch.from_numpy(x).to(device) for x in pair) for pair in layout.settled_results]
        self.numbers, self.number_columns = (torch.from_numpy(x).to(device) for x in layout.numbers)
