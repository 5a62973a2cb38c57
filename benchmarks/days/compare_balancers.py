"""`marca balance` from options to scores: fit the system model, replay a day under every method, summarise."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.days.balancer_evaluation import JUDGE_SEED, BalancerEvaluation
from benchmarks.days.balancers import CLAIRVOYANT, check_methods
from benchmarks.days.calibration import Calibration
from benchmarks.days.logged_day import logged_day, rows_before
from benchmarks.days.trace_days import trace_day
from benchmarks.suite.user_methods import user_object_name
from marca_env.logs.log_files import read_system_log
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.days import GENERATED, DayScenario, generated
from marca_env.traffic.time_series import TraceOptions
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.progress import count_progress
from marca_env.utils.units import MINUTES_PER_DAY
from marca_env.utils.validation import as_number, as_whole_number, check_seeds
from marca_env.utils.yaml import parse_yaml
from mpc import MPCSettings, SystemModel
from mpc.planning.objective import read_peak_slots

DEFAULT_METHODS = ("static", "bisection", "feedback", "primal-dual", "slices", "mpc", CLAIRVOYANT)
LOGGED = "log"
"""Traffic of the end of the system log."""
TRAFFICS = (*GENERATED, "day", LOGGED)
ROW_KEYS = ("method", "seed", "settings")
_FIT = inspect.signature(SystemModel.fit).parameters
MODEL_OPTIONS: dict[str, Any] = {name: _FIT[name].default for name in ("hidden", "windows", "learning_rate")}
"""Options of the fit of the system model that `marca balance` takes, with their defaults."""
MOST = {
    "minutes": 366 * MINUTES_PER_DAY,
    "requests": 1_000_000,
    "days": 1000,
    "epochs": 1_000_000,
    "members": 100,
    "tuning": 366 * MINUTES_PER_DAY,
    "hidden": 4096,
    "windows": MINUTES_PER_DAY,
}
"""Largest value of each option that counts something."""
OTHER_COSTS, OTHER_PRICES = 4.0, 100.0
"""A cost per request outside those of all joint actions, and a price outside the logged ones, by such a factor is of
another system, or in other units."""
LOADS, RATES = (0.02, 3.0), (0.05, 5.0)
"""Median load of a log over the budget, and its largest rate over the scenario's peak, that are plausible."""


@dataclass(frozen=True)
class BalanceOptions:
    """Options of `marca balance`."""

    scenario: str | Path | Scenario = "default"
    trace: str | Path | None = None
    traffic: str = "day"
    minutes: int = 1440
    start: str | None = None
    trace_options: TraceOptions = field(default_factory=TraceOptions)
    methods: Sequence[Any] = DEFAULT_METHODS
    """Names, dotted paths, classes or objects."""
    seeds: Sequence[int] = (0,)
    sweep: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    model: str | Path | None = None
    log: str | Path | None = None
    requests: int = 600
    days: int = 4
    epochs: int = 150
    members: int = 1
    tuning: int = 720
    hidden: int = MODEL_OPTIONS["hidden"]
    windows: int = MODEL_OPTIONS["windows"]
    learning_rate: float = MODEL_OPTIONS["learning_rate"]
    fit_only: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> BalanceOptions:
        """Return the options of a mapping.

        Raises:
            InputError: an unknown option, or an invalid value.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        for name in options:
            if name not in names:
                raise InputError(unknown_option("option", name, names))
        return cls(**options)

    @property
    def needs_model(self) -> bool:
        """Whether a method plans with the system model."""
        return bool(self.sweep) or any(isinstance(name, str) and name.startswith("mpc") for name in self.methods)

    def __post_init__(self) -> None:
        check_methods(self.methods)
        if self.traffic not in TRAFFICS:
            raise InputError(unknown_option("traffic", self.traffic, TRAFFICS))
        if self.traffic == LOGGED and (self.log is None or self.trace is not None):
            raise InputError("--traffic log replays the end of --log FILE; give that, and no --trace")
        if self.model and self.log and self.traffic != LOGGED:
            raise InputError("--model and --log both say where the system model comes from; keep one of them")
        for name, most in MOST.items():
            as_whole_number(f"--{name}", getattr(self, name), 1, most)
        if not 0 < as_number("--learning-rate", self.learning_rate) <= 1:
            raise InputError(f"--learning-rate is {self.learning_rate:g}; it must lie in (0, 1]")
        check_seeds(self.seeds)


def read_sweep(words: Sequence[str]) -> dict[str, list[Any]]:
    """Read a sweep over settings of the model-predictive balancer: ``alpha=0.2,0.4`` → {"alpha": [0.2, 0.4]}.

    Peak slots are written as times: ``peak_slots=none,11:00-13:00+19:00-22:00``.

    Raises:
        InputError: not of that form, an unknown setting, or a value that it refuses.
    """
    names = {f.name for f in dataclasses.fields(MPCSettings)}
    sweep: dict[str, list[Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise InputError(f"--sweep {word!r}: write NAME=VALUE,VALUE such as alpha=0.2,0.4")
        if name not in names:
            raise InputError(f"--sweep: {unknown_option('setting', name, sorted(names))}")
        if name in sweep:
            raise InputError(f"--sweep: {name} is given twice; put all its values in one list")
        is_slots = name == "peak_slots"
        sweep[name] = [
            read_peak_slots(value) if is_slots else parse_yaml(value, f"--sweep {word!r}") for value in text.split(",")
        ]
    for settings in combinations(sweep):
        try:
            MPCSettings(**settings)
        except (InputError, TypeError) as error:
            raise InputError(f"--sweep {', '.join(f'{k}={v}' for k, v in settings.items())}: {error}") from None
    return sweep


def combinations(sweep: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of a sweep's values; an empty sweep has none."""
    if not sweep:
        return []
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


