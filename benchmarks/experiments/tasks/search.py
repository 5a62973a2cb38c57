"""Search for a method's options on a task through Ray Tune: a few trials at a part of a run's budget, other seeds.

The first trial has the settings that all tasks share; the others are scrambled Sobol points of the method's space. The
result of a search is kept beside the records, so that all seeds of a method use the same one.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from ray import tune
from scipy.stats import qmc

from agents.rllib.core.cluster import start_ray
from benchmarks.experiments.tasks.configuration import kind_of
from benchmarks.experiments.tasks.learner import train_learner
from benchmarks.experiments.tasks.settings import TUNING_SEED
from benchmarks.suite.api import Case
from benchmarks.suite.user_methods import user_config
from benchmarks.training.console import silence_libraries
from benchmarks.training.tune_search import fit
from marca_env.utils.errors import InputError
from marca_env.utils.files import read_json, write_json

WORST = -1e9
"""Score of a trial that has diverged."""


def tuned_options(case: Case, folder: Path) -> dict[str, Any]:
    """Return the result of the search for a case's method and task, of this or an earlier case.

    Args:
        case: of any seed.
        folder: of the experiment; a search that another process makes is waited for.

    Returns:
        ``tuned``: the best options; ``trials``: options, score and CPU seconds of each; ``is_new``: whether the search
        was made now.

    Raises:
        InputError: a trial failed.
    """
    path = folder / "tuning" / f"{replace(case, seed=TUNING_SEED).key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            return {**read_json(path), "is_new": False}
        trials = _search(case)
        best = max(trials, key=lambda trial: trial["score"])
        result = {"method": case.method, "task": case.task, "tuned": best["options"], "trials": trials}
        write_json(path, result)
    return {**result, "is_new": True}


def tuned_run(case: Case, folder: Path) -> dict[str, Any]:
    """Return what :func:`train_learner` measures with the best options, and the search that found them."""
    search = tuned_options(case, folder)
    run = train_learner(case, search["tuned"], seed=case.seed)
    return {**run, **{name: search[name] for name in ("tuned", "trials", "is_new")}}


def points(space: Mapping[str, Mapping[str, Sequence[float]]], first: Mapping[str, Any], count: int) -> list[dict]:
    """Return the options of all trials: ``first``, then scrambled Sobol points.

    Args:
        space: option → one draw, ``{"loguniform": [low, high]}`` or ``{"choice": [values]}``.
        first: settings, from which the options of ``space`` are taken.
        count: number of trials.
    """
    draws = qmc.Sobol(len(space), seed=TUNING_SEED).random(max(1, 2 ** math.ceil(math.log2(max(count - 1, 1)))))
    drawn = [
        {name: _value(draw, u) for (name, draw), u in zip(space.items(), row, strict=True)}
        for row in draws[: count - 1]
    ]
    return [{name: first[name] for name in space if name in first}, *drawn][:count]


def _value(draw: Mapping[str, Sequence[float]], u: float) -> float:
    kind, values = next(iter(draw.items()))
    if kind == "choice":
        return values[min(int(u * len(values)), len(values) - 1)]
    low, high = np.log(values)
    return float(f"{np.exp(low + u * (high - low)):.3g}")


def _search(case: Case) -> list[dict[str, Any]]:
    """Run the trials, one after the other on one CPU."""
    kind = kind_of(user_config(case.method))
    own = case.config.get("own", {})
    space = {name: draw for name, draw in case.config["spaces"][kind].items() if name not in own}
    every = points(space, case.config["settings"][kind], int(case.budget["trials"])) if space else [{}]
    start_ray(num_cpus=1)
    trainable = tune.with_resources(tune.with_parameters(_trial, case=case.to_dict(), points=every), {"cpu": 1})
    with tempfile.TemporaryDirectory() as storage, redirect_stdout(io.StringIO()):  # Tune prints at any verbosity
        tuner = tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search(list(range(len(every))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
            run_config=tune.RunConfig(verbose=0, storage_path=storage),
        )
        results = fit(tuner)
    if results.num_errors:
        raise InputError(
            f"the search of {case.method} on {case.task}: {results.num_errors} of {len(every)} trials failed; the "
            f"first error: {results.errors[0]}"
        )
    metrics = sorted((result.metrics for result in results), key=lambda m: m["trial"])
    return [{"options": every[m["trial"]], "score": m["score"], "cpu_seconds": m["cpu_seconds"]} for m in metrics]


def _trial(config: dict[str, Any], *, case: dict[str, Any], points: list[dict[str, Any]]) -> dict[str, Any]:
    """Run one trial, in a Ray process."""
    silence_libraries()
    described = Case(**json.loads(json.dumps(case)))
    run = train_learner(described, points[config["trial"]], seed=TUNING_SEED, of_trial=True)
    return {
        "trial": config["trial"],
        "score": final_score(run["curve"]),
        "cpu_seconds": run["curve"][-1]["cpu_seconds"],
    }


def final_score(curve: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean of the last two evaluations; the worst possible if a run has diverged."""
    score = float(np.mean([point["return"] for point in curve[-2:]]))
    return score if np.isfinite(score) else WORST
