"""The parts of fitting a system model: reading the log, splitting it by time, scales of the features, and training.

:meth:`mpc.SystemModel.fit` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from marca_env.logs.schema import check_table, system_columns
from marca_env.utils.errors import InputError
from mpc.model.forecast_errors import response_errors
from mpc.model.load_dynamics import LoadDynamics
from mpc.model.transitions import Transitions

if TYPE_CHECKING:
    import pandas as pd

SPLIT = (0.7, 0.15, 0.15)
"""Shares of the transitions, in order of time, for training, early stopping and held-out errors."""
MIN_TRANSITIONS = 8
_RESPONSE_WEIGHT = 0.5
_LEVEL_PRIOR = 20.0  # minutes of evidence that a degradation level shifts nothing


def read_transitions(system_log: pd.DataFrame, clusters: Sequence[str] | None) -> tuple[Transitions, Sequence[str]]:
    """Return the checked log as arrays, and the names of its clusters.

    Args:
        system_log: the log; see :meth:`mpc.SystemModel.fit`.
        clusters: names of the clusters; ``None``: in the order of the ``load_<cluster>`` columns.

    Raises:
        InputError: a missing column, a value that is not a finite number, or too few transitions.
    """
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


def split_by_time(rows: np.ndarray) -> list[np.ndarray]:
    """Split ``rows``, in order of time, into training, validation and held-out rows."""
    first, second = (int(len(rows) * share) for share in (SPLIT[0], SPLIT[0] + SPLIT[1]))
    return np.split(rows, [first, second])


def training_scales(table: Transitions, rows: np.ndarray) -> dict[str, Any]:
    """Return the arguments of :class:`LoadDynamics` that the training rows determine."""
    both = np.union1d(rows, rows + 1)
    all_log_costs, minutes = np.log(table.costs(both)), table.conditions.minute[both]
    prices, costs = table.prices[rows], table.costs(rows)
    scale = [_price_scale(column) for column in prices.T]
    log_prices = np.log1p(prices / scale)
    return {
        "price_scale": scale,
        "price_limit": prices.max(0),
        "scaling": {
            "price_mean": log_prices.mean(0),
            "price_std": np.maximum(log_prices.std(0), 1e-3),
            "cost_mean": np.log(costs).mean(0),
            "cost_std": np.maximum(np.log(costs).std(0), 1e-3),
        },
        "coverage": {
            "log_cost": [all_log_costs.min(0), all_log_costs.max(0)],
            "hours": np.isin(np.arange(24), minutes // 60),
        },
    }


def _price_scale(prices: np.ndarray) -> float:
    """Return a low quantile of the positive prices; below it the response is about linear in the price."""
    positive = prices[prices > 0]
    return float(np.quantile(positive, 0.1)) if len(positive) else 1.0


def level_shift(model: LoadDynamics, table: Transitions, rows: np.ndarray) -> np.ndarray:
    """Return the mean error of the log cost per request under each degradation level, (G, levels).

    It is shrunk to zero for levels with few minutes. It is estimated after the response and apart from it: degradation
    comes with overload, and a joint fit would attribute the effect of one to the other.
    """
    errors = response_errors(model, table, rows)  # (n,G)
    levels = table.conditions.degradation[rows].astype(np.int64)
    shift = np.zeros((model.n_clusters, int(levels.max()) + 1))
    for level in range(1, shift.shape[1]):
        at_level = levels == level
        shift[:, level] = np.where(at_level, errors, 0.0).sum(0) / (at_level.sum(0) + _LEVEL_PRIOR)
    return shift


class Trainer:
    """Trains all K members at once with Adam; their losses are summed, so their gradients do not mix.

    Args:
        model: the model whose weights are trained in place.
        table: the transitions.
        learning_rate: step size of Adam.
    """

    def __init__(self, model: LoadDynamics, table: Transitions, learning_rate: float) -> None:
        self.model = model
        self.context = model.context_tensor(table.conditions)  # (T,F)
        self.log_prices = model.log_prices(table.prices)  # (T,G)
        costs = np.maximum(table.load, 1e-12) / np.maximum(table.conditions.qps, 1e-12)[:, None]
        self.log_costs = torch.as_tensor(np.log(costs), device=model.device)
        self.size = torch.as_tensor(np.array(model.scaling["cost_std"]), device=model.device)
        self.parameters = [*model.response.parameters(), model.persistence]
        self.optimiser = torch.optim.Adam(self.parameters, lr=learning_rate)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimiser, factor=0.5, patience=8)

    def losses(self, rows: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of each member, (K,).

        It is the one-step error, plus the error of the response alone so that its level is learned as well.

        Args:
            rows: (K,B), the rows of each member, or (1,B), the rows of all.
        """
        model, k = self.model, torch.as_tensor(rows, device=self.model.device)
        k = torch.cat([k, k + 1], dim=1)
        errors = self.log_costs[k] - model.batched_logs(self.log_prices[k], self.context[k])  # (K,2B,G)
        before, after = errors.chunk(2, dim=1)
        step = after - torch.sigmoid(model.persistence)[:, None] * before
        squared = (step / self.size) ** 2 + _RESPONSE_WEIGHT * (after / self.size) ** 2
        return squared.mean((1, 2))

    def step(self, rows: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Take one gradient step on ``rows`` of :meth:`losses`; return the sum of the losses before it, a scalar."""
        self.optimiser.zero_grad()
        loss = self.losses(rows).sum()
        loss.backward()
        self.optimiser.step()
        return loss.detach()  # a number would make the host wait for the device

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
        """Train until no member's validation loss falls, and restore the best weights of each member.

        Args:
            training: rows to train on.
            validation: rows whose loss decides when to stop.
            epochs: largest number of passes over ``training``.
            batch: rows per update.
            patience: epochs without a better validation loss of any member before training stops.
            rng: source of the order of the batches.
            progress: called with (epoch, validation loss).

        Returns:
            The last epoch that improved a member.
        """
        members = self.model.members
        best, best_epoch, best_weights = np.full(members, np.inf), 0, self._weights()
        for epoch in range(1, epochs + 1):
            drawn = np.stack([rng.permutation(training) for _ in range(members)])
            order = torch.as_tensor(drawn, device=self.model.device)  # copied once an epoch
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
                for old, new in zip(best_weights, self._weights(), strict=True):
                    old[better] = new[better]
            elif epoch - best_epoch >= patience:
                break
        for parameter, weights in zip(self.parameters, best_weights, strict=True):
            parameter.data = weights
        return best_epoch

    def _weights(self) -> list[torch.Tensor]:
        return [p.data.clone() for p in self.parameters]
