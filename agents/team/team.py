"""A cooperative team: its shapes, the column names of its episodes, and its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agents.algorithms.presets import Preset
from agents.algorithms.td_targets import CENTRAL_WEIGHTINGS
from agents.networks.mixers import JOINT_ACTION_MIXERS, UnrestrictedMixer, make_mixer
from agents.networks.unroll_plan import UnrollPlan
from agents.team.images import as_float
from agents.team.parameter_sharing import SeparateNetworks, SharedNetworks
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, one_line


@dataclass(frozen=True)
class TeamSpec:
    """Shapes of a cooperative team.

    An agent acts only where the environment says that it is on turn. Elsewhere it waits: its recurrent state stays the
    same and the mixer keeps the value of its latest decision.
    """

    agents: tuple[str, ...]
    observation_sizes: tuple[int, ...]
    action_sizes: tuple[int, ...]
    """A, number of actions of each agent, including ``wait`` where the environment has one."""
    state_size: int
    max_steps: int
    """T, maximum number of steps of an episode."""

    @classmethod
    def from_source(cls, source: Any) -> TeamSpec:
        """Read the shapes of a batched environment, or of an encoder with ``sizes``, ``n_actions`` and ``n_turns``."""
        agents = tuple(source.agents)
        sizes = source.observation_sizes if hasattr(source, "observation_sizes") else source.sizes
        counts = source.action_sizes if hasattr(source, "action_sizes") else source.n_actions
        steps = source.max_steps if hasattr(source, "max_steps") else source.n_turns
        return cls(
            agents, tuple(sizes[a] for a in agents), tuple(counts[a] for a in agents), source.state_size, int(steps)
        )

    @property
    def spaces(self) -> list[tuple[int, int]]:
        """Observation size and number of actions of each agent."""
        return list(zip(self.observation_sizes, self.action_sizes, strict=True))

    def describe(self) -> str:
        """Return the shapes that an environment must match, in words."""
        observations, actions = (", ".join(map(str, sizes)) for sizes in (self.observation_sizes, self.action_sizes))
        return f"agents {', '.join(self.agents)}, observation sizes {observations} and action counts {actions}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, from which :meth:`from_dict` rebuilds the spec."""
        return asdict(self)

    @classmethod
    @checked_arguments
    def from_dict(cls, data: Mapping[str, Any]) -> TeamSpec:
        """Rebuild a spec from plain data; lists become tuples."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in data.items()}
        try:
            return cls(**plain)
        except TypeError as error:  # an unknown or missing field
            raise InputError(f"team: {one_line(error)}; export the policy again") from None


def column(kind: str, agent: str) -> str:
    """Return the name of an agent's column; slashes are escaped, because RLlib splits column names at slashes."""
    return f"{kind}:{agent.replace('%', '%25').replace('/', '%2F')}"


def obs_key(agent: str) -> str:
    """Return the column name of an agent's observations, (B, T + 1, O) float32, or uint8 for images."""
    return column("obs", agent)


def mask_key(agent: str) -> str:
    """Return the column name of an agent's legal actions, (B, T + 1, A) bool."""
    return column("mask", agent)


def action_key(agent: str) -> str:
    """Return the column name of an agent's actions, (B, T) int64."""
    return column("action", agent)


def turn_key(agent: str) -> str:
    """Return the column name of where an agent is on turn, (B, T + 1) bool."""
    return column("turn", agent)


class Team(nn.Module):
    """The agents' Q networks, their mixer, and the central value Q* of ``td_weighting``.

    Args:
        spec: shapes of the team.
        preset: the algorithm.
        mixing: whether to build the mixer; a team that only acts needs none.
        central: whether to build Q* if the preset's ``td_weighting`` needs it; a team that only decides needs none.
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
        self.mixes_joint_actions = preset.mixer.mixer in JOINT_ACTION_MIXERS
        self.mixer = _make_mixer(spec, preset) if mixing else None
        has_central = central and preset.objective.td_weighting in CENTRAL_WEIGHTINGS
        self.central = CentralValue(spec, preset) if has_central else None

    def unroll(
        self, batch: Mapping[str, Tensor], needed: list[Tensor] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return Q of every agent over whole episodes, and the steps at which each is on turn.

        Args:
            batch: columns of episodes.
            needed: per agent (B, T + 1) bool, where its values are needed; ``None``: wherever it is on turn.

        Returns:
            Per agent (B, T + 1, K, A), zero where not needed, and per agent (B, T + 1) bool.
        """
        turns = on_turn_masks(self.spec, batch)
        return self.agents.unroll(agent_observations(self.spec, batch), turns, needed or turns), turns

    def unroll_planned(self, batch: Mapping[str, Tensor], plans: Sequence[UnrollPlan]) -> list[Tensor]:
        """Return the same values for steps chosen beforehand (:mod:`agents.team.turn_plan`)."""
        return self.agents.unroll_planned(agent_observations(self.spec, batch), plans)

    def mix(
        self,
        utilities: Tensor,
        state: Tensor,
        actions: list[Tensor],
        best: Tensor | None = None,
        deciders: Tensor | None = None,
    ) -> Tensor:
        """Return Q_tot.

        Args:
            utilities: (…, N) values of the actions taken.
            state: (…, S).
            actions: per agent (…) int64.
            best: (…, N) values of the agents' best legal actions, which some mixers need
                (:mod:`agents.networks.joint_action_mixers`); of an agent that waits, its value.
            deciders: (…) int64, number of agents that decide at each step; ``None``: all.

        Returns:
            (…).
        """
        assert self.mixer is not None, "built without a mixer"
        inputs = [utilities, self.condition(state, actions)]
        if self.mixes_joint_actions:
            assert best is not None, "this mixer needs the agents' best values"
            inputs += [best, torch.cat(self._one_hots(state, actions), -1)]
            counts = () if deciders is None else (deciders.flatten(),)
            return self.mixer(*(x.flatten(0, -2) for x in inputs), *counts).view(utilities.shape[:-1])
        return self.mixer(*(x.flatten(0, -2) for x in inputs)).view(utilities.shape[:-1])

    def condition(self, state: Tensor, actions: list[Tensor]) -> Tensor:
        """Return the hypernetworks' input: the state (Eq. 12), with one-hot actions if the preset asks for them."""
        if not self.sees_actions:
            return state
        return torch.cat([state, *self._one_hots(state, actions)], -1)

    def _one_hots(self, state: Tensor, actions: list[Tensor]) -> list[Tensor]:
        """Return each agent's one-hot action, in the dtype of the state."""
        sizes = self.spec.action_sizes
        return [nn.functional.one_hot(a, n).to(state.dtype) for a, n in zip(actions, sizes, strict=True)]


