"""A balancer's run through a change of the system, and its recovery.

T minutes, G clusters. μ is the utilisation, ν the over-utilisation of the budgets, both as fractions of the budget.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.days.calibration import Calibration
from benchmarks.days.telemetry import usual_prices
from benchmarks.experiments.balancing_adaptation.changing_system import ChangingSystem
from marca_env.models.request_pool import RequestPool
from marca_env.traffic.simulated_system import SimulatedSystem, draw_arrivals
from marca_env.traffic.workload import Traffic, daily_traffic
from mpc import (
    AdaptationSettings,
    AdaptiveBalancer,
    DitheredBalancer,
    FeedbackBalancer,
    FeedbackSettings,
    MPCBalancer,
    SystemModel,
)
from mpc.model.conditions import Conditions

FEEDBACK, PLAIN, ADAPTIVE, INFORMED = "feedback", "MPC", "MPC, adaptive", "MPC, told"
METHODS = (FEEDBACK, PLAIN, ADAPTIVE, INFORMED)
"""``MPC, told`` knows of the change: in its minute it adopts a model fitted on days of the changed system. This is the
best that refits can reach."""
START = 9 * 60
"""Minute of the day at which a run begins; the traffic is that of a generated day."""
BEFORE, AFTER = 90, 240
"""Minutes before the change and after it."""
MEAN, HOLD = 15, 30
"""A system has recovered when its means over 15 minutes stay within the tolerance for 30 minutes."""
TOLERANCES = (0.01, 0.02)
"""Tolerances of μ and ν, fractions of the budget."""
HOUR = 60


def run_through_change(
    before: Calibration, after: RequestPool, method: str, seed: int, newer: SystemModel | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run a balancer on a system that changes.

    Args:
        before: calibration on the system before the change, with its model.
        after: requests since the change.
        method: one of :data:`METHODS`.
        seed: of traffic and arrivals.
        newer: the model that :data:`INFORMED` adopts.

    Returns:
        The numbers of :func:`recovery_around` and the ``tuned`` settings, of the adaptive balancer also ``adaptations``
        and errors of the old and the new ``model``; and the minutes: ``load`` as a fraction of the budget and
        ``prices``, (T, G) each.
    """
    pool = before.pool
    day = daily_traffic(pool.scenario, np.random.default_rng([seed, 31])).qps
    traffic = Traffic("changed", day[START : START + BEFORE + AFTER], START, day[:START])
    system = ChangingSystem(pool, traffic, draw_arrivals(pool, traffic, seed), after=after, change=BEFORE)
    balancer, tuned = _balancer(method, before, seed)
    prices = usual_prices(pool, float(traffic.qps[0]))
    observation, loads, prices_set = system.start(prices), [], []
    for minute in range(len(traffic)):
        if method == INFORMED and minute == BEFORE and newer is not None:
            balancer.adopt(newer)
        prices = balancer.update(observation)
        outcome, observation = system.step(prices)
        loads.append(outcome.equivalent / system.clusters.budgets)
        prices_set.append(prices)
    load = np.array(loads)
    numbers = {**recovery_around(load, BEFORE), "tuned": tuned}
    if method == ADAPTIVE:
        numbers["adaptations"] = [[a.minute - START - BEFORE, a.kind, a.message] for a in balancer.adaptations]
        numbers["model"] = {
            "old": model_errors(before.model, after, traffic, seed),
            "new": model_errors(balancer.balancer.model, after, traffic, seed),
        }
    if method != FEEDBACK:
        numbers["events"] = len(balancer.events)
    return numbers, {"load": load, "prices": np.array(prices_set)}


def _balancer(method: str, before: Calibration, seed: int) -> tuple[Any, dict[str, float]]:
    """Return the balancer and its tuned settings; all model-predictive ones share the margin of plain MPC."""
    if method == FEEDBACK:
        settings = before.feedback
        tuned = {name: getattr(settings, name) for name in ("proportional", "integral", "margin")}
        return FeedbackBalancer(settings), tuned
    balancer = MPCBalancer(before.model, margin=before.margin, release_margin=before.release_margin)
    tuned = {"margin": before.margin}
    if method != ADAPTIVE:
        return balancer, tuned
    no_time_limit = AdaptationSettings(seconds=np.inf)  # the result must not depend on how busy the machine is
    return AdaptiveBalancer(balancer, no_time_limit, seed=seed), tuned


def recovery_around(load: np.ndarray, change: int) -> dict[str, Any]:
    """Return μ and ν per cluster around a change, and the time of the recovery.

    Args:
        load: (T, G), fractions of the budget.
        change: minute of the change.

    Returns:
        ``before`` and ``after`` (an hour each) and ``later`` (from two hours after the change): [μ (G,), ν (G,)];
        ``recovery``: for each of the tolerances the first minute after the change from which, for :data:`HOLD` minutes,
        the means of μ and of 1 − ν over :data:`MEAN` minutes and over the clusters stay no further than the tolerance
        below their values in the hour before; ``None`` if the run ends first.
    """
    use, over = np.minimum(load, 1.0), np.maximum(load - 1.0, 0.0)
    hours = {"before": slice(change - HOUR, change), "after": slice(change, change + HOUR)}
    hours["later"] = slice(change + 2 * HOUR, None)
    numbers: dict[str, Any] = {k: [use[h].mean(0).tolist(), over[h].mean(0).tolist()] for k, h in hours.items()}
    ones = np.ones(MEAN) / MEAN
    means = [np.convolve(x.mean(1)[change:], ones, "valid") for x in (use, -over)]  # [t]: minutes t … t + 14 after
    usual = [x[hours["before"]].mean() for x in (use, -over)]
    shortfall = np.minimum(means[0] - usual[0], means[1] - usual[1])
    recovery = []
    for tolerance in TOLERANCES:
        lasting = np.convolve(shortfall >= -tolerance, np.ones(HOLD), "valid") > HOLD - 0.5
        recovery.append(int(lasting.argmax()) if lasting.any() else None)
    return {**numbers, "recovery": recovery}


def model_errors(
    model: SystemModel, pool: RequestPool, traffic: Traffic, seed: int, minutes: int = 120
) -> dict[str, Any]:
    """Return the errors of a model's log cost per request at disturbed prices, per cluster.

    Args:
        model: the system model.
        pool: requests that the system serves.
        traffic: of which the last minutes are simulated.
        seed: of arrivals and disturbances.
        minutes: their number.

    Returns:
        ``level``: (G,) mean error, which a bias corrects; ``shape``: (G,) standard deviation about it, which only
        better slopes reduce.
    """
    last_minutes = Traffic("probe", traffic.qps[-minutes:], traffic.minute_of_day(len(traffic) - minutes))
    system = SimulatedSystem(pool, last_minutes, draw_arrivals(pool, last_minutes, seed + 1000))
    scale = usual_prices(pool, float(last_minutes.qps.mean()))
    explore = DitheredBalancer(FeedbackBalancer(FeedbackSettings(scale=tuple(scale.tolist()))), seed=seed, zero=0.0)
    observation, errors = system.start(scale), []
    for k in range(minutes):
        prices, levels = explore.update(observation), observation.degradation
        outcome, observation = system.step(prices)
        now = Conditions(np.array(outcome.qps), np.array(last_minutes.minute_of_day(k)), levels)
        with torch.no_grad():
            expected = model.log_cost(model.log_prices(prices), model.context_tensor(now)).cpu().numpy()
        errors.append(np.log(outcome.equivalent / outcome.qps) - expected)
    table = np.array(errors)
    return {"level": table.mean(0).tolist(), "shape": table.std(0).tolist()}
