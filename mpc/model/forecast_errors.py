"""Errors of load forecasts on the part of a system log that the model has not seen, beside simpler forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.model.conditions import time_features
from mpc.model.system_model import SystemModel
from mpc.model.transitions import Transitions

_RIDGE = 1e-6


class LinearModel:
    """What a linear law can do: Ĉ_{t+1} from Ĉ_t, traffic, prices and time of day, by least squares.

    Args:
        table: the log.
        rows: transitions that train it.
        logs: fit log Ĉ on log Ĉ, log traffic and log prices, which makes products and powers linear.
    """

    def __init__(self, table: Transitions, rows: np.ndarray, windows: int, logs: bool) -> None:
        self.table, self.windows, self.logs = table, windows, logs
        self.scale = np.maximum(np.median(table.prices[rows], axis=0), 1e-9)
        inputs, target = self._features(table.load[rows], rows), self._forward(table.load[rows + 1])
        self.mean, self.std = inputs.mean(0), np.maximum(inputs.std(0), 1e-9)
        x = np.column_stack([(inputs - self.mean) / self.std, np.ones(len(rows))])
        self.weights = np.linalg.solve(x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1]), x.T @ target)

    def predict(self, load: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Ĉ (n,G) of the rows after ``rows`` from Ĉ (n,G) of these."""
        x = np.column_stack([(self._features(load, rows) - self.mean) / self.std, np.ones(len(rows))])
        out = x @ self.weights
        return np.exp(np.clip(out, -30.0, 30.0)) if self.logs else out

    def _forward(self, values: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(values, 1e-9)) if self.logs else values

    def _features(self, load: np.ndarray, rows: np.ndarray) -> np.ndarray:
        qps, prices = self.table.conditions.qps, self.table.prices
        if self.logs:
            prices = np.log1p(prices / self.scale)
        when = time_features(self.table.conditions.minute[rows + 1], self.windows)[:, :-1]
        traffic = self._forward(np.stack([qps[rows], qps[rows + 1]], axis=1))
        return np.column_stack([self._forward(load), traffic, prices[rows], prices[rows + 1], when])


def forecast_errors(
    model: SystemModel, table: Transitions, training: np.ndarray, held_out: np.ndarray, horizons: Sequence[int]
) -> dict[str, Any]:
    """Errors n minutes ahead from the rows ``held_out``, traffic and prices known, for each n of ``horizons``.

    Returns:
        By str(n), for each cluster: ``rmse`` relative to the mean load; ``median_relative``, the median of
        |forecast/load − 1|; and the rmse of the forecasts that the load stays (``persistence``), that the cost per
        request stays (``persistence_per_request``), and of a linear model of the same inputs trained on the same
        rows, in plain units (``linear``) and in logarithms (``linear_in_logs``). With several members ``spread`` is
        the root mean square of their relative disagreement one minute ahead. Horizons without data are left out.
    """
    lines = {
        "linear": LinearModel(table, training, model.windows, logs=False),
        "linear_in_logs": LinearModel(table, training, model.windows, logs=True),
    }
    reports = {str(n): _errors(model, lines, table, held_out, n) for n in horizons}
    return {n: report for n, report in reports.items() if report is not None}


def _errors(
    model: SystemModel, lines: dict[str, LinearModel], table: Transitions, rows: np.ndarray, steps: int
) -> dict[str, Any] | None:
    rows = table.chains(rows, steps)
    if len(rows) == 0:
        return None
    load, others = table.load[rows], dict.fromkeys(lines, table.load[rows])
    for i in range(steps):
        before, after = table.conditions.rows(rows + i), table.conditions.rows(rows + i + 1)
        load = model.predict(load, before, table.prices[rows + i], after, table.prices[rows + i + 1])
        others = {name: lines[name].predict(others[name], rows + i) for name in lines}
    truth, mean = table.load[rows + steps], table.load[rows + steps].mean(0)
    growth = (table.conditions.qps[rows + steps] / table.conditions.qps[rows])[:, None]

    def rmse(forecast: np.ndarray) -> list[float]:
        return (np.sqrt(((forecast - truth) ** 2).mean(0)) / mean).tolist()

    report = {
        "samples": len(rows),
        "rmse": rmse(load),
        "median_relative": np.median(np.abs(load / truth - 1), axis=0).tolist(),
        "persistence": rmse(table.load[rows]),
        "persistence_per_request": rmse(growth * table.load[rows]),
        **{name: rmse(forecast) for name, forecast in others.items()},
    }
    if model.members > 1:
        spread = model.disagreement(table.prices[rows + steps], table.conditions.rows(rows + steps))
        report["spread"] = np.sqrt((spread**2).mean(0)).tolist()
    return report
