"""The model-predictive balancer in a closed loop with the simulated system, with faults in every part of it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np

from benchmarks.days.telemetry import usual_prices
from benchmarks.experiments.balancing_faults.faults import CHANCE, DEADLINE, SPELL, FaultInjector
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.simulated_system import SimulatedSystem, draw_arrivals
from marca_env.traffic.utilisation import overutilisation, utilisation
from marca_env.traffic.workload import Traffic, daily_traffic
from mpc import MPCBalancer, SystemModel

CALM = 1
"""After this many minutes without a fault the balancer must be planning again."""


def run_with_faults(
    pool: RequestPool, model: SystemModel, steps: int, seed: int, chance: float = CHANCE, spell: float = SPELL
) -> dict[str, Any]:
    """Run a closed loop for some minutes and count everything that must never happen.

    Args:
        pool: requests that are served.
        model: system model of the balancer.
        steps: minutes.
        seed: of traffic, arrivals and faults.
        chance: probability that a fault begins in a minute without one.
        spell: mean length of a fault, minutes.

    Returns:
        ``violations`` (kind → minutes), ``late`` (prices after the deadline), ``late_plans`` (plans that missed it),
        ``replanned`` (minute after the end of a fault that was planned again → number), ``injected`` (fault → minutes),
        ``events`` (``kind/price`` → number), μ and ν per cluster as ``utilisation`` and ``overutilisation`` (fractions
        of the budget within and beyond it), and the seconds of a step.
    """
    rng = np.random.default_rng([seed, 12])
    days = [daily_traffic(pool.scenario, rng).qps for _ in range(3)]
    traffic = Traffic("three days", np.concatenate(days))
    system = SimulatedSystem(pool, traffic, draw_arrivals(pool, traffic, seed))
    balancer = MPCBalancer(model, deadline=DEADLINE)
    injector = FaultInjector(balancer, rng, chance, spell)
    prices = usual_prices(pool, float(traffic.qps[0]))
    observation = system.start(prices)
    violations, seconds, load, late = Counter[str](), np.empty(steps), np.empty((steps, len(prices))), 0
    replanned, waiting = Counter[str](), False
    for k in range(steps):
        disturbed = injector.disturb(observation)
        began = time.perf_counter()
        try:
            if disturbed is not None:
                prices = balancer.update(disturbed)
        except Exception as error:
            violations[f"exception {type(error).__name__}"] += 1
        seconds[k] = time.perf_counter() - began
        late += seconds[k] > DEADLINE
        waiting = waiting or injector.calm_minutes == 0
        if waiting and injector.calm_minutes > 0 and balancer.result is not None:
            replanned[str(injector.calm_minutes)] += 1
            waiting = False
        violations.update(_violations(prices, balancer, injector))
        outcome, observation = system.step(prices)
        load[k] = outcome.equivalent / pool.scenario.budgets
    injector.release()
    return {
        "seed": seed,
        "steps": steps,
        "violations": dict(violations),
        "late": int(late),
        "late_plans": balancer.late_plans,
        "replanned": dict(replanned),
        "injected": dict(sorted(injector.injected.items())),
        "events": dict(sorted(injector.events.items())),
        "utilisation": utilisation(load).tolist(),
        "overutilisation": overutilisation(load).tolist(),
        "median_seconds": float(np.median(seconds)),
        "longest_seconds": float(seconds.max()),
    }


def _violations(prices: np.ndarray, balancer: MPCBalancer, injector: FaultInjector) -> list[str]:
    """Return what is wrong with the prices in force and with the balancer that set them."""
    kinds = []
    if prices.shape != balancer.price_max.shape or not np.all(np.isfinite(prices)):
        kinds.append("price not finite")
    elif np.any(prices < 0) or np.any(prices > balancer.price_max):
        kinds.append("price out of bounds")
    if injector.calm_minutes > CALM and balancer.result is None and injector.is_expected_to_plan:
        kinds.append(f"not planning again: {balancer.events[-1].kind if balancer.events else 'no event'}")
    return kinds
