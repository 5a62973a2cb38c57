"""A cost map from what whole requests cost: the curves of all components at once, each non-decreasing.

Where a TestBench cannot take a system apart, its cost log still tells what each request cost on each cluster. That is
a sum of the map's components, and each component is a sum of ramps with non-negative weights, so that least squares
with non-negative coefficients (Lawson & Hanson, 1974) finds every monotone curve in one go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from marca_env.models.cost_map import CostMap, Curve, has_channels, model_component
from marca_env.scenario.scenario import Decision, Scenario, Stage
from marca_env.utils.errors import InputError

KNOTS = 8
"""Knots of a curve over candidates, at most; they lie at quantiles."""
DAMPING = 1e-6
"""Relative to the squared length of a column."""


@dataclass(frozen=True)
class _Part:
    """A component: its knots (n,) and the share of each ramp between them in the cost of each request (B, n)."""

    stage: str
    component: str
    knots: np.ndarray
    design: np.ndarray


def fit_cost_map(scenario: Scenario, actions: np.ndarray, results: np.ndarray, costs: np.ndarray) -> CostMap:
    """The map nearest to the measured costs in least squares.

    What two components always do together cannot be told apart: their sum is right, their shares are arbitrary.

    Args:
        scenario: the system.
        actions: (B,D) option indices.
        results: (B,S) candidates processed by each stage.
        costs: (B,G) core-seconds per request.

    Raises:
        InputError: no requests, or costs or candidates that are negative or not finite.
    """
    actions, results, costs = np.asarray(actions), np.asarray(results, dtype=float), np.asarray(costs, dtype=float)
    for name, table in (("costs", costs), ("results", results)):
        if len(table) == 0 or not np.all(np.isfinite(table)) or np.any(table < 0):
            raise InputError(f"{name} of requests must be finite and not negative, and there must be some")
    curves: dict[tuple[str, str], Curve] = {}
    for g in range(len(scenario.clusters)):
        stages = [k for k in range(len(scenario.stages)) if scenario.stage_clusters[0, k] == g]
        parts = [part for n, k in enumerate(stages) for part in _parts(scenario, k, actions, results, first=n == 0)]
        design = np.hstack([part.design for part in parts])
        whole = np.array([part.component == "base" for part in parts for _ in range(part.design.shape[1])])
        weights = _non_negative(design, costs[:, g], ~whole)
        at = 0
        for part in parts:
            n = part.design.shape[1]
            curves[part.stage, part.component] = _curve(part, weights[at : at + n])
            at += n
    return CostMap(scenario, curves)


def _parts(scenario: Scenario, index: int, actions: np.ndarray, results: np.ndarray, *, first: bool) -> list[_Part]:
    """Components of one stage. The base of a cluster is one number: it is put on its first stage."""
    stage, processed = scenario.stages[index], results[:, index]
    parts = [_Part(stage.name, "base", np.zeros(1), np.full((len(actions), 1), float(first)))]
    if has_channels(stage):
        parts += [_channel(scenario, stage, name, actions) for name in _channels(stage)]
    else:
        knots = _knots(processed)
        parts.append(_Part(stage.name, "queue", knots, _ramps(knots, processed)))
    for decision in stage.decisions:
        if decision.kind == "model":
            chosen = actions[:, scenario.decision_names.index(decision.name)]
            parts += [
                _model(stage, decision, option, chosen == k, processed)
                for k, option in enumerate(decision.options)
                if option != "off"
            ]
    return parts


def _channels(stage: Stage) -> list[str]:
    return sorted({name for decision in stage.decisions for name in decision.channels})


def _channel(scenario: Scenario, stage: Stage, name: str, actions: np.ndarray) -> _Part:
    """A step up to each recall length, or one step for a channel without lengths, where the channel is on."""
    length, knots = np.zeros(len(actions)), np.zeros(1)
    for d, decision in enumerate(scenario.decisions):
        if decision.channel == name:
            knots = np.array(decision.options, dtype=float)
            length = knots[actions[:, d]]
    on = _channel_on(scenario, name, actions)
    return _Part(stage.name, f"channel:{name}", knots, on[:, None] * (length[:, None] >= knots))


def _model(stage: Stage, decision: Decision, option: str, on: np.ndarray, processed: np.ndarray) -> _Part:
    """A constant and ramps over the candidates, where the option is chosen."""
    knots = np.append(0.0, _knots(processed[on])) if on.any() else np.zeros(1)
    knots = np.unique(knots)
    design = np.hstack([np.ones((len(on), 1)), _ramps(knots, processed)[:, 1:]]) * on[:, None]
    return _Part(stage.name, model_component(decision, option), knots, design)


def _knots(values: np.ndarray) -> np.ndarray:
    """0 and quantiles of the positive values."""
    positive = values[values > 0]
    if len(positive) == 0:
        return np.zeros(1)
    return np.unique(np.append(0.0, np.quantile(positive, np.linspace(0.0, 1.0, KNOTS - 1))))


def _ramps(knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(B, n): column k rises from 0 at knot k − 1 to 1 at knot k; column 0, the value at the first knot, is 0."""
    gaps = np.diff(knots)
    rises = np.clip((values[:, None] - knots[:-1]) / np.where(gaps > 0, gaps, 1.0), 0.0, 1.0)
    return np.hstack([np.zeros((len(values), 1)), rises])


