"""Public tasks that are not ours: QMIX and VDN beside independent Q-learning and a random policy, five seeds each.

Every run (task, algorithm, seed) keeps its greedy evaluations as JSON lines in ``out``; one that is there already is
read, not repeated and not overwritten, so that an interrupted experiment goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curves import LABELS, band, curve, figure
from benchmarks.progress import progress
from marca_env.errors import InputError
from marca_env.saving import atomic_path

logger = logging.getLogger(__name__)
SEEDS = (0, 1, 2, 3, 4)
ALGORITHMS = ("QMIX", "VDN", "IQL")
EVALUATION_SEED = 1_000_000
"""First of the seeds of the evaluation episodes: for each seed of training its own, the same for every policy."""
Act = Callable[[Any], dict[str, np.ndarray]]
"""Actions (B,) of every agent for a batched step."""


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
        env="benchmarks.public_envs.SimpleSpread",
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
        env="benchmarks.public_envs.Foraging",
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


def run(
    out: Path,
    *,
    quick: bool = False,
    seeds: Sequence[int] = SEEDS,
    tasks: Sequence[str] = tuple(TASKS),
    algorithms: Sequence[str] = ALGORITHMS,
) -> dict[str, Any]:
    """Train what is not trained yet, and draw ``out/public.png``.

    Args:
        out: folder of the runs and the figure.
        quick: two evaluations of a few episodes, in ``out/quick``.
        seeds, tasks, algorithms: which runs.

    Returns:
        ``settings`` of each task, ``curves`` (task → algorithm → evaluations) and ``final`` (task → algorithm → the
        last evaluation of every seed, their mean, and its 95 % bootstrap interval).

    Raises:
        InputError: a run in ``out`` was made with other settings.
        ImportError: mpe2 or lbforaging is not installed.
    """
    chosen = {name: _shrunk(TASKS[name]) if quick else TASKS[name] for name in tasks}
    out = Path(out) / "quick" if quick else Path(out)
    names = ("random", *algorithms)
    planned = [
        Run(name, task, algorithm, seed) for seed in seeds for name, task in chosen.items() for algorithm in names
    ]
    with progress("public tasks", len(planned)) as advance:
        for one in planned:
            one.rows(out)
            advance()
    curves = {
        name: {algorithm: curve([Run(name, task, algorithm, seed).rows(out) for seed in seeds]) for algorithm in names}
        for name, task in chosen.items()
    }
    figure(curves, {name: task.title for name, task in chosen.items()}, out / "public.png")
    return {
        "settings": {name: asdict(task) for name, task in chosen.items()},
        "curves": curves,
        "final": {name: {a: _final(c) for a, c in found.items()} for name, found in curves.items()},
    }


def _shrunk(task: Task) -> Task:
    options = {**task.options, "learning_starts": 4, "updates_per_iteration": 2, "train_batch_size_per_learner": 4}
    return replace(task, env_steps=300, options=options, num_envs=4, evaluate_every=1, episodes=10)


@dataclass(frozen=True)
class Run:
    """One training run, or one measurement of the random policy."""

    name: str
    task: Task
    algorithm: str
    seed: int
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        what = {"name": self.name, "algorithm": self.algorithm, "seed": self.seed, **asdict(self.task)}
        object.__setattr__(self, "settings", json.loads(json.dumps(what)))

    def rows(self, out: Path) -> list[dict[str, Any]]:
        """Its evaluations ``{env_steps, return, seconds}``, read if it has been made, else made and kept."""
        path = out / f"{self.name}-{self.algorithm}-{self.seed}.jsonl"
        if path.exists():
            settings, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
            if settings != self.settings:
                raise InputError(f"{path}: made with other settings; move it away, or choose another folder")
            return rows
        rows = self._random() if self.algorithm == "random" else self._train()
        out.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in (self.settings, *rows)), encoding="utf-8")
        return rows

    def _random(self) -> list[dict[str, Any]]:
        start, env = time.perf_counter(), self._judge()
        rng = np.random.default_rng(self.seed)

        def act(step: Any) -> dict[str, np.ndarray]:
            draws = {a: np.where(m, rng.random(m.shape), -1.0) for a, m in step.masks.items()}
            return {a: d.argmax(-1) for a, d in draws.items()}

        found = play(env, lambda n: act, self.task.episodes, EVALUATION_SEED + 1000 * self.seed)
        env.close()
        return [{"env_steps": 0, "return": float(found.mean()), "seconds": time.perf_counter() - start}]

    def _train(self) -> list[dict[str, Any]]:
        from agents.rllib import CONFIGS
        from benchmarks.training import whole_training

        task, start, env = self.task, time.perf_counter(), self._judge()
        rows: list[dict[str, Any]] = []
        config = CONFIGS[self.algorithm]().environment(task.env, env_config=dict(task.env_config))
        config.env_runners(num_envs_per_env_runner=task.num_envs).training(**task.options).debugging(seed=self.seed)

        def evaluate(algorithm: Any) -> dict[str, float]:
            policy = greedy(algorithm.env_runner.module)
            return {"return": float(play(env, policy, task.episodes, EVALUATION_SEED + 1000 * self.seed).mean())}

        def report(numbers: Mapping[str, Any]) -> None:
            if "return" in numbers:
                row = {"env_steps": int(numbers["env_steps"]), "return": numbers["return"]}
                rows.append(row | {"seconds": time.perf_counter() - start})
                logger.info("%s, %s, seed %d: %s", self.name, self.algorithm, self.seed, rows[-1])

        algorithm, _ = whole_training(
            config,
            stop={"env_steps": task.env_steps},
            report=report,
            evaluate=evaluate,
            evaluate_freq=task.evaluate_every,
        )
        algorithm.stop()
        env.close()
        return rows

    def _judge(self) -> Any:
        """The environment of the evaluations."""
        from agents.rllib.vector import make_batched

        return make_batched(self.task.env, min(25, self.task.episodes), self.task.env_config)


def greedy(module: Any) -> Callable[[int], Act]:
    """The greedy policy of a team's module, made afresh (recurrent states at zero) for a batch of episodes."""
    import torch

    from agents.team import action_key, mask_key, obs_key

    def begin(batch: int) -> Act:
        hidden = module.initial_hidden(batch)

        def act(step: Any) -> dict[str, np.ndarray]:
            columns = {obs_key(a): torch.from_numpy(seen) for a, seen in step.observations.items()}
            columns |= {mask_key(a): torch.from_numpy(legal) for a, legal in step.masks.items()}
            out = module.forward_inference({**columns, **hidden})
            hidden.update({name: out[name] for name in hidden})
            return {a: out[action_key(a)].numpy() for a in step.observations}

        return act

    return begin


