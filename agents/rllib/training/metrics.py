"""Metrics of an iteration of any RLlib algorithm as plain numbers."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from agents.rllib.training.team_return import OPTION as TEAM_REWARD
from agents.rllib.training.team_return import TeamReturn

LEARNT = (
    "loss",
    "mixer_loss",
    "agent_loss",
    "q_tot",
    "td_error",
    "grad_norm",
    "gradient_steps",
    "skipped_updates",
)
"""Metrics that are reported once learning has begun."""
_LEFT_OUT = ("config", "pid", "timestamp")
_ALIASES = {
    "loss": ("total_loss",),
    "td_error": ("td_error_mean",),
    "grad_norm": ("gradients_default_optimizer_global_norm",),
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


def summary(results: Mapping[str, Any], team: TeamReturn | None = None) -> dict[str, Any]:
    """Return the main metrics of an iteration; metrics that do not apply are left out.

    ``episode_return_mean`` is the team's return, and ``team_reward`` says what it is. RLlib's own metric is the sum
    over agents; it counts a team reward N times, because each of the N agents gets the whole reward. The losses of
    several policies are summed, their other metrics averaged.

    Args:
        results: result of ``algorithm.train()``.
        team: how the agents' returns become the team's; ``None``: their mean.

    Returns:
        Numbers by name, and ``team_reward`` as text if there is a return.
    """
    team = team or TeamReturn("mean")
    sampled = results.get("env_runners") or {}
    each = [v for k, v in (results.get("learners") or {}).items() if k != "__all_modules__" and isinstance(v, Mapping)]
    by_agent = [v for v in map(_number, (sampled.get("agent_episode_returns_mean") or {}).values()) if v is not None]
    metrics: dict[str, Any] = {
        "training_iteration": results.get("training_iteration"),
        "time_total_s": results.get("time_total_s"),
        "env_steps": sampled.get("num_env_steps_sampled_lifetime"),
        "episode_return_mean": team.combine(by_agent) if by_agent else sampled.get("episode_return_mean"),
    }
    for name in LEARNT:
        values = [v for v in (_first(learnt, (name, *_ALIASES.get(name, ()))) for learnt in each) if v is not None]
        if values:
            metrics[name] = sum(values) if name.endswith("loss") else sum(values) / len(values)
    plain = {name: _number(value) for name, value in metrics.items()}
    numbers = {name: value for name, value in plain.items() if value is not None and not math.isnan(value)}
    return {**numbers, TEAM_REWARD: team.label} if team.label and "episode_return_mean" in numbers else numbers


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
