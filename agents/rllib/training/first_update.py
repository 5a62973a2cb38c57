"""Runs that end before they learn: what was missing for the first gradient step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.rllib.core.team_config import TeamConfig

WARM_UP = "num_steps_sampled_before_learning_starts"
"""Setting of RLlib's algorithms with a replay buffer."""


@dataclass(frozen=True)
class NothingLearnt:
    """Why a run has taken no gradient step yet."""

    reason: str
    begins: int
    """Iteration in which learning is expected to begin."""
    option: str | None = None
    """Option that lets it begin earlier."""


def missing_for_learning(algorithm: Any, metrics: Mapping[str, Any]) -> NothingLearnt | None:
    """Tell why an algorithm has not learnt anything yet; ``None`` if it has.

    Args:
        algorithm: the algorithm after its last iteration.
        metrics: main metrics of that iteration.
    """
    config, iteration = algorithm.config, int(metrics.get("training_iteration", 0))
    if isinstance(config, TeamConfig):
        if metrics.get("gradient_steps"):
            return None
        if config.is_offline or iteration == 0:
            return NothingLearnt("no iteration was finished", 1)
        name, unit, needed = "learning_starts", "episodes", int(min(config.learning_starts, config.buffer_capacity))
        has = len(algorithm.buffer)
    elif hasattr(config, WARM_UP) and "loss" not in metrics:
        name, unit, needed = WARM_UP, "steps", int(getattr(config, WARM_UP))
        has = int(metrics.get("env_steps", 0))
    else:
        return None
    begins = math.ceil(needed * iteration / has) if 0 < has < needed else iteration + 1
    reason = f"no gradient step yet: {has:,} of {name} = {needed:,} {unit}; learning begins in iteration {begins}"
    return NothingLearnt(reason, begins, name)
