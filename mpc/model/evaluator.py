"""The fitted response as plain arrays: log costs of a horizon and their exact derivative, without autograd.

A control step evaluates the network at a handful of price sequences of a few minutes. There the arithmetic is
microseconds, and what a tensor library adds to each operation is most of the time; the derivative is written out.
K members, N minutes, G clusters, H hidden units; a "unit" is one of the K·G networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mpc.model.conditions import FLOOR, Conditions

if TYPE_CHECKING:
    from mpc.model.system_model import SystemModel


class Evaluator:
    """A copy of the model's response in arrays of its networks side by side."""

    def __init__(self, model: SystemModel) -> None:
        w = {name: tensor.detach().cpu().numpy() for name, tensor in model.response.weights().items()}
        self.members, self.n_clusters, self.hidden = w["first"].shape[:3]
        n, units = self.n_clusters, self.members * self.n_clusters
        scale = {name: np.array(values) for name, values in model.scaling.items()}
        first = w["first"].reshape(units, self.hidden, -1).swapaxes(1, 2)  # (K·G,I,H)
        self._by_price = np.ascontiguousarray(first[:, :n] / scale["price_std"][:, None])  # (K·G,G,H)
        self._by_time = np.ascontiguousarray(first[:, n:])
        centre = np.einsum("ugh,g->uh", self._by_price, scale["price_mean"])
        self._bias = (w["first_bias"].reshape(units, -1) - centre)[:, None]  # (K·G,1,H)
        self._second = np.ascontiguousarray(w["second"].reshape(units, self.hidden, self.hidden))  # [u, out, in]
        self._second_t = np.ascontiguousarray(self._second.swapaxes(1, 2))
        self._second_bias = w["second_bias"].reshape(units, 1, -1)
        self._third = w["third"].reshape(units, 1, -1) * np.tile(scale["cost_std"], self.members)[:, None, None]
        self._context, self._to_log = model.context, model.prices.to_log
        self._gain = 1.0 / (1.0 + np.exp(-model.persistence.detach().cpu().numpy()))  # (K,G)
        slope = w["slope"] * scale["cost_std"] / scale["price_std"]  # (K,G)
        self._slope = slope
        self._level = w["level"] * scale["cost_std"] + scale["cost_mean"] + slope * scale["price_mean"]

    def horizon(self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, horizon: Conditions) -> HorizonCosts:
        """Log costs of the coming minutes as a function of log prices; arguments as :meth:`SystemModel.rollout`."""
        past = Conditions(*(np.asarray(x)[None] for x in (last.qps, last.minute, last.degradation)))
        in_force = self._to_log(np.asarray(last_prices, dtype=np.float64))
        expected = self._costs(past, 0.0).members(in_force[None])[:, 0]  # (K,G)
        cost = np.maximum(load, 0.0) / max(float(last.qps), 1e-9)
        innovation = np.log(np.maximum(cost, FLOOR)) - expected
        steps = np.arange(1, len(horizon.minute) + 1)
        return self._costs(horizon, self._gain[:, None] ** steps[:, None] * innovation[:, None])

    def _costs(self, conditions: Conditions, fading: np.ndarray | float) -> HorizonCosts:
        context = self._context(conditions)  # (N,F)
        when, shift = context[:, : -self.n_clusters], context[:, -self.n_clusters :]
        offset = self._level[:, None] + shift + fading
        return HorizonCosts(self, when @ self._by_time + self._bias, offset, conditions)

    def hidden_layers(self, log_prices: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both layers (K·G,M,H) at log prices (M,G) over a first layer's offset (K·G,M,H)."""
        one = np.tanh(log_prices @ self._by_price + base)
        return one, np.tanh(one @ self._second_t + self._second_bias)

    def logs(self, two: np.ndarray, log_prices: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Second layer (K·G,M,H), log prices (M,G) and offset (K,M,G) → log cost per request (K,M,G)."""
        shaped = (two * self._third).sum(-1).reshape(self.members, self.n_clusters, -1).swapaxes(1, 2)
        return shaped + offset - self._slope[:, None] * log_prices

    def slopes(self, one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """∂ log c_g/∂u_h, [m, g, h], mean of the members: (M,G,G)."""
        back = ((1.0 - two * two) * self._third) @ self._second  # (K·G,M,H)
        by_price = ((1.0 - one * one) * back) @ self._by_price.swapaxes(1, 2)  # (K·G,M,G)
        mean = _mean(by_price.reshape(self.members, self.n_clusters, *by_price.shape[1:])).swapaxes(0, 1)
        own = np.arange(self.n_clusters)
        mean[:, own, own] -= self._slope.mean(0)
        return mean


def _mean(members: np.ndarray) -> np.ndarray:
    """Of the first axis; a single model costs nothing."""
    return members[0] if len(members) == 1 else members.mean(0)


class HorizonCosts:
    """Log cost per request of N minutes as a function of log prices.

    Args:
        evaluator: the networks.
        base: (K·G,N,H) first layer, prices apart.
        offset: (K,N,G) log cost, network and prices apart.
        conditions: (N,) what the minutes are like.
    """

    def __init__(self, evaluator: Evaluator, base: np.ndarray, offset: np.ndarray, conditions: Conditions) -> None:
        self.evaluator, self._base, self._offset, self.conditions = evaluator, base, offset, conditions

    def members(self, log_prices: np.ndarray) -> np.ndarray:
        """Log prices (…,N,G) → log cost per request of each member, (K,…,N,G)."""
        many = int(np.prod(log_prices.shape[:-2]))
        flat = log_prices.reshape(-1, log_prices.shape[-1])
        base, offset = (np.tile(x, (1, many, 1)) if many > 1 else x for x in (self._base, self._offset))
        _, two = self.evaluator.hidden_layers(flat, base)
        return self.evaluator.logs(two, flat, offset).reshape(self.evaluator.members, *log_prices.shape)

    def __call__(self, log_prices: np.ndarray) -> np.ndarray:
        """Log prices (…,N,G) → log cost per request (…,N,G), mean of the members."""
        return _mean(self.members(log_prices))

    def tensor(self, log_prices: Tensor) -> Tensor:
        """:meth:`__call__` of a tensor (N,G), through automatic differentiation."""
        e = self.evaluator
        arrays = (e._by_price, e._second_t, e._second_bias, e._third, e._slope, self._base, self._offset)
        by_price, second, bias, third, slope, base, offset = (torch.as_tensor(x) for x in arrays)
        x = torch.tanh(log_prices @ by_price + base)
        x = torch.tanh(x @ second + bias)
        shaped = (x * third).sum(-1).reshape(e.members, e.n_clusters, -1).mT
        return (shaped + offset - slope[:, None] * log_prices).mean(0)

    def with_slopes(self, log_prices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At log prices (N,G): log cost (N,G) and ∂ log c_g/∂u_h (N,G,G)."""
        one, two = self.evaluator.hidden_layers(log_prices, self._base)
        return _mean(self.evaluator.logs(two, log_prices, self._offset)), self.evaluator.slopes(one, two)
