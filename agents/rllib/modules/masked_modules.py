"""RLlib's own modules with action masks: an action whose mask is 0 is never drawn, greedy or bootstrapped from.

They take observations ``{"observation": …, "action_mask": …}`` (also ``observations``, ``obs``). The networks are
RLlib's, built for the bare observation. The mask only affects their outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.appo.torch.default_appo_torch_rl_module import DefaultAPPOTorchRLModule
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.utils.torch_utils import FLOAT_MIN

from agents.rllib.envs.sequential_env import BARE_KEYS, MASK, bare_key
from marca_env.utils.errors import InputError


def split_mask(observations: Any) -> tuple[Any, torch.Tensor]:
    """Split observations into bare observations (B, …) and legal actions (B, A) bool.

    Where no action is legal, as after an episode, all actions count as legal.
    """
    key = next(key for key in BARE_KEYS if key in observations)
    mask = observations[MASK].bool()
    return observations[key], mask | ~mask.any(-1, keepdim=True)


class _Masked:
    """Mixin that builds RLlib's networks for the bare observation."""

    observation_space: Any

    def __init__(self, *, observation_space: gym.Space, **kwargs: Any) -> None:
        key = bare_key(observation_space)
        if key is None:
            raise InputError(
                f"observations are {observation_space}; for action masks use a Dict of 'observation' and 'action_mask'"
            )
        self._masked_space = observation_space
        super().__init__(observation_space=observation_space[key], **kwargs)  # type: ignore[call-arg, index]

    def setup(self) -> None:
        """Build the networks and restore the observation space with the mask."""
        super().setup()  # type: ignore[misc]
        self.observation_space = self._masked_space


class _MaskedLogits(_Masked):
    """For algorithms that draw actions from a categorical distribution."""

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        bare, mask = split_mask(batch[Columns.OBS])
        return _mask_logits(super()._forward({**batch, Columns.OBS: bare}, **kwargs), mask)  # type: ignore[misc]

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        bare, mask = split_mask(batch[Columns.OBS])
        return _mask_logits(super()._forward_train({**batch, Columns.OBS: bare}, **kwargs), mask)  # type: ignore[misc]

    def compute_values(self, batch: Mapping[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Return the values (B,) of the bare observations."""
        bare, _ = split_mask(batch[Columns.OBS])
        return super().compute_values({**batch, Columns.OBS: bare}, embeddings)  # type: ignore[misc]


def _mask_logits(out: dict[str, Any], mask: torch.Tensor) -> dict[str, Any]:
    # A finite minimum instead of −inf: 0 · log 0 would make the entropy NaN.
    out[Columns.ACTION_DIST_INPUTS] = out[Columns.ACTION_DIST_INPUTS].masked_fill(~mask, FLOAT_MIN)
    return out


class MaskedPPOModule(_MaskedLogits, DefaultPPOTorchRLModule):
    """PPO's and IMPALA's module with action masks."""


class MaskedAPPOModule(_MaskedLogits, DefaultAPPOTorchRLModule):
    """APPO's module with action masks."""

    def forward_target(self, batch: Mapping[str, Any]) -> Any:
        """Return the masked logits of the old policy."""
        bare, mask = split_mask(batch[Columns.OBS])
        out = super().forward_target({**batch, Columns.OBS: bare})
        return {name: logits.masked_fill(~mask, FLOAT_MIN) for name, logits in out.items()}


class MaskedDQNModule(_Masked, DefaultDQNTorchRLModule):
    """DQN's module with action masks in greedy actions, exploration and the bootstrap target."""

    def _qf_forward_helper(self, batch: Mapping[str, Any], encoder: Any, head: Any) -> dict[str, Any]:
        bare, mask = split_mask(batch[Columns.OBS])
        if self.uses_dueling and self.num_atoms == 1:
            # RLlib centres the advantages over the entries that are not −inf, that is, over the legal actions.
            head = {**head, "af": lambda x, advantages=head["af"]: advantages(x).masked_fill(~mask, -torch.inf)}
        out = super()._qf_forward_helper({**batch, Columns.OBS: bare}, encoder, head)
        # The learner reads only the values of taken actions, which are legal, and maxima: −inf never reaches the loss.
        out[QF_PREDS] = out[QF_PREDS].masked_fill(~mask, -torch.inf)
        return out

    def _forward_exploration(self, batch: Mapping[str, Any], t: int = 0, **kwargs: Any) -> dict[str, Any]:
        """Explore ε-greedily over the legal actions.

        RLlib's own exploration treats a legal action with a value of exactly 0 as masked.
        """
        out = self._forward_inference(batch)
        self.epsilon_schedule.update(t)
        _, mask = split_mask(batch[Columns.OBS])
        drawn = torch.multinomial(mask.float(), num_samples=1).squeeze(1)
        explores = torch.rand(len(drawn), device=drawn.device) < self.epsilon_schedule.get_current_value()
        out[Columns.ACTIONS] = torch.where(explores, drawn, out[Columns.ACTIONS])
        return out


def masked_module(base: type) -> type | None:
    """Return the masked form of one of RLlib's module classes; ``None`` if the class has no masked form."""
    for unmasked, masked in (
        (DefaultDQNTorchRLModule, MaskedDQNModule),
        (DefaultAPPOTorchRLModule, MaskedAPPOModule),
        (DefaultPPOTorchRLModule, MaskedPPOModule),
    ):
        if issubclass(base, masked) or base is unmasked:
            return masked
    return None
