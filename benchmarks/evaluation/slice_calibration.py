"""Calibration of predicted revenue over slices of the requests: what a slice is, and how its errors are weighed.

The errors are those of the published evaluation: PE and AbsPE (:mod:`benchmarks.evaluation.metrics`) of the sums over
each group of a slice. A slice has the mean size of PE and the mean AbsPE, with the true spend of its groups as weights.
The mean of PE itself, with its sign, would be the error of the total in every slice. M requests, V groups of a slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.evaluation.metrics import absolute_percentage_error, percentage_error, spearman
from marca_env.scenario.scenario import Scenario


def state_slices(scenario: Scenario, states: np.ndarray) -> dict[str, np.ndarray]:
    """Return the slices by features: name → (M,) int group of each request in ``states`` (M,W).

    They are ``all``, ``uv`` (user value) and ``w×g`` (time window × placement, w · number of placements + g); a slice
    whose features the scenario lacks is left out.
    """
    names = [scenario.state_columns[k] for k in scenario.category_columns]
    column = {name: states[:, k].astype(np.int64) for k, name in zip(scenario.category_columns, names, strict=True)}
    slices = {"all": np.zeros(len(states), dtype=np.int64)}
    if "uv" in column:
        slices["uv"] = column["uv"]
    if {"w", "g"} <= set(column):
        slices["w×g"] = column["w"] * n_placements(scenario) + column["g"]
    return slices


def n_placements(scenario: Scenario) -> int:
    """Return the number of placements, the values of feature ``g``."""
    return int(scenario.feature_sizes[scenario.feature_names.index("g")])


def request_slices(scenario: Scenario, states: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
    """Return the slices by features and by decisions: name → (M,) int group of each request.

    Args:
        scenario: gives the names of features and decisions.
        states: (M,W).
        actions: (M,D) option indices of the requests.
    """
    return state_slices(scenario, states) | {name: actions[:, d] for d, name in enumerate(scenario.decision_names)}


def mean_by_spend(errors: np.ndarray, spend: np.ndarray) -> float:
    """Return the mean of the finite ``errors`` (V,) with ``spend`` (V,) as weights; nan if nothing was spent."""
    finite = np.isfinite(errors)
    return float(np.average(errors[finite], weights=spend[finite])) if spend[finite].sum() > 0 else float("nan")


def errors_by_spend(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return ``pe``, the mean |PE|, and ``abs_pe`` of the groups' sums (V,), with the true sums as weights.

    Groups that spent nothing, or for which nothing is predicted, are left out.
    """
    return {
        "pe": mean_by_spend(np.abs(percentage_error(predicted, true)), true),
        "abs_pe": mean_by_spend(absolute_percentage_error(predicted, true), true),
    }


def slice_errors(
    predicted: np.ndarray, true: np.ndarray, slices: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Return the errors of a prediction over slices of the requests.

    Args:
        predicted: (M,) currency per request.
        true: (M,) currency per request.
        slices: name → (M,) int group of each request, e.g. of :func:`request_slices`.

    Returns:
        For each slice :func:`errors_by_spend` and ``spearman`` of the groups' means. A slice of a single group has the
        ``spearman`` of the requests.
    """
    predicted, true = np.asarray(predicted, float), np.asarray(true, float)
    errors = {}
    for name, group in slices.items():
        _, counts, predicted_sums, true_sums = _sums(predicted, true, group)
        pairs = (predicted, true) if len(counts) == 1 else (predicted_sums / counts, true_sums / counts)
        errors[name] = {**errors_by_spend(predicted_sums, true_sums), "spearman": spearman(*pairs)}
    return errors


def value_errors(predicted: np.ndarray, true: np.ndarray, slices: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the errors of a prediction in every group of every slice.

    Args:
        predicted: (M,) currency per request.
        true: (M,) currency per request.
        slices: name → (M,) group of each request.

    Returns:
        Rows of ``slice``, ``group``, ``requests``, the sums ``predicted`` and ``true``, and their ``pe`` (with its
        sign) and ``abs_pe``, nan where nothing was spent.
    """
    predicted, true = np.asarray(predicted, float), np.asarray(true, float)
    rows = []
    for name, group in slices.items():
        groups, counts, predicted_sums, true_sums = _sums(predicted, true, group)
        errors = percentage_error(predicted_sums, true_sums), absolute_percentage_error(predicted_sums, true_sums)
        for v, label in enumerate(groups.tolist()):
            row = {"slice": name, "group": label, "requests": int(counts[v])}
            row |= {"predicted": float(predicted_sums[v]), "true": float(true_sums[v])}
            rows.append(row | {"pe": float(errors[0][v]), "abs_pe": float(errors[1][v])})
    return rows


def _sums(predicted: np.ndarray, true: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the groups of a slice (V,), their numbers of requests, and the sums of the prediction and of the truth."""
    groups, index, counts = np.unique(group, return_inverse=True, return_counts=True)
    sums = (np.bincount(index.ravel(), weights=x, minlength=len(groups)) for x in (predicted, true))
    return groups, counts, *sums
