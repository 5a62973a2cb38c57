"""Public tasks that are not ours: QMIX and VDN beside independent Q-learning and a random policy, five seeds each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.plotting.curves import LABELS, band, curve, figure
from benchmarks.suite.api import Case, Row
from benchmarks.training.greedy_rollout import greedy_team_policy, play_episodes, train_with_evaluations

SEEDS = (0, 1, 2, 3, 4)
METHODS = ("random", "QMIX", "VDN", "IQL")
EVALUATION_SEED = 1_000_000
"""First of the seeds of the evaluation episodes: for each seed of training its own, the same for every policy."""


@dataclass(frozen=True)
class Task:
    """A task, its budget, and what the algorithms are given on it beside their own defaults."""

    title: str
    env: str
    """Dotted path of the ParallelEnv."""
    env_config: Mapping[str, Any]
    env_steps: int
    """Steps of the environment that a run may take."""
    options: Mapping[str, Any]
    """Of ``config.training``."""
    num_envs: int = 32
    evaluate_every: int = 5
    """Iterations, of ``num_envs`` episodes each, between two evaluations."""
    episodes: int = 50
    """Of an evaluation."""


LEARNING: dict[str, Any] = {
    "share_parameters": True,
    "gru": None,
    "hidden": (64, 64),
    "normalization": "layer",
    "gamma": 0.8,
    "tau": 0.02,
    "buffer_capacity": 5000,
    "learning_starts": 64,
    "train_batch_size_per_learner": 16,
}
"""Common to the tasks. Agents share one network and the buffer holds 5,000 episodes, as in EPyMARL; the networks are
feed-forward, because everything is observed. The budget is a fiftieth of the usual two million steps, hence the faster
learning rates and targets, and the shorter horizon: a step that is wasted costs a fifth of the value, where with 0.99
it would cost a hundredth, which networks tell apart only after many more updates. Both tasks are solved
within a few steps, so that the best policy is about the same. Horizon, rates and budget were chosen with QMIX alone, on
seeds that are not reported; foraging was given twice the updates when the curves of reported seeds, too, still rose at
the end of a first budget."""

TASKS: dict[str, Task] = {
    "simple_spread": Task(
        title="simple_spread_v3 (N = 3, local_ratio 0.5, 25 steps)",
        env="benchmarks.experiments.public.environments.SimpleSpread",
        env_config={"agents": 3, "local_ratio": 0.5, "max_cycles": 25},
        env_steps=40_000,
        options={
            **LEARNING,
            "lr": 2e-3,
            "loss": "huber",  # an agent that has left the arena makes errors far larger than those to be learnt
            "huber_delta": 0.1,
            "epsilon": [[0, 1.0], [20_000, 0.05]],
            "updates_per_iteration": 32,
        },
    ),
    "foraging": Task(
        title="level-based foraging (5x5-2p-1f-v3)",
        env="benchmarks.experiments.public.environments.Foraging",
        env_config={"task": "Foraging-5x5-2p-1f-v3"},
        env_steps=40_000,
        options={
            **LEARNING,
            "lr": 3e-3,
            "epsilon": [[0, 1.0], [30_000, 0.05]],
            "reward_scale": 0.1,
            "updates_per_iteration": 40,
        },
        evaluate_every=10,
    ),
}


def cases(*, quick: bool, seeds: Sequence[int], methods: Sequence[str] | None = None) -> list[Case]:
    """Every method on every task; ``methods``: ``random``, presets, or the dotted paths of configurations like them."""
    chosen = {name: _shrunk(task) if quick else task for name, task in TASKS.items()}
    return [
        _case(method, seed, name, task)
        for seed in seeds
        for name, task in chosen.items()
        for method in (METHODS if methods is None else methods)
    ]


def _case(method: str, seed: int, name: str, task: Task) -> Case:
    budget, config = {"env_steps": task.env_steps, "episodes": task.episodes}, {"env_config": dict(task.env_config)}
    if method != "random":
        learning = {name: getattr(task, name) for name in ("options", "num_envs", "evaluate_every")}
        config |= learning
    return Case(method, seed, scenario=task.env, task=name, budget=budget, config=config)


def _shrunk(task: Task) -> Task:
    options = {**task.options, "learning_starts": 4, "updates_per_iteration": 2, "train_batch_size_per_learner": 4}
    return replace(task, env_steps=300, options=options, num_envs=4, evaluate_every=1, episodes=10)


# -- a case ---------------------------------------------------------------------------------------------------------
def measure(case: Case, folder: Path) -> dict[str, Any]:
    """``curve``: greedy return, environment steps and seconds of training of each evaluation.

    Raises:
        InputError: an unknown method, or an option that it does not have.
        ImportError: mpe2 or lbforaging is not installed.
    """
    from agents.rllib.envs.make_env import make_batched

    env = make_batched(case.scenario, min(25, int(case.budget["episodes"])), case.config["env_config"])
    try:
        return {"curve": (_random if case.method == "random" else _trained)(case, env)}
    finally:
        env.close()


def _returns(case: Case, env: Any, policy: Any) -> float:
    return float(play_episodes(env, policy, int(case.budget["episodes"]), EVALUATION_SEED + 1000 * case.seed).mean())


def _random(case: Case, env: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(case.seed)

    def act(step: Any) -> dict[str, np.ndarray]:
        draws = {a: np.where(m, rng.random(m.shape), -1.0) for a, m in step.masks.items()}
        return {a: d.argmax(-1) for a, d in draws.items()}

    return [{"env_steps": 0, "return": _returns(case, env, lambda batch: act), "seconds": 0.0}]


def _trained(case: Case, env: Any) -> list[dict[str, Any]]:
    from agents.rllib.training.any_algorithm import algorithm_config

    given = case.config
    config = algorithm_config(case.method).environment(case.scenario, env_config=dict(given["env_config"]))
    config.env_runners(num_envs_per_env_runner=given["num_envs"]).training(**given["options"]).debugging(seed=case.seed)

    def score(algorithm: Any) -> float:
        return _returns(case, env, greedy_team_policy(algorithm.env_runner.module))

    return train_with_evaluations(config, int(case.budget["env_steps"]), score, given["evaluate_every"])[0]


# -- tables ---------------------------------------------------------------------------------------------------------
def curves(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Task → method → :func:`benchmarks.plotting.curves.curve` of its seeds."""
    runs: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        runs.setdefault(row.case.task, {}).setdefault(row.case.method, []).append(row.numbers["curve"])
    return {task: {method: curve(seeds) for method, seeds in found.items()} for task, found in runs.items()}


def tables(rows: Sequence[Row]) -> Iterator[Any]:
    """Final greedy returns per task and method."""
    for task, found in curves(rows).items():
        table = Table(title=TASKS[task].title, title_justify="left")
        for column in ("policy", "mean", "95 % over seeds", "seeds", "seconds a run"):
            table.add_column(column, justify="left" if column in ("policy", "seeds") else "right")
        for method, line in found.items():
            last = np.asarray(line["returns"])[:, -1:]
            (low,), (high,) = band(last)
            interval = "–" if np.isnan(low) else f"[{low:.2f}, {high:.2f}]"  # of one seed there is none
            cells = (f"{last.mean():.2f}", interval, ", ".join(f"{x:.2f}" for x in last[:, 0]))
            table.add_row(LABELS.get(method, method), *cells, f"{np.mean(line['seconds']):.0f}")
        yield table


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Learning curves, a panel for each task."""
    found = curves(rows)
    figure(found, {task: TASKS[task].title for task in found}, folder / "public.png")
    return {"Greedy return on public tasks": folder / "public.png"}
