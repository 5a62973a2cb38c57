"""Minutes to recover when ranking costs twice as much or a third of the machines is lost, with and without refits.

Feedback's gains and the margins of all are tuned: on generated days that no seed runs on, without any change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.days.calibration import MARGINS, Calibration, gain_grid
from benchmarks.days.telemetry import fit_system_model, shipped_pool, usual_prices
from benchmarks.experiments.balancing_adaptation.changing_system import ChangingSystem, with_costs, with_machines
from benchmarks.experiments.balancing_adaptation.figure import adaptation_figure
from benchmarks.suite.api import Case, Row, rows_by_method
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.simulated_system import SimulatedSystem, draw_arrivals
from marca_env.traffic.workload import Traffic, daily_traffic
from mpc import DitheredBalancer, FeedbackBalancer, FeedbackSettings
from mpc.model.conditions import Conditions

if TYPE_CHECKING:
    from rich.table import Table

    from marca_env.models.request_pool import RequestPool
    from mpc import SystemModel

SEEDS = (0, 1, 2, 3, 4)
FEEDBACK, PLAIN, ADAPTIVE, TOLD = "feedback", "MPC", "MPC, adaptive", "MPC, told"
METHODS = (FEEDBACK, PLAIN, ADAPTIVE, TOLD)
"""``MPC, told`` adopts, the minute that the change comes, a model fitted on days of the changed system: the most that
refits can bring."""
START = 9 * 60
"""Minute of the day at which a run begins; the traffic is a generated day's."""
BEFORE, AFTER = 90, 240
"""Minutes before the change and after it."""
MEAN, HOLD = 15, 30
"""Recovered: from there on the means over 15 minutes stay within the tolerance for 30 minutes."""
TOLERANCES = (0.01, 0.02)
"""Of the budget, for μ and for ν."""
HOUR = 60
WHEN = ("before", "after", "later")
DEARER, FEWER = "ranking costs twice as much", "a third of the machines lost"
CHANGES = (DEARER, FEWER)
EFFORT = {"requests": 240, "epochs": 150, "tuning": 720}
QUICK_EFFORT = {"requests": 60, "epochs": 10, "tuning": 10}
"""Of the pool that is served, of the fit of the system model, and minutes of the days of tuning."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Each method through each change with each seed, on the same arrivals."""
    window = {"before": BEFORE, "after": AFTER, "mean": MEAN, "hold": HOLD, "tolerances": list(TOLERANCES)}
    chosen = seeds[:1] if quick else seeds
    return [
        Case(method, seed, task=change, budget=QUICK_EFFORT if quick else EFFORT, config={**window, **_grid(method)})
        for change in CHANGES
        for seed in chosen
        for method in METHODS
    ]


def _grid(method: str) -> dict[str, Any]:
    """What :class:`benchmarks.days.calibration.Calibration` tunes a method over."""
    return {
        "tuned": {"gains": [list(gains) for gains in gain_grid()]} if method == FEEDBACK else {"margins": list(MARGINS)}
    }


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """What :func:`changed` finds; load and prices of every minute are kept in the folder for the figure."""
    requests, epochs = case.budget["requests"], case.budget["epochs"]
    newer = _model(requests, epochs, dearer=case.task == DEARER) if case.method == TOLD else None
    before, after = _before(**case.budget), _pools(requests)[case.task][1]
    found, minutes = changed(before, after, case.method, case.seed, newer)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(_minutes(folder, case), load=minutes["load"], prices=minutes["prices"])
    return found


def _minutes(folder: Path, case: Case) -> Path:
    return folder / f"{case.key}.npz"


@cache
def _pools(requests: int) -> dict[str, tuple[RequestPool, RequestPool]]:
    """Change → the requests before it and since."""
    pool = shipped_pool(requests)
    ranking = pool.scenario.cluster_names[-1]
    return {DEARER: (pool, with_costs(pool, ranking, 2.0)), FEWER: (pool, with_machines(pool, 2 / 3))}


@cache
def _model(requests: int, epochs: int, *, dearer: bool) -> SystemModel:
    """Fitted on days before any change, or on days of dearer ranking; budgets come with the telemetry, so that lost
    machines make no other model. Once in a process.
    """
    return fit_system_model(_pools(requests)[DEARER][int(dearer)], epochs=epochs)


