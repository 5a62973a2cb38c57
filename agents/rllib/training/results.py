"""Metrics of an iteration of any RLlib algorithm as plain numbers, and the criteria that stop a run."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Mapping
from typing import Any

from marca_env.utils.errors import InputError, unknown_option

STOPS = ("training_iteration", "env_steps", "gradient_steps", "episode_return_mean", "time_total_s")
"""The common stopping criteria; a run can also stop at any other metric that it reports."""
COUNTED = ("training_iteration", "env_steps", "gradient_steps", "time_total_s")
"""Criteria that count up from 0."""
SAMPLED = ("env_steps", "episode_return_mean")
"""Criteria that only a run in an environment reports."""
LEARNT = (
    "loss",
    "mixer_loss",
    "agent_loss",
    "q_tot",
    "td_error",
    "grad_norm",
    "gradient_steps",
)
"""Metrics that are reported once learning has begun."""
_LEFT_OUT = ("config", "pid", "timestamp")
_ALIASES = {
    "loss": ("total_loss",),
    "td_error": ("td_error_mean",),
    "grad_norm": ("gradients_default_optimizer_global_norm",),
    "gradient_steps": (),
}


def flatten(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flatten a nested result to its finite numbers, named by their paths, such as ``env_runners/episode_len_mean``."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        if not prefix and key in _LEFT_OUT:
            continue
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}/")
            continue
        plain = _number(value)
        if plain is not None and math.isfinite(plain):
            flat[name] = plain
    return flat


def summary(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the main metrics of an iteration; metrics that do not apply are left out.

    ``episode_return_mean`` is the team's return, the mean over the agents' returns. RLlib's own metric is their sum; it
    counts a team reward N times, because each of the N agents gets the whole reward. The losses of several policies
    are summed, their other metrics averaged.
    """
    sampled = results.get("env_runners") or {}
    each = [v for k, v in (results.get("learners") or {}).items() if k != "__all_modules__" and isinstance(v, Mapping)]
    by_agent = [v for v in map(_number, (sampled.get("agent_episode_returns_mean") or {}).values()) if v is not None]
    metrics: dict[str, Any] = {
        "training_iteration": results.get("training_iteration"),
        "time_total_s": results.get("time_total_s"),
        "env_steps": sampled.get("num_env_steps_sampled_lifetime"),
        "episode_return_mean": sum(by_agent) / len(by_agent) if by_agent else sampled.get("episode_return_mean"),
    }
    for name in LEARNT:
        values = [v for v in (_first(learnt, (name, *_ALIASES.get(name, ()))) for learnt in each) if v is not None]
        if values:
            metrics[name] = sum(values) if name.endswith("loss") else sum(values) / len(values)
    plain = {name: _number(value) for name, value in metrics.items()}
    return {name: value for name, value in plain.items() if value is not None and not math.isnan(value)}


def _first(learnt: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    return next((_number(learnt[n]) for n in names if n in learnt), None)


def _number(value: Any) -> Any:
    """Convert a value to a plain int or float; ``None`` for anything else."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return None
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item() if not callable(getattr(value, "numel", None)) or value.numel() == 1 else None
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else None


def stop_reached(metrics: Mapping[str, Any], stop: Mapping[str, float]) -> bool:
    """Return whether any stopping criterion is met; a criterion on a metric that is not reported is never met."""
    return any(metrics.get(name, float("-inf")) >= limit for name, limit in stop.items())


def check_stop(stop: Mapping[str, Any], config: Any, *, evaluates: bool = False) -> None:
    """Refuse stopping criteria that are unknown or that this run can never meet, before it starts.

    Args:
        stop: metric → limit.
        config: configuration of the algorithm; ``None`` for a resumed run.
        evaluates: whether an evaluation adds metrics whose names are not known in advance.

    Raises:
        InputError: an unknown criterion (the message names the nearest), or a limit that is not a number.
    """
    for name, limit in stop.items():
        if name not in (*STOPS, *LEARNT) and "/" not in name and not evaluates:
            hint = unknown_option("stopping criterion", name, STOPS)
            raise InputError(f"{hint}; or a path in the results, such as env_runners/episode_return_mean")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit != limit:
            raise InputError(f"stopping criterion {name} is {limit!r}; use a number")
        if name in COUNTED and limit < 0:
            raise InputError(f"stopping criterion {name} is {limit!r}; it counts up from 0, use a positive limit")
        if name.startswith("evaluation/") and config is not None and not config.evaluation_interval:
            raise InputError(f"stopping criterion {name}: nothing is evaluated; set evaluation_interval in the config")
    if not stop:
        raise InputError(f"no stopping criterion; set at least one of {', '.join(STOPS)}")
    if config is not None and config.is_offline and set(stop) <= set(SAMPLED):
        raise InputError(
            f"{' and '.join(stop)} cannot stop a run on a log, which samples nothing; "
            "use training_iteration, gradient_steps or time_total_s"
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