def _curve(part: _Part, weights: np.ndarray) -> Curve:
    return Curve(part.knots, np.cumsum(np.where(part.design.any(axis=0), weights, 0.0)))


def _non_negative(design: np.ndarray, target: np.ndarray, damped: np.ndarray) -> np.ndarray:
    """argmin ‖design·w − target‖², w ≥ 0, on the triangle of a QR decomposition, whose size is that of w.

    A touch of damping on some columns (bool) settles what the data do not, in favour of the others: of the base.
    """

    size = np.linalg.norm(design, axis=0)
    size[size == 0] = 1.0
    q, r = np.linalg.qr(design / size)
    damping = np.sqrt(DAMPING) * np.diag(damped.astype(float))
    rows, aims = np.vstack([r, damping]), np.append(q.T @ target, np.zeros(len(damping)))
    return nnls(rows, aims, maxiter=50 * rows.shape[1])[0] / size


def nominal_results(scenario: Scenario, actions: np.ndarray) -> np.ndarray:
    """(B,S) candidates that each stage processes if every queue is full, as its decisions (B,D) let through.

    For logs that do not tell: the recall lengths of the channels that are on, or the stage's ``queue_limit``, then
    the queue that each stage hands on. A stage about which nothing is said processes one.
    """
    actions = np.asarray(actions)
    results = np.ones((len(actions), len(scenario.stages)))
    arriving: np.ndarray | None = None
    for s, stage in enumerate(scenario.stages):
        recalled = np.zeros(len(actions))
        for d, decision in enumerate(scenario.decisions):
            if scenario.decision_stage[d] == s and decision.channel is not None:
                recalled += _channel_on(scenario, decision.channel, actions) * np.array(decision.options)[actions[:, d]]
        if recalled.any():
            arriving = recalled
        if arriving is not None:
            results[:, s] = arriving
        for d, decision in enumerate(scenario.decisions):
            if scenario.decision_stage[d] == s and decision.kind == "queue" and decision.channel is None:
                handed = np.array(decision.options, dtype=float)[actions[:, d]]
                arriving = handed if arriving is None else np.minimum(arriving, handed)
                if s == 0 and not recalled.any():
                    results[:, s] = handed
        if stage.queue_limit is not None and arriving is not None:
            arriving = np.minimum(arriving, stage.queue_limit)
    return results


def _channel_on(scenario: Scenario, name: str, actions: np.ndarray) -> np.ndarray:
    on = np.ones(len(actions))
    for d, decision in enumerate(scenario.decisions):
        if decision.kind == "channel":
            on = on * np.array([float(name in option) for option in decision.options])[actions[:, d]]
    return on
