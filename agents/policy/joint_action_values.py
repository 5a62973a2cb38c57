"""Values Q̂_tot of every joint action of a scenario, evaluated along the tree of decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.policy.action_tree import ActionTree
from agents.policy.node_inputs import NodeInputs, Observed
from agents.team.team import Team

_CHUNK_NODES = 4096  # nodes of the tree's widest level that are evaluated together on a CPU
_CHUNK_NODES_ON_GPU = 65_536


class JointActionValues:
    """Evaluator of all leaves of the tree; intermediate results that joint actions share are computed once.

    A recurrent state is computed once for all joint actions with the same prefix, and its matrix product once for all
    nodes that follow it. Heads are evaluated only where an agent decides for the last time. The mixer's weights are
    computed once for each node of the last turn, for all its leaves.

    Args:
        team: the networks, in evaluation mode, on the device where they run.
        encoder: encoder of the scenario's observations with which the team was trained.
        tree: the joint actions.
        inputs: maker of the networks' inputs at the nodes.
    """

    def __init__(self, team: Team, encoder: Any, tree: ActionTree, inputs: NodeInputs) -> None:
        self.team, self.encoder, self.tree, self.inputs = team, encoder, tree, inputs
        self.device = next(team.parameters()).device
        self._previous = [self._tensor(level.previous) for level in tree.levels]
        self._node_of_leaf = [self._tensor(level.node_of_leaf) for level in tree.levels]
        self._leaves, self._groups = self._tensor(tree.leaves), self._tensor(tree.groups)
        self._ungroup = self._tensor(tree.ungroup)

    def __call__(
        self, states: np.ndarray, observed: np.ndarray | None = None, known: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the value of every leaf, in units of the reward scale.

        Args:
            states: (U, W).
            observed: (U, R) results in place of the expected ones; ``None``: all are expected.
            known: (R,) bool, which results were observed.

        Returns:
            (U, J') float32; with observed results only leaves that continue what led to them have a meaning.
        """
        out = np.empty((len(states), len(self.tree.leaves)), np.float32)
        chunk = _CHUNK_NODES if self.device.type == "cpu" else _CHUNK_NODES_ON_GPU
        step = max(1, chunk // max(level.size for level in self.tree.levels))
        for start in range(0, len(states), step):
            part = slice(start, start + step)
            here = None if observed is None or known is None else (observed[part], known)
            out[part] = self._evaluate(states[part], here)
        return out

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    @torch.inference_mode()
    def _evaluate(self, states: np.ndarray, observed: Observed) -> np.ndarray:
        spec, tree, n = self.team.spec, self.tree, len(states)
        hidden: dict[str, Tensor] = {}  # agent → (U, nodes at its latest turn, H)
        utilities: dict[str, Tensor] = {}
        best: dict[str, Tensor] = {}  # of an agent that waits at the last turn, the value that it carries
        state = torch.empty(0)
        for turn, level in enumerate(tree.levels):
            name = self.encoder.turn_agent[turn]
            net = self.team.agents[spec.agents.index(name)]
            observation, mask, state = self.inputs.observe(states, observed, turn)
            after = observation.new_empty(len(observation), 0)
            if net.cell is not None:
                before = hidden.get(name, net.initial_hidden(1)[:, None].expand(n, -1, -1))
                hidden_gates = net.hidden_gates(before)[:, self._previous[turn]].flatten(0, 1)
                before = before[:, self._previous[turn]].flatten(0, 1)
                after = net.next_hidden(net.input_gates(observation), hidden_gates, before)
                hidden[name] = after.view(n, level.size, -1)
            if level.final:
                q = net.values(observation, after).mean(1).view(n, level.size, -1)
                utilities[name] = best[name] = q[:, self._node_of_leaf[turn], self._leaves[:, turn]]  # U J'
                if turn == len(tree.levels) - 1:
                    legal = q.masked_fill(~mask.reshape(n, level.size, -1), -torch.inf)
                    best[name] = legal.amax(-1)[:, self._node_of_leaf[turn]]
        if self.team.preset.mixer.waiting_values == "zero":
            for name in set(spec.agents) - {self.encoder.turn_agent[-1]}:
                utilities[name] = best[name] = torch.zeros_like(utilities[name])
        stacked, stacked_best = (torch.stack([x[a] for a in spec.agents], -1) for x in (utilities, best))
        return self._mix(stacked, stacked_best, state.view(n, -1, spec.state_size)).cpu().numpy()

    def _mix(self, utilities: Tensor, best: Tensor, state: Tensor) -> Tensor:
        """Return Q_tot of every leaf.

        Args:
            utilities: (U, J', N).
            best: (U, J', N), best legal values; see :meth:`agents.team.team.Team.mix`.
            state: (U, n, S) of the last turn's nodes.
        """
        mixer, names = self.team.mixer, self.team.spec.agents
        assert mixer is not None
        n, leaves, _ = utilities.shape
        if not (self.team.sees_actions or self.team.mixes_joint_actions):
            weights = mixer.weights(state.flatten(0, 1))
            grouped = utilities[:, self._groups].flatten(0, 1)  # U·n M N
            return mixer.mix(grouped, weights).view(n, -1)[:, self._ungroup]
        acting = self.encoder.turn_agent[-1]
        last = self._leaves[:, -1].repeat(n)
        sizes = zip(names, self.team.spec.action_sizes, strict=True)
        actions = [last if a == acting else torch.full_like(last, size - 1) for a, size in sizes]
        states = state[:, self._node_of_leaf[-1]].flatten(0, 1)
        deciders = torch.ones_like(last)
        return self.team.mix(utilities.flatten(0, 1), states, actions, best.flatten(0, 1), deciders).view(n, leaves)
