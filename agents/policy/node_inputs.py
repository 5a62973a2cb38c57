"""Inputs of the networks at every node of the action tree: observations, masks and states.

On tensors they are made on the device of the networks, from nothing but the states of the requests. Where the cost
model is not a fitted one, or observations hold service times, NumPy makes them on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from agents.policy.action_tree import ActionTree
from agents.team.single_controller import JointEncoder
from marca_env.envs.observation_tensors import STATE, ObservationTensors
from marca_env.models.cost_tensors import CostTensors, has_tensors

Results = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Expected action results: (states (B, W), actions (B, D)) → (B, R)."""
Observed = tuple[np.ndarray, np.ndarray] | None
"""Results (U, R) in place of the expected ones where the mask (R,) says that they were observed; ``None``: nowhere."""


class NodeInputs(Protocol):
    """Maker of the inputs of one turn for some states."""

    def observe(self, states: np.ndarray, observed: Observed, turn: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return observation and mask of the agent on turn, and the mixer's state, at each node of the turn.

        Args:
            states: (U, W).
            observed: results that are known.
            turn: the turn, which has n nodes.

        Returns:
            (U·n, O), (U·n, A) bool and (U·n, S); the state may be empty before the last turn.
        """
        ...


def make_inputs(
    encoder: Any, tree: ActionTree, cost_model: Any, device: torch.device
) -> tuple[NodeInputs, CostTensors | None]:
    """Return the inputs of a tree's nodes and, if the cost model has tensors, the costs of its leaves."""
    plain = encoder.encoder if isinstance(encoder, JointEncoder) else encoder
    if not has_tensors(cost_model):
        return HostInputs(encoder, tree, cost_model.results, device), None
    costs = CostTensors(cost_model, tree.leaves)
    if plain.latency_map is not None or plain.has_clusters:
        return HostInputs(encoder, tree, cost_model.results, device), costs
    return TensorInputs(encoder, tree, cost_model, device), costs


class HostInputs:
    """Inputs that NumPy makes.

    Args:
        encoder: encoder of the scenario's observations with which the team was trained.
        tree: the joint actions.
        results: expected action results, which later stages observe.
        device: device of the networks.
    """

    def __init__(self, encoder: Any, tree: ActionTree, results: Results, device: torch.device) -> None:
        self.encoder, self.tree, self.results, self.device = encoder, tree, results, device

    def observe(self, states: np.ndarray, observed: Observed, turn: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return observation, mask and state at each node; see :class:`NodeInputs`."""
        level, name = self.tree.levels[turn], self.encoder.turn_agent[turn]
        rows = np.repeat(states, level.size, axis=0)
        actions = np.tile(level.prefixes, (len(states), 1))
        results = np.zeros((len(rows), len(self.encoder.settled(turn))), np.float32)
        if self.encoder.settled(turn).any():
            results = self.results(rows, actions)
        if observed is not None:
            values, known = observed
            results = np.where(known, np.repeat(values, level.size, axis=0), results)
        observations, masks, state = self.encoder.encode(rows, actions, results, turn)
        made = (observations[name], masks[name], state)
        observation, mask, mixed = (torch.from_numpy(array).to(self.device) for array in made)
        return observation, mask, mixed


class TensorInputs:
    """Inputs that are made on the device of the networks.

    Args:
        encoder: encoder of the scenario's observations with which the team was trained.
        tree: the joint actions.
        cost_model: fitted cost model, which predicts what later stages observe.
        device: device of the networks.
    """

    def __init__(self, encoder: Any, tree: ActionTree, cost_model: Any, device: torch.device) -> None:
        joint = isinstance(encoder, JointEncoder)
        self.device, self._turns = device, len(tree.levels)
        self._tensors = ObservationTensors(encoder.encoder if joint else encoder, device)
        self._vectors = [STATE if joint else name for name in encoder.turn_agent]
        self._prefixes = [torch.from_numpy(level.prefixes).to(device) for level in tree.levels]
        self._masks, self._results = [], []
        states = np.zeros((1, len(encoder.scenario.state_columns)), dtype=np.int64)
        actions = tree.leaves[:1]
        for turn, level in enumerate(tree.levels):
            settled = encoder.settled(turn)
            nothing = np.zeros((1, len(settled)), np.float32)
            mask = encoder.encode(states, actions, nothing, turn)[1][encoder.turn_agent[turn]]
            self._masks.append(torch.from_numpy(mask).to(device))
            self._results.append(CostTensors(cost_model, level.prefixes) if settled.any() else None)

    def observe(self, states: np.ndarray, observed: Observed, turn: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return observation, mask and state at each node; see :class:`NodeInputs`."""
        prefixes, costs = self._prefixes[turn], self._results[turn]
        n, nodes = len(states), len(prefixes)
        rows = torch.from_numpy(states).to(self.device).repeat_interleave(nodes, 0)
        actions = prefixes.repeat(n, 1)
        results = None if costs is None else costs.results(states).to(self.device).flatten(0, 1)
        if observed is not None and results is not None:
            values, known = (torch.from_numpy(array).to(self.device) for array in observed)
            results = torch.where(known, values.repeat_interleave(nodes, 0), results)
        names = [self._vectors[turn], *([STATE] if turn == self._turns - 1 else [])]
        observation, *states_of_mixer = self._tensors.encode(names, rows, actions, results, turn)
        state = states_of_mixer[0] if states_of_mixer else observation.new_empty(0)
        return observation, self._masks[turn].expand(n * nodes, -1), state
