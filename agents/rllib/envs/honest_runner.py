"""RLlib's environment runners, with errors of the environment passed on as they are."""

from __future__ import annotations

from typing import Any

from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import ENV_STEP_TIMER


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


class HonestTeamRunner(_Honest, MultiAgentEnvRunner):
    """Runner of several agents."""


class HonestSingleRunner(_Honest, SingleAgentEnvRunner):
    """Runner of a single agent."""
