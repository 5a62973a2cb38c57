"""Forecast errors of a system model on held-out minutes of a log, compared with simpler forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mpc.model.conditions import time_features
from mpc.model.load_dynamics import LoadDynamics
from mpc.model.transitions import Transitions

_RIDGE = 1e-6


def response_errors(model: LoadDynamics, table: Transitions, rows: np.ndarray) -> np.ndarray:
    """Return the errors (n,G) of the log cost per request of ``rows``, predicted from prices and time alone."""
    with torch.no_grad():
        context = model.context_tensor(table.conditions.select(rows))
        expected = model.log_cost(model.log_prices(table.prices[rows]), context).cpu().numpy()
    return np.log(table.costs(rows)) - expected


def one_step_errors(model: LoadDynamics, table: Transitions, rows: np.ndarray) -> np.ndarray:
    """Return the errors (n,G) of the log cost per request one minute after ``rows`` (Eq. 18, arXiv 2512.24325)."""
    before, after = (response_errors(model, table, k) for k in (rows, rows + 1))
    gain = torch.sigmoid(model.persistence.detach()).mean(0).cpu().numpy()  # (G,)
    return after - gain * before


class LinearModel:
    """A baseline: Ĉ_{t+1} as a linear function of Ĉ_t, traffic, prices and time of day, by least squares.

    Args:
        table: the log.
        rows: transitions to fit on.
        windows: number of equal windows of a day.
        logs: fit log Ĉ on log Ĉ, log traffic and log prices, in which products and powers are linear.
    """

    def __init__(self, table: Transitions, rows: np.ndarray, windows: int, logs: bool) -> None:
        self.table, self.windows, self.logs = table, windows, logs
        self.scale = np.maximum(np.median(table.prices[rows], axis=0), 1e-9)
        inputs, target = self._features(table.load[rows], rows), self._transform(table.load[rows + 1])
        self.mean, self.std = inputs.mean(0), np.maximum(inputs.std(0), 1e-9)
        x = np.column_stack([(inputs - self.mean) / self.std, np.ones(len(rows))])
        self.weights = np.linalg.solve(x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1]), x.T @ target)

    def predict(self, load: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return Ĉ (n,G) one minute after ``rows``, given Ĉ (n,G) of ``rows``."""
        x = np.column_stack([(self._features(load, rows) - self.mean) / self.std, np.ones(len(rows))])
        forecast = x @ self.weights
        return np.exp(np.clip(forecast, -30.0, 30.0)) if self.logs else forecast

    def _transform(self, values: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(values, 1e-9)) if self.logs else values

    def _features(self, load: np.ndarray, rows: np.ndarray) -> np.ndarray:
        qps, prices = self.table.conditions.qps, self.table.prices
        if self.logs:
            prices = np.log1p(prices / self.scale)
        time = time_features(self.table.conditions.minute[rows + 1], self.windows)[:, :-1]
        traffic = self._transform(np.stack([qps[rows], qps[rows + 1]], axis=1))
        return np.column_stack([self._transform(load), traffic, prices[rows], prices[rows + 1], time])


def forecast_errors(
    model: LoadDynamics, table: Transitions, training: np.ndarray, held_out: np.ndarray, horizons: Sequence[int]
) -> dict[str, Any]:
    """Return the forecast errors n minutes after ``held_out`` for each n of ``horizons``; traffic and prices are known.

    Args:
        model: the fitted model.
        table: the log.
        training: rows to fit the linear baselines on.
        held_out: rows from which to forecast.
        horizons: numbers of minutes ahead.

    Returns:
        A dictionary by str(n) with, for each cluster:

        - ``rmse``: root mean square error relative to the mean load;
        - ``median_relative``: the median of |forecast/load − 1|;
        - ``persistence``: rmse of the forecast that the load stays;
        - ``persistence_per_request``: rmse of the forecast that the cost per request stays;
        - ``linear``, ``linear_in_logs``: rmse of :class:`LinearModel` in plain units and in logarithms;
        - ``spread``, with several members: root mean square of their relative disagreement one minute ahead.

        Horizons without data are left out.
    """
    baselines = {
        "linear": LinearModel(table, training, model.windows, logs=False),
        "linear_in_logs": LinearModel(table, training, model.windows, logs=True),
    }
    reports = {str(n): _errors(model, baselines, table, held_out, n) for n in horizons}
    return {n: report for n, report in reports.items() if report is not None}


def _errors(
    model: LoadDynamics, baselines: dict[str, LinearModel], table: Transitions, rows: np.ndarray, steps: int
) -> dict[str, Any] | None:
    rows = table.chains(rows, steps)
    if len(rows) == 0:
        return None
    load, baseline_loads = table.load[rows], dict.fromkeys(baselines, table.load[rows])
    for i in range(steps):
        before, after = table.conditions.select(rows + i), table.conditions.select(rows + i + 1)
        load = model.predict(load, before, table.prices[rows + i], after, table.prices[rows + i + 1])
        baseline_loads = {name: baselines[name].predict(baseline_loads[name], rows + i) for name in baselines}
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
        **{name: rmse(forecast) for name, forecast in baseline_loads.items()},
    }
    if model.members > 1:
        spread = model.disagreement(table.prices[rows + steps], table.conditions.select(rows + steps))
        report["spread"] = np.sqrt((spread**2).mean(0)).tolist()
    return report
