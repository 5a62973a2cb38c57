"""Learner of a team: RLlib's learner with target networks that follow gradient steps and a step count in its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from agents.rllib.core.seeding import torch_randomness
from agents.rllib.core.skipped_updates import SkippedUpdates, find_fault
from agents.team.reward_statistics import RewardUnits
from agents.team.team import TeamSpec
from agents.team.turn_plan import HOST_KEY, host_columns

METRICS = ("mixer_loss", "agent_loss", "central_loss", "q_tot", "td_error")
"""Logged metrics, if the algorithm has them; values and errors in currency, losses in squared currency."""
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


class TeamLearner(TorchLearner):
    """Learner that minimises the team's loss; ``gradient_steps`` counts updates, including skipped ones."""

    metric_names: ClassVar[tuple[str, ...]] = METRICS

    def build(self) -> None:
        """Build networks, optimizer and target networks."""
        super().build()
        self.gradient_steps = 0
        self.skipped = SkippedUpdates()
        self._fault: str | None = None
        self._batch: Any = {}
        self._losses: dict[str, Any] = {}
        self._team.make_target_networks()
        for _, target in self._team.get_target_network_pairs():
            target.to(self._device)

    @property
    def _team(self) -> Any:
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    @property
    def spec(self) -> TeamSpec:
        """Shapes of the team."""
        return self._team.spec

    def set_reward_units(self, units: RewardUnits) -> None:
        """Set the units in which the team learns from rewards."""
        self._team.set_reward_units(units)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register the preset's optimizer for all trainable parameters."""
        params = [p for p in self.get_parameters(self._module[module_id]) if p.requires_grad]
        objective = self._team.online.preset.objective
        options = {} if objective.optimizer == "adam" else {"momentum": objective.momentum}
        if objective.optimizer == "rmsprop":
            options["alpha"] = objective.rmsprop_alpha
        optimizer = OPTIMIZERS[objective.optimizer](params, weight_decay=objective.weight_decay, **options)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=config.lr)

    @staticmethod
    def _set_optimizer_lr(optimizer: torch.optim.Optimizer, lr: Any) -> None:
        # Use a number, as checkpoints do: a schedule's first rate is a tensor, and Adam rounds differently with it.
        TorchLearner._set_optimizer_lr(optimizer, float(lr))

    def _convert_batch_type(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Convert the columns to tensors, and keep those that say who is on turn on the host too."""
        host = host_columns(batch.policy_batches[DEFAULT_MODULE_ID])
        converted = super()._convert_batch_type(batch, *args, **kwargs)
        converted.policy_batches[DEFAULT_MODULE_ID][HOST_KEY] = host
        return converted

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: dict[str, Any]) -> Any:
        """Return the loss of the forward pass and log its metrics."""
        metrics = {name: fwd_out[name] for name in self.metric_names if name in fwd_out}
        self.metrics.log_dict(metrics, key=module_id, window=1)
        self._losses = {**metrics, "loss": fwd_out["loss"].detach()}
        return fwd_out["loss"]

    def postprocess_gradients_for_module(self, *, module_id: str, config: Any, module_gradients_dict: Any) -> Any:
        """Log the global norm of the gradients, then clip them."""
        gradients = [g for g in module_gradients_dict.values() if g is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        for name in ("grad_norm", "gradients_default_optimizer_global_norm"):  # the second is RLlib's name
            self.metrics.log_value((module_id, name), norm, window=1)
        # before clipping, which would divide all gradients by the norm
        self._fault = None if torch.isfinite(norm) else self._find_fault(module_gradients_dict)
        if config.grad_clip is None or config.grad_clip_by != "global_norm":
            return super().postprocess_gradients_for_module(
                module_id=module_id, config=config, module_gradients_dict=module_gradients_dict
            )
        torch._foreach_mul_(gradients, config.grad_clip / (norm + 1e-6).clamp(min=config.grad_clip))
        return module_gradients_dict

    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        """Apply the gradients, or skip the update if they are not finite; RLlib's own option does not skip it."""
        gradients = {ref: g for ref, g in gradients_dict.items() if g is not None}
        if self._fault is None and not torch.isfinite(torch.nn.utils.get_total_norm(list(gradients.values()))):
            self._fault = self._find_fault(gradients)  # made by a subclass, after the norm was computed
        if self._fault is None:
            super().apply_gradients(gradients)
        self.skipped.note(self._fault)

    def _find_fault(self, gradients: Mapping[Any, Any]) -> str:
        named = [(n, p.detach(), gradients.get(p)) for n, p in self._module[DEFAULT_MODULE_ID].named_parameters()]
        trained = [(n, p, g) for n, p, g in named if "target." not in n]
        shares = self._team.online.preset.network.share_parameters
        return find_fault(self._batch, self._losses, trained, () if shares else self.spec.agents)

    def _update(self, batch: dict[str, Any]) -> Any:
        self._fault, self._batch = None, batch.get(DEFAULT_MODULE_ID, {})
        # Seed dropout and REM by the step count, so that a resumed run draws the same numbers as an uninterrupted one.
        with torch_randomness(self.config.seed or 0, self._learner_index, self.gradient_steps, device=self._device):
            result = super()._update(batch)
        self.gradient_steps += 1
        self._batch, self._losses = {}, {}
        counts = {
            "gradient_steps": self.gradient_steps,
            "skipped_updates": self.skipped.total,
            "skipped_in_a_row": self.skipped.longest,
        }
        for name, count in counts.items():
            # reduce="max": RLlib would report the mean over the iteration's updates and over learners
            self.metrics.log_value((DEFAULT_MODULE_ID, name), count, reduce="max", window=1)
        self._share_statistics()
        objective = self._team.online.preset.objective
        if objective.tau is not None:
            self._follow(objective.tau)
        elif self.gradient_steps % objective.target_update == 0:
            self._follow(1.0)
        return result

    @torch.no_grad()
    def _follow(self, tau: float) -> None:
        """Move the target network towards the online network; running statistics of batch norms are copied."""
        for online, target in self._team.get_target_network_pairs():
            torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)
            for online_buffer, target_buffer in zip(online.buffers(), target.buffers(), strict=True):
                target_buffer.copy_(online_buffer)

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Average the running statistics over learners, which would drift apart because their episodes differ."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        learners = torch.distributed.get_world_size()
        for statistic in self._team.online.buffers():
            torch.distributed.all_reduce(statistic)
            statistic /= learners

    def _log_steps_trained_metrics(self, batch: Any) -> None:
        """Log environment steps and episodes; RLlib would count rows, which are episodes here, as steps."""
        columns = batch.policy_batches[DEFAULT_MODULE_ID]
        filled = columns.get(HOST_KEY, columns)["filled"]  # on the host, so that a GPU is not waited for
        for key, value in (("num_env_steps_trained", int(filled.sum())), ("num_episodes_trained", len(filled))):
            self.metrics.log_value((ALL_MODULES, key), value, reduce="sum")
            self.metrics.log_value((ALL_MODULES, f"{key}_lifetime"), value, reduce="lifetime_sum")

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state with the numbers of gradient steps and of skipped updates."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if components is None:
            state["gradient_steps"] = self.gradient_steps
            state["skipped"] = self.skipped.state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`get_state` returned; older weights replace newer ones."""
        self._weights_seq_no = 0  # otherwise RLlib keeps newer weights
        super().set_state(state)
        self.gradient_steps = int(state.get("gradient_steps", self.gradient_steps))
        if "skipped" in state:
            self.skipped = SkippedUpdates(**state["skipped"])