@dataclass
class BalancerComparison:
    """A calibration with its system model, and the days that were replayed with it."""

    options: BalanceOptions
    calibration: Calibration
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Score of every method, seed and combination of the sweep."""
    minutes: list[pd.DataFrame] = field(default_factory=list)
    """Minutes of every method and seed."""
    interrupted: bool = False
    first_minute: int = 0
    """Minute of the day at which the days begin."""

    @classmethod
    def prepare(cls, options: BalanceOptions, out: Path | None) -> BalancerComparison:
        """Check all input, then fit or load the system model; a fitted one is saved in ``out/model`` if ``out`` is."""
        scenario = Scenario.load(options.scenario)
        make_day(options, scenario, options.seeds[0] if options.seeds else 0)
        calibration = Calibration(
            Engine.load(scenario),
            days=options.days,
            epochs=options.epochs,
            members=options.members,
            horizon=max([10, *options.sweep.get("horizon", ())]),
            tuning=options.tuning,
            progress=True,
            model_options={name: getattr(options, name) for name in MODEL_OPTIONS},
        )
        calibration.given_model = make_model(options, calibration)
        if options.model is None and out is not None:
            calibration.given_model.save(out / "model")
        return cls(options, calibration)

    def run(self) -> None:
        """Replay every method and every combination of the sweep, seed by seed.

        Ctrl-C ends the run; what is finished stays.

        Raises:
            InputError: see :func:`check_model`.
        """
        options, scenario, model = self.options, self.calibration.scenario, self.calibration.model
        if options.needs_model:
            check_model(model, self.calibration)
        engine = self.calibration.engine
        pool = engine.pool(options.requests, seed=JUDGE_SEED) if engine.heldout is None else engine.heldout_pool()
        jobs: list[tuple[Any, dict[str, Any]]] = [(method, {}) for method in options.methods]
        jobs += [("mpc", settings) for settings in combinations(options.sweep)]
        try:
            with count_progress("Balancing", len(options.seeds) * len(jobs)) as advance:
                for seed in options.seeds:
                    day = make_day(options, scenario, seed)
                    self.first_minute = day.traffic.first_minute
                    evaluation = BalancerEvaluation(self.calibration, day, pool, seed)
                    for name, settings in jobs:
                        self._evaluate(evaluation, name, settings)
                        advance()
        except KeyboardInterrupt:
            self.interrupted = True
            if not self.rows:
                raise

    def _evaluate(self, evaluation: BalancerEvaluation, method: Any, settings: dict[str, Any]) -> None:
        minutes, scores = evaluation.run(method, settings)
        name = user_object_name(method)
        self.rows.append({"method": name, "seed": evaluation.seed, "settings": settings, **scores})
        if not settings:
            minutes = minutes.copy()
            minutes.insert(0, "method", name)
            minutes.insert(1, "seed", evaluation.seed)
            self.minutes.append(minutes)


def make_day(options: BalanceOptions, scenario: Scenario, seed: int) -> DayScenario:
    """Return the day that the options name; every seed has another generated day."""
    if options.traffic == LOGGED and options.log is not None:
        return logged_day(read_system_log(options.log, scenario.cluster_names), scenario, options.minutes, options.log)
    if options.trace is not None or options.traffic == "day":
        return trace_day(options.trace, scenario, options.minutes, options.start, options.trace_options)
    return generated(options.traffic, scenario, seed, options.minutes)


def make_model(options: BalanceOptions, calibration: Calibration) -> SystemModel:
    """Load the system model, or fit it on the user's log or on simulated telemetry."""
    if options.model is not None:
        return SystemModel.load(options.model)
    if options.log is not None:
        log = read_system_log(options.log, calibration.scenario.cluster_names)
        if options.traffic == LOGGED:
            log = rows_before(log, options.minutes, options.log)
        clusters = tuple(str(c).removeprefix("load_") for c in log.columns if str(c).startswith("load_"))
        same = set(clusters) == set(calibration.scenario.cluster_names)
        if options.needs_model and not options.fit_only:
            check_clusters(calibration.scenario.cluster_names if same else clusters, calibration.scenario)
            check_log(log, calibration.scenario, options.log)
        return calibration.fit_model(log, calibration.scenario.cluster_names if same else clusters)
    return calibration.fit_model(calibration.telemetry())


