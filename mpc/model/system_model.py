"""The system model Ĉ_{t+1} = g(Ĉ_t, s_t, λ_t) (Eq. 18, arXiv 2512.24325): roll out, differentiate, save, load.

Load is traffic times cost per request, and traffic is known or forecast, so only the logarithm of the cost per
request is learned. It is the sum of a response to prices and time of day and of an innovation that fades:

    log c_{t+1} = r(λ_{t+1}, z_{t+1}) + K · (log c_t − r(λ_t, z_t)),      Ĉ_{t+1} = qps_{t+1} · c_{t+1}

The response r is a small network per cluster, non-increasing in the cluster's own price by construction: raising a
price can only push requests off that cluster (the load is minus the gradient of a convex dual function). Other
prices and the time of day act freely. A degradation level shifts the logarithm by a constant: Ĉ is undegraded (Eq. 1),
so all that is left of a level is the error of f(D). Waiting work is left out on purpose: Ĉ is the work *offered* in a
minute, which does not depend on what still waits.

An ensemble is several such models that differ by their first weights and the order of their batches; the forecast is
the mean of their logarithms, and how much they differ says how far the forecast can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacrev

from marca_env.utils.errors import InputError
from marca_env.utils.files import load_model, save_model
from mpc.model.conditions import FLOOR, HARMONICS, Conditions, PriceScale, time_features
from mpc.model.evaluator import Evaluator
from mpc.model.response import Response

if TYPE_CHECKING:
    import pandas as pd

    from mpc.model.evaluator import Evaluator

__all__ = ["Conditions", "PriceScale", "SystemModel"]
KIND = "system_model"


class SystemModel:
    """A fitted system model. G clusters, K members; loads in core-seconds per second, prices in currency per
    core-second.

    Attributes:
        clusters: names of the clusters, in order.
        prices: the scale of prices on which the model is smooth.
        price_limit: (G,) highest price seen in training.
        seen: what else training covered: ``log_cost`` (2,G), least and greatest log cost per request; ``hours`` (24,),
            whether an hour of the day occurred. Empty: not known.
        report: errors on data held out from the end of the log, against simpler forecasts (see :meth:`fit`).
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
        seen: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        if windows < 1 or hidden < 1 or members < 1:
            raise InputError(f"windows is {windows}, hidden {hidden} and members {members}; all must be at least 1")
        self.clusters = tuple(clusters)
        self.prices = PriceScale(np.array(price_scale))
        self.price_limit = np.array(price_limit, dtype=np.float64)
        self.scaling = {name: [float(x) for x in values] for name, values in scaling.items()}
        self.windows, self.hidden, self.members, self.device = windows, hidden, members, device
        self.seen = {name: np.asarray(values) for name, values in (seen or {}).items()}
        self.report: dict[str, Any] = dict(report or {})
        size = len(self.clusters)
        generator = torch.Generator().manual_seed(seed)
        self.response = Response(size, 2 * HARMONICS + windows, hidden, generator, members).to(device)
        self.level_shift = np.zeros((size, 1))  # (G, levels), of the log cost per request; level 0 shifts nothing
        self.persistence = nn.Parameter(torch.full((members, size), 1.0, dtype=torch.float64, device=device))
        self._scale = {name: self._tensor(values) for name, values in self.scaling.items()}

    @property
    def n_clusters(self) -> int:
        return len(self.clusters)

    # -- prediction ----------------------------------------------------------------------------------------------
    def predict(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, coming: Conditions, prices: np.ndarray
    ) -> np.ndarray:
        """One step of Eq. 18.

        Args:
            load: (…,G) Ĉ of the last minute.
            last: conditions (…) of the last minute.
            last_prices: (…,G) prices of the last minute.
            coming: conditions (…) of the coming minute.
            prices: (…,G) prices of the coming minute.

        Returns:
            (…,G) load of the coming minute.
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
        """Loads over a horizon of N minutes, for one or many price sequences at once.

        Args:
            load: (G,) Ĉ of the last minute; ``last`` and ``last_prices`` (G,) describe that minute.
            horizon: conditions (N,) of the coming minutes.
            prices: (…,N,G).

        Returns:
            (…,N,G) predicted loads.
        """
        with torch.no_grad():
            logs = self.rollout_log_cost(load, last, last_prices, horizon)(self.log_prices(prices))
            return logs.exp().cpu().numpy() * np.asarray(horizon.qps, dtype=np.float64)[:, None]

    def rollout_log_cost(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, horizon: Conditions
    ) -> Callable[[Tensor], Tensor]:
        """The rollout as a differentiable function of log prices: u (…,N,G) → log cost per request (…,N,G).

        The innovation of step i is K^i times today's whatever the prices in between, so a horizon costs no more
        than one batched evaluation of the response.
        """
        context, fading = (
            self.context_tensor(horizon),
            self.fading(load, last, last_prices, len(horizon.minute)).mean(0),
        )
        return lambda log_prices: self.log_cost(log_prices, context) + fading

    def fading(self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, steps: int) -> Tensor:
        """What is left of today's innovation in each of the coming ``steps`` minutes, (K,N,G)."""
        innovation = self.innovation(load, last, last_prices)  # (K,G)
        power = torch.arange(1, steps + 1, dtype=torch.float64, device=self.device)
        return torch.sigmoid(self.persistence)[:, None] ** power[:, None] * innovation[:, None]

    def sensitivity(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, horizon: Conditions, prices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Loads along one price sequence (N,G) and their exact derivative in the *log* prices u.

        Returns:
            Loads (N,G) and ∂Ĉ/∂u of each minute (N,G,G), [i, g, h] = ∂Ĉ_g/∂u_h at minute i. A price acts on its
            own minute alone: by construction every other block of the horizon's Jacobian is zero.
        """
        costs = self.frozen().horizon(load, last, last_prices, horizon)
        logs, slopes = costs.with_slopes(self.prices.to_log(np.asarray(prices, dtype=np.float64)))
        loads = np.exp(logs) * np.asarray(horizon.qps, dtype=np.float64)[:, None]
        return loads, loads[..., None] * slopes

    def jacobian(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, coming: Conditions, prices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact derivatives of :meth:`predict` for one minute, by automatic differentiation.

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

        point = (self._tensor(prices), self._tensor(load).clamp_min(FLOOR * float(last.qps)))
        by_price, by_load = jacrev(step, argnums=(0, 1))(*point)
        return by_price.detach().cpu().numpy(), by_load.detach().cpu().numpy()

    def disagreement(self, prices: np.ndarray, conditions: Conditions) -> np.ndarray:
        """(…,G) standard deviation of the members' log cost per request at prices (…,G); zero for a single model."""
        prices = np.broadcast_to(prices, (*np.shape(conditions.minute), self.n_clusters))
        with torch.no_grad():
            logs = self.member_logs(self.log_prices(prices), self.context_tensor(conditions))
            return logs.std(0, unbiased=False).cpu().numpy()

    def frozen(self) -> Evaluator:
        """The response as plain arrays, for many quick evaluations; later changes of the model do not reach it."""

        return Evaluator(self)

    # -- the network in its units --------------------------------------------------------------------------------
    def log_cost(self, log_prices: Tensor, context: Tensor) -> Tensor:
        """r: log prices (…,G) and context (…,F) → log cost per request (…,G), mean of the members."""
        return self.member_logs(log_prices, context).mean(0)

    def member_logs(self, log_prices: Tensor, context: Tensor) -> Tensor:
        """The same of each member: (K,…,G)."""
        context = context.expand(*log_prices.shape[:-1], context.shape[-1])
        flat = self.batched_logs(log_prices.reshape(1, -1, self.n_clusters), context.reshape(1, -1, context.shape[-1]))
        return flat.reshape(self.members, *log_prices.shape)

    def batched_logs(self, log_prices: Tensor, context: Tensor) -> Tensor:
        """Log prices (K,M,G) and context (K,M,F), with 1 for K where the members share them → (K,M,G)."""
        when, shift = context[..., : -self.n_clusters], context[..., -self.n_clusters :]
        scaled = (log_prices - self._scale["price_mean"]) / self._scale["price_std"]
        return self.response(scaled, when) * self._scale["cost_std"] + self._scale["cost_mean"] + shift

    def innovation(self, load: np.ndarray, last: Conditions, last_prices: np.ndarray) -> Tensor:
        """log c_t − r(λ_t, z_t) of each member, (K,…,G)."""
        cost = np.maximum(load, 0.0) / np.maximum(np.asarray(last.qps, dtype=np.float64), 1e-9)[..., None]
        logs = self._tensor(np.log(np.maximum(cost, FLOOR)))
        return logs - self.member_logs(self.log_prices(last_prices), self.context_tensor(last))

    def _gain(self, dims: int) -> Tensor:
        """K of Eq. 18 above, (K,1,…,1,G) with ``dims`` dimensions."""
        gain = torch.sigmoid(self.persistence)
        return gain.reshape(self.members, *[1] * (dims - 2), self.n_clusters)

    def context(self, conditions: Conditions) -> np.ndarray:
        """Time of day (harmonics, window), then the shift of the degradation levels: (…,F)."""
        when = time_features(conditions.minute, self.windows)
        levels = np.clip(np.asarray(conditions.degradation), 0, self.level_shift.shape[1] - 1).astype(np.int64)
        return np.concatenate([when, self.level_shift[np.arange(self.n_clusters), levels]], axis=-1)

    def context_tensor(self, conditions: Conditions) -> Tensor:
        """:meth:`context` on the model's device."""
        return self._tensor(self.context(conditions))

    def log_prices(self, prices: np.ndarray) -> Tensor:
        """Prices (…,G) on the scale of the model."""
        return self._tensor(self.prices.to_log(np.asarray(prices, dtype=np.float64)))

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float64), device=self.device)

    # -- fitting, saving -------------------------------------------------------------------------------------------
    @classmethod
    def fit(cls, system_log: pd.DataFrame, **settings: Any) -> SystemModel:
        """Fit on a system log; see :func:`mpc.model.fitting.fit_system_model` for the settings and the report."""
        from mpc.model.fitting import fit_system_model

        return fit_system_model(system_log, **settings)

    def save(self, folder: str | Path) -> None:
        """Write safetensors + JSON into ``folder``; each file is whole or absent."""
        tensors = {**self.response.state_dict(), "persistence": self.persistence.data}
        tensors["level_shift"] = torch.as_tensor(self.level_shift)
        description = {
            "clusters": list(self.clusters),
            "price_scale": self.prices.scale.tolist(),
            "price_limit": self.price_limit.tolist(),
            "scaling": self.scaling,
            "windows": self.windows,
            "hidden": self.hidden,
            "members": self.members,
            "seen": {name: values.tolist() for name, values in self.seen.items()},
            "report": self.report,
        }
        save_model(folder, KIND, tensors, description)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> SystemModel:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: a file is missing, cut short, of another kind, or does not fit the other.
        """
        tensors, description = load_model(folder, KIND, device)
        description.pop("kind")
        try:
            model = cls(**description, device=device)
            model.persistence.data = tensors.pop("persistence").reshape(model.persistence.shape)
            model.level_shift = tensors.pop("level_shift").cpu().numpy()
            model.response.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder}: weights and description do not fit ({error}); save the model again") from None
        return model
