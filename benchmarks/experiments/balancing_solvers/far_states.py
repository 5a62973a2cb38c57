"""Plans from states far from the budget: is another valley of Eq. 17 better, and what happens by the true law?

The damping term of Eq. 17 (arXiv 2512.24325) starts at a threshold, so J jumps there. From a load far from the budget
the jump is many times what a plan costs otherwise. Two questions follow. Is a plan in the best valley, by the model?
And what does it cost if loads follow the law of the generated system, which differs from the model by its error?
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from benchmarks.experiments.balancing_solvers.comparison import CLOSE, price_limits
from benchmarks.experiments.balancing_solvers.generated_system import GeneratedSystem, PlanningState
from mpc import SystemModel
from mpc.planning.alternatives.registry import make_planning_method
from mpc.planning.objective import Objective
from mpc.planning.planning_method import PlannerSettings

CLUSTERS, HORIZON = 2, 10
SCP, NO_RESTARTS, QUASI_NEWTON = "SCP", "SCP without restarts", "L-BFGS-B"
MANY_STARTS, LARGE_SAMPLE = "L-BFGS-B, 8 starts", "cross-entropy, 300 samples"
TRUE_LAW = (SCP, NO_RESTARTS, QUASI_NEWTON)
"""Methods whose plans are also evaluated by the true law. L-BFGS-B minimises Eq. 17 as it is, without a distance."""


def compare_far(off: float, threshold: float, load_error: float, epochs: int, states: int, seed: int) -> dict[str, Any]:
    """Plan by every method, in turn, from states whose load is off the budget.

    Args:
        off: standard deviation of the log of load over budget.
        threshold: load at which damping starts.
        load_error: see :class:`mpc.planning.objective.ObjectiveSettings`; 0: Eq. 17 as it is.
        epochs: of the fit of the system model.
        states: number of states.
        seed: of system and states.

    Returns:
        For each method: ``own``, J of every state by the model; ``true``, J of Eq. 17 as it is by the true law, for
        :data:`TRUE_LAW`; ``cpu_ms`` of every plan. Besides ``restarts``, ``restart_gap`` and ``converged`` of SCP.
    """
    system = GeneratedSystem(CLUSTERS, seed)
    model = system.fit(epochs)
    settings = PlannerSettings(horizon=HORIZON, threshold=threshold, load_error=load_error)
    methods = _methods(model, settings, seed)
    objective, plain = Objective(settings), Objective(dataclasses.replace(settings, load_error=0.0))
    rng = np.random.default_rng([seed, round(1000 * off)])
    numbers: dict[str, Any] = {name: {"own": [], "cpu_ms": []} for name in methods}
    numbers |= {"restarts": [], "restart_gap": [], "converged": []}
    for name in TRUE_LAW:
        numbers[name]["true"] = []
    names = list(methods)
    for k in range(states):
        state = system.state(model, HORIZON, off, rng)
        for name in names[k % len(names) :] + names[: k % len(names)]:
            began = time.process_time()
            result = methods[name].plan(state.predicted, state.start)
            row = numbers[name]
            row["cpu_ms"].append(1e3 * (time.process_time() - began))
            row["own"].append(_value(objective, result.plan.loads, state))
            if name in TRUE_LAW:
                row["true"].append(_value(plain, state.true_loads(result.plan.log_prices), state))
            if name == SCP:
                numbers["restarts"].append(result.restarts)
                numbers["restart_gap"].append(result.restart_gap if result.restarts else None)
                numbers["converged"].append(result.converged)
    return numbers


def _methods(model: SystemModel, settings: PlannerSettings, seed: int) -> dict[str, Any]:
    limits = price_limits(model)

    def build(name: str, s: PlannerSettings = settings, **options: Any) -> Any:
        return make_planning_method(name, CLUSTERS, s, limits, seed=seed, **options)

    return {
        SCP: build("scp"),
        NO_RESTARTS: build("scp", dataclasses.replace(settings, restarts=0, load_error=0.0)),
        QUASI_NEWTON: build("lbfgsb", dataclasses.replace(settings, load_error=0.0)),
        MANY_STARTS: build("lbfgsb", starts=8),
        LARGE_SAMPLE: build("cem", samples=300, rounds=40, spread=0.5),
    }


def _value(objective: Objective, loads: np.ndarray, state: PlanningState) -> float:
    return float(objective(loads, state.start.load, state.start.target))


def summarise_far(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares and ratios of the runs of several seeds.

    Returns:
        ``states``; by method the share ``as_good`` as the best found, the ``worst`` ratio to it, and ``excess`` of the
        sum; mean J by the true law, ``true``; ``cpu_ms`` as [median, 95 % quantile]; and of SCP the share of states
        with ``restarts`` and the share in which a restart ``improved`` the plan.
    """
    names = [name for name, value in runs[0].items() if isinstance(value, dict)]
    own = {name: np.concatenate([run[name]["own"] for run in runs]) for name in names}
    best = np.min(list(own.values()), axis=0)
    gaps = [gap for run in runs for gap in run["restart_gap"] if gap is not None]
    times = {name: np.concatenate([run[name]["cpu_ms"] for run in runs]) for name in names}
    return {
        "states": len(best),
        "as_good": {name: float((own[name] <= CLOSE[0] * best + CLOSE[1]).mean()) for name in names},
        "worst": {name: float(((own[name] + CLOSE[1]) / (best + CLOSE[1])).max()) for name in names},
        "excess": {name: float((own[name] - best).sum() / (best + CLOSE[1]).sum()) for name in names},
        "true": {name: float(np.mean(np.concatenate([run[name]["true"] for run in runs]))) for name in TRUE_LAW},
        "cpu_ms": {name: np.quantile(times[name], [0.5, 0.95]).tolist() for name in names},
        "restarted": len(gaps) / len(best),
        "improved": sum(gap < 0 for gap in gaps) / len(best),
        "converged": float(np.mean(np.concatenate([run["converged"] for run in runs]))),
    }
