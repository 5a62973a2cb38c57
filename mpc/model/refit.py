"""Fitting a system model on to newer telemetry: warm from the old weights, a few gradient steps at a time.

A changed system is known by few minutes, near the price in force. So two numbers a cluster are fitted first: by what
factor its requests cost more, and by what factor a price weighs more. A stage whose every computation costs k times as
much has both equal to k, for λ meets k times the cost (Eq. 6, arXiv 2512.24325), and the old model's shape still holds.
After that the weights are tuned on the minutes, with as many at other prices and hours that are made up from the model
at its new level, so that what the new minutes say nothing about keeps its shape.
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
from mpc.model.transitions import Transitions

if TYPE_CHECKING:
    from mpc.model.system_model import SystemModel

LEAST = 12
"""Transitions that a refit needs."""
PRIOR = 1.0
"""Standard deviation of the log factors before any minute is seen."""
_NEWTON, _NUDGE, _REACH = 6, 1e-4, 2.0


def one_step_errors(model: SystemModel, table: Transitions, rows: np.ndarray) -> np.ndarray:
    """Errors (n,G) of the log cost per request one minute after ``rows`` (Eq. 18, arXiv 2512.24325)."""
    before, after = (response_errors(model, table, k) for k in (rows, rows + 1))
    gain = torch.sigmoid(model.persistence.detach()).mean(0).cpu().numpy()  # (G,)
    return after - gain * before


def response_errors(model: SystemModel, table: Transitions, rows: np.ndarray) -> np.ndarray:
    """Errors (n,G) of the log cost per request of ``rows`` from prices and time alone."""
    with torch.no_grad():
        context = model.context_tensor(table.conditions.rows(rows))
        expected = model.log_cost(model.log_prices(table.prices[rows]), context).cpu().numpy()
    return np.log(table.costs(rows)) - expected


class Refit:
    """A copy of ``model`` being fitted to ``log``.

    Args:
        model: the old model; not changed.
        log: minutes of the changed system, oldest first: columns as in :func:`mpc.model.fitting.fit_system_model`.
        seed: of the minutes that are made up.
        epochs: gradient steps, each on all minutes.
        learning_rate: of Adam.
        held_out: share of the newest minutes that only judge.

    Attributes:
        model: the copy.
        factors: (2,G) cost factors and price factors of the clusters against the old model.
        done: whether all steps have been taken.

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
        if len(table.starts) < LEAST:
            raise InputError(f"refit: {len(table.starts)} transitions; at least {LEAST} are needed: log more minutes")
        known = len(table.starts) - max(3, int(held_out * len(table.starts)))
        self._old, self._table, self._first_held = model, table, known
        self._known = table.mostly_calm(table.starts[:known])
        self.model = copy.deepcopy(model)
        self._fit_factors(float(np.mean(model.report["steps"]["1"]["rmse"])) if model.report else 0.05)
        made_up = self._made_up(len(self._known), np.random.default_rng(seed))
        self._trainer = Trainer(self.model, Transitions(pd.concat([log, made_up]), model.clusters), learning_rate)
        self._rows = np.concatenate([self._known, len(log) + 2 * np.arange(len(self._known))])
        self._left = epochs
        self._widen(table)

    @property
    def done(self) -> bool:
        return self._left <= 0

    def advance(self, steps: int = 1) -> None:
        """Take at most so many of the steps that are left.

        Raises:
            ArithmeticError: the loss is not finite.
        """
        for _ in range(min(steps, self._left)):
            loss = self._trainer.step(self._rows[None])
            self._left -= 1
            if not np.isfinite(loss):
                raise ArithmeticError("the loss of the refit is not finite")

    def judged(self, newer: pd.DataFrame | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Root mean square one-step errors (G,) of the log cost on minutes not trained on: the copy's, the old model's.

        The old model is judged with its mean error on the minutes that the copy was trained on taken off, as a
        controller that corrects its predictions would use it.

        Args:
            newer: minutes that came since; ``None``: those held out from the start alone.
        """
        held = [(self._table, self._table.starts[self._first_held :])]
        if newer is not None and len(newer) > 1:
            later = Transitions(newer, self._old.clusters)
            held.append((later, later.starts))
        bias = one_step_errors(self._old, self._table, self._known).mean(0)
        ours, theirs = (
            np.concatenate([one_step_errors(model, table, rows) for table, rows in held]) - offset
            for model, offset in ((self.model, 0.0), (self._old, bias))
        )
        return np.sqrt((ours**2).mean(0)), np.sqrt((theirs**2).mean(0))

    def _fit_factors(self, noise: float) -> None:
        """Give the copy the cost factor and the price factor of each cluster that explain the known minutes best.

        Gauss–Newton on the error of the response, which is ``noise`` in a system that has not changed, with a prior
        that says there is no change.
        """
        model, rows, size = self.model, self._known + 1, self.model.n_clusters
        wanted = np.log(self._table.costs(rows))  # (n,G)
        prices, context = self._table.prices[rows], model.context_tensor(self._table.conditions.rows(rows))

        def errors(factors: np.ndarray) -> np.ndarray:
            """Cost factors, then price factors, logarithms (2G,) → (n·G,)."""
            with torch.no_grad():
                logs = model.log_cost(model.log_prices(prices * np.exp(factors[size:])), context).cpu().numpy()
            return (wanted - logs - factors[:size]).ravel() / noise

        factors = np.zeros(2 * size)
        for _ in range(_NEWTON):
            now = errors(factors)
            nudged = [(errors(factors + step) - now) / _NUDGE for step in _NUDGE * np.eye(2 * size)]
            slopes = np.array(nudged).T  # (n·G,2G)
            normal = slopes.T @ slopes + np.eye(2 * size) / PRIOR**2
            step = np.linalg.solve(normal, -slopes.T @ now - factors / PRIOR**2)
            factors = np.clip(factors + np.clip(step, -1.0, 1.0), -_REACH, _REACH)
        shift = torch.as_tensor(factors[:size] / np.array(model.scaling["cost_std"]), device=model.device)
        model.response.level.data += shift
        model.prices = PriceScale(model.prices.scale / np.exp(factors[size:]))
        self.factors = np.exp(factors.reshape(2, size))

    def _made_up(self, n: int, rng: np.random.Generator) -> pd.DataFrame:
        """``n`` pairs of minutes at prices and hours like those of training, at the cost that the copy expects now."""
        model, size = self.model, 2 * n
        spread = rng.standard_normal((size, model.n_clusters)) * model.scaling["price_std"]
        prices = model.prices.to_price(np.maximum(spread + model.scaling["price_mean"], 0.0))
        hours = np.flatnonzero(model.seen["hours"]) if "hours" in model.seen else np.arange(24)
        minute = np.repeat(60 * rng.choice(hours, n) + rng.integers(0, 59, n), 2) + np.tile([0, 1], n)
        conditions = Conditions(np.ones(size), minute, np.zeros((size, model.n_clusters)))
        with torch.no_grad():
            logs = model.log_cost(model.log_prices(prices), model.context_tensor(conditions)).cpu().numpy()
        columns = {"day": -1 - np.repeat(np.arange(n), 2), "minute": minute, "qps": np.ones(size)}
        for g, name in enumerate(model.clusters):
            columns |= {f"load_{name}": np.exp(logs[:, g]), f"price_{name}": prices[:, g], f"degradation_{name}": 0}
        return pd.DataFrame(columns)

    def _widen(self, table: Transitions) -> None:
        """What the model has seen now includes these minutes."""
        rows = np.union1d(table.starts, table.starts + 1)
        self.model.price_limit = np.maximum(self.model.price_limit, table.prices[rows].max(0))
        if "log_cost" in self.model.seen:
            logs, (low, high) = np.log(table.costs(rows)), self.model.seen["log_cost"]
            self.model.seen["log_cost"] = np.stack([np.minimum(low, logs.min(0)), np.maximum(high, logs.max(0))])
