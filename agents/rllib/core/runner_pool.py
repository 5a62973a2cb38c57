"""Pool of remote environment runners: rounds of samples, errors, and restoration after a crash."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from agents.rllib.envs.env_watch import SimulatorError
from marca_env.utils.errors import InputError, one_line

logger = logging.getLogger(__name__)

EMPTY_ROUNDS = 3
"""Number of consecutive rounds without any sample after which training stops."""
RETRY_S = 1.0
"""Seconds between checks for restarted runners while other runners still work."""


class SamplingError(InputError, RuntimeError):
    """No environment runner returns samples; the message, of one line, ends with the error of one of them."""


@dataclass(frozen=True)
class RunnerFailure:
    """Error of a runner, returned instead of samples."""

    text: str
    """The error in one line."""
    traceback: str
    is_final: bool
    """Whether the data of the environment are wrong, so that a new attempt would fail too."""


@dataclass
class RunnerPool:
    """The remote runners of a training run."""

    group: Any
    """RLlib's EnvRunnerGroup."""
    empty_rounds: int = 0
    """Consecutive rounds without any sample."""
    restored: int = 0
    """Number of runners restored so far."""
    failures: dict[int, str] = field(default_factory=dict)
    """Runner → its latest error."""
    noticed: set[str] = field(default_factory=set)
    """Warnings of environments so far."""
    _checked_at: float = 0.0

    def sample_round(self, number: int, env_steps: int, timeout_s: float | None) -> list[tuple[Any, Any]]:
        """Collect one round of samples.

        Args:
            number: rounds so far; a runner that missed some does not repeat old episodes.
            env_steps: lifetime steps of all runners together.
            timeout_s: seconds to wait for a runner.

        Returns:
            (batches, metrics) of the runners that returned, in the order of their indices.

        Raises:
            SamplingError: no runner returned, for the third time in a row.
            InputError: the data of a runner's environment are wrong.
        """
        attempt = self.restored
        answers = self._manager.foreach_actor(
            lambda runner: _sample(runner, number, attempt, env_steps), timeout_seconds=timeout_s
        )
        samples = {}
        for answer in answers:
            value = answer.get()
            if not answer.ok:
                self._note_failure(answer.actor_id, last_line(str(value)))
            elif not isinstance(value, RunnerFailure):
                *samples[answer.actor_id], notice = value
                if notice is not None and notice not in self.noticed:
                    self.noticed.add(notice)
                    logger.warning(notice)
            elif value.is_final:
                raise InputError(value.text)
            else:
                self._note_failure(answer.actor_id, value.text)
                logger.debug("environment runner %d:\n%s", answer.actor_id, value.traceback)
        self.empty_rounds = 0 if samples else self.empty_rounds + 1
        if self.empty_rounds >= EMPTY_ROUNDS:
            raise SamplingError(self._failure_message(timeout_s))
        return [(batches, metrics) for _, (batches, metrics) in sorted(samples.items())]

    def restore_dead(self, patience_s: float) -> list[int]:
        """Return the runners that ray has restarted since the last check; they still lack weights.

        While other runners work this does not wait: it checks again after a second. If no runner is left it waits for
        ``patience_s``.
        """
        if self.group.num_healthy_remote_workers() == self.group.num_remote_workers():
            return []
        all_dead = self.group.num_healthy_remote_workers() == 0
        if not all_dead and time.monotonic() - self._checked_at < RETRY_S:
            return []
        missing = [k for k in self._manager.actor_ids() if not self._manager.is_actor_healthy(k)]
        answers = self._manager.foreach_actor(
            lambda runner: runner.ping(),
            remote_actor_ids=missing,
            healthy_only=False,
            mark_healthy=True,
            timeout_seconds=patience_s if all_dead else 0.1,
        )
        self._checked_at = time.monotonic()
        for answer in answers:
            if not answer.ok:
                self.failures[answer.actor_id] = last_line(str(answer.get()))
        restored = [a.actor_id for a in answers if a.ok]
        self.restored += len(restored)
        return restored

    def _note_failure(self, index: int, text: str) -> None:
        """Store an error and log a runner's first error, because training may continue without this runner."""
        if index not in self.failures:
            logger.warning("environment runner %d returned no sample: %s", index, text)
        self.failures[index] = text

    @property
    def _manager(self) -> Any:
        return self.group._worker_manager

    def _failure_message(self, timeout_s: float | None) -> str:
        fault = f"no environment runner returned a sample {EMPTY_ROUNDS} times in a row"
        if not self.failures:
            return f"{fault}: none answered within sample_timeout_s = {timeout_s:g} seconds; raise it, or sample less"
        index, text = max(self.failures.items())
        return f"{fault}; the error of runner {index}: {text}"


def raise_runner_error(error: Exception) -> None:
    """Raise the error of a remote runner if no remote runner could be built.

    RLlib would only report that its list of runners is empty.

    Args:
        error: error raised while an EnvRunnerGroup was built.

    Raises:
        InputError: the environment cannot be built in the processes of the runners, for a reason that is the user's.
        SamplingError: all remote runners of the group are dead.
    """
    group = _group_in(error)
    if group is None or not group.num_remote_workers() or group.num_healthy_remote_workers():
        return
    manager, text = group._worker_manager, str(error)
    try:
        ray.get(manager.actors()[manager.actor_ids()[0]].ping.remote(), timeout=10)
    except ray.exceptions.RayError as runner_error:
        text = str(runner_error)
    line = last_line(text)
    kind, _, message = line.partition(": ")
    if kind.rpartition(".")[2] == InputError.__name__:
        raise InputError(message) from error
    raise SamplingError(f"no environment runner could be built; the error of one of them: {line}") from error


def last_line(text: str) -> str:
    """Return the last line of an error's text, the error itself if the text is a traceback."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _group_in(error: Exception) -> Any:
    """Return the group that could not be built; only the traceback refers to it."""
    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((group for group in frames if isinstance(group, EnvRunnerGroup)), None)


def _sample(runner: Any, number: int, attempt: int, env_steps: int) -> Any:
    """Sample in the worker and return an error as text; RLlib would end the process and lose the reason.

    An error of the simulator may be due to chance; a runner then tries again in the next round, with a new environment.
    """
    try:
        if getattr(runner, "failed", False):
            runner.make_env()  # the old environment stopped in the middle of a step
        runner.failed = True
        runner.begin_round(number, attempt=attempt, env_steps=env_steps)
        answer = runner.sample(), runner.get_metrics(), runner.notice()
        runner.failed = False
        return answer
    except Exception as error:
        is_final = isinstance(error, InputError) and not isinstance(error, SimulatorError)
        text = one_line(error) if isinstance(error, InputError) else f"{type(error).__name__}: {one_line(error)}"
        return RunnerFailure(text, traceback.format_exc(), is_final)
