"""A team: what it sees and does, its episodes as arrays, and its networks together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agents.mixers import make_mixer
from agents.networks import QNetwork
from agents.presets import Preset


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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TeamSpec:
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in data.items()}
        return cls(**plain)


def obs_key(agent: str) -> str:
    """Column of an agent's observations, (B, T + 1, O) float32."""
    return f"obs:{agent}"


def mask_key(agent: str) -> str:
    """Column of an agent's legal actions, (B, T + 1, A) bool."""
    return f"mask:{agent}"


def action_key(agent: str) -> str:
    """Column of an agent's actions, (B, T) int64."""
    return f"action:{agent}"


class Team(nn.Module):
    """The agents' Q networks and, unless it only acts, their mixer."""

    mixer: Any
    agents: Any
    """The networks, in the order of ``spec.agents``."""

    def __init__(self, spec: TeamSpec, preset: Preset, *, mixing: bool = True) -> None:
        super().__init__()
        self.spec, self.preset = spec, preset
        network, mixing_options = preset.network, preset.mixer
        self.agents = nn.ModuleList(
            QNetwork(o, a, heads=network.heads, hidden=network.hidden, gru=network.gru, dropout=network.dropout)
            for o, a in zip(spec.observation_sizes, spec.action_sizes, strict=True)
        )
        self.sees_actions = mixing_options.mixer_input == "state+actions"
        options = (
            {}
            if mixing_options.mixer == "sum"
            else {
                "activation": mixing_options.mixer_activation,
                "width": mixing_options.mixer_width,
                "hypernet": mixing_options.hypernet,
            }
        )
        size = spec.state_size + self.sees_actions * sum(spec.action_sizes)
        self.mixer = make_mixer(mixing_options.mixer, len(spec.agents), size, **options) if mixing else None

    def unroll(self, batch: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Q of every agent over whole episodes, and where each is on turn.

        Returns:
            Per agent (B, T + 1, K, A) and per agent (B, T + 1) bool.
        """
        seen = seen_steps(batch["filled"])
        turns = [batch[mask_key(a)][..., :-1].any(-1) & seen for a in self.spec.agents]
        q = [net.unroll(batch[obs_key(a)], on) for a, net, on in zip(self.spec.agents, self.agents, turns, strict=True)]
        return q, turns

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


def seen_steps(filled: Tensor) -> Tensor:
    """Which observations belong to the episode: the first, and each that follows a filled step; (B, T) → (B, T + 1)."""
    first = torch.ones_like(filled[:, :1])
    return torch.cat([first, filled], 1)
