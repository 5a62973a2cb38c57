"""``marca balance`` from options to scores: fit the system model, replay a day under every method, sweep, sum up."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.days.balancer_evaluation import JUDGE_SEED, BalancerEvaluation
from benchmarks.days.balancers import CLAIRVOYANT, Commissioned, check_methods
from benchmarks.days.compare_policies import embedded_trace
from marca_env.logs.log_files import read_system_log
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.days import GENERATED, DayScenario, from_trace, generated
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.progress import count_progress
from marca_env.utils.yaml import parse_yaml
from mpc import SystemModel

if TYPE_CHECKING:
    from mpc import SystemModel

DEFAULT_METHODS = ("static", "bisection", "feedback", "primal-dual", "slices", "mpc", CLAIRVOYANT)
TRAFFICS = (*GENERATED, "day")
ROW = ("method", "seed", "settings")


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    scenario: str = "default"
    trace: str | None = None
    traffic: str = "day"
    minutes: int = 1440
    start: str | None = None
    methods: Sequence[str] = DEFAULT_METHODS
    seeds: Sequence[int] = (0,)
    sweep: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    model: str | None = None
    log: str | None = None
    requests: int = 600
    days: int = 4
    epochs: int = 150
    members: int = 1
    tuning: int = 720

    def __post_init__(self) -> None:
        check_methods(self.methods)
        if self.traffic not in TRAFFICS:
            raise InputError(unknown_option("traffic", self.traffic, TRAFFICS))
        if self.model and self.log:
            raise InputError("--model and --log both say where the system model comes from; keep one of them")
        for name in ("minutes", "requests", "days", "epochs", "members", "tuning"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; give at least 1")
        if any(seed < 0 for seed in self.seeds):
            raise InputError(f"--seeds: {min(self.seeds)} is negative; give whole numbers from 0")


def read_sweep(words: Sequence[str]) -> dict[str, list[Any]]:
    """``alpha=0.2,0.4`` → {"alpha": [0.2, 0.4]}, for settings of the model-predictive balancer.

    Raises:
        InputError: not of that form, an unknown setting, or a value that it refuses.
    """

    from mpc import MPCSettings

    known = {f.name for f in dataclasses.fields(MPCSettings)}
    found: dict[str, list[Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise InputError(f"--sweep {word!r}: write NAME=VALUE,VALUE such as alpha=0.2,0.4")
        if name not in known:
            raise InputError(f"--sweep: {unknown_option('setting', name, sorted(known))}")
        if name in found:
            raise InputError(f"--sweep: {name} is given twice; put all its values in one list")
        found[name] = [parse_yaml(value, f"--sweep {word!r}") for value in text.split(",")]
    for chosen in combinations(found):
        try:
            MPCSettings(**chosen)
        except (InputError, TypeError) as error:
            raise InputError(f"--sweep {', '.join(f'{k}={v}' for k, v in chosen.items())}: {error}") from None
    return found


def combinations(sweep: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of a sweep's values; none of an empty one."""
    if not sweep:
        return []
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


