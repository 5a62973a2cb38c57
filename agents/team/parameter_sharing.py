"""The Q networks of a team: one for each agent, or one for all agents of equal spaces (``share_parameters``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agents.networks.q_network import QNetwork
from marca_env.utils.errors import InputError

Spaces = Sequence[tuple[int, int]]
"""Sizes of the observation and number of actions, agent by agent."""


class OwnNetworks(nn.ModuleList):
    """A network for each agent, in the order of the team."""

    def __init__(self, spaces: Spaces, **options: Any) -> None:
        super().__init__(QNetwork(seen, actions, **options) for seen, actions in spaces)

    def unroll(self, observations: Sequence[Tensor], turns: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[Tensor]:
        """:meth:`agents.networks.q_network.QNetwork.unroll` of every agent: its (B, T, O), (B, T), (B, T) → (B, T, K, A)."""
        networks: Any = self
        return [net.unroll(*its) for net, *its in zip(networks, observations, turns, wanted, strict=True)]


class SharedNetworks(nn.Module):
    """As :class:`OwnNetworks`, but agents with the same spaces use one network, which learns from what all of them do.

    Their observations are followed by a one-hot of the agent (among those that share), so that they may still behave
    differently (Gupta et al., 2017; the default of PyMARL and EPyMARL). An agent whose spaces no other has keeps a
    network of its own.

    Raises:
        InputError: no two agents have the same spaces.
    """

    networks: Any

    def __init__(self, spaces: Spaces, **options: Any) -> None:
        super().__init__()
        self.groups = sharing_groups(spaces)
        sizes = [(*spaces[group[0]], _tag_size(group)) for group in self.groups]
        self.networks = nn.ModuleList(QNetwork(seen + tag, actions, **options) for seen, actions, tag in sizes)

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def __getitem__(self, agent: int) -> QNetwork | SharedNetwork:
        for net, group in zip(self.networks, self.groups, strict=True):
            if agent in group:
                return net if len(group) == 1 else SharedNetwork(net, group.index(agent), len(group))
        raise IndexError(agent)

    def __iter__(self) -> Iterator[Any]:
        return (self[agent] for agent in range(len(self)))

    def unroll(self, observations: Sequence[Tensor], turns: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[Tensor]:
        """As :meth:`OwnNetworks.unroll`; the episodes of all agents that share pass through their network together."""
        found: dict[int, Tensor] = {}
        for net, group in zip(self.networks, self.groups, strict=True):
            seen = [tagged(observations[g], place, _tag_size(group)) for place, g in enumerate(group)]
            where = [torch.cat([masks[g] for g in group]) for masks in (turns, wanted)]
            found |= zip(group, net.unroll(torch.cat(seen), *where).chunk(len(group)), strict=True)
        return [found[g] for g in range(len(self))]


class SharedNetwork:
    """One agent's view of the network that it shares: takes the agent's own observations, as a ``QNetwork`` does."""

    def __init__(self, net: QNetwork, place: int, size: int) -> None:
        self.net, self.place, self.size = net, place, size
        self.cell, self.heads, self.n_actions, self.hidden_size = net.cell, net.heads, net.n_actions, net.hidden_size
        self.initial_hidden, self.carried, self.moved = net.initial_hidden, net.carried, net.moved
        self.parameters = net.parameters

    def advance(self, observation: Tensor, hidden: Tensor) -> Tensor:
        """See :meth:`agents.networks.q_network.QNetwork.advance`."""
        return hidden if self.cell is None else self.net.advance(self._tagged(observation), hidden)

    def values(self, observation: Tensor, hidden: Tensor) -> Tensor:
        """See :meth:`agents.networks.q_network.QNetwork.values`."""
        return self.net.values(self._tagged(observation) if self.cell is None else observation, hidden)

    def seen(self, observation: Tensor) -> Tensor:
        """See :meth:`agents.networks.q_network.QNetwork.seen`."""
        return self.net.seen(self._tagged(observation))

    def _tagged(self, observation: Tensor) -> Tensor:
        return tagged(observation, self.place, self.size)


def sharing_groups(spaces: Spaces) -> list[list[int]]:
    """Places of the agents that share a network, group by group; an agent that shares with nobody is one by itself.

    Raises:
        InputError: no two agents have the same spaces.
    """
    groups = [[g for g, own in enumerate(spaces) if own == kind] for kind in dict.fromkeys(spaces)]
    if all(len(group) == 1 for group in groups):
        sizes = ", ".join(f"{seen} and {actions}" for seen, actions in spaces)
        raise InputError(f"share_parameters: no two agents observe and may do as much (sizes {sizes}); drop it")
    return groups


def tagged(observation: Tensor, place: int, size: int) -> Tensor:
    """``observation`` (…, O) followed by the one-hot of ``place`` among ``size``: (…, O + size)."""
    if size == 0:
        return observation
    tag = observation.new_zeros(size)
    tag[place] = 1.0
    return torch.cat([observation, tag.expand(*observation.shape[:-1], size)], -1)


def _tag_size(group: Sequence[int]) -> int:
    return len(group) if len(group) > 1 else 0
