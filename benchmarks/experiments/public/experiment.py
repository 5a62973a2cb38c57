"""Tasks published by others: QMIX and VDN beside independent Q-learning and a random policy, five seeds each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
"""First seed of the evaluation episodes: each training seed has its own episodes, the same for every policy."""


@dataclass(frozen=True)
class Task:
    """A task and its budget."""

    title: str
    env: str
    """Name of the environment, as ``marca train --env`` takes it."""
    env_steps: int
    """Environment steps of a run."""
    evaluate_every: int
    """Iterations, of ``num_envs`` episodes each, between two evaluations."""
    env_config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``config.training``."""
    num_envs: int = 8
    episodes: int = 100
    """Episodes of an evaluation."""


def _options(env_steps: int) -> dict[str, Any]:
    """Return the options of a run: sizes and rates alone, the same for all tasks and methods.

    They are those of a comparison with EPyMARL: agents share one feed-forward network, the buffer holds 5,000 episodes
    and each episode is followed by one update. Scale of rewards, start of networks and losses are the defaults. The
    budget is a twentieth of the usual two million steps or less, hence the fast rates and the short horizon.
    """
    return {
        "share_parameters": True,
        "gru": None,
        "hidden": (64, 64),
        "lr": 2e-3,
        "gamma": 0.9,
        "tau": 0.02,
        "buffer_capacity": 5000,
        "learning_starts": 32,
        "train_batch_size_per_learner": 32,
        "updates_per_iteration": 8,
        "epsilon": [[0, 1.0], [env_steps // 2, 0.05]],
    }


def _task(title: str, env: str, env_steps: int, evaluate_every: int, **env_config: Any) -> Task:
    return Task(title, env, env_steps, evaluate_every, env_config, _options(env_steps))


TASKS: dict[str, Task] = {
    "foraging": _task("foraging 5x5-2p-1f-v3", "lbforaging:Foraging-5x5-2p-1f-v3", 100_000, 100),
    "foraging-coop": _task("foraging 8x8-2p-2f-coop-v3", "lbforaging:Foraging-8x8-2p-2f-coop-v3", 100_000, 50),
    "simple_spread": _task("simple_spread_v3", "mpe2.simple_spread_v3", 50_000, 25, N=3, max_cycles=25),
    "climbing": _task("climbing game", "games/climbing-v0", 5_000, 125),
    "penalty": _task("penalty game (-10)", "games/penalty-v0", 5_000, 125),
}


def cases(
    *, quick: bool, seeds: Sequence[int], methods: Sequence[str] | None = None, tasks: Sequence[str] | None = None
) -> list[Case]:
    """Return every method on every task.

    Args:
        quick: a small run.
        seeds: of the training.
        methods: ``random``, presets, or the dotted paths of configurations; ``None``: :data:`METHODS`.
        tasks: names of :data:`TASKS`, or any environments as ``marca train --env`` takes them; ``None``: :data:`TASKS`.

    Raises:
        InputError: an unknown environment, or one that the presets cannot learn in.
    """
    chosen_tasks = {name: _find_task(name) for name in (TASKS if tasks is None else tasks)}
    if quick:
        chosen_tasks = {name: _shrunk(task) for name, task in chosen_tasks.items()}
    return [
        _case(method, seed, name, task)
        for seed in seeds
        for name, task in chosen_tasks.items()
        for method in (METHODS if methods is None else methods)
    ]


def _find_task(name: str) -> Task:
    """Return a task by its name, or one with a common budget for any other environment."""
    if name in TASKS:
        return TASKS[name]
    from agents.rllib.envs.make_env import make_batched

    make_batched(name, 1).close()
    return _task(name, name, 50_000, 25)


def _case(method: str, seed: int, name: str, task: Task) -> Case:
    budget, config = {"env_steps": task.env_steps, "episodes": task.episodes}, {"env_config": dict(task.env_config)}
    if method != "random":
        config |= {name: getattr(task, name) for name in ("options", "num_envs", "evaluate_every")}
    return Case(method, seed, scenario=task.env, task=name, budget=budget, config=config)


def _shrunk(task: Task) -> Task:
    options = {**task.options, "learning_starts": 4, "updates_per_iteration": 2, "train_batch_size_per_learner": 4}
    return replace(task, env_steps=300, options=options, num_envs=4, evaluate_every=1, episodes=10)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train a method, or play at random.

    Returns:
        ``curve``: greedy return, environment steps, seconds and CPU seconds of training of each evaluation.

    Raises:
        InputError: the method is unknown or has no such option, or mpe2 or lbforaging is not installed.
    """
    from agents.rllib.envs.make_env import make_batched

    env = make_batched(case.scenario, min(25, int(case.budget["episodes"])), case.config["env_config"])
    try:
        return {"curve": (_random_curve if case.method == "random" else _training_curve)(case, env)}
    finally:
        env.close()


def _mean_return(case: Case, env: Any, policy: Any) -> float:
    return float(play_episodes(env, policy, int(case.budget["episodes"]), EVALUATION_SEED + 1000 * case.seed).mean())


def _random_curve(case: Case, env: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(case.seed)

    def act(step: Any) -> dict[str, np.ndarray]:
        draws = {a: np.where(m, rng.random(m.shape), -1.0) for a, m in step.masks.items()}
        return {a: d.argmax(-1) for a, d in draws.items()}

    return [{"env_steps": 0, "return": _mean_return(case, env, lambda batch: act), "seconds": 0.0, "cpu_seconds": 0.0}]


def _training_curve(case: Case, env: Any) -> list[dict[str, Any]]:
    from agents.rllib.training.any_algorithm import algorithm_config

    settings = case.config
    config = algorithm_config(case.method).environment(case.scenario, env_config=dict(settings["env_config"]))
    config.env_runners(num_envs_per_env_runner=settings["num_envs"]).debugging(seed=case.seed)
    config.training(**settings["options"])

    def score(algorithm: Any) -> float:
        return _mean_return(case, env, greedy_team_policy(algorithm.env_runner.module))

    return train_with_evaluations(config, int(case.budget["env_steps"]), score, settings["evaluate_every"])[0]


def curves(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return task → method → :func:`benchmarks.plotting.curves.curve` of its seeds."""
    runs: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        runs.setdefault(row.case.task, {}).setdefault(row.case.method, []).append(row.numbers["curve"])
    return {task: {method: curve(seeds) for method, seeds in methods.items()} for task, methods in runs.items()}


def _title(task: str) -> str:
    return TASKS[task].title if task in TASKS else task


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """Yield the final greedy returns by method, a table for each task."""
    for task, methods in curves(rows).items():
        table = Table(title=_title(task), title_justify="left")
        for column in ("policy", "mean", "95 % over seeds", "seeds", "CPU seconds"):
            table.add_column(column, justify="left" if column in ("policy", "seeds") else "right")
        for method, line in methods.items():
            last = np.asarray(line["returns"])[:, -1:]
            (low,), (high,) = band(last)
            interval = "–" if np.isnan(low) else f"[{low:.2f}, {high:.2f}]"  # one seed has no interval
            cells = (f"{last.mean():.2f}", interval, ", ".join(f"{x:.2f}" for x in last[:, 0]))
            table.add_row(LABELS.get(method, method), *cells, f"{np.mean(line['cpu_seconds']):.0f}")
        yield table


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Draw the learning curves, a panel for each task."""
    by_task = curves(rows)
    figure(by_task, {task: _title(task) for task in by_task}, folder / "public.png")
    return {"Greedy return on public tasks": folder / "public.png"}