@dataclass
class Session:
    """A fitted system model, and what was replayed with it."""

    options: Options
    known: Commissioned
    rows: list[dict[str, Any]] = field(default_factory=list)
    minutes: list[pd.DataFrame] = field(default_factory=list)
    interrupted: bool = False

    @classmethod
    def prepare(cls, options: Options, out: Path) -> Session:
        """Check all input, then fit or load the model; a fitted one is kept in ``out/model``."""
        scenario = Scenario.load(options.scenario)
        course_of(options, scenario, options.seeds[0] if options.seeds else 0)
        engine = Engine.load(scenario)
        horizon = max([10, *options.sweep.get("horizon", ())])
        known = Commissioned(engine, days=options.days, epochs=options.epochs, members=options.members, horizon=horizon)
        known.given = model_of(options, known)
        if options.model is None:
            known.given.save(out / "model")
        return cls(options, known)

    def run(self) -> None:
        """Replay every method and every combination of the sweep, seed by seed; Ctrl-C keeps what is finished."""
        options, scenario = self.options, self.known.scenario
        mismatch = tuple(self.known.model.clusters) != scenario.cluster_names
        if mismatch and any(name.startswith("mpc") for name in options.methods):
            raise InputError(
                f"the system model is of the clusters {', '.join(self.known.model.clusters)}, the scenario "
                f"{scenario.name!r} has {', '.join(scenario.cluster_names)}; give --scenario, or --fit-only"
            )
        pool = self.known.engine.pool(options.requests, seed=JUDGE_SEED)
        tried = combinations(options.sweep)
        jobs: list[tuple[str, dict[str, Any]]] = [*((m, {}) for m in options.methods), *(("mpc", c) for c in tried)]
        try:
            with count_progress("Balancing", len(options.seeds) * len(jobs)) as advance:
                for seed in options.seeds:
                    judge = BalancerEvaluation(self.known, course_of(options, scenario, seed), pool, seed)
                    for name, settings in jobs:
                        self._one(judge, name, settings)
                        advance()
        except KeyboardInterrupt:
            self.interrupted = True
            if not self.rows:
                raise

    def _one(self, judge: BalancerEvaluation, name: str, settings: dict[str, Any]) -> None:
        minutes, found = judge.run(name, settings)
        self.rows.append({"method": name, "seed": judge.seed, "settings": settings, **found})
        if not settings:
            minutes = minutes.copy()
            minutes.insert(0, "method", name)
            minutes.insert(1, "seed", judge.seed)
            self.minutes.append(minutes)


def course_of(options: Options, scenario: Scenario, seed: int) -> DayScenario:
    """The day that was asked for; generated ones are another for each seed."""

    if options.trace is not None or options.traffic == "day":
        return from_trace(options.trace or embedded_trace(), scenario, options.minutes, options.start)
    return generated(options.traffic, scenario, seed, options.minutes)


def model_of(options: Options, known: Commissioned) -> SystemModel:
    """The system model: loaded, fitted on the user's log, or fitted on generated telemetry."""

    if options.model is not None:
        return SystemModel.load(options.model)
    if options.log is not None:
        log = read_system_log(options.log)
        clusters = tuple(str(c).removeprefix("load_") for c in log.columns if str(c).startswith("load_"))
        same = set(clusters) == set(known.scenario.cluster_names)
        return known.fitted(log, known.scenario.cluster_names if same else clusters)
    with count_progress("Commissioning: telemetry and system model", 2) as advance:
        log = known.telemetry()
        advance()
        model = known.fitted(log)
        advance()
    return model


# -- summing up -------------------------------------------------------------------------------------------------
def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of the rows of one method; dictionaries are averaged entry by entry, events are summed."""
    found: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name in ROW:
            continue
        if name == "events":
            found[name] = {kind: sum(v.get(kind, 0) for v in values) for kind in sorted(set().union(*values))}
        elif isinstance(values[0], Mapping):
            found[name] = {k: float(np.mean([v[k] for v in values])) for k in values[0]}
        else:
            found[name] = float(np.mean(values))
    return found


def summarise(session: Session) -> dict[str, Any]:
    """Model report, every method's means over the seeds, and those of the sweep."""
    options, rows = session.options, session.rows
    plain = [r for r in rows if not r["settings"]]
    names = list(dict.fromkeys(r["method"] for r in plain))
    swept = [c for c in combinations(options.sweep) if any(r["settings"] == c for r in rows)]
    return {
        "scenario": session.known.scenario.name,
        "traffic": Path(options.trace).stem if options.trace else options.traffic,
        "minutes": options.minutes,
        "seeds": sorted({r["seed"] for r in rows}),
        "interrupted": session.interrupted,
        "model": session.known.model.report,
        "methods": {name: means([r for r in plain if r["method"] == name]) for name in names},
        "sweep": [{"settings": c, **means([r for r in rows if r["settings"] == c])} for c in swept],
    }


def flat_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Scores as a table: a row per method, seed and combination; ``mu_<cluster>`` and so on; settings as JSON."""
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
