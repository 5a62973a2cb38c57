"""A cost map fitted to the measured costs of complete requests: all curves at once, each non-decreasing.

Use it where a TestBench cannot measure single components but a log has the cost of each request on each cluster. That
cost is a sum of the map's components, and each component is a sum of ramps with non-negative weights. Least squares
with non-negative coefficients (Lawson & Hanson, 1974) therefore finds all monotone curves together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from marca_env.models.cost_map import CostMap, Curve, has_channels, model_component
from marca_env.models.nominal_results import channel_is_on
from marca_env.scenario.scenario import Decision, Scenario, Stage
from marca_env.utils.errors import InputError

KNOTS = 8
"""Largest number of knots of a curve over candidates; they lie at quantiles."""
DAMPING = 1e-6
"""Damping relative to the squared length of a column."""


@dataclass(frozen=True)
class _Part:
    """A component of the map, as columns of the regression."""

    stage: str
    component: str
    knots: np.ndarray
    """(n,) candidates or recall lengths."""
    design: np.ndarray
    """(B, n) height of each ramp between the knots for each request, in [0, 1]."""


def fit_cost_map(scenario: Scenario, actions: np.ndarray, results: np.ndarray, costs: np.ndarray) -> CostMap:
    """Fit the map that is nearest to the measured costs in least squares.

    Two components that always occur together cannot be separated: their sum is right, their shares are arbitrary.

    Args:
        scenario: the system.
        actions: (B,D) option indices.
        results: (B,S) candidates processed by each stage.
        costs: (B,G) core-seconds per request.

    Raises:
        InputError: there are no requests, or costs or candidates are negative or not finite.
    """
    actions, results, costs = np.asarray(actions), np.asarray(results, dtype=float), np.asarray(costs, dtype=float)
    for name, table in (("costs", costs), ("results", results)):
        if len(table) == 0 or not np.all(np.isfinite(table)) or np.any(table < 0):
            raise InputError(
                f"{name} are empty, negative or not finite; pass finite, non-negative {name} of at least one request"
            )
    curves: dict[tuple[str, str], Curve] = {}
    for g in range(len(scenario.clusters)):
        stages = [k for k in range(len(scenario.stages)) if scenario.stage_clusters[0, k] == g]
        parts = [part for n, k in enumerate(stages) for part in _parts(scenario, k, actions, results, first=n == 0)]
        design = np.hstack([part.design for part in parts])
        is_base = np.array([part.component == "base" for part in parts for _ in range(part.design.shape[1])])
        weights = _non_negative(design, costs[:, g], ~is_base)
        at = 0
        for part in parts:
            n = part.design.shape[1]
            curves[part.stage, part.component] = _curve(part, weights[at : at + n])
            at += n
    return CostMap(scenario, curves)


def _parts(scenario: Scenario, index: int, actions: np.ndarray, results: np.ndarray, *, first: bool) -> list[_Part]:
    """Return the components of one stage. A cluster has one base cost; it is assigned to its first stage."""
    stage, processed = scenario.stages[index], results[:, index]
    parts = [_Part(stage.name, "base", np.zeros(1), np.full((len(actions), 1), float(first)))]
    if has_channels(stage):
        parts += [_channel(scenario, stage, name, actions) for name in _channels(stage)]
    else:
        knots = _knots(processed)
        parts.append(_Part(stage.name, "queue", knots, _ramps(knots, processed)))
    for decision in stage.decisions:
        if decision.kind == "model":
            option_index = actions[:, scenario.decision_names.index(decision.name)]
            parts += [
                _model(stage, decision, option, option_index == k, processed)
                for k, option in enumerate(decision.options)
                if option != "off"
            ]
    return parts


def _channels(stage: Stage) -> list[str]:
    """Return the names of the stage's channels."""
    return sorted({name for decision in stage.decisions for name in decision.channels})


def _channel(scenario: Scenario, stage: Stage, name: str, actions: np.ndarray) -> _Part:
    """Return a step at each recall length where the channel is on; a channel without lengths has one step."""
    length, knots = np.zeros(len(actions)), np.zeros(1)
    for d, decision in enumerate(scenario.decisions):
        if decision.channel == name:
            knots = np.array(decision.options, dtype=float)
            length = knots[actions[:, d]]
    on = channel_is_on(scenario, name, actions)
    return _Part(stage.name, f"channel:{name}", knots, on[:, None] * (length[:, None] >= knots))


def _model(stage: Stage, decision: Decision, option: str, on: np.ndarray, processed: np.ndarray) -> _Part:
    """Return a constant and ramps over the candidates where the option is chosen."""
    knots = np.append(0.0, _knots(processed[on])) if on.any() else np.zeros(1)
    knots = np.unique(knots)
    design = np.hstack([np.ones((len(on), 1)), _ramps(knots, processed)[:, 1:]]) * on[:, None]
    return _Part(stage.name, model_component(decision, option), knots, design)


def _knots(values: np.ndarray) -> np.ndarray:
    """Return 0 and quantiles of the positive values."""
    positive = values[values > 0]
    if len(positive) == 0:
        return np.zeros(1)
    return np.unique(np.append(0.0, np.quantile(positive, np.linspace(0.0, 1.0, KNOTS - 1))))


def _ramps(knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return (B, n) ramps: column k rises from 0 at knot k − 1 to 1 at knot k; column 0 is zero."""
    gaps = np.diff(knots)
    rises = np.clip((values[:, None] - knots[:-1]) / np.where(gaps > 0, gaps, 1.0), 0.0, 1.0)
    return np.hstack([np.zeros((len(values), 1)), rises])


def _curve(part: _Part, weights: np.ndarray) -> Curve:
    """Add up the ramps of a component to its curve."""
    return Curve(part.knots, np.cumsum(np.where(part.design.any(axis=0), weights, 0.0)))


def _non_negative(design: np.ndarray, target: np.ndarray, damped: np.ndarray) -> np.ndarray:
    """Return argmin ‖design·w − target‖² over w ≥ 0, on the triangle of a QR decomposition.

    A little damping on some columns (bool) decides what the data leave open in favour of the others, here the base.
    """
    size = np.linalg.norm(design, axis=0)
    size[size == 0] = 1.0
    q, r = np.linalg.qr(design / size)
    damping = np.sqrt(DAMPING) * np.diag(damped.astype(float))
    rows, aims = np.vstack([r, damping]), np.append(q.T @ target, np.zeros(len(damping)))
    return nnls(rows, aims, maxiter=50 * rows.shape[1])[0] / size
