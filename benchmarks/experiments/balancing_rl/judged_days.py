"""Evaluation of a policy or a balancer on a day of ``marca_env/Balancing-v0``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.experiments.balancing_rl.priced_day import PricedDay
from marca_env.traffic.utilisation import overutilisation, utilisation
from mpc import Balancer

VALIDATION_SEED = 9_000
"""The day of the learning curves, on which balancers are tuned too; no algorithm trains on it and no test uses it."""
Act = Callable[[np.ndarray], np.ndarray]
"""Observation (O,) → action (G,)."""


def judge_day(day: PricedDay, seed: int, controller: Act | Balancer) -> dict[str, Any]:
    """Run a policy or a balancer through one day.

    A learned policy gets the environment's observation, a balancer the telemetry; both set the prices of the same
    minutes.

    Args:
        day: the environment.
        seed: of its traffic and arrivals.
        controller: a function of the observation, or a balancer.

    Returns:
        ``return`` (sum of rewards), ``revenue`` (currency), and per cluster ``utilisation`` μ and ``overutilisation``
        ν (Eq. 21 and 22, arXiv 2512.24325).
    """
    observation, _ = day.reset(seed=seed)
    inner, loads, total, revenue, truncated = day.base, [], 0.0, 0.0, False
    if not callable(controller):
        controller.reset()
    while not truncated:
        if callable(controller):
            observation, reward, _, truncated, info = day.step(controller(observation))
        else:
            action = inner.action_of(controller.update(inner.control))
            _, reward, _, truncated, info = inner.step(action)
        loads.append(info["load"] / inner.scenario.budgets)
        total, revenue = total + float(reward), revenue + info["revenue"]
    load = np.array(loads)
    return {
        "seed": seed,
        "return": total,
        "revenue": revenue,
        "utilisation": utilisation(load).tolist(),
        "overutilisation": overutilisation(load).tolist(),
    }
