"""RLlib's environment runners, with errors of the environment passed on as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.experimental import internal_kv
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import ENV_STEP_TIMER

from agents.rllib.envs.env_watch import SimulatorError
from marca_env.utils.errors import InputError


class _Honest:
    """Mixin in which an error of the environment ends the run with its own type and message.

    RLlib's own runners log a traceback and raise a ``RuntimeError`` without a message.
    """

    config: Any
    env: Any
    metrics: Any

    def _try_env_step(self, actions: Any) -> Any:
        if self.config.restart_failed_sub_environments:
            return super()._try_env_step(actions)  # type: ignore[misc]
        with self.metrics.log_time(ENV_STEP_TIMER):
            results = self.env.step(actions)
        self._log_env_steps(metric=self._metrics_num_try_env_step, num_steps=1)  # type: ignore[attr-defined]
        return results

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function with this runner, as a remote one is called; report an error of the environment.

        RLlib restarts a remote runner after an error and goes on without its data. A simulator that failed may work
        after the restart; wrong data of an environment will not.
        """
        faults: list[InputError] = []

        def reporting(runner: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return func(runner, *args, **kwargs)
            except InputError as error:
                _report(error)
                faults.append(error)
                raise

        try:
            return super().apply(reporting, *args, **kwargs)  # type: ignore[misc]
        except SystemExit:
            if faults and not isinstance(faults[0], SimulatorError):
                raise faults[0] from None
            raise


class HonestTeamRunner(_Honest, MultiAgentEnvRunner):
    """Runner of several agents."""


class HonestSingleRunner(_Honest, SingleAgentEnvRunner):
    """Runner of a single agent."""


def raise_reported_fault(*, has_sampled: bool) -> None:
    """Raise the first error of an environment that a remote runner has reported, unless the run goes on without it.

    Args:
        has_sampled: whether the latest iteration got data; then a simulator that failed may have been a single case.

    Raises:
        InputError: the error.
    """
    if not ray.is_initialized():
        return
    stored = internal_kv._internal_kv_get(_key())
    if stored is None:
        return
    internal_kv._internal_kv_del(_key())
    kind, _, message = stored.decode().partition(" ")
    if kind == "data" or not has_sampled:
        raise InputError(message)


def _report(error: InputError) -> None:
    kind = "simulator" if isinstance(error, SimulatorError) else "data"
    internal_kv._internal_kv_put(_key(), f"{kind} {error}".encode(), overwrite=kind == "data")


def _key() -> bytes:
    return f"marca_env/fault/{ray.get_runtime_context().get_job_id()}".encode()