class CentralValue(nn.Module):
    """Central value Q* of Weighted QMIX: separate networks for every agent and an unrestricted mixer; it never acts.

    Rashid et al. (2020) train Q* on the same targets as Q_tot. Q* also provides these targets: its value of Q_tot's
    argmax.
    """

    agents: Any

    def __init__(self, spec: TeamSpec, preset: Preset) -> None:
        super().__init__()
        self.spec = spec
        self.agents = q_networks(spec, preset)
        self.mixer = UnrestrictedMixer(len(spec.agents), spec.state_size, width=preset.mixer.central_width)

    def unroll(
        self, batch: Mapping[str, Tensor], needed: list[Tensor] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the same as :meth:`Team.unroll`, with Q*'s networks."""
        turns = on_turn_masks(self.spec, batch)
        return self.agents.unroll(agent_observations(self.spec, batch), turns, needed or turns), turns

    def unroll_planned(self, batch: Mapping[str, Tensor], plans: Sequence[UnrollPlan]) -> list[Tensor]:
        """Return the same as :meth:`Team.unroll_planned`, with Q*'s networks."""
        return self.agents.unroll_planned(agent_observations(self.spec, batch), plans)

    def mix(self, utilities: Tensor, state: Tensor) -> Tensor:
        """Return Q*; ``utilities`` (…, N), ``state`` (…, S) → (…)."""
        return self.mixer(utilities.flatten(0, -2), state.flatten(0, -2)).view(utilities.shape[:-1])


def q_networks(spec: TeamSpec, preset: Preset) -> SeparateNetworks | SharedNetworks:
    """Build the agents' Q networks; with ``share_parameters`` agents with equal spaces use one network."""
    options = asdict(preset.network)
    networks_class = SharedNetworks if options.pop("share_parameters") else SeparateNetworks
    return networks_class(spec.spaces, **options)


def _make_mixer(spec: TeamSpec, preset: Preset) -> nn.Module:
    options, action_size = preset.mixer, sum(spec.action_sizes)
    size = spec.state_size + action_size * (options.mixer_input == "state+actions")
    arguments: dict[str, Any] = {}
    if options.mixer not in ("none", "sum") and "." not in options.mixer:
        arguments["hypernet"] = options.hypernet
        if options.mixer in JOINT_ACTION_MIXERS:
            arguments["action_size"] = action_size
        if options.mixer == "qplex":
            arguments["heads"] = options.attention_heads
        elif options.mixer in ("absolute", "softplus", "resq"):
            arguments |= {"width": options.mixer_width, "activation": options.mixer_activation}
    return make_mixer(options.mixer, len(spec.agents), size, **arguments)


def on_turn_masks(spec: TeamSpec, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Return where each agent is on turn, per agent (B, T + 1) bool.

    An agent is on turn where its ``turn:`` column says so and the episode still runs.
    """
    observed = observed_steps(batch["filled"])
    return [batch[turn_key(a)] & observed for a in spec.agents]


def agent_observations(spec: TeamSpec, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the observations of every agent as the networks read them, per agent (B, T + 1, O)."""
    return [as_float(batch[obs_key(a)]) for a in spec.agents]


def states(spec: TeamSpec, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the state at each observation, (B, T + 1, S); without a ``state`` column the concatenated observations."""
    if "state" in batch:
        return as_float(batch["state"])
    return torch.cat(agent_observations(spec, batch), -1)


def observed_steps(filled: Tensor) -> Tensor:
    """Return which observations belong to the episode, (B, T) → (B, T + 1): the first, and each after a filled step."""
    first = torch.ones_like(filled[:, :1])
    return torch.cat([first, filled], 1)
