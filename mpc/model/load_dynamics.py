"""The equations of the system model, Ĉ_{t+1} = g(Ĉ_t, s_t, λ_t) (Eq. 18, arXiv 2512.24325): predict and differentiate.

Ĉ is the undegraded load of a cluster in core-seconds per second, λ the prices in currency per core-second, s the
conditions of a minute. Load is traffic times cost per request, and traffic is known or forecast, so only the logarithm
of the cost per request c is learned. It is the sum of a response r to prices λ and conditions z and of an innovation
that fades by the gain K each minute:

    log c_{t+1} = r(λ_{t+1}, z_{t+1}) + K · (log c_t − r(λ_t, z_t)),      Ĉ_{t+1} = qps_{t+1} · c_{t+1}

The response is a small network per cluster, non-increasing in the cluster's own price by construction: a higher price
can only move requests away from its cluster, because the load is minus the gradient of a convex dual function. Other
prices and the time of day act freely. A degradation level D shifts the logarithm by a constant. Ĉ is undegraded
(Eq. 1), so this shift is only the error of f(D), the assumed saving of a level. Backlog is left out on purpose: Ĉ is
the work offered in a minute, which does not depend on the work that waits.

An ensemble consists of several such models with different initial weights and batch orders. Its forecast is the mean of
the members' logarithms, and their disagreement tells how far the forecast can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacrev

from mpc.model.array_response import ArrayResponse
from mpc.model.conditions import COST_FLOOR, HARMONICS, Conditions, PriceScale, time_features
from mpc.model.response import Response
from mpc.validation import at_least, check_values


class LoadDynamics:
    """Loads as a function of traffic, prices and time. G clusters, K members of the ensemble.

    Args:
        clusters: names of the clusters, in order.
        price_scale: (G,) scale of the prices, currency per core-second; see :class:`PriceScale`.
        price_limit: (G,) highest price of the training log.
        scaling: ``price_mean``, ``price_std`` of the log prices and ``cost_mean``, ``cost_std`` of the log costs,
            (G,) each.
        windows: number of equal windows of a day between which the mix of requests may change.
        hidden: units of each of the two hidden layers, per cluster.
        members: K.
        seed: seed of the initial weights.
        device: "cpu" or "cuda".
        coverage: see Attributes.
        report: see Attributes.

    Attributes:
        clusters: names of the clusters, in order.
        prices: the scale of prices on which the model is smooth.
        price_limit: (G,) highest price of the training log.
        coverage: what the training log covered: ``log_cost`` (2,G), least and greatest log cost per request, and
            ``hours`` (24,), whether the log has a minute of this hour. Empty: not known.
        report: errors on data held out from the end of the log, compared with simpler forecasts; see
            :meth:`mpc.SystemModel.fit`.

    Raises:
        InputError: ``windows``, ``hidden`` or ``members`` below 1.
    """

    def __init__(
        self,
        clusters: Sequence[str],
        price_scale: Sequence[float],
        price_limit: Sequence[float],
        scaling: Mapping[str, Sequence[float]],
        *,
        windows: int = 6,
        hidden: int = 24,
        members: int = 1,
        seed: int = 0,
        device: str = "cpu",
        coverage: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        sizes = {"windows": windows, "hidden": hidden, "members": members}
        check_values(sizes, dict.fromkeys(sizes, at_least(1)))
        self.clusters = tuple(clusters)
        self.prices = PriceScale(np.array(price_scale))
        self.price_limit = np.array(price_limit, dtype=np.float64)
        self.scaling = {name: [float(x) for x in values] for name, values in scaling.items()}
        self.windows, self.hidden, self.members, self.device = windows, hidden, members, device
        self.coverage = {name: np.asarray(values) for name, values in (coverage or {}).items()}
        self.report: dict[str, Any] = dict(report or {})
        size = len(self.clusters)
        generator = torch.Generator().manual_seed(seed)
        self.response = Response(size, 2 * HARMONICS + windows, hidden, generator, members).to(device)
        self.level_shift = np.zeros((size, 1))  # (G, levels) of the log cost per request; level 0 shifts nothing
        self.persistence = nn.Parameter(torch.full((members, size), 1.0, dtype=torch.float64, device=device))
        self._scale = {name: self._tensor(values) for name, values in self.scaling.items()}

    @property
    def n_clusters(self) -> int:
        """G, the number of clusters."""
        return len(self.clusters)

    # -- prediction ----------------------------------------------------------------------------------------------
    def predict(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, coming: Conditions, prices: np.ndarray
    ) -> np.ndarray:
        """Predict the load one minute ahead (Eq. 18).

        Args:
            load: (…,G) Ĉ of the last minute, core-seconds per second.
            last: conditions (…) of the last minute.
            last_prices: (…,G) prices of the last minute.
            coming: conditions (…) of the coming minute.
            prices: (…,G) prices of the coming minute.

        Returns:
            (…,G) load of the coming minute, core-seconds per second.
        """
        with torch.no_grad():
            innovation = self.innovation(load, last, last_prices)  # (K,…,G)
            gain = self._gain(innovation.dim())
            logs = (self.member_logs(self.log_prices(prices), self.context_tensor(coming)) + gain * innovation).mean(0)
        return np.asarray(coming.qps, dtype=np.float64)[..., None] * logs.exp().cpu().numpy()

    def rollout(
        self,
        load: np.ndarray,
        last: Conditions,
        last_prices: np.ndarray,
        horizon: Conditions,
        prices: np.ndarray,
    ) -> np.ndarray:
        """Predict the loads of a horizon of N minutes, for one or many price sequences at once.

        Args:
            load: (G,) Ĉ of the last minute, core-seconds per second.
            last: conditions of the last minute.
            last_prices: (G,) prices of the last minute.
            horizon: conditions (N,) of the coming minutes.
            prices: (…,N,G) price sequences.

        Returns:
            (…,N,G) predicted loads, core-seconds per second.
        """
        with torch.no_grad():
            logs = self.rollout_log_cost(load, last, last_prices, horizon)(self.log_prices(prices))
            return logs.exp().cpu().numpy() * np.asarray(horizon.qps, dtype=np.float64)[:, None]

    def rollout_log_cost(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, horizon: Conditions
    ) -> Callable[[Tensor], Tensor]:
        """Return the rollout as a differentiable function: log prices u (…,N,G) → log cost per request (…,N,G).

        The innovation of step i is K^i times the present one, independent of the prices in between. So a horizon costs
        no more than one batched evaluation of the response.
        """
        context = self.context_tensor(horizon)
        fading = self.fading_innovation(load, last, last_prices, len(horizon.minute)).mean(0)
        return lambda log_prices: self.log_cost(log_prices, context) + fading

    def fading_innovation(self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, steps: int) -> Tensor:
        """Return the part of the present innovation that is left in each of the coming ``steps`` minutes, (K,N,G)."""
        innovation = self.innovation(load, last, last_prices)  # (K,G)
        power = torch.arange(1, steps + 1, dtype=torch.float64, device=self.device)
        return torch.sigmoid(self.persistence)[:, None] ** power[:, None] * innovation[:, None]

    def sensitivity(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, horizon: Conditions, prices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the loads along one price sequence and their exact derivative in the log prices.

        Args:
            load: (G,) Ĉ of the last minute, core-seconds per second.
            last: conditions of the last minute.
            last_prices: (G,) prices of the last minute.
            horizon: conditions (N,) of the coming minutes.
            prices: (N,G) price sequence.

        Returns:
            Loads (N,G) and ∂Ĉ/∂u of each minute (N,G,G), [i, g, h] = ∂Ĉ_g/∂u_h at minute i. A price acts on its
            own minute alone: by construction every other block of the horizon's Jacobian is zero.
        """
        costs = self.array_response().horizon(load, last, last_prices, horizon)
        logs, slopes = costs.with_slopes(self.prices.to_log(np.asarray(prices, dtype=np.float64)))
        loads = np.exp(logs) * np.asarray(horizon.qps, dtype=np.float64)[:, None]
        return loads, loads[..., None] * slopes

    def jacobian(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, coming: Conditions, prices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the exact derivatives of :meth:`predict` for one minute, by autograd.

        Args:
            load: (G,); the arguments are those of :meth:`predict` for one minute.
            last: conditions of the last minute.
            last_prices: (G,).
            coming: conditions of the coming minute.
            prices: (G,).

        Returns:
            ∂Ĉ_{t+1}/∂λ (G,G) with respect to the coming prices, and ∂Ĉ_{t+1}/∂Ĉ_t (G,G).
        """
        before, after = self.context_tensor(last), self.context_tensor(coming)
        last_log, gain = self.log_prices(last_prices), self._gain(2)
        scale = self._tensor(self.prices.scale)

        def step(price: Tensor, loads: Tensor) -> Tensor:
            innovation = torch.log(loads / float(last.qps)) - self.member_logs(last_log, before)
            logs = self.member_logs(torch.log1p(price / scale), after) + gain * innovation
            return float(coming.qps) * torch.exp(logs.mean(0))

        point = (self._tensor(prices), self._tensor(load).clamp_min(COST_FLOOR * float(last.qps)))
        by_price, by_load = jacrev(step, argnums=(0, 1))(*point)
        return by_price.detach().cpu().numpy(), by_load.detach().cpu().numpy()

    def disagreement(self, prices: np.ndarray, conditions: Conditions) -> np.ndarray:
        """Return the standard deviation (…,G) of the members' log cost at prices (…,G); zero for a single model."""
        prices = np.broadcast_to(prices, (*np.shape(conditions.minute), self.n_clusters))
        with torch.no_grad():
            logs = self.member_logs(self.log_prices(prices), self.context_tensor(conditions))
            return logs.std(0, unbiased=False).cpu().numpy()

    def array_response(self) -> ArrayResponse:
        """Return a copy of the response as plain arrays, for many fast evaluations."""
        weights = {name: tensor.detach().cpu().numpy() for name, tensor in self.response.weights().items()}
        gain = 1.0 / (1.0 + np.exp(-self.persistence.detach().cpu().numpy()))  # (K,G)
        return ArrayResponse(weights, self.scaling, gain, self.prices, self.context)

    # -- the network in its units --------------------------------------------------------------------------------
    def log_cost(self, log_prices: Tensor, context: Tensor) -> Tensor:
        """Return the response r, log cost per request (…,G), mean over the members.

        Args:
            log_prices: (…,G).
            context: (…,F) of :meth:`context`.
        """
        return self.member_logs(log_prices, context).mean(0)

    def member_logs(self, log_prices: Tensor, context: Tensor) -> Tensor:
        """Return the log cost per request of each member, (K,…,G).

        Args:
            log_prices: (…,G).
            context: (…,F) of :meth:`context`.
        """
        context = context.expand(*log_prices.shape[:-1], context.shape[-1])
        flat = self.batched_logs(log_prices.reshape(1, -1, self.n_clusters), context.reshape(1, -1, context.shape[-1]))
        return flat.reshape(self.members, *log_prices.shape)

    def batched_logs(self, log_prices: Tensor, context: Tensor) -> Tensor:
        """Return the log cost per request (K,M,G).

        Args:
            log_prices: (K,M,G); K may be 1 if the members share them.
            context: (K,M,F); K may be 1 if the members share it.
        """
        time, shift = context[..., : -self.n_clusters], context[..., -self.n_clusters :]
        scaled = (log_prices - self._scale["price_mean"]) / self._scale["price_std"]
        return self.response(scaled, time) * self._scale["cost_std"] + self._scale["cost_mean"] + shift

    def innovation(self, load: np.ndarray, last: Conditions, last_prices: np.ndarray) -> Tensor:
        """Return the innovation log c_t − r(λ_t, z_t) of each member, (K,…,G)."""
        cost = np.maximum(load, 0.0) / np.maximum(np.asarray(last.qps, dtype=np.float64), 1e-9)[..., None]
        logs = self._tensor(np.log(np.maximum(cost, COST_FLOOR)))
        return logs - self.member_logs(self.log_prices(last_prices), self.context_tensor(last))

    def _gain(self, dims: int) -> Tensor:
        """Return the gain K of the innovation, (K,1,…,1,G) with ``dims`` dimensions."""
        gain = torch.sigmoid(self.persistence)
        return gain.reshape(self.members, *[1] * (dims - 2), self.n_clusters)

    def context(self, conditions: Conditions) -> np.ndarray:
        """Return the time features, then the shift of the degradation levels, (…,F)."""
        time = time_features(conditions.minute, self.windows)
        levels = np.clip(np.asarray(conditions.degradation), 0, self.level_shift.shape[1] - 1).astype(np.int64)
        return np.concatenate([time, self.level_shift[np.arange(self.n_clusters), levels]], axis=-1)

    def context_tensor(self, conditions: Conditions) -> Tensor:
        """Return :meth:`context` as a tensor on the model's device."""
        return self._tensor(self.context(conditions))

    def log_prices(self, prices: np.ndarray) -> Tensor:
        """Return the log prices (…,G) of prices (…,G) as a tensor on the model's device."""
        return self._tensor(self.prices.to_log(np.asarray(prices, dtype=np.float64)))

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float64), device=self.device)
