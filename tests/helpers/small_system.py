"""A small recommender for the tests of balancers: 300 kinds of request, 200 joint actions, two clusters.

It is not a mock: :class:`marca_env.traffic.simulated_system.SimulatedSystem` serves the requests. Only the tables of
value and cost are synthetic: value has diminishing returns in both queue lengths, and the cost of ranking depends on
the candidates that retrieval found. Shapes: M kinds of request, J joint actions, G clusters.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Cluster, Decision, Feature, Protection, Scenario, Stage
from marca_env.traffic.control import Balancer, ControlObservation
from marca_env.traffic.simulated_system import SimulatedSystem
from marca_env.traffic.utilisation import overutilisation, utilisation
from marca_env.traffic.workload import Traffic
from marca_env.utils.units import MINUTES_PER_DAY
from mpc import DitheredBalancer, FeedbackBalancer, FeedbackSettings, SystemModel

PEAK_QPS = 400.0


def make_scenario(budgets: tuple[float, float] = (7.0, 7.0)) -> Scenario:
    """Return a scenario of two stages with one cluster each."""
    lengths = tuple(int(x) for x in np.unique(np.geomspace(20, 800, 20).astype(int)))
    truncations = tuple(int(x) for x in np.geomspace(8, 300, 10))
    return Scenario(
        name="small-system",
        stages=(
            Stage("retrieval", "retrieval", (Decision("length", "queue", lengths),)),
            Stage("ranking", "ranking", (Decision("truncation", "queue", truncations),)),
        ),
        clusters=tuple(
            Cluster(n, cores=1.4 * b, budget=b) for n, b in zip(("retrieval", "ranking"), budgets, strict=True)
        ),
        features=(Feature("w", 6), Feature("uv", 10)),
        peak_qps=PEAK_QPS,
        # Only a real overload degrades: f(D) is one number per level, and near the budget its error alone would switch
        # the level on and off without end.
        protection=Protection(trigger=1.3, release=0.95),
    )


def make_pool(seed: int = 0, per_window: int = 50, share: float = 0.24) -> RequestPool:
    """Return a pool whose budgets are ``share`` of the load of a peak minute in which computation is free."""
    rng = np.random.default_rng(seed)
    scenario = make_scenario()
    lengths = np.array(scenario.decisions[0].options, dtype=float)
    truncations = np.array(scenario.decisions[1].options, dtype=float)
    length = lengths[scenario.joint_actions[:, 0]]  # (J,)
    truncation = truncations[scenario.joint_actions[:, 1]]
    n = 6 * per_window
    window = np.repeat(np.arange(6), per_window)
    bucket = rng.integers(0, 10, n)
    value = 0.02 * np.exp(0.25 * bucket + rng.normal(0, 0.6, n) + 0.15 * np.sin(window))[:, None]  # (M,1)
    candidates = length * np.clip(rng.normal(0.8, 0.1, n), 0.4, 1.0)[:, None]  # (M,J)
    ranked = np.minimum(truncation, candidates)
    revenue = value * (1 - np.exp(-candidates / 150)) * np.log1p(ranked / 15)
    speed = (1 + 0.15 * np.cos(window + 1) + rng.normal(0, 0.05, n))[:, None]
    costs = np.stack([0.002 + 2.5e-5 * speed * length, 0.001 + 6e-5 * speed * ranked], axis=-1)  # (M,J,G)
    free = costs[np.arange(n), revenue.argmax(1)].mean(0)
    scenario = make_scenario(tuple(share * PEAK_QPS * free))
    states = np.stack([window, bucket], axis=1)
    return RequestPool(scenario, states, {"revenue": revenue.astype(np.float32)}, costs.astype(np.float32))


@dataclass
class Run:
    """A closed loop: what happened in it."""

    log: pd.DataFrame
    """A system log, a row per minute."""
    utilisation: np.ndarray
    """(G,) μ."""
    over: np.ndarray
    """(G,) ν."""
    seconds: np.ndarray
    """(T-1,) wall-clock time of each update of the balancer."""


def simulate(
    pool: RequestPool,
    balancer: Balancer,
    days: np.ndarray,
    *,
    seed: int = 0,
    start: tuple[float, float] | None = None,
    minutes: tuple[int, int] = (0, MINUTES_PER_DAY),
) -> Run:
    """Run a closed loop in which the balancer sees telemetry only.

    Args:
        pool: requests and clusters.
        balancer: sets the prices from the second minute on.
        days: (D,1440) requests per second of each minute.
        seed: seed of the arrivals.
        start: prices of the first minute; ``None``: zero.
        minutes: first and last minute of the only day; several days are run whole.
    """
    days = np.atleast_2d(days)
    assert len(days) == 1 or minutes == (0, MINUTES_PER_DAY)
    traffic = Traffic("days", days[:, slice(*minutes)].ravel(), first_minute=minutes[0])
    system = SimulatedSystem(pool, traffic, np.random.default_rng(seed))
    prices = np.zeros(2) if start is None else np.asarray(start, dtype=float)
    observation, rows, seconds = system.start(prices), [], []
    for k in range(len(traffic)):
        if k > 0:
            began = time.perf_counter()
            prices = balancer.update(observation)
            seconds.append(time.perf_counter() - began)
        outcome, observation = system.step(prices)
        rows.append(
            [k // MINUTES_PER_DAY, traffic.minute_of_day(k), outcome.qps, *outcome.equivalent, *prices,
             *outcome.degradation, *observation.backlog, outcome.outcomes["revenue"]]
        )  # fmt: skip
    names = [f"{k}_{c}" for k in ("load", "price", "degradation", "backlog") for c in pool.scenario.cluster_names]
    log = pd.DataFrame(rows, columns=["day", "minute", "qps", *names, "revenue"])
    load = log[["load_retrieval", "load_ranking"]].to_numpy() / pool.scenario.budgets
    return Run(log, utilisation(load), overutilisation(load), np.array(seconds))


def sine_days(n: int, seed: int = 0, low: float = 0.2) -> np.ndarray:
    """Return requests per second (n,1440): a wave between ``low`` and 1 times the peak, with a slow random factor."""
    rng = np.random.default_rng(seed)
    minutes = np.arange(MINUTES_PER_DAY)
    out = []
    for _ in range(n):
        wave = low + (1 - low) * 0.5 * (1 - np.cos(2 * np.pi * (minutes / MINUTES_PER_DAY - 0.1)))
        bumps = np.interp(minutes, np.linspace(0, MINUTES_PER_DAY, 25), rng.normal(0, 0.1, 25))
        out.append(PEAK_QPS * np.clip(wave * np.exp(bumps), 0.05, 1.0))
    return np.array(out)


@cache
def fitted() -> tuple[RequestPool, pd.DataFrame, SystemModel]:
    """Return a pool, a system log of three days of disturbed prices, and the system model fitted to it; cached."""
    pool = make_pool(per_window=60)
    feedback = FeedbackBalancer(FeedbackSettings(scale=2.0), price_max=300.0)
    balancer = DitheredBalancer(feedback, seed=3, price_max=300.0)
    log = simulate(pool, balancer, sine_days(3, seed=5), seed=11, start=(3.0, 3.0)).log
    return pool, log, SystemModel.fit(log, seed=0, epochs=60)


def observe(
    pool: RequestPool,
    *,
    minute: float = 600,
    qps: float = 300.0,
    load: np.ndarray | None = None,
    prices: tuple[float, ...] | np.ndarray = (5.0, 5.0),
    degradation: tuple[int, ...] = (0, 0),
) -> ControlObservation:
    """Return telemetry with given values; the load is the budget unless it is given."""
    budget = pool.scenario.budgets
    return ControlObservation(
        minute=minute,  # type: ignore[arg-type]  # tests also give minutes that cannot be read
        qps=qps,
        load=budget.copy() if load is None else np.asarray(load, dtype=float),
        budget=budget,
        degradation=np.array(degradation),
        backlog=np.zeros(2),
        prices=np.asarray(prices, dtype=float),
    )
