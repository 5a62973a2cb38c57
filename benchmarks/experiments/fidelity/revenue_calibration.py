"""Calibration of predicted revenue per slice of the requests, against exact outcomes of every joint action.

The errors are those of the published evaluation, of the sums over each group of a slice, weighted by the true spend:
PE = predicted / true − 1 and AbsPE = max / min − 1. Beside them stands the error that chance alone makes, from which
requests happened to come. M requests, J joint actions, V groups of a slice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation.metrics import absolute_percentage_error, percentage_error, spearman
from benchmarks.evaluation.slice_calibration import errors_by_spend, mean_by_spend, n_placements, state_slices
from benchmarks.plotting.style import new_figure, open_axes, save_figure
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

RESAMPLES = 500


def slice_rows(
    scenario: Scenario, states: np.ndarray, predicted: np.ndarray, true: np.ndarray, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Return a row for each group of each slice.

    Args:
        scenario: whose features and decisions make the slices: ``all``, ``uv``, ``w×g``, each decision.
        states: (M, F).
        predicted: (M, J) currency.
        true: (M, J) currency.
        seed: of the bootstrap.

    Returns:
        Rows of ``slice``, ``group``, ``requests``, ``spend`` (true mean per request and action), ``pe`` and its 95 %
        bootstrap interval over requests, ``abs_pe``, and ``spearman`` over the group's (request, action) pairs.

    Raises:
        InputError: the tables have other shapes.
    """
    if predicted.shape != true.shape or true.shape != (len(states), scenario.n_joint_actions):
        shape = (len(states), scenario.n_joint_actions)
        raise InputError(f"tables of shapes {predicted.shape} and {true.shape}; pass two of shape {shape}")
    weights = _resampled(len(states), seed)
    rows = []
    for name, groups in _slices(scenario, states).items():
        predicted_sums, spent = _sums(predicted, groups), _sums(true, groups)
        drawn = percentage_error(weights @ predicted_sums, weights @ spent)  # (R, V)
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
        pe = percentage_error(predicted_sums.sum(axis=0), spent.sum(axis=0))
        abs_pe = absolute_percentage_error(predicted_sums.sum(axis=0), spent.sum(axis=0))
        for v, (label, requests, actions) in enumerate(groups):
            inside = np.ix_(requests, actions)
            rows.append(
                {
                    "slice": name,
                    "group": label,
                    "requests": int(requests.sum()),
                    "spend": float(spent[:, v].sum() / (requests.sum() * actions.sum())),
                    "share": float(spent[:, v].sum() / spent.sum()),
                    "pe": float(pe[v]),
                    "pe_interval": [float(low[v]), float(high[v])],
                    "abs_pe": float(abs_pe[v]),
                    "spearman": spearman(predicted[inside], true[inside]),
                }
            )
    return rows


def slice_summary(
    scenario: Scenario, states: np.ndarray, predicted: np.ndarray, true: np.ndarray, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Return a row for each slice.

    Args:
        scenario: whose features and decisions make the slices.
        states: (M, F).
        predicted: (M, J) currency.
        true: (M, J) currency.
        seed: of the resampling.

    Returns:
        Rows of the mean size of ``pe`` and the mean ``abs_pe`` of the slice's groups, weighted by spend; ``spearman``
        of their means; and ``chance``: the AbsPE of the true means of as many requests drawn again, the least that a
        test can show.
    """
    weights, rows = _resampled(len(states), seed), []
    for name, groups in _slices(scenario, states).items():
        predicted_sums, spent, pairs = _sums(predicted, groups), _sums(true, groups), _pairs(groups)
        total, counts = spent.sum(axis=0), pairs.sum(axis=0)
        drawn_spend, drawn_pairs = weights @ spent, weights @ pairs  # (R, V)
        redrawn = absolute_percentage_error(drawn_spend / np.maximum(drawn_pairs, 1e-12), total / counts)
        rows.append(
            {
                "slice": name,
                "groups": len(groups),
                **errors_by_spend(predicted_sums.sum(axis=0), total),
                "chance": float(np.mean([mean_by_spend(row, total) for row in redrawn])),
                "spearman": spearman(predicted_sums.sum(axis=0) / counts, total / counts) if len(groups) > 1 else None,
            }
        )
    return rows


Group = tuple[str, np.ndarray, np.ndarray]
"""Label, and masks (bool) of the requests (M,) and of the joint actions (J,) that belong to the group."""


def _slices(scenario: Scenario, states: np.ndarray) -> dict[str, list[Group]]:
    """Return the groups of each slice, without empty ones."""
    all_requests, all_actions = np.ones(len(states), dtype=bool), np.ones(scenario.n_joint_actions, dtype=bool)
    slices: dict[str, list[Group]] = {}
    for name, group in state_slices(scenario, states).items():
        slices[name] = [(_group_label(scenario, name, int(g)), group == g, all_actions) for g in np.unique(group)]
    for d, decision in enumerate(scenario.decisions):
        options = scenario.joint_actions[:, d]
        slices[decision.name] = [
            (_label(option), all_requests, options == k) for k, option in enumerate(decision.options)
        ]
    return slices


def _group_label(scenario: Scenario, name: str, group: int) -> str:
    if name == "w×g":
        return "{}, {}".format(*divmod(group, n_placements(scenario)))
    return "" if name == "all" else str(group)


def _label(option: Any) -> str:
    return " + ".join(option) if isinstance(option, tuple) else str(option)


def _sums(table: np.ndarray, groups: list[Group]) -> np.ndarray:
    """Return (M, V): the share of each request in the sum of each group."""
    return np.stack([requests * table[:, actions].sum(axis=1, dtype=float) for _, requests, actions in groups], axis=1)


def _pairs(groups: list[Group]) -> np.ndarray:
    return np.stack([requests * float(actions.sum()) for _, requests, actions in groups], axis=1)


def _resampled(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 9]).multinomial(n, np.full(n, 1.0 / n), RESAMPLES).astype(float)


def calibration_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw PE of every group with its interval, a panel per slice, to ``path`` (PNG).

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    names = list(dict.fromkeys(row["slice"] for row in rows))
    figure = new_figure(figsize=(11, 2.3 * ((len(names) + 1) // 2)))
    axes = figure.subplots((len(names) + 1) // 2, 2).ravel()
    for axis, name in zip(axes, names, strict=False):
        shown = [row for row in rows if row["slice"] == name]
        middle = np.array([100 * row["pe"] for row in shown])
        low, high = 100 * np.array([row["pe_interval"] for row in shown]).T
        axis.errorbar(np.arange(len(shown)), middle, [middle - low, high - middle], fmt="o", ms=4, color="#2f7fb8")
        axis.axhline(0.0, color="black", linewidth=0.8)
        labels = [row["group"].rpartition(" + ")[2] for row in shown]
        axis.set_xticks(np.arange(len(shown)), labels, fontsize=7, rotation=90 if len(shown) > 12 else 0)
        axis.set_title(name, loc="left", fontsize=10)
        open_axes(axis)
    for axis in axes[::2]:
        axis.set_ylabel("predicted / true − 1, %", fontsize=8)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    save_figure(figure, path)
