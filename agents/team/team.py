"""A team: what it sees and does, its episodes as arrays, and its networks together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agents.algorithms.presets import Preset
from agents.networks.mixers import UnrestrictedMixer, make_mixer
from agents.team.parameter_sharing import OwnNetworks, SharedNetworks


@dataclass(frozen=True)
class TeamSpec:
    """Shapes of a cooperative team.

    An agent whose only legal action is the last one (``wait``) is not on turn: its recurrent state rests and the
    mixer keeps the value of its latest decision. Agents that always act need no ``wait``.
    """

    agents: tuple[str, ...]
    observation_sizes: tuple[int, ...]
    action_sizes: tuple[int, ...]
    """Actions of each agent, ``wait`` included."""
    state_size: int
    max_steps: int
    """T, most steps of an episode."""

    @classmethod
    def of(cls, source: Any) -> TeamSpec:
        """Read from a batched environment or, with ``sizes``, ``n_actions`` and ``n_turns``, from an encoder."""
        agents = tuple(source.agents)
        observed = source.observation_sizes if hasattr(source, "observation_sizes") else source.sizes
        acted = source.action_sizes if hasattr(source, "action_sizes") else source.n_actions
        steps = source.max_steps if hasattr(source, "max_steps") else source.n_turns
        return cls(
            agents, tuple(observed[a] for a in agents), tuple(acted[a] for a in agents), source.state_size, int(steps)
        )

    @property
    def spaces(self) -> list[tuple[int, int]]:
        """Sizes of the observation and number of actions, agent by agent."""
        return list(zip(self.observation_sizes, self.action_sizes, strict=True))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TeamSpec:
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in data.items()}
        return cls(**plain)


def column(kind: str, agent: str) -> str:
    """Name of a column of an agent; without slashes, at which RLlib splits names of a batch."""
    return f"{kind}:{agent.replace('%', '%25').replace('/', '%2F')}"


def obs_key(agent: str) -> str:
    """Column of an agent's observations, (B, T + 1, O) float32."""
    return column("obs", agent)


def mask_key(agent: str) -> str:
    """Column of an agent's legal actions, (B, T + 1, A) bool."""
    return column("mask", agent)


def action_key(agent: str) -> str:
    """Column of an agent's actions, (B, T) int64."""
    return column("action", agent)


class Team(nn.Module):
    """The agents' Q networks, their mixer unless the team only acts, and Q* if it learns with ``td_weighting``.

    Args:
        mixing: with the mixer; a team that only acts needs none.
        central: with Q*, where the preset's ``td_weighting`` asks for it; a team that serves needs none.
    """

    mixer: Any
    central: Any
    agents: Any
    """The networks, in the order of ``spec.agents``."""

    def __init__(self, spec: TeamSpec, preset: Preset, *, mixing: bool = True, central: bool = False) -> None:
        super().__init__()
        self.spec, self.preset = spec, preset
        self.agents = q_networks(spec, preset)
        self.sees_actions = preset.mixer.mixer_input == "state+actions"
        size = spec.state_size + self.sees_actions * sum(spec.action_sizes)
        self.mixer = _make_mixer(len(spec.agents), size, preset) if mixing else None
        starred = central and preset.objective.td_weighting != "none"
        self.central = CentralValue(spec, preset) if starred else None

    def unroll(
        self, batch: Mapping[str, Tensor], wanted: list[Tensor] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Q of every agent over whole episodes, and where each is on turn.

        Args:
            batch: columns of episodes.
            wanted: per agent (B, T + 1) bool, where its values are needed; ``None``: wherever it is on turn.

        Returns:
            Per agent (B, T + 1, K, A), zero elsewhere, and per agent (B, T + 1) bool.
        """
        turns = turns_of(self.spec, batch)
        return unroll_all(self.agents, self.spec, batch, turns, wanted), turns

    def mix(self, utilities: Tensor, state: Tensor, actions: list[Tensor]) -> Tensor:
        """Q_tot; ``utilities`` (…, N), ``state`` (…, S), ``actions`` per agent (…) → (…)."""
        assert self.mixer is not None, "built without a mixer"
        condition = self.condition(state, actions)
        return self.mixer(utilities.flatten(0, -2), condition.flatten(0, -2)).view(utilities.shape[:-1])

    def condition(self, state: Tensor, actions: list[Tensor]) -> Tensor:
        """What the hypernetworks see: the state (Eq. 12), with one-hot actions if the preset says so."""
        if not self.sees_actions:
            return state
        hots = [
            nn.functional.one_hot(a, n).to(state.dtype) for a, n in zip(actions, self.spec.action_sizes, strict=True)
        ]
        return torch.cat([state, *hots], -1)


class CentralValue(nn.Module):
    """Q* of Weighted QMIX: networks of its own for every agent and an unrestricted mixer; it never acts.

    Rashid et al. (2020) train it on the same targets as Q_tot, which it also provides: its value of Q_tot's argmax.
    """

    agents: Any

    def __init__(self, spec: TeamSpec, preset: Preset) -> None:
        super().__init__()
        self.spec = spec
        self.agents = q_networks(spec, preset)
        self.mixer = UnrestrictedMixer(len(spec.agents), spec.state_size, width=preset.mixer.central_width)

    def unroll(
        self, batch: Mapping[str, Tensor], wanted: list[Tensor] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As :meth:`Team.unroll`."""
        turns = turns_of(self.spec, batch)
        return unroll_all(self.agents, self.spec, batch, turns, wanted), turns

    def mix(self, utilities: Tensor, state: Tensor) -> Tensor:
        """Q*; ``utilities`` (…, N), ``state`` (…, S) → (…)."""
        return self.mixer(utilities.flatten(0, -2), state.flatten(0, -2)).view(utilities.shape[:-1])


def q_networks(spec: TeamSpec, preset: Preset) -> OwnNetworks | SharedNetworks:
    """The agents' Q networks; with ``share_parameters`` agents of equal spaces use one."""
    options = asdict(preset.network)
    kind = SharedNetworks if options.pop("share_parameters") else OwnNetworks
    return kind(spec.spaces, **options)


def _make_mixer(n_agents: int, size: int, preset: Preset) -> nn.Module:
    chosen = preset.mixer
    if chosen.mixer in ("none", "sum") or "." in chosen.mixer:
        return make_mixer(chosen.mixer, n_agents, size)
    shape = {"width": chosen.mixer_width, "hypernet": chosen.hypernet}
    return make_mixer(chosen.mixer, n_agents, size, activation=chosen.mixer_activation, **shape)


def turns_of(spec: TeamSpec, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Where each agent is on turn: it may do more than wait, and the episode still runs; per agent (B, T + 1) bool."""
    seen = seen_steps(batch["filled"])
    return [batch[mask_key(a)][..., :-1].any(-1) & seen for a in spec.agents]


def unroll_all(
    networks: Any, spec: TeamSpec, batch: Mapping[str, Tensor], turns: list[Tensor], wanted: list[Tensor] | None = None
) -> list[Tensor]:
    """Q of every agent over whole episodes; per agent (B, T + 1, K, A), zero where it is not wanted."""
    return networks.unroll([batch[obs_key(a)] for a in spec.agents], turns, wanted or turns)


def seen_steps(filled: Tensor) -> Tensor:
    """Which observations belong to the episode: the first, and each that follows a filled step; (B, T) → (B, T + 1)."""
    first = torch.ones_like(filled[:, :1])
    return torch.cat([first, filled], 1)
