"""Random search for settings through Ray Tune, and finals of the best trials, on validation rows alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from agents.algorithms.presets import PRESETS
from agents.rllib.core.cluster import start_ray
from benchmarks.offline.offline_runs import run_offline
from benchmarks.suite.own_experiments import mark_own, may_import
from benchmarks.suite.user_methods import user_config
from benchmarks.training.tune_search import fit
from marca_env.utils.errors import InputError

SCORE = "spearman_model"
"""The score that is maximised: r_s on validation rows, by the ensemble."""


def search(
    method: str,
    space: Mapping[str, Any],
    start: Mapping[str, Any],
    *,
    trials: int,
    updates: int,
    batch: int,
    seed: int,
    folder: Path,
) -> list[dict[str, Any]]:
    """Try settings of a method; an interrupted search continues where it stopped.

    Args:
        method: a preset, or the dotted path of a user's configuration.
        space: option → its draw.
        start: settings of the first trial, which the others keep where ``space`` does not name them.
        trials: number of trials.
        updates: gradient steps of a trial.
        batch: requests of a gradient step.
        seed: of the draws, and of every training.
        folder: where Tune keeps its state.

    Returns:
        Settings and validation numbers of each trial.
    """
    drawn = {option: _draw(draw) for option, draw in space.items()}
    fixed = {option: value for option, value in start.items() if option not in drawn}
    defaults = (user_config(method).preset() if "." in method else PRESETS[method]).options
    first = {option: _encode(start.get(option, defaults.get(option))) for option in drawn}
    results = _run_tune(
        folder.resolve() / method,
        tune.with_parameters(_trial, method=method, fixed=fixed, seed=seed, updates=updates, batch=batch),
        drawn,
        tune.TuneConfig(
            num_samples=trials,
            search_alg=tune.search.BasicVariantGenerator(points_to_evaluate=[first], random_state=seed),
        ),
    )
    return [{"settings": _settings(fixed, r.config), **_numbers(r)} for r in results]


def finals(
    method: str, trials: Sequence[Mapping[str, Any]], *, seeds: Sequence[int], updates: int, batch: int, folder: Path
) -> dict[str, Any]:
    """Train the settings of the best trials again with other seeds: with one seed some are good by chance.

    An interrupted final continues where it stopped.

    Args:
        method: a preset, or the dotted path of a user's configuration.
        trials: those of :func:`search` that take part.
        seeds: of the training of each.
        updates: gradient steps of each.
        batch: requests of a gradient step.
        folder: where Tune keeps its state.

    Returns:
        ``finals``: settings, seed and validation numbers of each; ``best``: the settings whose mean over the seeds of
        :data:`SCORE` is highest.
    """
    entrants = [trial["settings"] for trial in trials]
    results = _run_tune(
        folder.resolve() / f"{method}-finals",
        tune.with_parameters(_final, method=method, entrants=entrants, updates=updates, batch=batch),
        {"entrant": tune.grid_search(list(range(len(entrants)))), "seed": tune.grid_search(list(seeds))},
        tune.TuneConfig(),
    )
    rows = [{"settings": entrants[r.config["entrant"]], "seed": r.config["seed"], **_numbers(r)} for r in results]
    scores = [np.mean([_score(row) for row in rows if row["settings"] == settings]) for settings in entrants]
    return {"finals": rows, "best": entrants[int(np.argmax(scores))]}


def best_trials(trials: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Return the ``count`` trials with the highest :data:`SCORE`, best first."""
    return sorted(trials, key=_score, reverse=True)[:count]


def _score(row: Mapping[str, Any]) -> float:
    """Return the score of a run; the worst possible if it has diverged."""
    return float(row[SCORE]) if np.isfinite(row[SCORE]) else -1.0


def _numbers(result: Any) -> dict[str, float]:
    return {name: result.metrics[name] for name in (SCORE, "return_model", "cpu_seconds")}


def _run_tune(home: Path, trainable: Any, space: Mapping[str, Any], config: Any) -> list[Any]:
    """Return Tune's results in the order of the trials, each on one CPU; continue a run whose state is in ``home``."""
    can_restore = tune.Tuner.can_restore(str(home))
    if can_restore and not may_import(home, home.name):
        raise InputError(
            f"{home}: a search that you have not run here, or of an earlier version; continuing it executes the code "
            "in its pickles: remove the folder to search again"
        )
    start_ray()
    trainable = tune.with_resources(trainable, {"cpu": 1})
    if can_restore:
        tuner = tune.Tuner.restore(str(home), trainable, resume_unfinished=True, restart_errored=True)
    else:
        run_config = tune.RunConfig(name=home.name, storage_path=str(home.parent), verbose=0)
        mark_own(home, home.name)
        tuner = tune.Tuner(trainable, param_space=dict(space), tune_config=config, run_config=run_config)
    results = fit(tuner)
    if results.num_errors:
        raise InputError(
            f"{home}: {results.num_errors} of {len(results)} trials failed; run the command again to restart them; "
            f"the first error: {results.errors[0]}"
        )
    return sorted(results, key=lambda result: result.metrics["trial_id"])  # a restored run returns them in any order


def _draw(draw: Mapping[str, Any]) -> Any:
    kind, values = next(iter(draw.items()))
    return tune.choice([_encode(value) for value in values]) if kind == "choice" else getattr(tune, kind)(*values)


def _encode(value: Any) -> Any:
    """Return lists as text: Tune would take them for a tree of parameters."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def _settings(fixed: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    drawn = {k: json.loads(v) if isinstance(v, str) and v.startswith("[") else v for k, v in config.items()}
    return {**fixed, **drawn}


def _trial(
    config: dict[str, Any], *, method: str, fixed: Mapping[str, Any], seed: int, updates: int, batch: int
) -> dict[str, float]:
    """Run one trial, in a Ray process."""
    numbers = run_offline(method, seed, updates, _settings(fixed, config), batch=batch, judge=False)
    return {**numbers["validation"], "cpu_seconds": numbers["cpu_seconds"]}


def _final(
    config: dict[str, Any], *, method: str, entrants: Sequence[Mapping[str, Any]], updates: int, batch: int
) -> dict[str, float]:
    """Run one training of the finals, in a Ray process."""
    settings = dict(entrants[config["entrant"]])
    return _trial({}, method=method, fixed=settings, seed=config["seed"], updates=updates, batch=batch)