REMEDY = (
    "use the --scenario that was made from the same logs (marca fit --mapping … --out DIR), or --fit-only to stop "
    "after the fit"
)


def check_clusters(clusters: Sequence[str], scenario: Scenario) -> None:
    """Check that a system model or log is of the scenario's clusters.

    Raises:
        InputError: it is of others.
    """
    if tuple(clusters) != scenario.cluster_names:
        raise InputError(
            f"the system model is of the clusters {', '.join(clusters)}, the scenario {scenario.name!r} has "
            f"{', '.join(scenario.cluster_names)}; {REMEDY}"
        )


def check_log(log: pd.DataFrame, scenario: Scenario, where: str | Path) -> None:
    """Check that the loads and the traffic of a system log are of the scenario's size.

    Raises:
        InputError: they are far from its budgets and its peak: other units, or another system.
    """
    for cluster in scenario.clusters:
        load = float(log[f"load_{cluster.name}"].median())
        if not LOADS[0] <= load / cluster.budget <= LOADS[1]:
            raise InputError(
                f"{where}: the median load of cluster {cluster.name!r} is {load:.4g}, and its budget in scenario "
                f"{scenario.name!r} is {cluster.budget:.4g} core-seconds per second: other units, or another system; "
                f"{REMEDY}"
            )
    qps = float(log["qps"].max())
    if not RATES[0] <= qps / scenario.peak_qps <= RATES[1]:
        raise InputError(
            f"{where}: at most {qps:.4g} requests per second, and the peak of scenario {scenario.name!r} is "
            f"{scenario.peak_qps:.4g}: other units, or another system; {REMEDY}"
        )


def check_model(model: SystemModel, calibration: Calibration) -> None:
    """Check that a system model is of the scenario's clusters and units.

    Raises:
        InputError: other clusters; or costs per request, or prices, far outside those that the scenario has.
    """
    scenario = calibration.scenario
    check_clusters(model.clusters, scenario)
    start = f"the system model has other units than scenario {scenario.name!r}"
    mean = np.average(calibration.pool.costs, axis=0, weights=calibration.pool.weights)  # (J,G)
    greatest = mean.max(axis=0)
    least = np.maximum(mean.min(axis=0), 1e-3 * greatest)
    for g, cluster in enumerate(scenario.cluster_names):
        cost = float(np.exp(model.scaling["cost_mean"][g]))
        if not least[g] / OTHER_COSTS <= cost <= greatest[g] * OTHER_COSTS:
            raise InputError(
                f"{start}: a request took {cost:.3g} on cluster {cluster!r} in its log, and takes {least[g]:.3g} to "
                f"{greatest[g]:.3g} core-seconds in the scenario; {REMEDY}"
            )
        usual, low, high = calibration.usual_prices[g], model.prices.scale[g], model.price_limit[g]
        if high > 0 and not low / OTHER_PRICES <= usual <= high * OTHER_PRICES:
            raise InputError(
                f"{start}: the prices of cluster {cluster!r} reached {high:.3g} in its log, and the scenario's usual "
                f"price is {usual:.3g} currency per core-second; {REMEDY}"
            )


# -- summary -------------------------------------------------------------------------------------------------
def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average the rows of one method over seeds; dictionaries are averaged entry by entry, events are summed."""
    summary: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name in ROW_KEYS:
            continue
        if name == "events":
            summary[name] = {kind: sum(v.get(kind, 0) for v in values) for kind in sorted(set().union(*values))}
        elif isinstance(values[0], Mapping):
            summary[name] = {k: float(np.mean([v[k] for v in values])) for k in values[0]}
        else:
            summary[name] = float(np.mean(values))
    return summary


def summarise(comparison: BalancerComparison) -> dict[str, Any]:
    """Return the report of the system model, and the means over seeds of every method and of the sweep."""
    options, rows = comparison.options, comparison.rows
    plain = [r for r in rows if not r["settings"]]
    names = list(dict.fromkeys(r["method"] for r in plain))
    swept = [c for c in combinations(options.sweep) if any(r["settings"] == c for r in rows)]
    return {
        "scenario": comparison.calibration.scenario.name,
        "traffic": Path(options.trace).stem if options.trace else options.traffic,
        "minutes": options.minutes,
        "seeds": sorted({r["seed"] for r in rows}),
        "interrupted": comparison.interrupted,
        "model": comparison.calibration.model.report,
        "methods": {name: means([r for r in plain if r["method"] == name]) for name in names},
        "sweep": [{"settings": c, **means([r for r in rows if r["settings"] == c])} for c in swept],
    }


def flat_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the scores as a table.

    It has a row for each method, seed and combination, columns such as ``mu_<cluster>``, and the settings as JSON.
    """
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for name, value in row.items():
            if name in ("settings", "events"):
                line[name] = json.dumps(value)
            elif isinstance(value, Mapping):
                line |= {f"{name}_{k}": v for k, v in value.items()}
            else:
                line[name] = value
        flat.append(line)
    return pd.DataFrame(flat)
