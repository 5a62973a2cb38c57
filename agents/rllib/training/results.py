"""What an iteration of any RLlib algorithm reports, as plain numbers, and the limits that end a run."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Mapping
from typing import Any

from marca_env.utils.errors import InputError, unknown_option

STOPS = ("training_iteration", "env_steps", "gradient_steps", "episode_return_mean", "time_total_s")
"""The common limits; any other number that the run reports is one, too."""
COUNTED = ("training_iteration", "env_steps", "gradient_steps", "time_total_s")
SAMPLED = ("env_steps", "episode_return_mean")
"""Limits on what only a run in an environment reports."""
LEARNT = (
    "loss",
    "mixer_loss",
    "agent_loss",
    "q_tot",
    "td_error",
    "grad_norm",
    "gradient_steps",
)
"""Numbers that are reported once learning has begun."""
_LEFT_OUT = ("config", "pid", "timestamp")
_ALIASES = {
    "loss": ("total_loss",),
    "td_error": ("td_error_mean",),
    "grad_norm": ("gradients_default_optimizer_global_norm",),
    "gradient_steps": (),
}


def flatten(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every finite number of a nested result under the path of its keys, such as ``env_runners/episode_len_mean``."""
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
    """The few numbers of an iteration that people look at; those that do not apply are left out.

    ``episode_return_mean`` is the team's, the mean over the agents' returns: RLlib's own adds the agents up, and would
    count a reward that is given whole to each of N agents N times. The losses of several policies are added up, their
    other numbers averaged.
    """
    sampled = results.get("env_runners") or {}
    each = [v for k, v in (results.get("learners") or {}).items() if k != "__all_modules__" and isinstance(v, Mapping)]
    by_agent = [v for v in map(_number, (sampled.get("agent_episode_returns_mean") or {}).values()) if v is not None]
    found: dict[str, Any] = {
        "training_iteration": results.get("training_iteration"),
        "time_total_s": results.get("time_total_s"),
        "env_steps": sampled.get("num_env_steps_sampled_lifetime"),
        "episode_return_mean": sum(by_agent) / len(by_agent) if by_agent else sampled.get("episode_return_mean"),
    }
    for name in LEARNT:
        values = [v for v in (_first(learnt, (name, *_ALIASES.get(name, ()))) for learnt in each) if v is not None]
        if values:
            found[name] = sum(values) if name.endswith("loss") else sum(values) / len(values)
    plain = {name: _number(value) for name, value in found.items()}
    return {name: value for name, value in plain.items() if value is not None and not math.isnan(value)}


def _first(learnt: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    return next((_number(learnt[n]) for n in names if n in learnt), None)


def _number(value: Any) -> Any:
    """A plain int or float; ``None`` for anything else."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return None
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item() if not callable(getattr(value, "numel", None)) or value.numel() == 1 else None
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else None


def stop_reached(found: Mapping[str, Any], stop: Mapping[str, float]) -> bool:
    """Whether any of the limits is reached; a limit on a number that the run does not report is never reached."""
    return any(found.get(name, float("-inf")) >= limit for name, limit in stop.items())


def check_stop(stop: Mapping[str, Any], config: Any, *, evaluates: bool = False) -> None:
    """Refuse limits that no run has, or that this one never reaches, before it begins.

    Args:
        stop: name → limit.
        config: of the algorithm; ``None`` for a resumed run.
        evaluates: an evaluation adds numbers that are not known before.

    Raises:
        InputError: an unknown limit, naming the nearest, or one that is not a number.
    """
    for name, limit in stop.items():
        if name not in (*STOPS, *LEARNT) and "/" not in name and not evaluates:
            hint = unknown_option("stopping criterion", name, STOPS)
            raise InputError(f"{hint}; or a path in the results, such as env_runners/episode_return_mean")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit != limit:
            raise InputError(f"stopping criterion {name} is {limit!r}; give a number")
        if name in COUNTED and limit < 0:
            raise InputError(f"stopping criterion {name} is {limit!r}; what is counted up from 0 has no negative limit")
        if name.startswith("evaluation/") and config is not None and not config.evaluation_interval:
            raise InputError(f"stopping criterion {name}: nothing is evaluated; set evaluation_interval in the config")
    if not stop:
        raise InputError(f"no stopping criterion; give at least one of {', '.join(STOPS)}")
    if config is not None and config.is_offline and set(stop) <= set(SAMPLED):
        raise InputError(
            f"{' and '.join(stop)} cannot stop a run on a log, which samples nothing; "
            "give training_iteration, gradient_steps or time_total_s"
        )


def check_reported(stop: Mapping[str, Any], found: Mapping[str, float]) -> None:
    """Refuse, after an iteration, limits on numbers that the run does not report and will not later.

    Raises:
        InputError: naming the nearest number that is reported.
    """
    for name in stop:
        if name in found or _may_come(name, found):
            continue
        raise InputError(_not_reported(name, found))


def _may_come(name: str, found: Mapping[str, float]) -> bool:
    if name.startswith("evaluation/") or "episode" in name.rsplit("/", 1)[-1]:
        return True
    learns = any(n.startswith("learners/") and n.endswith("loss") for n in found)
    return (name in LEARNT or name.startswith("learners/")) and not learns


def _not_reported(name: str, found: Mapping[str, float]) -> str:
    near = difflib.get_close_matches(name, list(found), n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"stopping criterion {name!r} is not among the {len(found)} numbers that this run reports{hint}"
