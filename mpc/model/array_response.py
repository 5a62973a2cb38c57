"""The response network as plain numpy arrays: log costs of a horizon and their exact derivative, without autograd.

A control step evaluates the network at a handful of price sequences of a few minutes. The arithmetic takes
microseconds, so the overhead of a tensor library would dominate; the derivative is therefore written out by hand.
Shapes: K members, N minutes, G clusters, H hidden units; "unit" means one of the K·G networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mpc.model.conditions import COST_FLOOR, Conditions, PriceScale


class ArrayResponse:
    """A copy of the response network and its scaling in arrays; later changes of the model do not affect it.

    Args:
        weights: arrays of :meth:`mpc.model.response.Response.weights`.
        scaling: ``price_mean``, ``price_std``, ``cost_mean`` and ``cost_std``, (G,) each.
        innovation_gain: (K,G) share of an innovation that is left a minute later.
        prices: the scale of prices.
        context: the time features and level shifts of conditions, (…) → (…,F).
    """

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        scaling: Mapping[str, Sequence[float]],
        innovation_gain: np.ndarray,
        prices: PriceScale,
        context: Callable[[Conditions], np.ndarray],
    ) -> None:
        self.members, self.n_clusters, self.hidden = weights["first"].shape[:3]
        n, units = self.n_clusters, self.members * self.n_clusters
        scale = {name: np.array(values) for name, values in scaling.items()}
        first = weights["first"].reshape(units, self.hidden, -1).swapaxes(1, 2)  # (K·G,I,H)
        self._by_price = np.ascontiguousarray(first[:, :n] / scale["price_std"][:, None])  # (K·G,G,H)
        self._by_time = np.ascontiguousarray(first[:, n:])
        centre = np.einsum("ugh,g->uh", self._by_price, scale["price_mean"])
        self._bias = (weights["first_bias"].reshape(units, -1) - centre)[:, None]  # (K·G,1,H)
        self._second = np.ascontiguousarray(weights["second"].reshape(units, self.hidden, self.hidden))  # [u, out, in]
        self._second_t = np.ascontiguousarray(self._second.swapaxes(1, 2))
        self._second_bias = weights["second_bias"].reshape(units, 1, -1)
        self._third = weights["third"].reshape(units, 1, -1) * np.tile(scale["cost_std"], self.members)[:, None, None]
        self._context, self._to_log, self._gain = context, prices.to_log, innovation_gain
        slope = weights["slope"] * scale["cost_std"] / scale["price_std"]  # (K,G)
        self._slope = slope
        self._level = weights["level"] * scale["cost_std"] + scale["cost_mean"] + slope * scale["price_mean"]

    def horizon(self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, horizon: Conditions) -> HorizonCosts:
        """Return the log costs of the coming minutes as a function of log prices.

        Args:
            load: (G,) Ĉ of the last minute, core-seconds per second.
            last: conditions of the last minute.
            last_prices: (G,) prices of the last minute.
            horizon: conditions (N,) of the coming minutes.
        """
        fading = self.fading(len(horizon.minute)) * self.innovation(load, last, last_prices)[:, None]
        return self.costs(horizon, fading)

    def innovation(self, load: np.ndarray, last: Conditions, last_prices: np.ndarray) -> np.ndarray:
        """Return the innovation log c − r of each member, (K,G): measured log cost less that of the response.

        Args:
            load: (G,) Ĉ of the last minute, core-seconds per second.
            last: conditions of the last minute.
            last_prices: (G,) prices of the last minute.
        """
        past = Conditions(*(np.asarray(x)[None] for x in (last.qps, last.minute, last.degradation)))
        in_force = self._to_log(np.asarray(last_prices, dtype=np.float64))
        expected = self.costs(past, 0.0).members(in_force[None])[:, 0]  # (K,G)
        cost = np.maximum(load, 0.0) / max(float(last.qps), 1e-9)
        return np.log(np.maximum(cost, COST_FLOOR)) - expected

    def fading(self, steps: int) -> np.ndarray:
        """Return the share of an innovation that is left in each of the coming ``steps`` minutes, (K,N,G)."""
        return self._gain[:, None] ** np.arange(1, steps + 1)[:, None]

    def costs(self, conditions: Conditions, innovation: np.ndarray | float) -> HorizonCosts:
        """Return the log costs of the minutes of ``conditions`` (N,), with ``innovation`` (K,N,G) added."""
        context = self._context(conditions)  # (N,F)
        time, shift = context[:, : -self.n_clusters], context[:, -self.n_clusters :]
        offset = self._level[:, None] + shift + innovation
        return HorizonCosts(self, time @ self._by_time + self._bias, offset, conditions)

    def hidden_layers(self, log_prices: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return both hidden layers (K·G,M,H).

        Args:
            log_prices: (M,G).
            base: (K·G,M,H) input of the first layer, prices apart.
        """
        first = np.tanh(log_prices @ self._by_price + base)
        return first, np.tanh(first @ self._second_t + self._second_bias)

    def log_costs(self, second: np.ndarray, log_prices: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Return the log cost per request (K,M,G).

        Args:
            second: (K·G,M,H) second hidden layer.
            log_prices: (M,G).
            offset: (K,M,G) log cost, hidden layers and prices apart.
        """
        shaped = (second * self._third).sum(-1).reshape(self.members, self.n_clusters, -1).swapaxes(1, 2)
        return shaped + offset - self._slope[:, None] * log_prices

    def slopes(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return ∂ log c_g/∂u_h as [m, g, h], (M,G,G), the mean over the members, from both hidden layers."""
        back = ((1.0 - second * second) * self._third) @ self._second  # (K·G,M,H)
        by_price = ((1.0 - first * first) * back) @ self._by_price.swapaxes(1, 2)  # (K·G,M,G)
        mean = _mean(by_price.reshape(self.members, self.n_clusters, *by_price.shape[1:])).swapaxes(0, 1)
        own = np.arange(self.n_clusters)
        mean[:, own, own] -= self._slope.mean(0)
        return mean

    def tensor_log_costs(self, log_prices: Tensor, base: np.ndarray, offset: np.ndarray) -> Tensor:
        """Return the log cost per request (N,G), mean over the members, differentiable in a tensor (N,G)."""
        weights = (self._by_price, self._second_t, self._second_bias, self._third, self._slope)
        by_price, second, bias, third, slope = (torch.as_tensor(x) for x in weights)
        x = torch.tanh(log_prices @ by_price + torch.as_tensor(base))
        x = torch.tanh(x @ second + bias)
        shaped = (x * third).sum(-1).reshape(self.members, self.n_clusters, -1).mT
        return (shaped + torch.as_tensor(offset) - slope[:, None] * log_prices).mean(0)


def _mean(members: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis; a single member is returned without a copy."""
    return members[0] if len(members) == 1 else members.mean(0)


class HorizonCosts:
    """Log cost per request of N minutes as a function of log prices.

    Args:
        response: the network.
        base: (K·G,N,H) input of the first layer, prices apart.
        offset: (K,N,G) log cost, hidden layers and prices apart.
        conditions: (N,) conditions of the minutes.
    """

    def __init__(self, response: ArrayResponse, base: np.ndarray, offset: np.ndarray, conditions: Conditions) -> None:
        self.response, self._base, self._offset, self.conditions = response, base, offset, conditions

    def members(self, log_prices: np.ndarray) -> np.ndarray:
        """Return the log cost per request of each member, (K,…,N,G), at log prices (…,N,G)."""
        repeats = int(np.prod(log_prices.shape[:-2]))
        flat = log_prices.reshape(-1, log_prices.shape[-1])
        base, offset = (np.tile(x, (1, repeats, 1)) if repeats > 1 else x for x in (self._base, self._offset))
        _, second = self.response.hidden_layers(flat, base)
        return self.response.log_costs(second, flat, offset).reshape(self.response.members, *log_prices.shape)

    def __call__(self, log_prices: np.ndarray) -> np.ndarray:
        """Return the log cost per request (…,N,G), mean over the members, at log prices (…,N,G)."""
        return _mean(self.members(log_prices))

    def tensor(self, log_prices: Tensor) -> Tensor:
        """Return :meth:`__call__` of a tensor (N,G), differentiable by autograd."""
        return self.response.tensor_log_costs(log_prices, self._base, self._offset)

    def with_slopes(self, log_prices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the log cost (N,G) and ∂ log c_g/∂u_h (N,G,G) at log prices (N,G)."""
        first, second = self.response.hidden_layers(log_prices, self._base)
        return _mean(self.response.log_costs(second, log_prices, self._offset)), self.response.slopes(first, second)
