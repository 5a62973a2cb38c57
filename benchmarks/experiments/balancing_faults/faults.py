"""Random faults of telemetry, traffic forecast and solver, injected into a model-predictive balancer."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter, deque
from typing import Any

import numpy as np

from marca_env.traffic.control import ControlObservation
from mpc import MPCBalancer

CHANCE = 0.1
"""Probability that a fault begins in a minute without one."""
SPELL = 4
"""Mean length of a fault, minutes."""
DEADLINE = 2.0
"""Time limit of the balancer, seconds; a few planners hang for longer than this."""

TELEMETRY_FAULTS = (
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
    "traffic jumps",
    "load jumps",
    "frozen",
    "delayed",
    "attributes raise",
)
DELAY = 5
"""Minutes by which delayed telemetry is late."""
FORECAST_FAULTS = (
    "forecast missing",
    "forecast infinite",
    "forecast negative",
    "forecast too short",
    "forecast raises",
)
HANG, LONG_HANG = "planner hangs", "planner hangs for long"
SOLVER_FAULTS = (
    "solver raises",
    "solver infeasible",
    "solver fails",
    "solver out of time",
    "solver returns no numbers",
    "planner returns no numbers",
    "planner raises",
    "model returns no numbers",
    "planner panics",
    HANG,
    LONG_HANG,
)
HANG_SHARE = 0.2
"""Share of the drawn hangs that are carried out: each costs seconds of real time."""
LONG_HANG_MINUTES = 30
"""Minutes after which a planner that hangs for long is released. Planning must be back long before."""


class Panic(BaseException):
    """An error as a solver written in Rust raises it."""


class FaultInjector:
    """Disturbs a balancer's telemetry, forecaster and planner in spells of random length.

    Args:
        balancer: whose forecaster, planner and solver are wrapped in place.
        rng: draws the faults.
        chance: probability that a fault begins in a minute without one.
        spell: mean length of a fault, minutes.

    Attributes:
        fault: the fault in force; empty if there is none.
        injected: number of minutes of each fault.
        events: number of events of the balancer as ``kind/price``.
        calm_minutes: minutes since the last disturbed one.
    """

    def __init__(self, balancer: MPCBalancer, rng: np.random.Generator, chance: float, spell: float = SPELL) -> None:
        self.balancer, self.rng, self.chance, self.spell = balancer, rng, chance, spell
        self.injected, self.events = Counter[str](), Counter[str]()
        self.fault, self._minutes_left, self.calm_minutes = "", 0, 0
        self._past: deque[ControlObservation] = deque(maxlen=DELAY + 1)
        self._frozen: ControlObservation | None = None
        self._hanging: deque[tuple[int, threading.Event]] = deque()  # (minute of the release, what they wait for)
        self._minute = 0
        balancer.forecaster = _FaultyForecaster(balancer.forecaster, self)  # type: ignore[assignment]
        new_planner = balancer._new_planner
        balancer._new_planner = lambda: self._wrapped(new_planner())  # type: ignore[method-assign]
        balancer._use_planner(self._wrapped(balancer.planner))

    def _wrapped(self, planner: Any) -> Any:
        """Return a planner whose faults, and those of its solver, this injector switches on."""
        problem = planner.problem
        problem.compiled = _FaultyProgram(problem.compiled, self)
        direct = problem.active_set  # without it every faulty step reaches the solver
        problem.active_set = lambda *a, **k: None if self.fault in SOLVER_FAULTS else direct(*a, **k)
        return _FaultyPlanner(planner, self)

    def hang(self) -> None:
        """Block the calling thread for :data:`LONG_HANG_MINUTES` control steps."""
        released = threading.Event()
        self._hanging.append((self._minute + LONG_HANG_MINUTES, released))
        released.wait()

    def release(self, before: float = float("inf")) -> None:
        """End the long hangs that are due before a minute."""
        while self._hanging and self._hanging[0][0] < before:
            self._hanging.popleft()[1].set()

    @property
    def is_expected_to_plan(self) -> bool:
        """Return whether the last event of the balancer leaves it no reason to be without a plan."""
        events = self.balancer.events
        return not (events and events[-1].kind == "range")

    def disturb(self, observation: ControlObservation) -> Any:
        """Return the observation that the balancer gets this minute; ``None`` if it gets none."""
        self._count_events()
        self._minute += 1
        self.release(self._minute)
        self._past.append(observation)
        if self._minutes_left == 0:
            self._draw_fault()
            self._frozen = observation
        if not self.fault:
            self.calm_minutes += 1
            return observation
        self._minutes_left -= 1
        self.calm_minutes = 0
        self.injected[self.fault] += 1
        if self.fault == "frozen":  # the last minute's values under the clock of this minute
            return dataclasses.replace(self._frozen or observation, minute=observation.minute)
        if self.fault == "delayed":
            return self._past[0]
        return _damaged(observation, self.fault, self.rng) if self.fault in TELEMETRY_FAULTS else observation

    def _draw_fault(self) -> None:
        self.fault = ""
        if self.rng.random() < self.chance:
            kinds = (TELEMETRY_FAULTS, FORECAST_FAULTS, SOLVER_FAULTS)[int(self.rng.integers(3))]
            self.fault = str(self.rng.choice(kinds))
            if self.fault in (HANG, LONG_HANG) and self.rng.random() > HANG_SHARE:
                self.fault = "solver raises"
            is_hang = self.fault in (HANG, LONG_HANG)
            self._minutes_left = int(self.rng.integers(1, 4)) if is_hang else int(self.rng.geometric(1 / self.spell))

    def _count_events(self) -> None:
        """Count the events since the last minute; the balancer keeps the last 10,000 only."""
        for event in self.balancer.events:
            self.events[f"{event.kind}/{event.price}"] += 1
        self.balancer.events.clear()


def _damaged(observation: ControlObservation, fault: str, rng: np.random.Generator) -> Any:
    size = len(observation.load)
    nan, one_missing = np.full(size, np.nan), np.where(np.arange(size) == rng.integers(size), np.nan, observation.load)
    minute = observation.minute
    changes: dict[str, dict[str, Any]] = {
        "load missing": {"load": nan},
        "one load missing": {"load": one_missing},
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
        "traffic jumps": {"qps": observation.qps * float(rng.choice([0.05, 20.0]))},
        "load jumps": {"load": observation.load * float(rng.choice([0.2, 8.0]))},
    }
    if fault == "attributes raise":
        return Unreadable(observation, str(rng.choice(["load", "qps", "minute", "prices", "budget"])))
    return None if fault == "gap" else dataclasses.replace(observation, **changes[fault])


class Unreadable:
    """An observation of which one attribute raises an error that nobody expects.

    Args:
        observation: the values of the other attributes.
        name: the attribute that raises.
    """

    def __init__(self, observation: ControlObservation, name: str) -> None:
        self._observation, self._name = observation, name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise ConnectionError("the metrics store does not answer")
        return getattr(self._observation, name)


class _FaultyForecaster:
    def __init__(self, inner: Any, injector: FaultInjector) -> None:
        self._inner, self._injector = inner, injector
        self.period = inner.period

    def observe(self, minute: int, qps: float) -> None:
        if self._injector.fault == "forecast raises":
            raise KeyError("no such series")
        self._inner.observe(minute, qps)

    def forecast(self, horizon: int) -> Any:
        forecast, fault = self._inner.forecast(horizon), self._injector.fault
        if fault == "forecast missing":
            return np.where(np.arange(horizon) == horizon // 2, np.nan, forecast)
        if fault == "forecast infinite":
            return forecast * np.inf
        if fault == "forecast negative":
            return -forecast - 1.0
        return forecast[:-1] if fault == "forecast too short" else forecast

    def reset(self) -> None:
        self._inner.reset()


class _FaultyPlanner:
    def __init__(self, inner: Any, injector: FaultInjector) -> None:
        self._inner, self._injector = inner, injector
        self.problem = inner.problem

    def plan(self, predicted: Any, *rest: Any) -> Any:
        fault = self._injector.fault
        if fault == "planner raises":
            raise (ZeroDivisionError, MemoryError, RecursionError)[int(self._injector.rng.integers(3))]("injected")
        if fault == "planner panics":
            raise Panic("index out of bounds")
        if fault == HANG:
            time.sleep(1.25 * DEADLINE)
        if fault == LONG_HANG:
            self._injector.hang()
        if fault == "model returns no numbers":
            predicted.bias = np.nan
        result = self._inner.plan(predicted, *rest)
        if fault == "planner returns no numbers":
            result = result._replace(plan=result.plan._replace(log_prices=result.plan.log_prices * np.nan))
        return result


class _FaultyProgram:
    def __init__(self, inner: Any, injector: FaultInjector) -> None:
        self._inner, self._injector = inner, injector

    def solve(self, values: Any, time_limit: float = np.inf) -> tuple[str, list[np.ndarray]]:
        fault = self._injector.fault
        if fault == "solver raises":
            raise ArithmeticError("the factorisation broke down")
        status, solution = self._inner.solve(values, time_limit)
        if fault == "solver returns no numbers":
            solution = [x * np.nan for x in solution]
        forced = {"solver infeasible": "infeasible", "solver fails": "failed", "solver out of time": "time limit"}
        return forced.get(fault, status), solution
