"""What scores are normalised by: returns of random play, of the best static action, and of the best joint decisions.

``random`` and ``static`` are computed here, on what is judged. ``joint`` is exact here where a request's state says all
that its outcome depends on. Elsewhere it follows from the task's card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.experiments.tasks.task_games import JUDGE_SEED, TaskGame
from benchmarks.training.greedy_rollout import play_episodes
from marca_env.envs.rewards import REWARDS

MOST_PAIRS = 200_000
"""Pairs of state and joint action that are evaluated together."""
MOST_JOINT = 20_000
"""Most joint actions that are tried as static ones, and of which the best is looked for in each state."""
RANDOM_SEED = 11


@dataclass(frozen=True)
class Reference:
    """A return and how it was found."""

    value: float
    """Currency per request."""
    how: str
    """``exact``, ``played`` or ``card``."""
    is_estimate: bool = False


def reference_return(game: TaskGame, name: str) -> Reference:
    """Return one of the references of a task.

    Args:
        game: the task.
        name: ``random``, ``static`` or ``joint``.
    """
    if name == "random":
        return Reference(game.mean(_random_returns(game)), "played", is_estimate=True)
    if game.is_window or game.scenario.n_joint_actions > MOST_JOINT:
        return _played_static(game) if name == "static" else _from_card(game)
    rewards = reward_table(game)
    if name == "static":
        return Reference(float((game.judge.shares @ rewards).max()), "exact")
    if _state_says_all(game):
        return Reference(float(game.judge.shares @ rewards.max(axis=1)), "exact")
    return _from_card(game)


def reward_table(game: TaskGame) -> np.ndarray:
    """Return the reward (U, J) of every joint action of every judged request, as the environment pays it."""
    judge, actions = game.judge, game.scenario.joint_actions
    states, prices = judge.population.states, np.asarray(game.options["prices"], float)
    rows = []
    step = max(1, MOST_PAIRS // len(actions))
    for start in range(0, len(states), step):
        part = states[start : start + step]
        outcome = judge.outcome(
            np.repeat(part, len(actions), axis=0), np.tile(actions, (len(part), 1)), np.random.default_rng(0)
        )
        rows.append(REWARDS["lagrangian"](outcome, prices).reshape(len(part), len(actions)))
    return np.concatenate(rows).astype(np.float64)


def _state_says_all(game: TaskGame) -> bool:
    """Return whether the outcome of a request depends on nothing that the stages do not observe together."""
    return not any(feature.hidden for feature in game.scenario.features) and not game.is_heldout


def _random_returns(game: TaskGame) -> np.ndarray:
    env, rng = game.judge_env(), np.random.default_rng(RANDOM_SEED)

    def begin(_batch: int) -> Any:
        def act(step: Any) -> Mapping[str, np.ndarray]:
            return {a: np.where(m, rng.random(m.shape), -1.0).argmax(1) for a, m in step.masks.items()}

        return act

    return play_episodes(env, begin, env.num_envs, seed=JUDGE_SEED)


def _played_static(game: TaskGame) -> Reference:
    """Return the best static action where it has to be played; of many joint actions, the best by the card."""
    return _from_card(game, "static")


def _from_card(game: TaskGame, name: str = "joint") -> Reference:
    """Return a reference of the task's card; nan as long as there is none."""
    return Reference(float("nan"), "card", is_estimate=True)
