"""The joint actions of a scenario as a tree, so that actions with a common prefix are evaluated together."""

from __future__ import annotations

import numpy as np

from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario


class TreeLevel:
    """The nodes of one turn: the distinct prefixes of joint actions that were decided before it."""

    def __init__(self, leaves: np.ndarray, turns: list[str], turn: int) -> None:
        decided = np.where(np.arange(leaves.shape[1]) < turn, leaves, 0)
        self.prefixes, node_of_leaf = np.unique(decided, axis=0, return_inverse=True)  # (n, D), later decisions 0
        self.node_of_leaf = node_of_leaf.reshape(-1)
        self.size = len(self.prefixes)
        self.final = turns[turn] not in turns[turn + 1 :]
        """Whether the agent on turn decides for the last time."""
        self.previous = np.zeros(self.size, dtype=np.int64)
        """For each node, the node at which the agent on turn took its previous decision."""


class ActionTree:
    """The distinct joint actions of a scenario as a tree of decisions with J' leaves.

    Args:
        scenario: the recommender.
        turns: for each turn, the agent that decides.
    """

    def __init__(self, scenario: Scenario, turns: list[str]) -> None:
        encoder = InputEncoder(scenario)
        first = encoder.distinct_actions
        order = np.argsort(first)  # leaves keep the order of the joint actions, which decides ties
        self.leaves = scenario.joint_actions[first[order]]  # J' D
        rank = np.empty(len(first), dtype=np.int64)
        rank[order] = np.arange(len(order))
        self.leaf_of_action = rank[encoder.distinct_of]  # J
        self.levels = [TreeLevel(self.leaves, turns, t) for t in range(len(turns))]
        for t, level in enumerate(self.levels):
            earlier = [u for u in range(t) if turns[u] == turns[t]]
            if earlier:
                any_leaf = np.unique(level.node_of_leaf, return_index=True)[1]
                level.previous = self.levels[earlier[-1]].node_of_leaf[any_leaf]
        last = self.levels[-1].node_of_leaf
        width = int(np.bincount(last).max())
        self.groups = np.zeros((self.levels[-1].size, width), dtype=np.int64)
        """Leaves under each node of the last turn, (n, M); short rows repeat their first leaf."""
        for node in range(len(self.groups)):
            members = np.flatnonzero(last == node)
            self.groups[node] = np.resize(members, width)
        self.ungroup = np.unique(self.groups.reshape(-1), return_index=True)[1]
        """Position of each leaf in the flattened groups, (J',)."""
