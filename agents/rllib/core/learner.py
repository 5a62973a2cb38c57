"""Learner of a team: RLlib's learner with target networks that follow gradient steps and a step count in its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from agents.rllib.core.arithmetic import (
    AMP_DTYPES,
    captures_graph,
    compiled,
    compiles_loss,
    resolve_precision,
    update_arithmetic,
)
from agents.rllib.core.device_update import DeviceUpdate, host_free
from agents.rllib.core.seeding import torch_randomness
from agents.rllib.core.skipped_updates import REMEDY, SkippedUpdates, find_fault
from agents.team.reward_statistics import RewardUnits
from agents.team.team import TeamSpec
from agents.team.turn_plan import HOST_KEY, host_columns, plan_turns

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
        self._read_later: dict[str, Any] = {}
        """Metrics of the latest update, which are logged, and so read from the device, once an iteration."""
        self._team.make_target_networks()
        for _, target in self._team.get_target_network_pairs():
            target.to(self._device)
        self._precision = resolve_precision(self.config.matmul_precision, self._device)
        if compiles_loss(self.config.compile):
            self._team.compute_losses = compiled(self._team.compute_losses)
        self._team.amp = AMP_DTYPES.get(self.config.amp)
        self._device_update = self._make_device_update()

    def _make_device_update(self) -> DeviceUpdate | None:
        """Return the update that waits for nothing, on a single GPU with Adam; elsewhere RLlib's steps are taken."""
        clips = self.config.grad_clip is None or self.config.grad_clip_by == "global_norm"
        if torch.device(self._device).type != "cuda" or self.config.num_learners > 1 or not clips:
            return None
        if self._team.online.preset.objective.optimizer != "adam" or type(self) is not TeamLearner:
            return None
        captures = captures_graph(self.config.compile, self._device)
        optimizer = self.get_optimizer(DEFAULT_MODULE_ID)
        return DeviceUpdate(self.module[DEFAULT_MODULE_ID], optimizer, self.config.grad_clip, captures=captures)

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
        if objective.optimizer == "adam":
            options["capturable"] = torch.device(self._device).type == "cuda"
        if objective.optimizer == "rmsprop":
            options["alpha"] = objective.rmsprop_alpha
        optimizer = OPTIMIZERS[objective.optimizer](params, weight_decay=objective.weight_decay, **options)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=config.lr)

    @staticmethod
    def _set_optimizer_lr(optimizer: torch.optim.Optimizer, lr: Any) -> None:
        # Use a number, as checkpoints do: a schedule's first rate is a tensor, and Adam rounds differently with it.
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):  # a captured update reads this tensor
                group["lr"].fill_(float(lr))
            else:
                group["lr"] = float(lr)

    def _convert_batch_type(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Convert the columns to tensors, and keep those that say who is on turn on the host too."""
        host = host_columns(batch.policy_batches[DEFAULT_MODULE_ID])
        converted = super()._convert_batch_type(batch, *args, **kwargs)
        converted.policy_batches[DEFAULT_MODULE_ID][HOST_KEY] = host
        return converted

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: dict[str, Any]) -> Any:
        """Return the loss of the forward pass, whose metrics are logged at the end of the iteration."""
        metrics = {name: fwd_out[name] for name in self.metric_names if name in fwd_out}
        self._read_later |= metrics
        self._losses = {**metrics, "loss": fwd_out["loss"].detach()}
        return fwd_out["loss"]

    def postprocess_gradients_for_module(self, *, module_id: str, config: Any, module_gradients_dict: Any) -> Any:
        """Note the global norm of the gradients, then clip them."""
        gradients = [g for g in module_gradients_dict.values() if g is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._read_later["grad_norm"] = norm
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
        key = (self.config.seed or 0, self._learner_index, self.gradient_steps)
        with torch_randomness(*key, device=self._device), update_arithmetic(self._precision):
            result = super()._update(batch) if self._device_update is None else self._update_on_device(batch)
        self.gradient_steps += 1
        if self._device_update is None:
            self._batch, self._losses = {}, {}
        self._share_statistics()
        objective = self._team.online.preset.objective
        if objective.tau is not None:
            self._follow(objective.tau)
        elif self.gradient_steps % objective.target_update == 0:
            self._follow(1.0)
        return result

    def _update_on_device(self, batch: dict[str, Any]) -> Any:
        assert self._device_update is not None
        columns = batch[DEFAULT_MODULE_ID]
        plan = plan_turns(self._team.online, columns)
        out = self._device_update(host_free(columns, plan))
        self._losses = {name: out[name] for name in ("loss", *self.metric_names) if name in out}
        self._read_later |= {name: out[name] for name in ("grad_norm", *self.metric_names) if name in out}
        return {DEFAULT_MODULE_ID: {}}, {DEFAULT_MODULE_ID: out["loss"]}, {}

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Log the metrics of the latest update and the counts, then follow the learning rate's schedule."""
        if self._device_update is not None:
            self._note_skips(*self._device_update.read_skips())
        metrics = self._read_later
        if "grad_norm" in metrics:
            metrics["gradients_default_optimizer_global_norm"] = metrics["grad_norm"]  # RLlib's name
        for name, value in metrics.items():
            self.metrics.log_value((DEFAULT_MODULE_ID, name), value, window=1)
        self._read_later = {}
        counts = {
            "gradient_steps": self.gradient_steps,
            "skipped_updates": self.skipped.total,
            "skipped_in_a_row": self.skipped.longest,
        }
        for name, count in counts.items():
            # reduce="max": RLlib would report the mean over learners
            self.metrics.log_value((DEFAULT_MODULE_ID, name), count, reduce="max", window=1)
        super().after_gradient_based_update(timesteps=timesteps)

    def _note_skips(self, total: int, row: int, most: int) -> None:
        """Note the updates that the device has skipped in this iteration."""
        if total:
            gradients = {p: p.grad for p in self._device_update.parameters}  # type: ignore[union-attr]
            fault = self._find_fault(gradients) if row else f"a loss or a gradient was not finite; {REMEDY}"
            self.skipped.note_many(total, row, most, fault)
        else:
            self.skipped.note(None)

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

    def _get_optimizer_state(self) -> dict[str, Any]:
        """Return RLlib's state, in which the learning rate is a number also where an update reads it from a tensor."""
        state: dict[str, Any] = super()._get_optimizer_state()
        for optimizer in state.values():
            for group in optimizer["state"]["param_groups"]:
                group["lr"] = float(group["lr"])
        return state

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        """Load a state that may come from another kind of device."""
        super()._set_optimizer_state(state)
        for group in self.get_optimizer(DEFAULT_MODULE_ID).param_groups:
            if "capturable" in group:
                group["capturable"] = torch.device(self._device).type == "cuda"
        if self._device_update is not None:
            self._device_update.graphs.clear()  # they read the statistics that were replaced

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
