"""The Q networks of a team: one for each agent, or one for all agents with equal spaces (``share_parameters``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.networks.q_network import QNetwork
from agents.networks.unroll_plan import Mask, UnrollPlan, on_host, plan_unroll
from marca_env.utils.errors import InputError

Spaces = Sequence[tuple[int, int]]
"""Observation size and number of actions of each agent."""


class SeparateNetworks(nn.ModuleList):
    """One network for each agent, in the order of the team."""

    def __init__(self, spaces: Spaces, **options: Any) -> None:
        super().__init__(QNetwork(size, actions, **options) for size, actions in spaces)

    def unroll(self, observations: Sequence[Tensor], turns: Sequence[Mask], needed: Sequence[Mask]) -> list[Tensor]:
        """Unroll every agent's network: per agent (B, T, O), (B, T), (B, T) → (B, T, K, A).

        See :meth:`agents.networks.q_network.QNetwork.unroll`.
        """
        return self.unroll_planned(observations, self.plans(turns, needed, observations[0].device))

    def plans(self, turns: Sequence[Mask], needed: Sequence[Mask], device: torch.device) -> list[UnrollPlan]:
        """Plan the steps of every network; see :func:`agents.networks.unroll_plan.plan_unroll`."""
        return [plan_unroll(*masks, device=device) for masks in zip(turns, needed, strict=True)]

    def unroll_planned(self, observations: Sequence[Tensor], plans: Sequence[UnrollPlan]) -> list[Tensor]:
        """Unroll the steps that :meth:`plans` has chosen; per agent (B, T, K, A)."""
        networks: Any = self
        return [net.unroll_planned(*inputs) for net, *inputs in zip(networks, observations, plans, strict=True)]


class SharedNetworks(nn.Module):
    """One network for all agents with the same spaces, which learns from the experience of all of them.

    A one-hot of the agent (among those that share) follows each observation, so that the agents may still behave
    differently (Gupta et al., 2017; the default of PyMARL and EPyMARL). An agent with unique spaces has a separate
    network.

    Raises:
        InputError: no two agents have the same spaces.
    """

    networks: Any

    def __init__(self, spaces: Spaces, **options: Any) -> None:
        super().__init__()
        self.groups = sharing_groups(spaces)
        sizes = [(*spaces[group[0]], _id_size(group)) for group in self.groups]
        self.networks = nn.ModuleList(QNetwork(size + id_size, actions, **options) for size, actions, id_size in sizes)

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def __getitem__(self, agent: int) -> QNetwork | SharedNetwork:
        for net, group in zip(self.networks, self.groups, strict=True):
            if agent in group:
                return net if len(group) == 1 else SharedNetwork(net, group.index(agent), len(group))
        raise IndexError(agent)

    def __iter__(self) -> Iterator[Any]:
        return (self[agent] for agent in range(len(self)))

    def unroll(self, observations: Sequence[Tensor], turns: Sequence[Mask], needed: Sequence[Mask]) -> list[Tensor]:
        """Unroll as :meth:`SeparateNetworks.unroll` does; agents that share a network pass through it together."""
        return self.unroll_planned(observations, self.plans(turns, needed, observations[0].device))

    def plans(self, turns: Sequence[Mask], needed: Sequence[Mask], device: torch.device) -> list[UnrollPlan]:
        """Plan the steps of every network, whose rows are the episodes of all agents that share it."""
        masks = [
            [np.concatenate([on_host(mask[g]) for g in group]) for mask in (turns, needed)] for group in self.groups
        ]
        return [plan_unroll(*pair, device=device) for pair in masks]

    def unroll_planned(self, observations: Sequence[Tensor], plans: Sequence[UnrollPlan]) -> list[Tensor]:
        """Unroll the steps that :meth:`plans` has chosen; per agent (B, T, K, A)."""
        values: dict[int, Tensor] = {}
        for net, group, plan in zip(self.networks, self.groups, plans, strict=True):
            inputs = [append_agent_id(observations[g], index, _id_size(group)) for index, g in enumerate(group)]
            values |= zip(group, net.unroll_planned(torch.cat(inputs), plan).chunk(len(group)), strict=True)
        return [values[g] for g in range(len(self))]


class SharedNetwork:
    """One agent's view of a shared network; it takes the agent's bare observations, as a ``QNetwork`` does.

    Args:
        net: the shared network.
        index: the agent's index among the agents that share.
        size: number of agents that share.
    """

    def __init__(self, net: QNetwork, index: int, size: int) -> None:
        self.net, self.index, self.size = net, index, size
        self.cell, self.heads, self.n_actions, self.hidden_size = net.cell, net.heads, net.n_actions, net.hidden_size
        self.initial_hidden, self.hidden_gates, self.next_hidden = net.initial_hidden, net.hidden_gates, net.next_hidden
        self.parameters = net.parameters

    def advance(self, observation: Tensor, hidden: Tensor) -> Tensor:
        """Return the next recurrent state; see :meth:`agents.networks.q_network.QNetwork.advance`."""
        return hidden if self.cell is None else self.net.advance(self._with_id(observation), hidden)

    def values(self, observation: Tensor, hidden: Tensor) -> Tensor:
        """Return Q of every head; see :meth:`agents.networks.q_network.QNetwork.values`."""
        return self.net.values(self._with_id(observation) if self.cell is None else observation, hidden)

    def input_gates(self, observation: Tensor) -> Tensor:
        """Return the observation's part in the gates; see :meth:`agents.networks.q_network.QNetwork.input_gates`."""
        return self.net.input_gates(self._with_id(observation))

    def _with_id(self, observation: Tensor) -> Tensor:
        return append_agent_id(observation, self.index, self.size)


def sharing_groups(spaces: Spaces) -> list[list[int]]:
    """Return the groups of agents (by index) that share a network; an agent with unique spaces is a group by itself.

    Raises:
        InputError: no two agents have the same spaces.
    """
    groups = [[g for g, agent_space in enumerate(spaces) if agent_space == space] for space in dict.fromkeys(spaces)]
    if all(len(group) == 1 for group in groups):
        sizes = ", ".join(f"{size} and {actions}" for size, actions in spaces)
        raise InputError(
            f"share_parameters: no two agents have equal observation and action sizes ({sizes}); remove the option"
        )
    return groups


def append_agent_id(observation: Tensor, index: int, size: int) -> Tensor:
    """Append the one-hot of ``index`` among ``size`` to ``observation`` (…, O): (…, O + size)."""
    if size == 0:
        return observation
    one_hot = observation.new_zeros(size)
    one_hot[index] = 1.0
    return torch.cat([observation, one_hot.expand(*observation.shape[:-1], size)], -1)


def _id_size(group: Sequence[int]) -> int:
    return len(group) if len(group) > 1 else 0
