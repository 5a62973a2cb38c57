"""Remote environment runners: a round of samples from all of them, their errors, and their return after a death."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.rllib.env.env_runner_group import EnvRunnerGroup

logger = logging.getLogger(__name__)

EMPTY_ROUNDS = 3
"""Rounds in a row without any sample after which training gives up."""
RETRY_S = 1.0
"""Seconds between looks whether a dead runner is back, as long as others still work."""


class SamplingError(RuntimeError):
    """No environment runner returns samples any more; the message ends with the error of one of them."""


@dataclass(frozen=True)
class Failure:
    """What went wrong in a runner, or took it away."""

    text: str


@dataclass
class Workforce:
    """The remote runners of a training run."""

    group: Any
    """RLlib's EnvRunnerGroup."""
    empty_rounds: int = 0
    revived: int = 0
    """Runners brought back so far."""
    failures: dict[int, str] = field(default_factory=dict)
    """Runner → its latest error."""
    _looked_at: float = 0.0

    def round(self, number: int, env_steps: int, timeout_s: float | None) -> list[tuple[Any, Any]]:
        """One round of samples.

        Args:
            number: rounds so far; a runner that missed some does not repeat old episodes.
            env_steps: lifetime steps of all runners together.
            timeout_s: seconds to wait for a runner.

        Returns:
            (batches, metrics) of the runners that returned, by index, so that the order is always the same.

        Raises:
            SamplingError: none returned, for the third time in a row.
        """
        attempt = self.revived
        answers = self._manager.foreach_actor(
            lambda runner: _sample(runner, number, attempt, env_steps), timeout_seconds=timeout_s
        )
        found = {}
        for answer in answers:
            value = answer.get()
            if answer.ok and not isinstance(value, Failure):
                found[answer.actor_id] = value
            else:
                self._note(answer.actor_id, value.text if isinstance(value, Failure) else str(value))
        self.empty_rounds = 0 if found else self.empty_rounds + 1
        if self.empty_rounds >= EMPTY_ROUNDS:
            raise SamplingError(self._verdict(timeout_s))
        return [found[index] for index in sorted(found)]

    def revive(self, patience_s: float) -> list[int]:
        """Runners that ray has restarted since the last look; they still lack weights.

        While others work nobody waits: a runner that is not back is looked at again after a second. With none left it
        waits for ``patience_s``.
        """
        if self.group.num_healthy_remote_workers() == self.group.num_remote_workers():
            return []
        alone = self.group.num_healthy_remote_workers() == 0
        if not alone and time.monotonic() - self._looked_at < RETRY_S:
            return []
        missing = [k for k in self._manager.actor_ids() if not self._manager.is_actor_healthy(k)]
        answers = self._manager.foreach_actor(
            lambda runner: runner.ping(),
            remote_actor_ids=missing,
            healthy_only=False,
            mark_healthy=True,
            timeout_seconds=patience_s if alone else 0.1,
        )
        self._looked_at = time.monotonic()
        for answer in answers:
            if not answer.ok:
                self.failures[answer.actor_id] = str(answer.get())
        back = [a.actor_id for a in answers if a.ok]
        self.revived += len(back)
        return back

    def _note(self, index: int, text: str) -> None:
        """Keep an error, and say once what it is: the others may go on without this runner for long."""
        if index not in self.failures:
            last = text.strip().splitlines()[-1:] or ["no reason given"]
            logger.warning("environment runner %d returned no sample: %s", index, last[0])
        self.failures[index] = text

    @property
    def _manager(self) -> Any:
        return self.group._worker_manager

    def _verdict(self, timeout_s: float | None) -> str:
        said = f"no environment runner returned a sample {EMPTY_ROUNDS} times in a row"
        if not self.failures:
            return f"{said}: none answered within sample_timeout_s = {timeout_s:g} seconds; raise it, or sample less"
        index, text = max(self.failures.items())
        return f"{said}; the error of runner {index}:\n{text.strip()}"


def raise_own_error(error: Exception) -> None:
    """Where no remote runner could be built, RLlib fails on the empty list of them: tell a runner's own error instead.

    Args:
        error: raised while an EnvRunnerGroup was built.

    Raises:
        SamplingError: all its remote runners are dead.
    """

    group = _group_in(error)
    if group is None or not group.num_remote_workers() or group.num_healthy_remote_workers():
        return
    manager, text = group._worker_manager, str(error)
    try:
        ray.get(manager.actors()[manager.actor_ids()[0]].ping.remote(), timeout=10)
    except ray.exceptions.RayError as own:
        text = str(own)
    raise SamplingError(f"no environment runner could be built; the error of one of them:\n{text.strip()}") from error


def _group_in(error: Exception) -> Any:
    """The group whose building failed; nobody has it yet but the traceback."""

    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((group for group in frames if isinstance(group, EnvRunnerGroup)), None)


def _sample(runner: Any, number: int, attempt: int, env_steps: int) -> Any:
    """Runs in the worker. An error comes back as text: RLlib would end the process, and with it the reason."""
    try:
        if getattr(runner, "failed", False):
            runner.make_env()  # the old one stopped in the middle of a step
        runner.failed = True
        runner.begin_round(number, attempt=attempt, env_steps=env_steps)
        answer = runner.sample(), runner.get_metrics()
        runner.failed = False
        return answer
    except Exception:
        return Failure(traceback.format_exc())
