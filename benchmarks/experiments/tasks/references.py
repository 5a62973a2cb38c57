"""What scores are normalised by: returns of random play, of the best static action, and of the best joint decisions.

``static`` and ``joint`` are exact where a request's state says all that its outcome depends on. Where something is
hidden, ``joint`` is that of the task's card (decisions on all that is observable). In windows, and where requests are
held out, ``static`` is, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from benchmarks.days.headroom import Card, card
from benchmarks.experiments.tasks.task_games import JUDGE_SEED, TaskGame
from benchmarks.training.greedy_rollout import play_episodes
from marca_env.envs.rewards import REWARDS

MOST_PAIRS = 200_000
"""Pairs of state and joint action that are evaluated together."""
RANDOM_SEED = 11


@dataclass(frozen=True)
class Reference:
    """A return and how it was found."""

    value: float
    """Currency per request."""
    how: str
    """``exact``, ``played``, or what the card says."""
    is_estimate: bool = False


def reference_return(game: TaskGame, name: str) -> Reference:
    """Return one of the references of a task.

    Args:
        game: the task.
        name: ``random``, ``static`` or ``joint``.
    """
    if name == "random":
        return Reference(game.mean(_random_returns(game)), "played", is_estimate=True)
    if game.is_window or game.is_heldout or (name == "joint" and not _state_says_all(game)):
        return _from_card(game, name)
    rewards = reward_table(game)
    best = (game.judge.shares @ rewards).max() if name == "static" else game.judge.shares @ rewards.max(axis=1)
    return Reference(float(best), "exact")


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
    return not any(feature.hidden for feature in game.scenario.features)


def _random_returns(game: TaskGame) -> np.ndarray:
    env, rng = game.judge_env(), np.random.default_rng(RANDOM_SEED)

    def begin(_batch: int) -> Any:
        def act(step: Any) -> Mapping[str, np.ndarray]:
            return {a: np.where(m, rng.random(m.shape), -1.0).argmax(1) for a, m in step.masks.items()}

        return act

    return play_episodes(env, begin, env.num_envs, seed=JUDGE_SEED)


@cache
def task_card(scenario: str, prices: tuple[float, ...]) -> Card:
    """Return the card of a scenario as its environment serves it."""
    return card(scenario, prices=prices, truth="environment")


def _from_card(game: TaskGame, name: str) -> Reference:
    """Return a row of the task's card: of decisions that were found on what learners train on."""
    found = task_card(game.options["scenario"], tuple(game.options["prices"]))
    value = found.static if name == "static" else found.joint
    return Reference(value, f"card: {found.how[name]}", is_estimate=True)
