"""The predicted loads of a horizon as a function of its prices, which every planning method evaluates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mpc.model.array_response import HorizonCosts

TILT_REACH = 0.15
"""Distance from the price in force, in log price, within which a measured slope is trusted."""


class ModelError(RuntimeError):
    """The system model returned loads that are not finite; fit it again on a log that covers these prices."""

    def __init__(self) -> None:
        super().__init__("predicted loads are not finite; fit the model on a log that covers these prices")


class LinearisedLoads(NamedTuple):
    """A price sequence, its loads as fractions of the budgets, and their derivative."""

    log_prices: np.ndarray
    """(N,G)."""
    loads: np.ndarray
    """(N,G)."""
    slopes: np.ndarray
    """(N,G,G), [i, g, h] = ∂y_ig/∂u_ih."""


class PredictedLoads:
    """Loads of a horizon, as fractions of the budgets, as a function of log prices.

    Args:
        costs: log cost per request of the horizon by the system model.
        qps: (N,) forecast traffic, requests per second.
        budget: (G,) core-seconds per second.
        bias: (G,) or (N,G) correction of the log cost per request.
        tilt: (G,) or (N,G) correction of its slope in the cluster's own log price, near ``pivot``.
        pivot: (G,) log prices in force.
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
        """(N, G), the shape of a price sequence."""
        return self._traffic.shape  # type: ignore[return-value]

    def loads(self, log_prices: np.ndarray) -> np.ndarray:
        """Return the loads (…,N,G) at log prices (…,N,G); values that are not finite are returned as they are."""
        with np.errstate(all="ignore"):
            return np.exp(self.costs(log_prices) + self._correction(log_prices)[0]) * self._traffic

    def linearise(self, log_prices: np.ndarray) -> LinearisedLoads:
        """Return loads and slopes at log prices (N,G).

        Raises:
            ModelError: loads or slopes that are not finite.
        """
        correction, tilt = self._correction(log_prices)
        with np.errstate(all="ignore"):
            logs, slopes = self.costs.with_slopes(log_prices)
            loads = np.exp(logs + correction) * self._traffic
            slopes[:, self._own, self._own] += tilt
            slopes *= loads[..., None]
        if not (np.isfinite(loads).all() and np.isfinite(slopes).all()):
            raise ModelError
        return LinearisedLoads(log_prices, loads, slopes)

    def loads_at_zero_price(self, log_prices: np.ndarray) -> np.ndarray:
        """Return the load (G,) of each cluster in the first minute if its own price were zero.

        Args:
            log_prices: (N,G) prices of the other clusters.
        """
        free = np.repeat(log_prices[None], len(self._own), axis=0)  # (G,N,G)
        free[self._own, :, self._own] = 0.0
        return self.loads(free)[self._own, 0, self._own]

    def first_log_cost(self, log_prices: np.ndarray) -> np.ndarray:
        """Return the log cost per request (G,) of the first minute at log prices (G,)."""
        sequence = np.broadcast_to(log_prices, self.shape)
        return (self.costs(sequence) + self._correction(sequence)[0])[0]

    def spread(self, log_prices: np.ndarray) -> np.ndarray:
        """Return the standard deviation (N,G) of the members' log cost at log prices (N,G)."""
        return self.costs.members(log_prices).std(0)

    def tensor(self, log_prices: Tensor) -> Tensor:
        """Return :meth:`loads` of a tensor (N,G), differentiable by autograd."""
        logs = self.costs.tensor(log_prices) + torch.as_tensor(np.asarray(self.bias))
        if self._tilt is not None:
            tilt, pivot = (torch.as_tensor(x) for x in self._tilt)
            logs = logs + tilt * TILT_REACH * torch.tanh((log_prices - pivot) / TILT_REACH)
        return logs.exp() * torch.as_tensor(self._traffic)

    def _correction(self, log_prices: np.ndarray) -> tuple[np.ndarray | float, np.ndarray | float]:
        """Return the correction of the log cost and its derivative in the cluster's own log price."""
        if self._tilt is None:
            return self.bias, 0.0
        tilt, pivot = self._tilt
        bend = np.tanh((log_prices - pivot) / TILT_REACH)
        return self.bias + tilt * TILT_REACH * bend, tilt * (1.0 - bend * bend)
