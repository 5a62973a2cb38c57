"""Fitting the system model to a system log: data, scales from the training split, early stopping, held-out report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from marca_env.logs.schema import check_table, system_columns
from marca_env.utils.errors import InputError
from mpc.model.forecast_errors import forecast_errors
from mpc.model.system_model import SystemModel
from mpc.model.transitions import Transitions

if TYPE_CHECKING:
    import pandas as pd

SPLIT = (0.7, 0.15, 0.15)  # of the transitions, in order of time: training, early stopping, held out
MIN_TRANSITIONS = 8
_RESPONSE_WEIGHT = 0.5


def fit_system_model(
    system_log: pd.DataFrame,
    *,
    clusters: Sequence[str] | None = None,
    seed: int = 0,
    epochs: int = 150,
    hidden: int = 24,
    windows: int = 6,
    members: int = 1,
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
        members: K, models that are trained side by side and averaged; how they differ is the uncertainty.
        batch: transitions per update.
        learning_rate: of Adam.
        patience: epochs without a better validation loss of any member before stopping.
        horizons: numbers of steps whose errors are reported.
        device: where to train, "cpu" or "cuda".
        progress: called with (epoch, validation loss).

    Returns:
        The model. Its ``report["steps"][n]`` is described in :func:`mpc.model.forecast_errors.forecast_errors`.

    Raises:
        InputError: a column that is missing or a value that is not a finite number, or too few transitions.
    """
    table, clusters = _read(system_log, clusters)
    first, second = (int(len(table.starts) * share) for share in (SPLIT[0], SPLIT[0] + SPLIT[1]))
    training, validation, held_out = np.split(table.starts, [first, second])
    options = {"windows": windows, "hidden": hidden, "members": members, "seed": seed, "device": device}
    model = _initial(table, training, clusters, **options)
    trainer = Trainer(model, table, learning_rate)
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
        "persistence_gain": torch.sigmoid(model.persistence).mean(0).tolist(),
        "steps": forecast_errors(model, table, training, held_out, horizons),
    }
    return model


def _read(system_log: pd.DataFrame, clusters: Sequence[str] | None) -> tuple[Transitions, Sequence[str]]:
    """The log as arrays, checked, and the names of its clusters."""
    if clusters is None:
        clusters = [str(c).removeprefix("load_") for c in system_log.columns if str(c).startswith("load_")]
    needed = [c for c in system_columns(clusters) if not c.name.startswith(("backlog_", "revenue"))]
    table = Transitions(check_table(system_log, needed, "system log"), clusters)
    if not clusters or len(table.starts) < MIN_TRANSITIONS:
        raise InputError(
            f"system log: {len(table.starts)} transitions between consecutive minutes with traffic and load, of "
            f"{len(clusters)} clusters; at least {MIN_TRANSITIONS} are needed: log a longer run"
        )
    return table, clusters


def _initial(table: Transitions, rows: np.ndarray, clusters: Sequence[str], **options: Any) -> SystemModel:
    """An untrained model whose scales come from the training rows."""
    both = np.union1d(rows, rows + 1)
    logs_seen, minutes = np.log(table.costs(both)), table.conditions.minute[both]
    prices, costs = table.prices[rows], table.costs(rows)
    scale = [_price_scale(column) for column in prices.T]
    logs = np.log1p(prices / scale)
    scaling = {
        "price_mean": logs.mean(0),
        "price_std": np.maximum(logs.std(0), 1e-3),
        "cost_mean": np.log(costs).mean(0),
        "cost_std": np.maximum(np.log(costs).std(0), 1e-3),
    }
    hours = np.isin(np.arange(24), minutes // 60)
    seen = {"log_cost": [logs_seen.min(0), logs_seen.max(0)], "hours": hours}
    return SystemModel(clusters, scale, prices.max(0), scaling, seen=seen, **options)


def _level_shift(model: SystemModel, table: Transitions, rows: np.ndarray, prior: float = 20.0) -> np.ndarray:
    """(G, levels) mean error of the log cost per request under each level, shrunk to zero where there are few minutes.

    Estimated after the response and apart from it: levels come with overload, and a free function of both would
    credit the one with the effect of the other.
    """
    conditions = table.conditions.rows(rows)
    with torch.no_grad():
        logs = model.log_cost(model.log_prices(table.prices[rows]), model.context_tensor(conditions)).cpu().numpy()
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


class Trainer:
    """Adam on all members at once: their losses are summed, so no member's gradient reaches another's weights."""

    def __init__(self, model: SystemModel, table: Transitions, learning_rate: float) -> None:
        self.model = model
        self.context = model.context_tensor(table.conditions)  # (T,F)
        self.log_prices = model.log_prices(table.prices)  # (T,G)
        costs = np.maximum(table.load, 1e-12) / np.maximum(table.conditions.qps, 1e-12)[:, None]
        self.log_costs = torch.as_tensor(np.log(costs), device=model.device)
        self.size = torch.as_tensor(np.array(model.scaling["cost_std"]), device=model.device)
        self.parameters = [*model.response.parameters(), model.persistence]
        self.optimiser = torch.optim.Adam(self.parameters, lr=learning_rate)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimiser, factor=0.5, patience=8)

    def losses(self, rows: np.ndarray) -> torch.Tensor:
        """(K,) one-step error, plus the error of the response alone so that its level is learned as well.

        ``rows`` is (K,B), each member's own, or (1,B).
        """
        model, k = self.model, torch.as_tensor(rows, device=self.model.device)
        k = torch.cat([k, k + 1], dim=1)
        errors = self.log_costs[k] - model.batched_logs(self.log_prices[k], self.context[k])  # (K,2B,G)
        before, after = errors.chunk(2, dim=1)
        step = after - torch.sigmoid(model.persistence)[:, None] * before
        squared = (step / self.size) ** 2 + _RESPONSE_WEIGHT * (after / self.size) ** 2
        return squared.mean((1, 2))

    def step(self, rows: np.ndarray) -> float:
        """One update on ``rows``, as in :meth:`losses`; the sum of the losses before it."""
        self.optimiser.zero_grad()
        loss = self.losses(rows).sum()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

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
        """Train until no member's validation loss falls; leaves each one's best weights; the last best epoch."""
        members = self.model.members
        best, best_epoch, kept = np.full(members, np.inf), 0, self._weights()
        for epoch in range(1, epochs + 1):
            order = np.stack([rng.permutation(training) for _ in range(members)])
            for start in range(0, order.shape[1], batch):
                self.step(order[:, start : start + batch])
            with torch.no_grad():
                values = self.losses(validation[None]).cpu().numpy()
            self.schedule.step(float(values.mean()))
            if progress is not None:
                progress(epoch, float(values.mean()))
            better = values < best
            if better.any():
                best, best_epoch = np.where(better, values, best), epoch
                for old, new in zip(kept, self._weights(), strict=True):
                    old[better] = new[better]
            elif epoch - best_epoch >= patience:
                break
        for parameter, weights in zip(self.parameters, kept, strict=True):
            parameter.data = weights
        return best_epoch

    def _weights(self) -> list[torch.Tensor]:
        return [p.data.clone() for p in self.parameters]
