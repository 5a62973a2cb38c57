"""Training of a learner on a task, with greedy evaluations by the task's judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.rllib.training.any_algorithm import algorithm_config
from benchmarks.experiments.tasks.configuration import Budget, is_joint, learner_config
from benchmarks.experiments.tasks.task_games import TaskGame
from benchmarks.suite.api import Case
from benchmarks.training.greedy_rollout import train_with_evaluations


def train_learner(case: Case, tuned: Mapping[str, Any], *, seed: int, of_trial: bool = False) -> dict[str, Any]:
    """Train a case's method.

    Args:
        case: names method, task, settings and budget.
        tuned: options in place of the settings'.
        seed: of the training.
        of_trial: whether it is a trial of the search, with a part of the budget and a judge of its own.

    Returns:
        ``curve``: greedy return (currency per request), environment steps, seconds and CPU seconds of each evaluation;
        ``gradient_steps``.
    """
    game = TaskGame(case.task, case.budget["judged"], of_trial)
    budget = Budget.from_case(case)
    evaluations = int(case.budget["evaluations"])
    every = max(1, budget.iterations // evaluations)
    budget = budget.of_trial if of_trial else budget
    joint = is_joint(algorithm_config(case.method))
    config = learner_config(case, game, budget, tuned, seed)
    view = game.episode_steps(joint=joint) // game.episode_steps()
    curve, numbers = train_with_evaluations(config, budget.env_steps * view, game.scorer(joint=joint), every)
    points = [point | {"env_steps": point["env_steps"] // view} for point in curve]
    return {"curve": points, "gradient_steps": numbers.get("gradient_steps")}
