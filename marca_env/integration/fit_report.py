"""Report of ``marca fit``: what the logs hold, and how well the fitted models predict rows that were held out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marca_env.cascade.outcomes import OutcomeTable
from marca_env.integration import model_errors
from marca_env.integration.logged_system import LoggedSystem
from marca_env.integration.number_columns import NumberColumn
from marca_env.models.cost_model import CostModel
from marca_env.models.revenue_model import RevenueModel

HELD_OUT = 0.2
"""Share of the rows that models are evaluated on."""
LEAST_HELD_OUT = 50
"""Rows that an evaluation on a user's log needs; with fewer the report says so and gives no errors."""


@dataclass(frozen=True)
class FittedModels:
    """Both models of a system."""

    cost_model: CostModel
    revenue_model: RevenueModel


@dataclass(frozen=True)
class HeldOut:
    """Rows that models are not fitted to. N rows of results, M requests."""

    results: np.ndarray
    """bool (N,)."""
    requests: np.ndarray
    """bool (M,)."""

    @classmethod
    def draw(cls, system: LoggedSystem, seed: int) -> HeldOut:
        """Draw a fifth of the rows of each log; of a user's log none where that is too few to evaluate on."""
        rng = np.random.default_rng(seed)
        if system.coder is None:  # one log serves both models
            rows = rng.random(len(system.requests)) < HELD_OUT
            return cls(rows, rows)
        rows, requests = (rng.random(len(log)) < HELD_OUT for log in (system.results, system.requests))
        return cls(*(x if x.sum() >= LEAST_HELD_OUT else np.zeros_like(x) for x in (rows, requests)))

    @classmethod
    def nothing(cls, system: LoggedSystem) -> HeldOut:
        """Hold no row out."""
        return cls(np.zeros(len(system.results), dtype=bool), np.zeros(len(system.requests), dtype=bool))


def make_report(
    system: LoggedSystem, held_out: HeldOut, trial: FittedModels, final: FittedModels, truth: OutcomeTable | None = None
) -> dict[str, Any]:
    """Return what the logs hold and the errors of the models as plain data; JSON has no nan, so it becomes ``None``.

    Args:
        system: the logs.
        held_out: rows that ``trial`` was not fitted to.
        trial: models to evaluate.
        final: models fitted to all rows.
        truth: true outcomes of unseen requests of the live cascade.
    """
    if system.coder is None:
        return _finite(_cascade_errors(system, held_out, trial, truth))
    report = _describe_logs(system) | _user_errors(system, held_out, trial)
    if system.system is not None:
        report["load"] = _load_check(system, final.cost_model)
    return _finite(report)


def _cascade_errors(
    system: LoggedSystem, held_out: HeldOut, models: FittedModels, truth: OutcomeTable | None
) -> dict[str, Any]:
    """Evaluate models of the live cascade on held-out requests and repeats of its cost log."""
    assert system.buckets is not None
    log = system.requests[held_out.requests]
    errors: dict[str, Any] = {
        "held_out_requests": len(log),
        "cost_map": model_errors.cost_map_errors(system.scenario, system.buckets),
        "results": model_errors.result_errors(models.cost_model, log),
        "cost": model_errors.cost_errors(models.cost_model, log),
        "whole_requests": model_errors.whole_request_errors(models.cost_model, log, system.buckets),
        "revenue": model_errors.revenue_errors(models.revenue_model, log),
    }
    if truth is not None:
        errors["revenue_truth"] = model_errors.truth_errors(models.revenue_model, truth)
    return errors


def _user_errors(system: LoggedSystem, held_out: HeldOut, models: FittedModels) -> dict[str, Any]:
    """Evaluate models of a user's system on held-out rows, as far as there are enough."""
    results, requests = held_out.results, held_out.requests
    errors: dict[str, Any] = {"held_out": {"requests": int(requests.sum()), "costs": int(results.sum())}}
    if results.any():
        log = system.results[results]
        errors["results"] = model_errors.result_errors(models.cost_model, log)
        if system.costs is not None:
            errors["cost"] = model_errors.measured_cost_errors(models.cost_model, log, system.costs[results])
    if requests.any():
        errors["revenue"] = model_errors.revenue_errors(models.revenue_model, system.requests[requests])
    return errors


def _load_check(system: LoggedSystem, cost_model: CostModel) -> dict[str, Any]:
    """Compare the mean predicted cost of the logged requests with the load per request in the system log."""
    assert system.system is not None
    log = system.requests
    predicted = cost_model.predict(*model_errors.states_and_actions(system.scenario, log)).mean(axis=0)
    measured = system.system.cost
    return {
        name: {
            "predicted_per_request": float(predicted[g]),
            "ratio_to_system_log": float(predicted[g] / measured[g]),
        }
        for g, name in enumerate(system.scenario.cluster_names)
        if measured[g] > 0  # false for nan, too
    }


