"""Refit of a system model to recent telemetry: from the old weights, a few gradient steps at a time.

After a change of the system there are only a few minutes of data, near the price in force. So two numbers per cluster
are fitted first: the factor by which its requests cost more, and the factor by which its price has more effect. If
every computation of a stage costs k times as much, both are k, because λ is multiplied by the cost (Eq. 6, arXiv
2512.24325), and the shape of the old model still holds. Then the weights are tuned on the recent minutes and on as many
synthetic minutes. The synthetic minutes are drawn from the model at its new level, at other prices and hours, so that
the model keeps its shape where the recent minutes hold no information.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from marca_env.utils.errors import InputError
from mpc.model.conditions import Conditions, PriceScale
from mpc.model.fitting import Trainer
from mpc.model.forecast_errors import one_step_errors
from mpc.model.transitions import Transitions

if TYPE_CHECKING:
    from mpc.model.system_model import SystemModel

MIN_TRANSITIONS = 12
"""Number of transitions that a refit needs."""
PRIOR_DEVIATION = 1.0
"""Standard deviation of the log factors before any minute is seen."""
_NEWTON_STEPS = 6
_DIFFERENCE = 1e-4  # step of the finite differences
_LOG_FACTOR_LIMIT = 2.0


class Refit:
    """A copy of a system model that is being fitted to recent minutes.

    Args:
        model: the old model; it is not changed.
        log: minutes of the changed system, oldest first, with the columns that :meth:`mpc.SystemModel.fit` reads.
        seed: seed of the synthetic minutes.
        epochs: number of gradient steps, each on all minutes.
        learning_rate: step size of Adam.
        held_out: share of the newest minutes that are used for evaluation only.

    Attributes:
        model: the copy.
        factors: (2,G) cost factors and price factors of the clusters, relative to the old model.

    Raises:
        InputError: fewer than 12 transitions.
    """

    def __init__(
        self,
        model: SystemModel,
        log: pd.DataFrame,
        *,
        seed: int = 0,
        epochs: int = 60,
        learning_rate: float = 0.01,
        held_out: float = 0.25,
    ) -> None:
        table = Transitions(log, model.clusters)
        if len(table.starts) < MIN_TRANSITIONS:
            raise InputError(
                f"refit: {len(table.starts)} transitions; at least {MIN_TRANSITIONS} are needed: log more minutes"
            )
        n_training = len(table.starts) - max(3, int(held_out * len(table.starts)))
        self._old, self._table, self._held_out = model, table, table.starts[n_training:]
        self._training = table.prefer_undegraded(table.starts[:n_training])
        self.model = copy.deepcopy(model)
        self._fit_factors(float(np.mean(model.report["steps"]["1"]["rmse"])) if model.report else 0.05)
        synthetic = self._synthetic_minutes(len(self._training), np.random.default_rng(seed))
        self._trainer = Trainer(self.model, Transitions(pd.concat([log, synthetic]), model.clusters), learning_rate)
        self._rows = np.concatenate([self._training, len(log) + 2 * np.arange(len(self._training))])
        self._steps_left = epochs
        self._extend_coverage(table)

    @property
    def done(self) -> bool:
        """Whether all gradient steps have been taken."""
        return self._steps_left <= 0

    def advance(self, steps: int = 1) -> None:
        """Take at most ``steps`` of the gradient steps that are left.

        Raises:
            ArithmeticError: the loss is not finite.
        """
        for _ in range(min(steps, self._steps_left)):
            loss = float(self._trainer.step(self._rows[None]))
            self._steps_left -= 1
            if not np.isfinite(loss):
                raise ArithmeticError("the loss of the refit is not finite")

    def held_out_errors(self, newer: pd.DataFrame | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the root mean square one-step errors (G,) of the log cost of the copy and of the old model.

        The errors are of minutes that were not trained on. The mean error of the old model on the training minutes is
        subtracted from its errors, because a controller that corrects its predictions would remove it.

        Args:
            newer: minutes that came after the start of the refit; ``None``: use the held-out minutes only.
        """
        evaluated = [(self._table, self._held_out)]
        if newer is not None and len(newer) > 1:
            later = Transitions(newer, self._old.clusters)
            evaluated.append((later, later.starts))
        bias = one_step_errors(self._old, self._table, self._training).mean(0)
        new, old = (
            np.concatenate([one_step_errors(model, table, rows) for table, rows in evaluated]) - offset
            for model, offset in ((self.model, 0.0), (self._old, bias))
        )
        return np.sqrt((new**2).mean(0)), np.sqrt((old**2).mean(0))

    def _fit_factors(self, noise: float) -> None:
        """Fit the cost factor and the price factor of each cluster to the training minutes.

        Gauss–Newton on the error of the response, with a prior of no change.

        Args:
            noise: root mean square error of the response in a system that has not changed.
        """
        model, rows, size = self.model, self._training + 1, self.model.n_clusters
        log_costs = np.log(self._table.costs(rows))  # (n,G)
        prices, context = self._table.prices[rows], model.context_tensor(self._table.conditions.select(rows))

        def errors(factors: np.ndarray) -> np.ndarray:
            """Return the errors (n·G,) in units of noise, for log cost factors, then log price factors (2G,)."""
            with torch.no_grad():
                logs = model.log_cost(model.log_prices(prices * np.exp(factors[size:])), context).cpu().numpy()
            return (log_costs - logs - factors[:size]).ravel() / noise

        factors = np.zeros(2 * size)
        for _ in range(_NEWTON_STEPS):
            current = errors(factors)
            differences = [(errors(factors + d) - current) / _DIFFERENCE for d in _DIFFERENCE * np.eye(2 * size)]
            slopes = np.array(differences).T  # (n·G,2G)
            normal = slopes.T @ slopes + np.eye(2 * size) / PRIOR_DEVIATION**2
            step = np.linalg.solve(normal, -slopes.T @ current - factors / PRIOR_DEVIATION**2)
            factors = np.clip(factors + np.clip(step, -1.0, 1.0), -_LOG_FACTOR_LIMIT, _LOG_FACTOR_LIMIT)
        shift = torch.as_tensor(factors[:size] / np.array(model.scaling["cost_std"]), device=model.device)
        model.response.level.data += shift
        model.prices = PriceScale(model.prices.scale / np.exp(factors[size:]))
        self.factors = np.exp(factors.reshape(2, size))

    def _synthetic_minutes(self, n: int, rng: np.random.Generator) -> pd.DataFrame:
        """Return ``n`` pairs of minutes at prices and hours like those of training, at the costs the copy predicts."""
        model, size = self.model, 2 * n
        spread = rng.standard_normal((size, model.n_clusters)) * model.scaling["price_std"]
        prices = model.prices.to_price(np.maximum(spread + model.scaling["price_mean"], 0.0))
        hours = np.flatnonzero(model.coverage["hours"]) if "hours" in model.coverage else np.arange(24)
        minute = np.repeat(60 * rng.choice(hours, n) + rng.integers(0, 59, n), 2) + np.tile([0, 1], n)
        conditions = Conditions(np.ones(size), minute, np.zeros((size, model.n_clusters)))
        with torch.no_grad():
            logs = model.log_cost(model.log_prices(prices), model.context_tensor(conditions)).cpu().numpy()
        columns = {"day": -1 - np.repeat(np.arange(n), 2), "minute": minute, "qps": np.ones(size)}
        for g, name in enumerate(model.clusters):
            columns |= {f"load_{name}": np.exp(logs[:, g]), f"price_{name}": prices[:, g], f"degradation_{name}": 0}
        return pd.DataFrame(columns)

    def _extend_coverage(self, table: Transitions) -> None:
        """Extend the coverage of the copy by these minutes."""
        rows = np.union1d(table.starts, table.starts + 1)
        self.model.price_limit = np.maximum(self.model.price_limit, table.prices[rows].max(0))
        if "log_cost" in self.model.coverage:
            logs, (low, high) = np.log(table.costs(rows)), self.model.coverage["log_cost"]
            self.model.coverage["log_cost"] = np.stack([np.minimum(low, logs.min(0)), np.maximum(high, logs.max(0))])
