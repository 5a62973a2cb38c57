"""Minutes to recover when ranking costs twice as much or a third of the machines is lost, with and without refits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

    from marca_env.serving import RequestPool
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
POOL = 240


def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Run each method through each change on the same arrivals; then ask both models what they know of the system."""
    from benchmarks.adaptation_figure import adaptation_figure
    from benchmarks.changing_plant import with_costs, with_machines
    from benchmarks.closed_loop import commissioned, shipped_pool
    from benchmarks.progress import progress

    pool = shipped_pool(60 if quick else POOL)
    epochs = 10 if quick else 150
    model = commissioned(pool, epochs=epochs)
    ranking = pool.scenario.cluster_names[-1]
    changes = {
        f"{ranking} costs twice as much": with_costs(pool, ranking, 2.0),
        "a third of the machines lost": with_machines(pool, 2 / 3),
    }
    chosen, newer = seeds[:1] if quick else seeds, {}
    for change, after in changes.items():
        newer[change] = model if after.costs is pool.costs else commissioned(after, epochs=epochs)
    runs: dict[str, Any] = {change: {method: [] for method in METHODS} for change in changes}
    shown: dict[str, Any] = {}
    with progress("adaptation", len(changes) * len(METHODS) * len(chosen)) as advance:
        for change, after in changes.items():
            for seed in chosen:
                for method in METHODS:
                    found, trace = changed(pool, after, model, method, seed, newer[change])
                    runs[change][method].append(found)
                    if seed == chosen[0]:
                        shown.setdefault(change, {})[method] = trace
                    advance(1)
    adaptation_figure(shown, pool.scenario.cluster_names, BEFORE, out / "adaptation.png")
    return {
        "definition": f"first minute after the change from which the means of μ and of 1 − ν over {MEAN} minutes, "
        f"averaged over the clusters, stay no further than the tolerance below their values in the hour before for "
        f"{HOLD} minutes",
        "tolerances": list(TOLERANCES),
        "minutes_after": AFTER,
        "runs": runs,
    }


def changed(
    pool: RequestPool, after: RequestPool, model: SystemModel, method: str, seed: int, newer: SystemModel | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One run: its figures, and its minutes as arrays (T,G) of load in budgets and of prices.

    Args:
        pool: requests before the change; ``after`` since.
        model: of the system before.
        method: one of :data:`METHODS`.
        seed: of traffic and arrivals.
        newer: the model that :data:`TOLD` adopts.
    """
    from benchmarks.changing_plant import ChangingPlant
    from benchmarks.closed_loop import usual_prices
    from marca_env.workload import Traffic, daily_traffic

    day = daily_traffic(pool.scenario, np.random.default_rng([seed, 31])).qps
    traffic = Traffic("changed", day[START : START + BEFORE + AFTER], START, day[:START])
    plant = ChangingPlant(pool, traffic, seed, after=after, change=BEFORE)
    balancer = _balancer(method, model, pool, traffic, seed)
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
    found = {"seed": seed, **figures(load, BEFORE)}
    if method == ADAPTIVE:
        found["adaptations"] = [[a.minute - START - BEFORE, a.kind, a.message] for a in balancer.adaptations]
        found["model"] = {
            "old": known(model, after, traffic, seed),
            "new": known(balancer.balancer.model, after, traffic, seed),
        }
    if method != FEEDBACK:
        found["events"] = len(balancer.events)
    return found, {"load": load, "prices": np.array(paid)}


def _balancer(method: str, model: SystemModel, pool: RequestPool, traffic: Any, seed: int) -> Any:
    from benchmarks.closed_loop import usual_prices
    from mpc import AdaptationSettings, AdaptiveBalancer, FeedbackBalancer, FeedbackSettings, MPCBalancer

    if method == FEEDBACK:
        return FeedbackBalancer(FeedbackSettings(scale=tuple(usual_prices(pool, float(traffic.qps.mean())).tolist())))
    balancer = MPCBalancer(model)
    unhurried = AdaptationSettings(seconds=np.inf)  # the result must not depend on how busy the machine is
    return AdaptiveBalancer(balancer, unhurried, seed=seed) if method == ADAPTIVE else balancer


def figures(load: np.ndarray, change: int) -> dict[str, Any]:
    """μ and ν per cluster around minute ``change`` of loads (T,G) in budgets, and the recovery.

    Returns:
        ``before`` and ``after`` (the hours) and ``later`` (from two hours after on): [μ (G,), ν (G,)]; ``recovery``:
        for each of the tolerances, see the result's ``definition``, minutes after the change, ``None`` where the run
        ends first.
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
    import torch

    from benchmarks.closed_loop import Plant, usual_prices
    from mpc import DitheredBalancer, FeedbackBalancer, FeedbackSettings
    from mpc.conditions import Conditions

    later = type(traffic)("probe", traffic.qps[-minutes:], traffic.minute_of_day(len(traffic) - minutes))
    plant = Plant(pool, later, seed + 1000)
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


def tables(result: Mapping[str, Any]) -> Iterable[Table]:
    """Recovery and the hour after, per change and method; then what the models know."""
    from rich.table import Table

    for change, methods in result["runs"].items():
        table = Table(title=f"{change}: {len(methods[PLAIN])} seeds; recovery in minutes, – none in {AFTER}")
        limits = [f"within {tolerance:.0%}" for tolerance in result["tolerances"]]
        for column in ("method", *limits, *(f"{x}, {when}" for when in WHEN for x in "μν")):
            table.add_column(column, justify="left" if column == "method" else "right")
        for method, runs in methods.items():
            minutes = [
                ", ".join("–" if r["recovery"][k] is None else str(r["recovery"][k]) for r in runs)
                for k in range(len(limits))
            ]
            shares = [np.mean([r[when][k] for r in runs], axis=0) for when in WHEN for k in (0, 1)]
            table.add_row(method, *minutes, *(" / ".join(f"{100 * x:.1f}" for x in share) for share in shares))
        yield table
        adaptive = methods[ADAPTIVE]
        knows = Table(title=f"{change}: error of the log cost at disturbed prices, per cluster, mean over seeds")
        for column in ("model", "level", "shape", "refits adopted"):
            knows.add_column(column, justify="right")
        for which in ("old", "new"):
            rows = [r["model"][which] for r in adaptive]
            cells = (
                " / ".join(f"{x:.3f}" for x in np.mean(np.abs([r[k] for r in rows]), axis=0))
                for k in ("level", "shape")
            )
            adopted = [sum(a[1] == "adopted" for a in r["adaptations"]) for r in adaptive]
            knows.add_row(which, *cells, ", ".join(map(str, adopted)) if which == "new" else "")
        yield knows
