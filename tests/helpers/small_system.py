"""A small recommender for the tests of balancers: 300 kinds of request, 200 joint actions, two clusters.

Not a mock: requests are served by :mod:`marca_env.traffic.allocation` and the clusters run :mod:`marca_env.traffic.clusters`. Only the
tables of value and cost are synthetic: value has diminishing returns in both queue lengths, and the cost of ranking
depends on what retrieval found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Cluster, Decision, Feature, Protection, Scenario, Stage
from marca_env.traffic.allocation import allocate, arrivals, serve_minute
from marca_env.traffic.clusters import ClusterModel, ControlObservation

PEAK_QPS = 400.0
MINUTES = 1440


def make_scenario(budgets: tuple[float, float] = (7.0, 7.0)) -> Scenario:
    lengths = tuple(int(x) for x in np.unique(np.geomspace(20, 800, 20).astype(int)))
    truncations = tuple(int(x) for x in np.geomspace(8, 300, 10))
    return Scenario(
        name="plant",
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
        # the level on and off for ever.
        protection=Protection(trigger=1.3, release=0.95),
    )


def make_pool(seed: int = 0, per_window: int = 50, share: float = 0.24) -> RequestPool:
    """``share``: the budgets as a part of the load of a peak minute in which computation is free."""
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
    found = length * np.clip(rng.normal(0.8, 0.1, n), 0.4, 1.0)[:, None]  # (M,J)
    ranked = np.minimum(truncation, found)
    revenue = value * (1 - np.exp(-found / 150)) * np.log1p(ranked / 15)
    speed = (1 + 0.15 * np.cos(window + 1) + rng.normal(0, 0.05, n))[:, None]
    costs = np.stack([0.002 + 2.5e-5 * speed * length, 0.001 + 6e-5 * speed * ranked], axis=-1)  # (M,J,G)
    free = costs[np.arange(n), revenue.argmax(1)].mean(0)
    scenario = make_scenario(tuple(share * PEAK_QPS * free))
    states = np.stack([window, bucket], axis=1)
    return RequestPool(scenario, states, {"revenue": revenue.astype(np.float32)}, costs.astype(np.float32))


@dataclass
class Run:
    log: pd.DataFrame
    utilisation: np.ndarray  # (G,) Eq. 21
    over: np.ndarray  # (G,) Eq. 22
    seconds: np.ndarray  # (T,) time of each update


def simulate(pool, balancer, days, *, seed=0, start=None, minutes=(0, 1440)) -> Run:
    """Closed loop over part of each of ``days`` (D,1440) QPS; the balancer sees telemetry only."""
    import time

    rng = np.random.default_rng(seed)
    cluster = ClusterModel(pool.scenario)
    state = cluster.initial()
    prices = np.zeros(2) if start is None else np.asarray(start, dtype=float)
    rows, observation, seconds = [], None, []
    days = np.atleast_2d(days)
    for day, series in enumerate(days):
        for minute in range(*minutes):
            if observation is not None:
                observation = cluster.observe(minute, observation[0], observation[1], state, prices)
                began = time.perf_counter()
                prices = balancer.update(observation)
                seconds.append(time.perf_counter() - began)
            counts = arrivals(rng, pool, series[minute], 60.0, minute)
            chosen = allocate(pool.outcomes["revenue"], pool.costs, prices)
            outcome, state = serve_minute(pool, chosen, counts, cluster, state, 60.0)
            observation = (outcome.qps, outcome.equivalent)
            rows.append(
                [day, minute, outcome.qps, *outcome.equivalent, *prices, *outcome.degradation,
                 *state.backlog, outcome.outcomes["revenue"]]
            )  # fmt: skip
    names = [f"{k}_{c}" for k in ("load", "price", "degradation", "backlog") for c in pool.scenario.cluster_names]
    log = pd.DataFrame(rows, columns=["day", "minute", "qps", *names, "revenue"])
    load = log[["load_retrieval", "load_ranking"]].to_numpy() / pool.scenario.budgets
    return Run(log, np.minimum(load, 1).mean(0), (np.maximum(load, 1) - 1).mean(0), np.array(seconds))


def sine_days(n: int, seed: int = 0, low: float = 0.2) -> np.ndarray:
    """(n,1440) QPS: a daily wave between ``low`` and 1 times the peak, with a slow random factor."""
    rng = np.random.default_rng(seed)
    minutes = np.arange(MINUTES)
    out = []
    for _ in range(n):
        wave = low + (1 - low) * 0.5 * (1 - np.cos(2 * np.pi * (minutes / MINUTES - 0.1)))
        bumps = np.interp(minutes, np.linspace(0, MINUTES, 25), rng.normal(0, 0.1, 25))
        out.append(PEAK_QPS * np.clip(wave * np.exp(bumps), 0.05, 1.0))
    return np.array(out)


@cache
def fitted():
    """A pool, a system log of two and a half dithered days, and the system model fitted to it; made once a run."""
    from mpc import DitheredBalancer, FeedbackBalancer, FeedbackSettings, SystemModel

    pool = make_pool(per_window=60)
    feedback = FeedbackBalancer(FeedbackSettings(scale=2.0), price_max=300.0)
    balancer = DitheredBalancer(feedback, seed=3, price_max=300.0)
    log = simulate(pool, balancer, sine_days(3, seed=5), seed=11, start=(3.0, 3.0)).log
    return pool, log, SystemModel.fit(log, seed=0, epochs=60)


def observe(pool, *, minute=600, qps=300.0, load=None, prices=(5.0, 5.0), degradation=(0, 0)) -> ControlObservation:
    """Telemetry written by hand; the load is the budget unless given."""
    budget = pool.scenario.budgets
    return ControlObservation(
        minute=minute,
        qps=qps,
        load=budget.copy() if load is None else np.asarray(load, dtype=float),
        budget=budget,
        degradation=np.array(degradation),
        backlog=np.zeros(2),
        prices=np.asarray(prices, dtype=float),
    )
