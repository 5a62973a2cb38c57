"""Settings found by random search through Ray Tune, and by finals of the best: the same budget for every method, on
validation rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.algorithms.presets import PRESETS
from benchmarks.offline.offline_runs import run_offline
from benchmarks.suite.user_methods import user_config, user_options
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.yaml import read_mapping

if TYPE_CHECKING:
    from agents.rllib.core.team_config import TeamConfig

SPACES = Path(__file__).parent / "search_spaces.yaml"
SCORE = "spearman_model"
"""What is maximised: r_s on validation rows, by the ensemble."""
DRAWS = ("loguniform", "uniform", "choice")


def read_spaces(path: Path = SPACES) -> dict[str, Any]:
    """Budgets (``trials``, ``updates``, ``batch``, ``finals``), ``start``, ``fixed``; ``methods``: option → one draw.

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


def searched(method: str, spaces: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``space``, what of a method is searched, and ``start``, settings of its first trial.

    Those of a method of one's own are its preset's, without what it sets itself, which is ``own``, and without what has
    no effect beside that.

    Args:
        method: a preset, or the dotted path of a configuration that derives from one's.
        spaces: see :func:`read_spaces`.

    Raises:
        InputError: neither, or nothing is left to search.
    """
    config = user_config(method) if "." in method else None
    name = getattr(config, "preset_name", method)
    if name not in spaces["methods"]:
        told = unknown_option("method of the tuning", method, spaces["methods"])
        raise InputError(f"{told}; or the dotted path of a configuration that derives from one of theirs")
    found = {"space": spaces["methods"][name], "start": {**spaces["fixed"].get(name, {}), **spaces["start"]}}
    if config is not None:
        own = found["own"] = user_options(method)
        found["space"] = {k: d for k, d in found["space"].items() if k not in own and _acts(config, k, _values(d))}
        found["start"] = {k: v for k, v in found["start"].items() if k not in own and _acts(config, k, [v])}
    if not found["space"]:
        raise InputError(f"method {method} sets all that {name} is searched for; take what to find from its defaults")
    return found


def _acts(config: TeamConfig, option: str, values: Sequence[Any]) -> bool:
    """Whether a configuration takes all of an option's values: one that has no effect beside the others is refused."""
    try:
        for value in values:
            config.copy(copy_frozen=False).training(**{option: value}).preset()
    except InputError:
        return False
    return True


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
    """Try settings of a method; an interrupted search goes on where it stopped.

    Args:
        method: a preset, or the dotted path of a configuration of one's own.
        space: option → its draw.
        start: settings of the first trial, which the others keep where ``space`` does not name them.
        trials: how many are tried.
        updates, batch: of each.
        seed: of the draws, and of every training.
        folder: where Tune keeps its state.

    Returns:
        Settings and validation numbers of each trial.
    """
    from ray import tune

    drawn = {option: _draw(tune, draw) for option, draw in space.items()}
    fixed = {option: value for option, value in start.items() if option not in drawn}
    usual = (user_config(method).preset() if "." in method else PRESETS[method]).options
    first = {option: _coded(start.get(option, usual.get(option))) for option in drawn}
    results = _fitted(
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
    """Train the settings of the best trials anew, with other seeds: one seed does not tell which are good by chance. An
    interrupted final goes on where it stopped.

    Args:
        method: as for :func:`search`.
        trials: those of :func:`search` that take part.
        seeds: of every training.
        updates, batch: of each.
        folder: where Tune keeps its state.

    Returns:
        ``finals``: settings, seed and validation numbers of each; ``best``: the settings whose mean over the seeds of
        :data:`SCORE` is highest.
    """
    from ray import tune

    chosen = [trial["settings"] for trial in trials]
    results = _fitted(
        folder.resolve() / f"{method}-finals",
        tune.with_parameters(_final, method=method, chosen=chosen, updates=updates, batch=batch),
        {"entrant": tune.grid_search(list(range(len(chosen)))), "seed": tune.grid_search(list(seeds))},
        tune.TuneConfig(),
    )
    rows = [{"settings": chosen[r.config["entrant"]], "seed": r.config["seed"], **_numbers(r)} for r in results]
    scores = [np.mean([_score(row) for row in rows if row["settings"] == settings]) for settings in chosen]
    return {"finals": rows, "best": chosen[int(np.argmax(scores))]}


def best_trials(trials: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The ``count`` trials with the highest :data:`SCORE`, best first."""
    return sorted(trials, key=_score, reverse=True)[:count]


def _score(row: Mapping[str, Any]) -> float:
    """Of a run that has diverged, the worst there is."""
    return float(row[SCORE]) if np.isfinite(row[SCORE]) else -1.0


def _numbers(result: Any) -> dict[str, float]:
    return {name: result.metrics[name] for name in (SCORE, "return_model", "cpu_seconds")}


def _fitted(home: Path, trainable: Any, space: Mapping[str, Any], config: Any) -> list[Any]:
    """Tune's results in the order of the trials, each on a CPU; a run that ``home`` has the state of goes on."""
    from ray import tune

    from agents.rllib.core.cluster import start_ray

    start_ray()
    trainable = tune.with_resources(trainable, {"cpu": 1})
    if tune.Tuner.can_restore(str(home)):
        tuner = tune.Tuner.restore(str(home), trainable, resume_unfinished=True, restart_errored=True)
    else:
        told = tune.RunConfig(name=home.name, storage_path=str(home.parent), verbose=0)
        tuner = tune.Tuner(trainable, param_space=dict(space), tune_config=config, run_config=told)
    results = tuner.fit()
    if results.num_errors:
        raise InputError(
            f"{home}: {results.num_errors} of {len(results)} trials failed; the first: {results.errors[0]}"
        )
    return sorted(results, key=lambda result: result.metrics["trial_id"])  # a restored run has them in any order


def _draw(tune: Any, draw: Mapping[str, Any]) -> Any:
    kind, values = next(iter(draw.items()))
    return tune.choice([_coded(value) for value in values]) if kind == "choice" else getattr(tune, kind)(*values)


def _values(draw: Mapping[str, Any]) -> list[Any]:
    """What is chosen from, or the bounds."""
    return next(iter(draw.values()))


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
    found = run_offline(method, seed, updates, _settings(fixed, config), batch=batch, judge=False)
    return {**found["validation"], "cpu_seconds": found["cpu_seconds"]}


def _final(
    config: dict[str, Any], *, method: str, chosen: Sequence[Mapping[str, Any]], updates: int, batch: int
) -> dict[str, float]:
    """One run of the finals, in a process of Ray's."""
    settings = dict(chosen[config["entrant"]])
    return _trial({}, method=method, fixed=settings, seed=config["seed"], updates=updates, batch=batch)
