"""Every method on every task of the suite: tuned alike, five seeds, scores between static and joint decisions.

The reward is revenue less computation at the task's prices. A method's options are searched on each task by the same
number of trials (half of a run's budget, other seeds, never judged on what is reported), and the best go into its runs.
Policies are judged greedily: on the whole population where it can be enumerated, on held-out requests where the task
has them, and in a fixed set of windows where an episode has many requests; all methods meet the same requests. A score
of 0 is the best static action, 1 the bound of joint decisions from the task's card.

``--tasks deadline-v0 --methods QMIX VDN my_module.Mine`` measures a part. Two such commands may run side by side in one
folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from agents.algorithms.presets import PRESETS
from agents.tasks.registry import SUITE, available_suite
from benchmarks.experiments.tasks import leaderboard
from benchmarks.experiments.tasks.references import reference_return
from benchmarks.experiments.tasks.settings import METHODS, QUICK_TRIALS, REFERENCES, TRIALS, method_settings
from benchmarks.experiments.tasks.task_games import TaskGame, check_task
from benchmarks.suite.api import Case, Row
from benchmarks.suite.user_methods import check_method_name

SEEDS = (0, 1, 2, 3, 4)
SIDE_BY_SIDE = True
ALONE = True
"""A search needs a CPU for its trials beside that of its case."""
BUDGET: dict[str, Any] = {"env_steps": 40_000, "updates": 1_000, "iterations": 40, "evaluations": 10}
WINDOW_BUDGET: dict[str, Any] = {"env_steps": 60_000, "updates": 1_000, "iterations": 40, "evaluations": 10}
"""Of tasks whose episodes are windows of requests."""
QUICK_BUDGET: dict[str, Any] = {"env_steps": 400, "updates": 20, "iterations": 2, "evaluations": 2}
QUICK_JUDGED, QUICK_JUDGED_WINDOWS = 50, 2
QUICK_METHODS = ("VDN", "MAPPO")


def cases(
    *, quick: bool, seeds: Sequence[int], methods: Sequence[str] | None = None, tasks: Sequence[str] | None = None
) -> list[Case]:
    """Return the references of each task, then every method, task by task and seed by seed.

    Args:
        quick: a small run.
        seeds: of the training.
        methods: names of :data:`METHODS` or dotted paths; ``None``: all.
        tasks: ids of the suite; ``None``: those that this version has.

    Raises:
        InputError: an unknown task.
    """
    found = []
    method_names = tuple(methods) if methods is not None else QUICK_METHODS if quick else METHODS
    for task in tasks or available_suite():
        check_task(task)
        game = TaskGame(task)
        budget = dict(QUICK_BUDGET if quick else WINDOW_BUDGET if game.is_window else BUDGET)
        judged = (QUICK_JUDGED_WINDOWS if game.is_window else QUICK_JUDGED) if quick else None
        if quick and game.is_window:  # at least one window an iteration
            budget["env_steps"] = budget["iterations"] * game.requests * len(game.scenario.decisions)
        budget |= {"trials": QUICK_TRIALS if quick else TRIALS, "judged": judged}
        scenario = SUITE[task].options["scenario"]
        runs = [(name, 0) for name in REFERENCES] + [(name, seed) for seed in seeds for name in method_names]
        for method, seed in runs:
            settings = method_settings(method, window=game.is_window)
            of_case = {"judged": judged} if method in REFERENCES else budget
            share = {"share_parameters": True} if game.has_equal_agents and method not in REFERENCES else {}
            config = {"prices": list(game.options["prices"]), **settings, **share}
            found.append(Case(method, seed, scenario=scenario, task=task, budget=of_case, config=config))
    return found


def check(case: Case) -> None:
    """Check that a case's method can learn on its task.

    Raises:
        InputError: the method is unknown, or of a kind that the leaderboard does not take.
    """
    if case.method in REFERENCES:
        return
    from benchmarks.experiments.tasks.configuration import Budget, learner_config

    check_method_name(case.method, "leaderboard", (*METHODS, *PRESETS), "an algorithm")
    game = TaskGame(case.task, case.budget["judged"])
    learner_config(case, game, Budget.from_case(case), {}, case.seed)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Tune and train a method, or compute a reference.

    Returns:
        ``curve``: greedy return (currency per request), environment steps and seconds of training of each evaluation;
        of a method also ``tuned`` and ``trials``, those of its search, and ``is_new``, whether this case made it; of a
        reference also ``how`` and ``is_estimate``.
    """
    if case.method in REFERENCES:
        found = reference_return(TaskGame(case.task, case.budget["judged"]), case.method)
        value = found.value if np.isfinite(found.value) else None
        curve = [{"env_steps": 0, "return": value, "seconds": 0.0}]
        return {"curve": curve, "constant": True, "how": found.how, "is_estimate": found.is_estimate}
    from benchmarks.experiments.tasks.search import tuned_run

    return tuned_run(case, folder)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return the leaderboard of each task, the aggregate, what separates methods, and what the searches found."""
    return leaderboard.tables(rows)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw the learning curves of each task and the performance profiles over all of them."""
    return leaderboard.figures(rows, folder)