def play(env: Any, policy: Callable[[int], Act], episodes: int, seed: int) -> np.ndarray:
    """Undiscounted returns (episodes,) of a policy; each round of ``num_envs`` episodes has its own seed."""
    returns: list[np.ndarray] = []
    while len(returns) * env.num_envs < episodes:
        step = env.reset(seed=seed + len(returns) * env.num_envs)
        act, total, running = policy(env.num_envs), np.zeros(env.num_envs), np.ones(env.num_envs, dtype=bool)
        while running.any():
            step = env.step(act(step))
            total += step.reward * running
            running &= ~(step.terminated | step.truncated)
        returns.append(total)
    return np.concatenate(returns)[:episodes]


def _final(found: Mapping[str, Any]) -> dict[str, Any]:
    last = np.asarray(found["returns"])[:, -1:]
    low, high = band(last)
    return {
        "seeds": last[:, 0].tolist(),
        "mean": float(last.mean()),
        "low": float(low[0]),
        "high": float(high[0]),
        "seconds": float(np.mean(found["seconds"])),
    }


def tables(result: Mapping[str, Any]) -> Iterator[Any]:
    """Final greedy returns per task and algorithm."""
    from rich.table import Table

    for name, found in result["final"].items():
        table = Table(title=result["settings"][name]["title"], title_justify="left")
        for column in ("policy", "mean", "95 % over seeds", "seeds", "seconds a run"):
            table.add_column(column, justify="left" if column in ("policy", "seeds") else "right")
        for algorithm, numbers in found.items():
            table.add_row(*_cells(algorithm, numbers))
        yield table


def _cells(algorithm: str, numbers: Mapping[str, Any]) -> Iterable[str]:
    yield LABELS.get(algorithm, algorithm)
    yield f"{numbers['mean']:.2f}"
    yield "–" if np.isnan(numbers["low"]) else f"[{numbers['low']:.2f}, {numbers['high']:.2f}]"
    yield ", ".join(f"{x:.2f}" for x in numbers["seeds"])
    yield f"{numbers['seconds']:.0f}"
