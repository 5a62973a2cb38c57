"""A team of policies and one value network on the state as one RLModule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.networks.q_network import EnsembleMLP
from agents.rllib.modules.team_module import UNIT_BUFFERS, TeamRLModule
from agents.team.ppo_losses import Decisions, PPOSettings, advantages, log_probabilities, masked_logits, ppo_losses
from agents.team.team import action_key, column, mask_key, on_turn_masks, states

VALUE_BUFFERS = ("value_mean", "value_std")
"""Running mean and standard deviation of the returns, in which the value network's output is expressed."""
MOVING_SHARE = 0.2
"""Share of the latest round in the running moments of the returns."""
LEAST_STD = 1e-3


def old_log_key(agent: str) -> str:
    """Return the column name of the log probabilities with which an agent's actions were drawn, (B, T)."""
    return column("log", agent)


class ActorCriticModule(TeamRLModule):
    """Policies on the agents' own observations, and a value network on the state, which only learners have.

    ``model_config`` has the entries of :class:`agents.rllib.modules.team_module.TeamRLModule`, ``critic_hidden`` (the
    widths of the value's hidden layers) and ``settings`` (:class:`agents.team.ppo_losses.PPOSettings` as a dict). The
    agents' networks are those of the value-based teams; what they return are the logits of a policy.

    The value is learnt in units of the returns' running mean and standard deviation; when these move, the last layer
    is rescaled so that the values stay (PopArt, van Hasselt et al., 2016).
    """

    def setup(self) -> None:
        """Build the policies; learners also need the value network and its units."""
        super().setup()
        if self.inference_only:
            return
        self.settings = PPOSettings(**self.model_config["settings"])
        self.critic = EnsembleMLP(1, self.spec.state_size, self.model_config["critic_hidden"], 1, initializer="torch")
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_std", torch.ones(()))

    def get_non_inference_attributes(self) -> list[str]:
        """Return the parts that runners do not need."""
        return ["critic", *VALUE_BUFFERS, *UNIT_BUFFERS.values()]

    def drawn(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return actions drawn from the policies, and the next recurrent states.

        Args:
            batch: columns, see :meth:`agents.rllib.modules.team_module.TeamRLModule.act`.
            rng: generator of the draws; none where an agent is on turn in no row.
        """

        def draw(logits: Tensor, mask: Tensor) -> Tensor:
            noise = torch.from_numpy(rng.gumbel(size=logits.shape)).to(logits.device)  # argmax draws from the softmax
            return (masked_logits(logits, mask).double() + noise).argmax(-1)

        return self.act(batch, draw)

    def normalised_values(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the value of each state in its normalised unit, (B, T + 1)."""
        state = states(self.spec, batch)
        return self.critic(state.flatten(0, 1)).view(state.shape[:2])

    @torch.no_grad()
    def annotate(self, batch: Mapping[str, Tensor], gamma: float) -> dict[str, Tensor]:
        """Return what learning from a round needs beside it, with the networks that played it.

        The units of the value follow the returns of this round. All learners get the same round, so that they agree.

        Args:
            batch: columns of all episodes of the round.
            gamma: discount of a step.

        Returns:
            ``log:<agent>`` (B, T), ``advantage`` (B, T) with mean 0 and standard deviation 1 over all steps, and
            ``value_target`` (B, T), normalised.
        """
        filled = batch["filled"]
        reward = (batch["reward"] - self.reward_shift) / self.reward_scale * filled
        values = self.normalised_values(batch) * self.value_std + self.value_mean
        gains = advantages(reward, values, batch["terminated"], filled, gamma=gamma, lambda_=self.settings.lambda_)
        targets = gains + values[:, :-1]
        self._follow_returns(targets[filled])
        centre, spread = gains[filled].mean(), gains[filled].std(correction=0)
        out = {
            "advantage": (gains - centre) / (spread + 1e-4) * filled,
            "value_target": (targets - self.value_mean) / self.value_std * filled,
        }
        logits, _ = self._logits(batch)
        for agent, of_agent in zip(self.spec.agents, logits, strict=True):
            mask, action = batch[mask_key(agent)][:, :-1], batch[action_key(agent)].long()
            out[old_log_key(agent)] = log_probabilities(of_agent, mask, action)[0]
        return out

    def _follow_returns(self, returns: Tensor) -> None:
        """Move the units of the value towards the mean and standard deviation of ``returns`` (n,)."""
        is_first = self.value_mean == 0.0 and self.value_std == 1.0
        share = 1.0 if is_first else MOVING_SHARE
        mean, std = self.value_mean.clone(), self.value_std.clone()
        new_mean = torch.lerp(mean, returns.mean(), share)
        new_std = torch.lerp(std, returns.std(correction=0), share).clamp(min=LEAST_STD)
        last = self.critic.layers[-1]
        if not is_first:  # values of untrained networks need not stay
            last.weight.mul_(std / new_std)
            last.bias.mul_(std).add_(mean - new_mean).div_(new_std)
        self.value_mean.copy_(new_mean)
        self.value_std.copy_(new_std)

    def _logits(self, batch: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return per agent the logits (B, T, A), zero where it does not act, and where it acts (B, T) bool."""
        filled = batch["filled"]
        turns = on_turn_masks(self.spec, batch)
        acting = [on_turn[:, :-1] & filled for on_turn in turns]
        needed = [torch.nn.functional.pad(at, (0, 1)) for at in acting]
        q, _ = self.online.unroll(batch, needed)
        return [of_agent[:, :-1].mean(2) for of_agent in q], acting

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the loss of whole episodes with the columns of :meth:`annotate`, and its parts."""
        logits, acting = self._logits(batch)
        agents = [
            Decisions(
                logits=of_agent,
                mask=batch[mask_key(agent)][:, :-1],
                action=batch[action_key(agent)].long(),
                is_acting=at,
                old_log=batch[old_log_key(agent)],
            )
            for agent, of_agent, at in zip(self.spec.agents, logits, acting, strict=True)
        ]
        out = ppo_losses(agents, self.normalised_values(batch)[:, :-1], batch, self.settings)
        # Data-parallel training waits for the gradient of every weight, also of agents that never act in the batch.
        idle = [net for net, at in zip(self.online.agents, acting, strict=True) if not at.any()]
        return out | {"loss": out["loss"] + sum((0.0 * p.sum() for net in idle for p in net.parameters()), 0.0)}

    def make_target_networks(self) -> None:
        """Make none: the policies learn from the returns of the round."""

    def get_target_network_pairs(self) -> list[tuple[Any, Any]]:
        """Return no pairs."""
        return []
