"""The model-predictive balancer under random faults of telemetry, forecast and solver: is a price always there?"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from benchmarks.days.telemetry import fit_system_model, shipped_pool, usual_prices
from marca_env.traffic.simulated_system import SimulatedSystem, draw_arrivals
from marca_env.traffic.utilisation import overutilisation, utilisation
from marca_env.traffic.workload import Traffic, daily_traffic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from marca_env.traffic.control import ControlObservation
    from mpc import MPCBalancer

SEEDS = (0, 1)
STEPS = 100_000
QUICK_STEPS = 1_500
CHANCE = 0.1
"""Of a minute that a fault begins in it."""
SPELL = 4
"""Mean length of a fault, minutes."""
CALM = 20
"""After so many minutes without a fault the balancer must be planning again."""
DEADLINE = 2.0
"""Seconds; a few planners hang for longer than this."""

TELEMETRY = (
    "load missing",
    "one load missing",
    "load infinite",
    "load absurd",
    "load negative",
    "traffic missing",
    "traffic zero",
    "traffic infinite",
    "prices missing",
    "degradation missing",
    "budget missing",
    "budget zero",
    "nothing",
    "wrong shape",
    "text",
    "minute missing",
    "minute repeated",
    "minute earlier",
    "gap",
)
FORECAST = ("forecast missing", "forecast infinite", "forecast negative", "forecast too short", "forecast raises")
SOLVER = (
    "solver raises",
    "solver infeasible",
    "solver fails",
    "solver out of time",
    "solver returns no numbers",
    "planner returns no numbers",
    "planner raises",
    "model returns no numbers",
    "planner hangs",
)
HANGS = SOLVER[-1]
HANG_SHARE = 0.1
"""Of the hangs drawn, that are real: each costs its seconds."""


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS, steps: int | None = None) -> dict[str, Any]:
    """Run the closed loop of the shipped scenario with faults, and once without for comparison."""

    pool = shipped_pool(120)
    model = fit_system_model(pool, epochs=30 if quick else 150)
    total = steps or (QUICK_STEPS if quick else STEPS)
    each = -(-total // len(seeds))
    log = logging.getLogger("mpc")
    before = log.level
    log.setLevel(logging.CRITICAL)  # thousands of faults are meant here; they are counted
    try:
        runs = [inject(pool, model, each, seed) for seed in seeds]
        calm = inject(pool, model, min(each, 2880), seeds[0], chance=0.0)
    finally:
        log.setLevel(before)
    return {"steps": each * len(seeds), "chance": CHANCE, "spell": SPELL, "runs": runs, "without_faults": calm}


def inject(pool: Any, model: Any, steps: int, seed: int, chance: float = CHANCE) -> dict[str, Any]:
    """Run ``steps`` minutes; everything that must never happen is counted."""
    from mpc import MPCBalancer

    rng = np.random.default_rng([seed, 12])
    days = [daily_traffic(pool.scenario, rng).qps for _ in range(3)]
    traffic = Traffic("three days", np.concatenate(days))
    plant = SimulatedSystem(pool, traffic, draw_arrivals(pool, traffic, seed))
    balancer = MPCBalancer(model, deadline=DEADLINE)
    faults = Faults(balancer, rng, chance)
    prices = usual_prices(pool, float(plant.traffic.qps[0]))
    observation = plant.start(prices)
    tally, seconds, used, late = Counter[str](), np.empty(steps), np.empty((steps, len(prices))), 0
    for k in range(steps):
        seen = faults.disturb(observation)
        began = time.perf_counter()
        try:
            if seen is not None:
                prices = balancer.update(seen)
        except Exception as error:
            tally[f"exception {type(error).__name__}"] += 1
        seconds[k] = time.perf_counter() - began
        late += seconds[k] > DEADLINE + 1.0
        if faults.fault == HANGS:
            time.sleep(0.5 * DEADLINE)  # in earnest a minute passes until the next step
        if prices.shape != balancer.price_max.shape or not np.all(np.isfinite(prices)):
            tally["price not finite"] += 1
        elif np.any(prices < 0) or np.any(prices > balancer.price_max):
            tally["price out of bounds"] += 1
        if faults.calm_for > CALM and balancer.result is None and faults.expected_to_plan:
            tally[f"not planning again: {balancer.events[-1].kind if balancer.events else 'no event'}"] += 1
        outcome, observation = plant.step(prices)
        used[k] = outcome.equivalent / pool.scenario.budgets
    return {
        "seed": seed,
        "steps": steps,
        "violations": dict(tally),
        "late": int(late),
        "injected": dict(sorted(faults.injected.items())),
        "events": dict(sorted(faults.counted.items())),
        "utilisation": utilisation(used).tolist(),
        "overutilisation": overutilisation(used).tolist(),
        "median_seconds": float(np.median(seconds)),
        "longest_seconds": float(seconds.max()),
    }


class Faults:
    """Disturbs a balancer's telemetry, forecaster and planner in spells of random length.

    Attributes:
        injected: minutes of each fault; ``counted``: events of the balancer as ``kind/price``.
        calm_for: minutes since the last disturbed one.
    """

    def __init__(self, balancer: MPCBalancer, rng: np.random.Generator, chance: float) -> None:
        self.balancer, self.rng, self.chance = balancer, rng, chance
        self.injected, self.counted = Counter[str](), Counter[str]()
        self.fault, self._left, self.calm_for = "", 0, 0
        self._seen_events = 0
        balancer.forecaster = _Forecaster(balancer.forecaster, self)  # type: ignore[assignment]
        balancer.planner = _Planner(balancer.planner, self)  # type: ignore[assignment]
        assert balancer.problem is not None
        balancer.problem.program = _Program(balancer.problem.program, self)
        direct = balancer.problem.closed_form  # a solver's fault is one that the closed form leaves to the solver
        balancer.problem.closed_form = lambda *a, **k: None if self.fault in SOLVER else direct(*a, **k)

    @property
    def expected_to_plan(self) -> bool:
        """Whether nothing in the last event but a fault of ours explains that there is no plan."""
        events = self.balancer.events
        return not (events and events[-1].kind == "range")

    def disturb(self, observation: ControlObservation) -> Any:
        """The observation as the balancer gets it; ``None``: it gets none this minute."""
        self._count()
        if self._left == 0:
            self.fault = ""
            if self.rng.random() < self.chance:
                kinds = (TELEMETRY, FORECAST, SOLVER)[int(self.rng.integers(3))]
                self.fault = str(self.rng.choice(kinds))
                if self.fault == HANGS and self.rng.random() > HANG_SHARE:
                    self.fault = "solver raises"
                self._left = 1 if self.fault == HANGS else int(self.rng.geometric(1 / SPELL))
        if not self.fault:
            self.calm_for += 1
            return observation
        self._left -= 1
        self.calm_for = 0
        self.injected[self.fault] += 1
        return _damaged(observation, self.fault, self.rng) if self.fault in TELEMETRY else observation

    def _count(self) -> None:
        """Tally the events since the last minute; the balancer keeps the last 10,000 only."""
        for event in self.balancer.events:
            self.counted[f"{event.kind}/{event.price}"] += 1
        self.balancer.events.clear()


def _damaged(observation: ControlObservation, fault: str, rng: np.random.Generator) -> Any:
    size = len(observation.load)
    nan, one = np.full(size, np.nan), np.where(np.arange(size) == rng.integers(size), np.nan, observation.load)
    minute = observation.minute
    changes: dict[str, dict[str, Any]] = {
        "load missing": {"load": nan},
        "one load missing": {"load": one},
        "load infinite": {"load": np.full(size, np.inf)},
        "load absurd": {"load": observation.load * 1e9},
        "load negative": {"load": -observation.load - 1.0},
        "traffic missing": {"qps": float("nan")},
        "traffic zero": {"qps": 0.0},
        "traffic infinite": {"qps": float("inf")},
        "prices missing": {"prices": nan},
        "degradation missing": {"degradation": nan},
        "budget missing": {"budget": nan},
        "budget zero": {"budget": np.zeros(size)},
        "nothing": {"qps": None, "load": None, "prices": None},
        "wrong shape": {"load": np.ones(size + 1)},
        "text": {"load": np.array(["n/a"] * size), "qps": "n/a"},
        "minute missing": {"minute": float("nan")},
        "minute repeated": {"minute": (minute - 1) % 1440},
        "minute earlier": {"minute": (minute - int(rng.integers(2, 200))) % 1440},
    }
    return None if fault == "gap" else dataclasses.replace(observation, **changes[fault])


class _Forecaster:
    def __init__(self, inner: Any, faults: Faults) -> None:
        self._inner, self._faults = inner, faults
        self.period = inner.period

    def observe(self, minute: int, qps: float) -> None:
        if self._faults.fault == "forecast raises":
            raise KeyError("no such series")
        self._inner.observe(minute, qps)

    def forecast(self, horizon: int) -> Any:
        good, fault = self._inner.forecast(horizon), self._faults.fault
        if fault == "forecast missing":
            return np.where(np.arange(horizon) == horizon // 2, np.nan, good)
        if fault == "forecast infinite":
            return good * np.inf
        if fault == "forecast negative":
            return -good - 1.0
        return good[:-1] if fault == "forecast too short" else good

    def reset(self) -> None:
        self._inner.reset()


class _Planner:
    def __init__(self, inner: Any, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def plan(self, predicted: Any, *rest: Any) -> Any:
        fault = self._faults.fault
        if fault == "planner raises":
            raise (ZeroDivisionError, MemoryError, RecursionError)[int(self._faults.rng.integers(3))]("injected")
        if fault == HANGS:
            time.sleep(1.25 * DEADLINE)
        if fault == "model returns no numbers":
            predicted.bias = np.nan
        result = self._inner.plan(predicted, *rest)
        if fault == "planner returns no numbers":
            result = result._replace(point=result.point._replace(log_prices=result.point.log_prices * np.nan))
        return result


class _Program:
    def __init__(self, inner: Any, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def solve(self, values: Any, time_limit: float = np.inf) -> tuple[str, list[np.ndarray]]:
        fault = self._faults.fault
        if fault == "solver raises":
            raise ArithmeticError("the factorisation broke down")
        status, found = self._inner.solve(values, time_limit)
        if fault == "solver returns no numbers":
            found = [x * np.nan for x in found]
        forced = {"solver infeasible": "infeasible", "solver fails": "failed", "solver out of time": "time limit"}
        return forced.get(fault, status), found


def tables(result: dict[str, Any]) -> Iterable[Table]:
    """What was injected, what the balancer did, what it cost."""

    summary = Table(title=f"{result['steps']:,} control steps under random faults")
    for column in ("run", "violations", "late", "events", "μ", "ν", "median step", "longest"):
        summary.add_column(column, justify="right")
    for name, row in (*((f"seed {r['seed']}", r) for r in result["runs"]), ("no faults", result["without_faults"])):
        share = [" / ".join(f"{x:.2%}" for x in row[k]) for k in ("utilisation", "overutilisation")]
        summary.add_row(
            name,
            str(sum(row["violations"].values())),
            str(row["late"]),
            f"{sum(row['events'].values()):,}",
            *share,
            f"{1e3 * row['median_seconds']:.1f} ms",
            f"{row['longest_seconds']:.2f} s",
        )
    yield summary
    events = Table(title="events, and where the price of that minute came from")
    for column in ("kind", "plan", "feedback", "held"):
        events.add_column(column, justify="right")
    counted = Counter[str]()
    for row in result["runs"]:
        counted.update(row["events"])
    for kind in sorted({name.split("/")[0] for name in counted}):
        events.add_row(kind, *(f"{counted[f'{kind}/{source}']:,}" for source in ("plan", "feedback", "held")))
    yield events
