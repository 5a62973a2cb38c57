"""Leaderboard of the environment: ten presets and RLlib's PPO and DQN, greedy return against steps and seconds.

The reward is revenue less computation at fixed prices λ (Eq. 6, arXiv 2512.24325), those of a minute of mean traffic:
by revenue alone the best policy is to spend everything. It is the expectation by the fitted models, without the noise
of single requests. All methods get the same environment steps, gradient steps and network sizes. Beside them stand a
random policy, the best single joint action, and the exact optimum of every request. Policies are evaluated on the whole
population, each state weighted by its share of the requests: returns are exact, and intervals over seeds show the
spread of the training alone.

``cases(methods=...)`` takes any names, and also the dotted path of an algorithm of your own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from agents.algorithms.presets import PRESETS
from benchmarks.experiments.marl import leaderboard
from benchmarks.experiments.marl.population_engine import PopulationEngine
from benchmarks.experiments.marl.settings import METHODS, REFERENCES, REWARD_SCALE, method_settings
from benchmarks.suite.api import Case, Row
from benchmarks.suite.user_methods import check_method_name
from marca_env.models.engine import get_engine

SEEDS = (0, 1, 2, 3, 4)
PRICES = (9.07, 2.03)
"""λ of the two clusters, currency per core-second: they fit the budgets at the mean traffic of a generated day."""
BUDGET: dict[str, Any] = {"env_steps": 20_000, "updates": 1_000, "evaluations": 10, "states": None}
QUICK_BUDGET: dict[str, Any] = {"env_steps": 200, "updates": 20, "evaluations": 2, "states": 50}
"""``states``: number of states of the population to test on, from the first on; ``None``: all."""
ITERATIONS, QUICK_ITERATIONS = 40, 2
"""Number of iterations; each has ``env_steps / ITERATIONS`` steps and ``updates / ITERATIONS`` gradient steps."""


def cases(*, quick: bool, seeds: Sequence[int], methods: Sequence[str] | None = None) -> list[Case]:
    """Return the references, then every method, seed by seed.

    Args:
        quick: a small run.
        seeds: of the training.
        methods: names of :data:`METHODS` or dotted paths; ``None``: all.
    """
    method_names = tuple(methods) if methods is not None else ("VDN", "PPO shared") if quick else METHODS
    budget = QUICK_BUDGET if quick else BUDGET
    iterations = QUICK_ITERATIONS if quick else ITERATIONS
    config = {"prices": list(PRICES), "iterations": iterations, "reward_scale": REWARD_SCALE}
    runs = [(method, 0) for method in REFERENCES] + [(method, seed) for seed in seeds for method in method_names]
    return [
        Case(method, seed, task="lagrangian", budget=budget, config=config | {"settings": method_settings(method)})
        for method, seed in runs
    ]


def check(case: Case) -> None:
    """Check that a case's method can learn here.

    Raises:
        InputError: the method is unknown, or of a kind that the leaderboard does not take.
    """
    if case.method in REFERENCES:
        return
    from benchmarks.experiments.marl.configuration import leaderboard_config

    check_method_name(case.method, "leaderboard", (*METHODS, *PRESETS, "PPO", "DQN"), "an algorithm")
    leaderboard_config(case)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train a method, or compute a reference.

    Returns:
        ``curve``: greedy return (currency per request), environment steps and seconds of training of each evaluation.
    """
    judge = PopulationEngine.from_engine(get_engine(case.scenario), case.budget["states"])
    if case.method in REFERENCES:
        curve = [{"env_steps": 0, "return": _reference_return(case, judge), "seconds": 0.0}]
        return {"curve": curve, "constant": True}
    from benchmarks.experiments.marl.training import train_learner

    return train_learner(case, judge)


def _reference_return(case: Case, judge: PopulationEngine) -> float:
    revenue, costs = judge.table(judge.population.states)
    net_revenue = revenue - costs @ np.asarray(case.config["prices"], np.float32)  # (U, J): states, joint actions
    returns = {
        "random": judge.shares @ net_revenue.mean(axis=1),
        "best single action": (judge.shares @ net_revenue).max(),
        "optimum": judge.shares @ net_revenue.max(axis=1),
    }
    return float(returns[case.method])


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return the final returns, and how fast they were reached."""
    return leaderboard.tables(rows, REFERENCES)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw the returns against steps and against seconds."""
    return leaderboard.figures(rows, REFERENCES, folder)
