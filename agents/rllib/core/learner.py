"""The learner of a team: RLlib's, with target networks that follow gradient steps, and their count in its state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from agents.rllib.core.seeding import torch_randomness

logger = logging.getLogger(__name__)

METRICS = ("mixer_loss", "agent_loss", "central_loss", "q_tot", "td_error")
"""Logged where the algorithm has them: losses in units of the reward scale, values and errors in currency."""
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


class TeamLearner(TorchLearner):
    """Minimises the team's loss. ``gradient_steps`` counts updates; skipped ones (non-finite gradients) included."""

    def build(self) -> None:
        super().build()
        self.gradient_steps = 0
        self.skipped_steps = 0
        self._team.make_target_networks()
        self._team.target.to(self._device)

    @property
    def _team(self) -> Any:
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    @property
    def spec(self) -> Any:
        """Shapes of the team."""
        return self._team.spec

    def set_reward_scale(self, scale: float) -> float:
        """Currency per unit of Q; only the first call counts, so that the values keep their meaning."""
        if not torch.isfinite(self._team.reward_scale):
            self._team.reward_scale.fill_(float(scale))
        return float(self._team.reward_scale)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        params = [p for p in self.get_parameters(self._module[module_id]) if p.requires_grad]
        chosen = self._team.online.preset.objective
        options = {} if chosen.optimizer == "adam" else {"momentum": chosen.momentum}
        optimizer = OPTIMIZERS[chosen.optimizer](params, weight_decay=chosen.weight_decay, **options)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=config.lr)

    @staticmethod
    def _set_optimizer_lr(optimizer: torch.optim.Optimizer, lr: Any) -> None:
        # A number, as checkpoints hold it: a schedule's first rate is a tensor, with which Adam rounds otherwise.
        TorchLearner._set_optimizer_lr(optimizer, float(lr))

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: dict[str, Any]) -> Any:
        found = {name: fwd_out[name] for name in METRICS if name in fwd_out}
        self.metrics.log_dict(found, key=module_id, window=1)
        return fwd_out["loss"]

    def postprocess_gradients_for_module(self, *, module_id: str, config: Any, module_gradients_dict: Any) -> Any:
        """Log the norm of all gradients together, then clip them."""
        gradients = [g for g in module_gradients_dict.values() if g is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.metrics.log_value((module_id, "grad_norm"), norm, window=1)
        return super().postprocess_gradients_for_module(
            module_id=module_id, config=config, module_gradients_dict=module_gradients_dict
        )

    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        """Drop an update whose gradients are not finite; RLlib's own option does not."""
        gradients = {ref: g for ref, g in gradients_dict.items() if g is not None}
        if torch.isfinite(torch.stack([g.sum() for g in gradients.values()]).sum()):
            super().apply_gradients(gradients)
            return
        self.skipped_steps += 1
        if self.skipped_steps in (1, 10, 100, 1000):
            logger.warning(
                "updates skipped so far: %d, for gradients that are not finite; lower lr", self.skipped_steps
            )

    def _update(self, batch: dict[str, Any]) -> Any:
        # Dropout and REM draw as the count of steps says, so that a restart draws what the unbroken run would have.
        with torch_randomness(self.config.seed or 0, self._learner_index, self.gradient_steps, device=self._device):
            result = super()._update(batch)
        self.gradient_steps += 1
        # of the updates of an iteration, and of learners, RLlib would report the mean
        self.metrics.log_value((DEFAULT_MODULE_ID, "gradient_steps"), self.gradient_steps, reduce="max", window=1)
        self._share_statistics()
        objective = self._team.online.preset.objective
        if objective.tau is not None:
            self._follow(objective.tau)
        elif self.gradient_steps % objective.target_update == 0:
            self._follow(1.0)
        return result

    @torch.no_grad()
    def _follow(self, tau: float) -> None:
        """Move the target network; running statistics of batch normalisation are copied as they are."""
        for online, target in self._team.get_target_network_pairs():
            torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)
            for new, old in zip(online.buffers(), target.buffers(), strict=True):
                old.copy_(new)

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Learners see different episodes: give all the mean of their running statistics, or they drift apart."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        learners = torch.distributed.get_world_size()
        for statistic in self._team.online.buffers():
            torch.distributed.all_reduce(statistic)
            statistic /= learners

    def _log_steps_trained_metrics(self, batch: Any) -> None:
        """Rows are episodes: count environment steps instead."""
        columns = batch.policy_batches[DEFAULT_MODULE_ID]
        steps = int(columns["filled"].sum())
        for key, value in (("num_env_steps_trained", steps), ("num_episodes_trained", len(columns["filled"]))):
            self.metrics.log_value((ALL_MODULES, key), value, reduce="sum")
            self.metrics.log_value((ALL_MODULES, f"{key}_lifetime"), value, reduce="lifetime_sum")

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if components is None:
            state["gradient_steps"] = self.gradient_steps
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._weights_seq_no = 0  # or RLlib keeps newer weights when it is given older ones
        super().set_state(state)
        self.gradient_steps = int(state.get("gradient_steps", self.gradient_steps))
