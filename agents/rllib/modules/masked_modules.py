"""RLlib's own modules with action masks: an action whose mask is 0 is never drawn, never greedy, never bootstrapped.

They take observations ``{"observation": …, "action_mask": …}`` (also ``observations``, ``obs``). The networks are
RLlib's, built for the bare observation; the mask works on their outputs alone.
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

from agents.rllib.envs.sequential_env import BARE, MASK, bare_key
from marca_env.utils.errors import InputError


def split(observations: Any) -> tuple[Any, torch.Tensor]:
    """Bare observations (B, …) and legal actions (B, A) bool: all, where none is, as after an episode."""
    key = next(key for key in BARE if key in observations)
    mask = observations[MASK].bool()
    return observations[key], mask | ~mask.any(-1, keepdim=True)


class _Masked:
    """Builds RLlib's networks for the bare observation."""

    observation_space: Any

    def __init__(self, *, observation_space: gym.Space, **kwargs: Any) -> None:
        key = bare_key(observation_space)
        if key is None:
            raise InputError(
                f"observations are {observation_space}; action masks need a Dict of 'observation' and 'action_mask'"
            )
        self._whole = observation_space
        super().__init__(observation_space=observation_space[key], **kwargs)  # type: ignore[call-arg, index]

    def setup(self) -> None:
        super().setup()  # type: ignore[misc]
        self.observation_space = self._whole


class _MaskedLogits(_Masked):
    """For algorithms that draw actions from a categorical distribution."""

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        bare, mask = split(batch[Columns.OBS])
        return _mask_logits(super()._forward({**batch, Columns.OBS: bare}, **kwargs), mask)  # type: ignore[misc]

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        bare, mask = split(batch[Columns.OBS])
        return _mask_logits(super()._forward_train({**batch, Columns.OBS: bare}, **kwargs), mask)  # type: ignore[misc]

    def compute_values(self, batch: Mapping[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Values (B,) of the bare observations."""
        bare, _ = split(batch[Columns.OBS])
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
        """The old policy's logits, masked alike."""
        bare, mask = split(batch[Columns.OBS])
        out = super().forward_target({**batch, Columns.OBS: bare})
        return {name: logits.masked_fill(~mask, FLOAT_MIN) for name, logits in out.items()}


class MaskedDQNModule(_Masked, DefaultDQNTorchRLModule):
    """DQN's module with action masks: greedy, exploring, and in the maximum of the bootstrap target."""

    def _qf_forward_helper(self, batch: Mapping[str, Any], encoder: Any, head: Any) -> dict[str, Any]:
        bare, mask = split(batch[Columns.OBS])
        if self.uses_dueling and self.num_atoms == 1:
            # RLlib centres the advantages over the entries that are not −inf: over the legal ones.
            head = {**head, "af": lambda x, advantages=head["af"]: advantages(x).masked_fill(~mask, -torch.inf)}
        out = super()._qf_forward_helper({**batch, Columns.OBS: bare}, encoder, head)
        # The learner reads the values of taken actions, which are legal, and maxima: −inf never reaches the loss.
        out[QF_PREDS] = out[QF_PREDS].masked_fill(~mask, -torch.inf)
        return out

    def _forward_exploration(self, batch: Mapping[str, Any], t: int = 0, **kwargs: Any) -> dict[str, Any]:
        """ε-greedy over the legal actions. RLlib's own would take a legal action worth exactly 0 for a masked one."""
        out = self._forward_inference(batch)
        self.epsilon_schedule.update(t)
        _, mask = split(batch[Columns.OBS])
        drawn = torch.multinomial(mask.float(), num_samples=1).squeeze(1)
        explores = torch.rand(len(drawn), device=drawn.device) < self.epsilon_schedule.get_current_value()
        out[Columns.ACTIONS] = torch.where(explores, drawn, out[Columns.ACTIONS])
        return out


def masked_module(base: type) -> type | None:
    """The masked form of one of RLlib's module classes; ``None`` if there is none."""
    for known, masked in (
        (DefaultDQNTorchRLModule, MaskedDQNModule),
        (DefaultAPPOTorchRLModule, MaskedAPPOModule),
        (DefaultPPOTorchRLModule, MaskedPPOModule),
    ):
        if issubclass(base, masked) or base is known:
            return masked
    return None