def _describe_logs(system: LoggedSystem) -> dict[str, Any]:
    """Count what was read, and name what the scenario took from it."""
    assert system.coder is not None
    scenario, log = system.scenario, system.requests
    logged = np.unique(log[list(scenario.decision_names)].to_numpy(), axis=0)
    return {
        "scenario": scenario.name,
        "rows": {
            "requests": len(log),
            "costs": len(system.results if system.buckets is None else system.buckets),
            "system": 0 if system.system is None else len(system.system.qps),
        },
        "cost_source": system.source,
        "peak_qps": scenario.peak_qps,
        "clusters": {c.name: {"budget": c.budget, "cores": c.cores} for c in scenario.clusters},
        "features": {
            c.name: {"coding": c.coding, "size": c.size}
            | ({"missing": _missing(c.numbers)} if c.is_number else {"codes_seen": int(log[c.name].nunique())})
            for c in system.coder.codings
        },
        **({"missing_signals": _missing(system.coder.signals)} if system.coder.signals else {}),
        "joint_actions": {"all": scenario.n_joint_actions, "seen": len(logged)},
        "options_never_seen": {
            d.name: [list(d.options[k]) if isinstance(d.options[k], tuple) else d.options[k] for k in unseen]
            for n, d in enumerate(scenario.decisions)
            if (unseen := sorted(set(range(len(d.options))) - set(logged[:, n].tolist())))
        },
    }


def _missing(columns: Sequence[NumberColumn]) -> dict[str, float]:
    """Return the columns in which the log lacks numbers, and the share of the rows that lack them."""
    return {column.column: column.missing for column in columns if column.missing}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- as text -----------------------------------------------------------------------------------------------------
def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that ``marca fit`` prints."""
    if "rows" in report:
        yield from _log_lines(report)
    if "cost_map" in report:
        errors = report["cost_map"]
        ratio = "–" if errors["ratio"] is None else f"{errors['ratio']:.2f}"
        yield (
            f"cost map: held-out error {_percent(errors['error'])} against a test–retest spread of "
            f"{_percent(errors['spread'])} (ratio {ratio})"
        )
    for name, error in report.get("results", {}).items():
        what = "signal" if "." in name else "candidates of"
        r2 = "" if error["r2"] is None else f", R² {error['r2']:.4f}"
        yield f"{what} {name}: mean error {error['mae']:.3g} ({_percent(error['relative'])}){r2}"
    for name, error in report.get("cost", {}).items():
        if isinstance(error, dict):
            yield f"cost on {name}: error {_percent(error['error'])}, calibration {error['calibration']:.3f}"
        else:
            yield f"cost on {name}: error {_percent(error)} from predicted instead of true results"
    for name, error in report.get("whole_requests", {}).items():
        yield f"cost on {name}: {_percent(error, '+')} predicted against whole requests measured"
    if "revenue" in report:
        errors = report["revenue"]
        yield (
            f"revenue: Spearman {_number(errors['spearman'])} against logged revenue, "
            f"calibration {_number(errors['calibration'])}, error by decile {_percent(errors['decile_error'])}"
        )
    if "revenue_truth" in report:
        errors = {name: _number(value) for name, value in report["revenue_truth"].items()}
        yield (
            f"revenue against the truth: Spearman {errors['spearman']} over requests and actions, "
            f"{errors['by_group']} over tenths of requests and actions, {errors['by_action']} over actions, "
            f"calibration {errors['calibration']}"
        )


def _log_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines about a user's logs."""
    rows, actions = report["rows"], report["joint_actions"]
    yield (
        f"scenario {report['scenario']}: {rows['requests']} requests, {rows['costs']} rows of costs "
        f"(source: {report['cost_source']}), {rows['system']} periods; peak {report['peak_qps']:g} requests/s"
    )
    for name, cluster in report["clusters"].items():
        check = report.get("load", {}).get(name)
        ratio = "" if check is None else f", predicted load {check['ratio_to_system_log']:.2f} of the system log's"
        yield f"cluster {name}: budget {cluster['budget']:.4g} of {cluster['cores']:.4g} cores{ratio}"
    yield f"joint actions: {actions['seen']} of {actions['all']} appear in the log"
    for name, options in report["options_never_seen"].items():
        missing = ", ".join(map(str, options))
        yield f"warning: decision {name}: no request took {missing}; predictions for these options are guesses"
    numbers = [feature["missing"] for feature in report["features"].values() if "missing" in feature]
    for column, share in (item for missing in numbers for item in missing.items()):
        yield f"column {column}: {share:.1%} of the requests lack a number; the mean stands in, and a mark says so"
    for column, share in report.get("missing_signals", {}).items():
        yield f"signal in column {column}: {share:.1%} of the rows lack it; the mean stands in"
    if not report["held_out"]["requests"]:
        yield f"too few requests to evaluate on: a fifth of them is less than {LEAST_HELD_OUT}"


def _percent(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
