"""Fitting the system model to a system log, and its errors on the part of the log that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from marca_env.errors import InputError
from marca_env.logs import check_table, system_columns
from mpc.system_model import Conditions, SystemModel

if TYPE_CHECKING:
    import pandas as pd

SPLIT = (0.7, 0.15, 0.15)  # of the transitions, in order of time: training, early stopping, held out
MIN_TRANSITIONS = 10
_RESPONSE_WEIGHT = 0.5


class _Table:
    """Columns of a system log as arrays, T rows, and the rows whose successor is the next control period."""

    def __init__(self, log: pd.DataFrame, clusters: Sequence[str]) -> None:
        def of(name: str) -> np.ndarray:
            return log[[f"{name}_{c}" for c in clusters]].to_numpy(dtype=np.float64)  # (T,G)

        self.load, self.prices = of("load"), of("price")
        self.conditions = Conditions(
            qps=log["qps"].to_numpy(dtype=np.float64),
            minute=log["minute"].to_numpy(dtype=np.float64),
            degradation=of("degradation"),
        )
        day = log["day"].to_numpy()
        usable = (self.conditions.qps > 0) & (self.load > 0).all(axis=1)
        self.joined = (day[1:] == day[:-1]) & usable[1:] & usable[:-1]  # (T-1,): row k leads to row k + 1
        self.starts = np.flatnonzero(self.joined)
        calm = (self.conditions.degradation == 0).all(axis=1)
        self.calm = np.append(calm[1:] & calm[:-1], False)  # (T,): no level in force at row k nor at k + 1

    def mostly_calm(self, rows: np.ndarray) -> np.ndarray:
        """The rows without degradation, where they are at least half."""
        calm = rows[self.calm[rows]]
        return calm if 2 * len(calm) >= len(rows) else rows

    def costs(self, rows: np.ndarray) -> np.ndarray:
        return self.load[rows] / self.conditions.qps[rows, None]


def fit_system_model(
    system_log: pd.DataFrame,
    *,
    clusters: Sequence[str] | None = None,
    seed: int = 0,
    epochs: int = 150,
    hidden: int = 24,
    windows: int = 6,
    batch: int = 256,
    learning_rate: float = 0.02,
    patience: int = 30,
    horizons: Sequence[int] = (1, 5, 10),
    device: str = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> SystemModel:
    """Fit Ĉ_{t+1} = g(Ĉ_t, s_t, λ_t) (Eq. 18, arXiv 2512.24325).

    Transitions are split by time: the first 70 % train (feature scaling comes from them alone), the next 15 %
    decide when to stop, the last 15 % are held out for ``report``. Minutes under degradation teach no more than a
    constant per level, unless most minutes are such. Prices must vary for their effect to be
    learned: log with a balancer wrapped in :class:`mpc.DitheredBalancer`.

    Args:
        system_log: columns day, minute, qps and, per cluster, load, price and degradation; consecutive rows of a
            day are one control period apart.
        clusters: their names in order; ``None``: as the ``load_<cluster>`` columns stand.
        seed: of the initial weights and the order of the batches.
        epochs: most passes over the training transitions.
        hidden: units of each of the two layers, per cluster.
        windows: equal parts of the day between which the mix of requests may jump.
        batch: transitions per update.
        learning_rate: of Adam.
        patience: epochs without a better validation loss before stopping.
        horizons: numbers of steps whose errors are reported.
        device: where to train, "cpu" or "cuda".
        progress: called with (epoch, validation loss).

    Returns:
        The model. ``report["steps"][n]`` of it gives, per horizon n and for each cluster: ``rmse`` relative to the
        mean load; ``median_relative``, the median of |forecast/load − 1|; and the rmse of the forecasts that the load
        stays (``persistence``) or that the cost per request stays, traffic known (``persistence_per_request``).

    Raises:
        InputError: a column that is missing or a value that is not a finite number, or too few transitions.
    """
    if clusters is None:
        clusters = [str(c).removeprefix("load_") for c in system_log.columns if str(c).startswith("load_")]
    needed = [c for c in system_columns(clusters) if not c.name.startswith(("backlog_", "revenue"))]
    table = _Table(check_table(system_log, needed, "system log"), clusters)
    if not clusters or len(table.starts) < MIN_TRANSITIONS:
        raise InputError(
            f"system log: {len(table.starts)} transitions between consecutive minutes with traffic and load, of "
            f"{len(clusters)} clusters; at least {MIN_TRANSITIONS} are needed: log a longer run"
        )
    first, second = (int(len(table.starts) * share) for share in (SPLIT[0], SPLIT[0] + SPLIT[1]))
    training, validation, held_out = np.split(table.starts, [first, second])
    model = _initial(table, training, clusters, windows=windows, hidden=hidden, seed=seed, device=device)
    trainer = _Trainer(model, table, learning_rate)
    best = trainer.run(
        table.mostly_calm(training),
        table.mostly_calm(validation),
        epochs,
        batch,
        patience,
        np.random.default_rng(seed),
        progress,
    )
    model.level_shift = _level_shift(model, table, training)
    model.report = {
        "transitions": {"training": len(training), "validation": len(validation), "held_out": len(held_out)},
        "epochs": best,
        "persistence_gain": torch.sigmoid(model.persistence).tolist(),
        "steps": {str(n): errors for n in horizons if (errors := _errors(model, table, held_out, n))},
    }
    return model


def _initial(table: _Table, rows: np.ndarray, clusters: Sequence[str], **options: Any) -> SystemModel:
    """An untrained model whose scales come from the training rows."""
    prices, costs = table.prices[rows], table.costs(rows)
    scale = [_price_scale(column) for column in prices.T]
    logs = np.log1p(prices / scale)
    scaling = {
        "price_mean": logs.mean(0),
        "price_std": np.maximum(logs.std(0), 1e-3),
        "cost_mean": np.log(costs).mean(0),
        "cost_std": np.maximum(np.log(costs).std(0), 1e-3),
    }
    return SystemModel(clusters, scale, prices.max(0), scaling, **options)


def _level_shift(model: SystemModel, table: _Table, rows: np.ndarray, prior: float = 20.0) -> np.ndarray:
    """(G, levels) mean error of the log cost per request under each level, shrunk to zero where there are few minutes.

    Estimated after the response and apart from it: levels come with overload, and a free function of both would
    credit the one with the effect of the other.
    """
    conditions = table.conditions.rows(rows)
    with torch.no_grad():
        logs = model.log_cost(model._log(table.prices[rows]), model._context(conditions)).cpu().numpy()
    errors = np.log(table.costs(rows)) - logs  # (n,G)
    levels = conditions.degradation.astype(np.int64)
    shift = np.zeros((model.n_clusters, int(levels.max()) + 1))
    for level in range(1, shift.shape[1]):
        at = levels == level
        shift[:, level] = np.where(at, errors, 0.0).sum(0) / (at.sum(0) + prior)
    return shift


def _price_scale(prices: np.ndarray) -> float:
    """The price below which the response is about linear: a low quantile of the positive ones."""
    positive = prices[prices > 0]
    return float(np.quantile(positive, 0.1)) if len(positive) else 1.0


class _Trainer:
    def __init__(self, model: SystemModel, table: _Table, learning_rate: float) -> None:
        self.model = model
        self.context = model._context(table.conditions)  # (T,F)
        self.log_prices = model._log(table.prices)  # (T,G)
        costs = np.maximum(table.load, 1e-12) / np.maximum(table.conditions.qps, 1e-12)[:, None]
        self.log_costs = model._tensor(np.log(costs))
        self.parameters = [*model.response.parameters(), model.persistence]
        self.optimiser = torch.optim.Adam(self.parameters, lr=learning_rate)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimiser, factor=0.5, patience=8)

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        """One-step error, plus the error of the response alone so that its level is learned as well."""
        model, k = self.model, torch.as_tensor(rows, device=self.model.device)
        k = torch.cat([k, k + 1])
        before, after = (self.log_costs[k] - model.log_cost(self.log_prices[k], self.context[k])).chunk(2)
        step = after - torch.sigmoid(model.persistence) * before
        size = model._scale["cost_std"]
        return ((step / size) ** 2).mean() + _RESPONSE_WEIGHT * ((after / size) ** 2).mean()

    def run(
        self,
        training: np.ndarray,
        validation: np.ndarray,
        epochs: int,
        batch: int,
        patience: int,
        rng: np.random.Generator,
        progress: Callable[[int, float], None] | None,
    ) -> int:
        """Train until the validation loss stops falling; leaves the best weights in place and returns their epoch."""
        best, best_epoch, kept = np.inf, 0, self._weights()
        for epoch in range(1, epochs + 1):
            order = rng.permutation(training)
            for start in range(0, len(order), batch):
                self.optimiser.zero_grad()
                self.loss(order[start : start + batch]).backward()
                self.optimiser.step()
            with torch.no_grad():
                value = float(self.loss(validation))
            self.schedule.step(value)
            if progress is not None:
                progress(epoch, value)
            if value < best:
                best, best_epoch, kept = value, epoch, self._weights()
            elif epoch - best_epoch >= patience:
                break
        for parameter, weights in zip(self.parameters, kept, strict=True):
            parameter.data = weights
        return best_epoch

    def _weights(self) -> list[torch.Tensor]:
        return [p.data.clone() for p in self.parameters]


def _errors(model: SystemModel, table: _Table, rows: np.ndarray, steps: int) -> dict[str, Any] | None:
    """Relative root mean squared errors ``steps`` minutes ahead, traffic and prices known; None without data."""
    rows = rows[rows + steps < len(table.load)]
    rows = np.array([k for k in rows if table.joined[k : k + steps].all()], dtype=np.int64)
    if len(rows) == 0:
        return None
    load = table.load[rows]
    for i in range(steps):
        before, after = table.conditions.rows(rows + i), table.conditions.rows(rows + i + 1)
        load = model.predict(load, before, table.prices[rows + i], after, table.prices[rows + i + 1])
    truth, mean = table.load[rows + steps], table.load[rows + steps].mean(0)
    growth = (table.conditions.qps[rows + steps] / table.conditions.qps[rows])[:, None]

    def rmse(forecast: np.ndarray) -> list[float]:
        return (np.sqrt(((forecast - truth) ** 2).mean(0)) / mean).tolist()

    return {
        "samples": len(rows),
        "rmse": rmse(load),
        "median_relative": np.median(np.abs(load / truth - 1), axis=0).tolist(),
        "persistence": rmse(table.load[rows]),
        "persistence_per_request": rmse(growth * table.load[rows]),
    }
