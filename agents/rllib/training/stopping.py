"""Stopping criteria of a training run: limits on its metrics."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from agents.rllib.training.metrics import LEARNT
from marca_env.utils.errors import InputError, unknown_option

STOPS = ("training_iteration", "env_steps", "gradient_steps", "episode_return_mean", "time_total_s")
"""The common stopping criteria; a run can also stop at any other metric that it reports."""
COUNTED = ("training_iteration", "env_steps", "gradient_steps", "time_total_s")
"""Criteria that count up from 0."""
SAMPLED = ("env_steps", "episode_return_mean")
"""Criteria that only a run in an environment reports."""


def stop_reached(metrics: Mapping[str, Any], stop: Mapping[str, float]) -> bool:
    """Return whether any stopping criterion is met; a criterion on a metric that is not reported is never met."""
    return bool(reached_limits(metrics, stop))


def reached_limits(metrics: Mapping[str, Any], stop: Mapping[str, float]) -> list[str]:
    """Return the names of the stopping criteria that are met."""
    return [name for name, limit in stop.items() if metrics.get(name, float("-inf")) >= limit]


def check_stop(stop: Mapping[str, Any], config: Any, *, evaluates: bool = False) -> None:
    """Refuse stopping criteria that are unknown or that this run can never meet, before it starts.

    Args:
        stop: metric → limit.
        config: configuration of the algorithm; ``None`` for a resumed run.
        evaluates: whether an evaluation adds metrics whose names are not known in advance.

    Raises:
        InputError: an unknown criterion (the message names the nearest), or a limit that is not a finite number.
    """
    for name, limit in stop.items():
        if name not in (*STOPS, *LEARNT) and "/" not in name and not evaluates:
            hint = unknown_option("stopping criterion", name, STOPS)
            raise InputError(f"{hint}; or a path in the results, such as env_runners/episode_return_mean")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit):
            raise InputError(f"stopping criterion {name} is {limit!r}; use a number that is finite")
        if name in COUNTED and limit < 0:
            raise InputError(f"stopping criterion {name} is {limit!r}; it counts up from 0, use a positive limit")
        if name.startswith("evaluation/") and config is not None and not config.evaluation_interval:
            raise InputError(f"stopping criterion {name}: nothing is evaluated; set evaluation_interval in the config")
    if not stop:
        raise InputError(f"no stopping criterion; set at least one of {', '.join(STOPS)}")
    if config is not None and config.is_offline and set(stop) <= set(SAMPLED):
        raise InputError(
            f"{' and '.join(stop)} cannot stop a run on a log, which takes no steps in an environment; "
            "stop by training_iteration, gradient_steps or time_total_s"
        )


def check_reported(stop: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Refuse, after an iteration, stopping criteria on metrics that the run does not and will not report.

    Raises:
        InputError: a metric that is not reported; the message names the nearest one that is.
    """
    for name in stop:
        if name in metrics or _may_be_reported_later(name, metrics):
            continue
        raise InputError(_not_reported(name, metrics))


def _may_be_reported_later(name: str, metrics: Mapping[str, float]) -> bool:
    if name.startswith("evaluation/") or "episode" in name.rsplit("/", 1)[-1]:
        return True
    learns = any(n.startswith("learners/") and n.endswith("loss") for n in metrics)
    return (name in LEARNT or name.startswith("learners/")) and not learns


def _not_reported(name: str, metrics: Mapping[str, float]) -> str:
    near = difflib.get_close_matches(name, list(metrics), n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"stopping criterion {name!r} is not among the {len(metrics)} metrics that this run reports{hint}"