@cache
def _before(requests: int, epochs: int, tuning: int) -> Calibration:
    """What is known before any change. Once in a process, so that all seeds share what is tuned."""
    model = _model(requests, epochs, dearer=False)
    return Calibration(Engine.load("default"), requests=requests, tuning=tuning, given_model=model)


def changed(
    before: Calibration, after: RequestPool, method: str, seed: int, newer: SystemModel | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One run: its figures, and its minutes as arrays (T,G) of load in budgets and of prices.

    Args:
        before: the system before the change, with its model and what is tuned on it.
        after: requests since the change.
        method: one of :data:`METHODS`.
        seed: of traffic and arrivals.
        newer: the model that :data:`TOLD` adopts.
    """
    pool = before.pool
    day = daily_traffic(pool.scenario, np.random.default_rng([seed, 31])).qps
    traffic = Traffic("changed", day[START : START + BEFORE + AFTER], START, day[:START])
    plant = ChangingSystem(pool, traffic, draw_arrivals(pool, traffic, seed), after=after, change=BEFORE)
    balancer, tuned = _balancer(method, before, seed)
    prices = usual_prices(pool, float(traffic.qps[0]))
    observation, used, paid = plant.start(prices), [], []
    for minute in range(len(traffic)):
        if method == TOLD and minute == BEFORE and newer is not None:
            balancer.adopt(newer)
        prices = balancer.update(observation)
        outcome, observation = plant.step(prices)
        used.append(outcome.equivalent / plant.clusters.budgets)
        paid.append(prices)
    load = np.array(used)  # (T,G)
    found = {**around(load, BEFORE), "tuned": tuned}
    if method == ADAPTIVE:
        found["adaptations"] = [[a.minute - START - BEFORE, a.kind, a.message] for a in balancer.adaptations]
        found["model"] = {
            "old": known(before.model, after, traffic, seed),
            "new": known(balancer.balancer.model, after, traffic, seed),
        }
    if method != FEEDBACK:
        found["events"] = len(balancer.events)
    return found, {"load": load, "prices": np.array(paid)}


def _balancer(method: str, before: Calibration, seed: int) -> tuple[Any, dict[str, float]]:
    """The balancer and what of its settings is tuned: all that are model-predictive share the margin of plain MPC."""
    from mpc import AdaptationSettings, AdaptiveBalancer, FeedbackBalancer, MPCBalancer

    if method == FEEDBACK:
        chosen = before.feedback
        return FeedbackBalancer(chosen), {n: getattr(chosen, n) for n in ("proportional", "integral", "margin")}
    balancer = MPCBalancer(before.model, margin=before.margin, release_margin=before.release_margin)
    unhurried = AdaptationSettings(seconds=np.inf)  # the result must not depend on how busy the machine is
    adaptive = AdaptiveBalancer(balancer, unhurried, seed=seed) if method == ADAPTIVE else balancer
    return adaptive, {"margin": before.margin}


def around(load: np.ndarray, change: int) -> dict[str, Any]:
    """μ and ν per cluster around minute ``change`` of loads (T,G) in budgets, and the recovery.

    Returns:
        ``before`` and ``after`` (the hours) and ``later`` (from two hours after on): [μ (G,), ν (G,)]; ``recovery``:
        for each of the tolerances, the first minute after the change from which the means of μ and of 1 − ν over
        :data:`MEAN` minutes, averaged over the clusters, stay no further than it below their values in the hour before
        for :data:`HOLD` minutes; ``None`` where the run ends first.
    """
    use, over = np.minimum(load, 1.0), np.maximum(load - 1.0, 0.0)
    hours = {"before": slice(change - HOUR, change), "after": slice(change, change + HOUR)}
    hours["later"] = slice(change + 2 * HOUR, None)
    found: dict[str, Any] = {k: [use[h].mean(0).tolist(), over[h].mean(0).tolist()] for k, h in hours.items()}
    ones = np.ones(MEAN) / MEAN
    means = [np.convolve(x.mean(1)[change:], ones, "valid") for x in (use, -over)]  # [t]: minutes t … t + 14 after
    least = [x[hours["before"]].mean() for x in (use, -over)]
    worst = np.minimum(means[0] - least[0], means[1] - least[1])
    recovery = []
    for tolerance in TOLERANCES:
        lasting = np.convolve(worst >= -tolerance, np.ones(HOLD), "valid") > HOLD - 0.5
        recovery.append(int(lasting.argmax()) if lasting.any() else None)
    return {**found, "recovery": recovery}


def known(model: SystemModel, pool: RequestPool, traffic: Any, seed: int, minutes: int = 120) -> dict[str, Any]:
    """What a model knows of a system: errors of its log cost per request at disturbed prices, per cluster.

    Returns:
        ``level``: (G,) mean error, which a bias takes away; ``shape``: (G,) standard deviation about it, which only
        better slopes do.
    """
    later = type(traffic)("probe", traffic.qps[-minutes:], traffic.minute_of_day(len(traffic) - minutes))
    plant = SimulatedSystem(pool, later, draw_arrivals(pool, later, seed + 1000))
    scale = usual_prices(pool, float(later.qps.mean()))
    explore = DitheredBalancer(FeedbackBalancer(FeedbackSettings(scale=tuple(scale.tolist()))), seed=seed, zero=0.0)
    observation, errors = plant.start(scale), []
    for k in range(minutes):
        prices, levels = explore.update(observation), observation.degradation
        outcome, observation = plant.step(prices)
        now = Conditions(np.array(outcome.qps), np.array(later.minute_of_day(k)), levels)
        with torch.no_grad():
            expected = model.log_cost(model.log_prices(prices), model.context_tensor(now)).cpu().numpy()
        errors.append(np.log(outcome.equivalent / outcome.qps) - expected)
    found = np.array(errors)
    return {"level": found.mean(0).tolist(), "shape": found.std(0).tolist()}


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Recovery and the hour after, per change and method; then what the models know."""
    for change in dict.fromkeys(row.case.task for row in rows):
        there = rows_by_method(row for row in rows if row.case.task == change)
        methods = {name: [row.numbers for row in mine] for name, mine in there.items()}
        yield _recovery(change, methods)
        if ADAPTIVE in methods:
            yield _knowledge(change, methods[ADAPTIVE])


def _recovery(change: str, methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    seeds = max(map(len, methods.values()))
    table = Table(
        title=f"{change}, {seeds} seed{'s'[: seeds > 1]}: recovery in minutes, – none in {AFTER}; "
        "μ and ν in percent; gains and margins tuned before the change"
    )
    limits = [f"within {tolerance:.0%}" for tolerance in TOLERANCES]
    for column in ("method", *limits, *(f"{x}, {when}" for when in WHEN for x in "μν")):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, runs in methods.items():
        minutes = [
            ", ".join("–" if r["recovery"][k] is None else str(r["recovery"][k]) for r in runs)
            for k in range(len(limits))
        ]
        shares = [np.mean([r[when][k] for r in runs], axis=0) for when in WHEN for k in (0, 1)]
        table.add_row(method, *minutes, *(" / ".join(f"{100 * x:.1f}" for x in share) for share in shares))
    return table


def _knowledge(change: str, adaptive: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=f"{change}: error of the log cost at disturbed prices, per cluster, mean over seeds")
    for column in ("model", "level", "shape", "refits adopted"):
        table.add_column(column, justify="right")
    for which in ("old", "new"):
        errors = [r["model"][which] for r in adaptive]
        cells = (
            " / ".join(f"{x:.3f}" for x in np.mean(np.abs([e[k] for e in errors]), axis=0)) for k in ("level", "shape")
        )
        adopted = [sum(a[1] == "adopted" for a in r["adaptations"]) for r in adaptive]
        table.add_row(which, *cells, ", ".join(map(str, adopted)) if which == "new" else "")
    return table


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """``adaptation.png``: the minutes of the first seed whose minutes are there, a column per change."""
    shown: dict[str, Any] = {}
    there = [row.case for row in rows if _minutes(folder, row.case).is_file()]
    for case in there:
        if case.seed == min(c.seed for c in there):
            with np.load(_minutes(folder, case)) as minutes:
                shown.setdefault(case.task, {})[case.method] = dict(minutes)
    if not shown:
        return {}
    path = folder / "adaptation.png"
    adaptation_figure(shown, Scenario.load("default").cluster_names, BEFORE, path)
    return {"Load against budget around a change, λ below": path}
