"""Settings found by random search through Ray Tune: every method gets the same budget, on validation rows alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.yaml_files import read_mapping
from marca_env.errors import InputError, unknown_option

SPACES = Path(__file__).parent / "search_spaces.yaml"
SCORE = "spearman_model"
"""What is maximised: r_s on validation rows, by the ensemble."""
DRAWS = ("loguniform", "uniform", "choice")


def read_spaces(path: Path = SPACES) -> dict[str, Any]:
    """Search spaces: ``trials``, ``updates``, ``batch``, ``start``, ``fixed`` and ``methods``: option → one draw.

    Raises:
        InputError: a draw that is none, naming file, method and option.
    """
    spaces = read_mapping(path)
    for method, options in spaces["methods"].items():
        for option, draw in options.items():
            where = f"{path}: method {method}, option {option}"
            if not isinstance(draw, Mapping) or len(draw) != 1:
                raise InputError(f"{where}: {draw!r}; give one draw, such as {{choice: [1, 2]}}")
            kind, values = next(iter(draw.items()))
            if kind not in DRAWS:
                raise InputError(f"{where}: {unknown_option('draw', kind, DRAWS)}")
            if not isinstance(values, list) or (kind != "choice" and len(values) != 2):
                raise InputError(f"{where}: {kind} of {values!r}; give a list, of two bounds unless it is a choice")
    return spaces


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
) -> dict[str, Any]:
    """Try settings of a method; an interrupted search goes on where it stopped.

    Args:
        method: a preset.
        space: option → its draw.
        start: settings of the first trial, which the others keep where ``space`` does not name them.
        trials: how many are tried.
        updates, batch: of each.
        seed: of the draws, and of every training.
        folder: where Tune keeps its state.

    Returns:
        ``trials``: settings and validation numbers of each; ``best``: the settings of the best by :data:`SCORE`.
    """
    from ray import tune

    from agents.presets import PRESETS
    from agents.rllib.cluster import start_ray

    start_ray()
    drawn = {option: _draw(tune, draw) for option, draw in space.items()}
    fixed = {option: value for option, value in start.items() if option not in drawn}
    trainable = tune.with_resources(
        tune.with_parameters(_trial, method=method, fixed=fixed, seed=seed, updates=updates, batch=batch), {"cpu": 1}
    )
    home = folder.resolve() / method
    if tune.Tuner.can_restore(str(home)):
        tuner = tune.Tuner.restore(str(home), trainable, resume_unfinished=True, restart_errored=True)
    else:
        usual = PRESETS[method].options
        first = {option: _coded(start.get(option, usual.get(option))) for option in drawn}
        tuner = tune.Tuner(
            trainable,
            param_space=drawn,
            tune_config=tune.TuneConfig(
                num_samples=trials,
                metric=SCORE,
                mode="max",
                search_alg=tune.search.BasicVariantGenerator(points_to_evaluate=[first], random_state=seed),
            ),
            run_config=tune.RunConfig(name=method, storage_path=str(folder.resolve()), verbose=0),
        )
    results = tuner.fit()
    if results.num_errors:
        raise InputError(f"{home}: {results.num_errors} of {trials} trials failed; the first: {results.errors[0]}")
    rows = [
        {"settings": _settings(fixed, r.config), **{n: r.metrics[n] for n in (SCORE, "return_model", "cpu_seconds")}}
        for r in results
    ]
    best = results.get_best_result(scope="last")
    return {"trials": rows, "best": _settings(fixed, best.config)}


def _draw(tune: Any, draw: Mapping[str, Any]) -> Any:
    kind, values = next(iter(draw.items()))
    return tune.choice([_coded(value) for value in values]) if kind == "choice" else getattr(tune, kind)(*values)


def _coded(value: Any) -> Any:
    """Lists as text: Tune takes them for a tree of parameters."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def _settings(fixed: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    drawn = {k: json.loads(v) if isinstance(v, str) and v.startswith("[") else v for k, v in config.items()}
    return {**fixed, **drawn}


def _trial(
    config: dict[str, Any], *, method: str, fixed: Mapping[str, Any], seed: int, updates: int, batch: int
) -> dict[str, float]:
    """One trial, in a process of Ray's."""
    from benchmarks.offline_runs import run_offline

    found = run_offline(method, seed, updates, _settings(fixed, config), batch=batch, judge=False)
    return {**found["validation"], "cpu_seconds": found["cpu_seconds"]}
