"""A team as one RLModule: its agents' networks, their mixer, and target networks of both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

from agents.algorithms.presets import Preset
from agents.algorithms.td_targets import greedy
from agents.team.images import as_float
from agents.team.reward_statistics import CURRENCY, RewardUnits
from agents.team.td_losses import team_losses
from agents.team.team import Team, TeamSpec, action_key, column, mask_key, obs_key, turn_key
from agents.team.turn_plan import HOST_KEY, PLAN_KEY, plan_turns

Choose = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Function of values (B, A) and legal actions (B, A) bool that returns actions (B,)."""
UNIT_BUFFERS = {"scale": "reward_scale", "shift": "reward_shift", "return_scale": "return_scale"}
"""Field of :class:`agents.team.reward_statistics.RewardUnits` → buffer of the module, which checkpoints contain."""


def hidden_key(agent: str) -> str:
    """Return the column name of an agent's recurrent state, (B, H)."""
    return column("hidden", agent)


class TeamRLModule(TorchRLModule, InferenceOnlyAPI, TargetNetworkAPI):
    """RLModule of a whole team.

    ``model_config`` has the entries ``team`` (a TeamSpec as a dict) and ``preset`` (a Preset as a dict).

    One module contains the whole team, because RLlib trains modules separately: a mixer outside the agents' modules
    would belong to none of them.
    """

    def setup(self) -> None:
        """Build the online networks; learners also need the mixer, Q* and the units of rewards."""
        self.spec = TeamSpec.from_dict(self.model_config["team"])
        preset = Preset.from_dict(self.model_config["preset"])
        learning = not self.inference_only
        self.online = Team(self.spec, preset, mixing=learning, central=learning)
        if not self.inference_only:
            for name, value in vars(CURRENCY).items():
                self.register_buffer(UNIT_BUFFERS[name], torch.tensor(float(value)))
        self.compute_losses: Callable[..., Any] = team_losses
        """Function of online and target networks, batch and units; a learner may replace it by a compiled one."""
        self.amp: torch.dtype | None = None
        """Type in which networks and mixers multiply; ``None``: that of the weights."""

    def get_non_inference_attributes(self) -> list[str]:
        """Return the parts that runners do not need."""
        return ["online.mixer", "online.central", "target", *UNIT_BUFFERS.values()]

    def initial_hidden(self, batch: int) -> dict[str, torch.Tensor]:
        """Return the recurrent states at the start of ``batch`` episodes."""
        return {
            hidden_key(a): net.initial_hidden(batch)
            for a, net in zip(self.spec.agents, self.online.agents, strict=True)
        }

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return greedy legal actions and the next recurrent states.

        Args:
            batch: columns ``obs:<agent>`` (B, O), ``mask:<agent>`` (B, A), ``hidden:<agent>`` (B, H), and
                ``turn:<agent>`` (B,) of agents that do not act in every step. An agent that is not on turn takes its
                first legal action.
            kwargs: not used.
        """
        return self.act(batch, greedy)

    def act(self, batch: dict[str, Any], choose: Choose) -> dict[str, Any]:
        """Return legal actions and the next recurrent states.

        Args:
            batch: columns, see :meth:`_forward_inference`.
            choose: function of values (B, A) and legal actions (B, A) → actions (B,).
        """
        out = {}
        with torch.inference_mode():
            for agent, net in zip(self.spec.agents, self.deciding.agents, strict=True):
                mask, hidden = batch[mask_key(agent)], batch[hidden_key(agent)]
                on_turn = batch.get(turn_key(agent))
                if on_turn is not None and not on_turn.any():
                    out[action_key(agent)] = mask.int().argmax(-1)
                    out[hidden_key(agent)] = hidden
                    continue
                observation = as_float(batch[obs_key(agent)])
                next_hidden = net.advance(observation, hidden)
                actions = choose(net.values(observation, next_hidden).mean(1), mask)
                if on_turn is not None:
                    actions = torch.where(on_turn, actions, mask.int().argmax(-1))
                    next_hidden = torch.where(on_turn[:, None], next_hidden, hidden)
                out[action_key(agent)], out[hidden_key(agent)] = actions, next_hidden
        return out

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return greedy actions; the runner replaces some of them by random actions from its own generator."""
        return self._forward_inference(batch, **kwargs)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the losses of whole episodes; they depend on all parameters, as distributed training requires."""
        units = RewardUnits(**{name: getattr(self, buffer) for name, buffer in UNIT_BUFFERS.items()})
        batch = {**batch, PLAN_KEY: plan_turns(self.online, batch)}  # on the host, outside of what is compiled
        batch.pop(HOST_KEY, None)
        with torch.autocast(batch["filled"].device.type, self.amp, enabled=self.amp is not None):
            return dict(self.compute_losses(self.online, self.target, batch, units=units))

    def set_reward_units(self, units: RewardUnits) -> None:
        """Set the units in which the team learns from rewards."""
        for name, buffer in UNIT_BUFFERS.items():
            getattr(self, buffer).fill_(float(getattr(units, name)))

    def make_target_networks(self) -> None:
        """Create the target networks as a copy of the online networks."""
        self.target = copy.deepcopy(self.online).requires_grad_(False).eval()

    @property
    def deciding(self) -> Team:
        """Networks that decide. What only decides has no target networks; its online ones hold the average."""
        return self.target if self._decides_with_average and "target" in self._modules else self.online

    @property
    def _decides_with_average(self) -> bool:
        return self.online.preset.objective.policy_weights == "average"

    def get_target_network_pairs(self) -> list[tuple[Any, Any]]:
        """Return the online and the target networks."""
        return [(self.online, self.target)]

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the target network's Q per agent, (B, T + 1, K, A)."""
        with torch.no_grad():
            q, _ = self.target.unroll(batch)
        return dict(zip(self.spec.agents, q, strict=True))

    def train(self, mode: bool = True) -> TeamRLModule:
        """Switch between training and evaluation mode; the target network always stays in evaluation mode."""
        if self.training == mode == self.online.training:
            return self  # RLlib asks before every update, which would visit all modules
        super().train(mode)
        if "target" in self._modules:
            self.target.eval()
        return self

    def get_state(
        self, components: Any = None, *, not_components: Any = None, inference_only: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Return RLlib's state; what only decides gets the weights of ``policy_weights``."""
        state: dict[str, Any] = super().get_state(
            components, not_components=not_components, inference_only=inference_only, **kwargs
        )
        if inference_only and self.deciding is not self.online:
            averages = {f"online.{name}": value for name, value in self.deciding.state_dict().items()}
            state |= {name: value.cpu().numpy().copy() for name, value in averages.items() if name in state}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Load weights; unlike RLlib's default, a missing weight is an error.

        Raises:
            ValueError: the state lacks weights of this team.
        """
        if self._decides_with_average and "target" not in self._modules and any(k.startswith("target.") for k in state):
            self.make_target_networks()  # a module that was read from a checkpoint, outside a learner
        missing = sorted(set(self.state_dict()) - set(state))
        if missing:
            raise ValueError(f"the checkpoint lacks weights of this team: {', '.join(missing[:5])}")
        super().set_state(state)
