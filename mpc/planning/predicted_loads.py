"""Loads of a horizon as a function of prices: what every planner looks ahead with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mpc.model.array_response import HorizonCosts

TILT_REACH = 0.15
"""How far from the price in force, in log price, a measured slope is believed."""


class ModelError(RuntimeError):
    """The system model returned loads that are not finite: fit it again on a log that covers these prices."""


class Point(NamedTuple):
    """A price sequence, its loads in budgets and their derivative."""

    log_prices: np.ndarray  # (N,G)
    loads: np.ndarray  # (N,G)
    slopes: np.ndarray  # (N,G,G)


class PredictedLoads:
    """Loads of a horizon, in budgets, as a function of log prices.

    Args:
        costs: log cost per request of the horizon, by the model.
        qps: (N,) forecast traffic.
        budget: (G,) core-seconds per second.
        bias: (G,) correction of the log cost per request.
        tilt: (G,) correction of its slope in the own log price, near ``pivot`` (G,).
    """

    def __init__(
        self,
        costs: HorizonCosts,
        qps: np.ndarray,
        budget: np.ndarray,
        *,
        bias: np.ndarray | float = 0.0,
        tilt: np.ndarray | None = None,
        pivot: np.ndarray | None = None,
    ) -> None:
        self.costs, self.bias, self.budget = costs, bias, np.asarray(budget, dtype=np.float64)
        self._traffic = np.asarray(qps, dtype=np.float64)[:, None] / self.budget  # (N,G)
        self._tilt = None if tilt is None or pivot is None or not np.any(tilt) else (tilt, pivot)
        self._own = np.arange(self._traffic.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, G)."""
        return self._traffic.shape  # type: ignore[return-value]

    def loads(self, log_prices: np.ndarray) -> np.ndarray:
        """Log prices (…,N,G) → loads (…,N,G); what is not finite is left so."""
        with np.errstate(all="ignore"):
            return np.exp(self.costs(log_prices) + self._bent(log_prices)[0]) * self._traffic

    def linearised(self, log_prices: np.ndarray) -> Point:
        """Loads and slopes at log prices (N,G).

        Raises:
            ModelError: loads or slopes that are not finite.
        """
        bent, steeper = self._bent(log_prices)
        with np.errstate(all="ignore"):
            logs, slopes = self.costs.with_slopes(log_prices)
            loads = np.exp(logs + bent) * self._traffic
            slopes[:, self._own, self._own] += steeper
            slopes *= loads[..., None]
        if not (np.isfinite(loads).all() and np.isfinite(slopes).all()):
            raise ModelError("predicted loads are not finite; fit the model on a log that covers these prices")
        return Point(log_prices, loads, slopes)

    def reachable(self, log_prices: np.ndarray) -> np.ndarray:
        """Largest load (G,) of each cluster in the first minute: its own price zero, the others as in (N,G)."""
        free = np.repeat(log_prices[None], len(self._own), axis=0)  # (G,N,G)
        free[self._own, :, self._own] = 0.0
        return self.loads(free)[self._own, 0, self._own]

    def first_log_cost(self, log_prices: np.ndarray) -> np.ndarray:
        """Log cost per request (G,) of the first minute at its log prices (G,)."""
        sequence = np.broadcast_to(log_prices, self.shape)
        return (self.costs(sequence) + self._bent(sequence)[0])[0]

    def spread(self, log_prices: np.ndarray) -> np.ndarray:
        """Standard deviation of the members' log cost at log prices (N,G): (N,G), zero for a single model."""
        return self.costs.members(log_prices).std(0)

    def tensor(self, log_prices: Tensor) -> Tensor:
        """:meth:`loads` of a tensor (N,G), through automatic differentiation."""
        logs = self.costs.tensor(log_prices) + torch.as_tensor(np.asarray(self.bias))
        if self._tilt is not None:
            tilt, pivot = (torch.as_tensor(x) for x in self._tilt)
            logs = logs + tilt * TILT_REACH * torch.tanh((log_prices - pivot) / TILT_REACH)
        return logs.exp() * torch.as_tensor(self._traffic)

    def _bent(self, log_prices: np.ndarray) -> tuple[np.ndarray | float, np.ndarray | float]:
        """Correction of the log cost and its derivative in the own log price."""
        if self._tilt is None:
            return self.bias, 0.0
        tilt, pivot = self._tilt
        bend = np.tanh((log_prices - pivot) / TILT_REACH)
        return self.bias + tilt * TILT_REACH * bend, tilt * (1.0 - bend * bend)
