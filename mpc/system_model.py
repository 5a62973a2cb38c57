"""The system model Ĉ_{t+1} = g(Ĉ_t, s_t, λ_t) (Eq. 18, arXiv 2512.24325): fit, roll out, differentiate, save, load.

Load is traffic times cost per request, and traffic is known or forecast, so only the logarithm of the cost per
request is learned. It is the sum of a response to prices and time of day and of an innovation that fades:

    log c_{t+1} = r(λ_{t+1}, z_{t+1}) + K · (log c_t − r(λ_t, z_t)),      Ĉ_{t+1} = qps_{t+1} · c_{t+1}

The response r is a small network per cluster, non-increasing in the cluster's own price by construction: raising a
price can only push requests off that cluster (the load is minus the gradient of a convex dual function). Other
prices and the time of day act freely. A degradation level shifts the logarithm by a constant: Ĉ is undegraded (Eq. 1),
so all that is left of a level is the error of f(D). Waiting work is left out on purpose: Ĉ is the work *offered* in a
minute, which does not depend on what still waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marca_env.errors import InputError
from marca_env.saving import load_model, save_model

if TYPE_CHECKING:
    import pandas as pd

KIND = "system_model"
HARMONICS = 2
_FLOOR = 1e-6  # core-seconds per request below which a cost counts as this much


@dataclass(frozen=True)
class Conditions:
    """What a minute is like, prices aside: s_t. Leading shape (…) is a batch, a horizon, or nothing.

    Attributes:
        qps: (…) requests per second, measured or forecast.
        minute: (…) minute of the day.
        degradation: (…,G) levels in force.
    """

    qps: np.ndarray
    minute: np.ndarray
    degradation: np.ndarray

    def rows(self, index: Any) -> Conditions:
        """The same for some of the rows."""
        return Conditions(self.qps[index], self.minute[index], self.degradation[index])


class PriceScale:
    """u = log(1 + λ/s): prices of all magnitudes on one scale, λ = 0 included. Shapes (…,G)."""

    def __init__(self, scale: np.ndarray) -> None:
        self.scale = np.asarray(scale, dtype=np.float64)  # (G,) currency per core-second

    def to_log(self, prices: np.ndarray) -> np.ndarray:
        return np.log1p(np.maximum(prices, 0.0) / self.scale)

    def to_price(self, log_prices: np.ndarray) -> np.ndarray:
        return self.scale * np.expm1(log_prices)


class Response(nn.Module):
    """r(u, z): log of the cost per request of each cluster, non-increasing in the cluster's own price.

    A unit's weight on the own price is never positive and all later weights are never negative; the linear term
    keeps a slope beyond the prices seen in training (there, cost falls as a power of the price).
    """

    def __init__(self, n_clusters: int, n_context: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        n_inputs = n_clusters + n_context

        def normal(*shape: int, scale: float, shift: float = 0.0) -> nn.Parameter:
            return nn.Parameter(shift + scale * torch.randn(*shape, generator=generator, dtype=torch.float64))

        small = math.log(math.expm1(1.0 / hidden))  # softplus of it is 1/hidden
        self.first = normal(n_clusters, hidden, n_inputs, scale=n_inputs**-0.5)
        self.first_bias = normal(n_clusters, hidden, scale=1.0)
        self.second = normal(n_clusters, hidden, hidden, scale=0.5, shift=small)
        self.second_bias = normal(n_clusters, hidden, scale=0.5)
        self.third = normal(n_clusters, hidden, scale=0.5, shift=small)
        self.level = nn.Parameter(torch.zeros(n_clusters, dtype=torch.float64))
        self.slope = nn.Parameter(torch.full((n_clusters,), -2.0, dtype=torch.float64))
        own = torch.zeros(n_clusters, 1, n_inputs, dtype=torch.float64)
        own[torch.arange(n_clusters), 0, torch.arange(n_clusters)] = 1.0
        self.register_buffer("own", own, persistent=False)

    def forward(self, prices: Tensor, context: Tensor) -> Tensor:
        """Scaled log prices (…,G) and context (…,F) → (…,G)."""
        own = self.get_buffer("own")
        first = torch.where(own > 0, -F.softplus(self.first), self.first)
        inputs = torch.cat([prices, context], dim=-1)
        # The clusters' networks side by side: one product with a block-diagonal matrix beats many small ones.
        x = torch.tanh(F.linear(inputs, first.flatten(0, 1), self.first_bias.flatten()))  # (…,G·H)
        x = torch.tanh(F.linear(x, torch.block_diag(*F.softplus(self.second)), self.second_bias.flatten()))
        x = x.unflatten(-1, self.third.shape)  # (…,G,H)
        return (x * F.softplus(self.third)).sum(-1) + self.level - F.softplus(self.slope) * prices


class SystemModel:
    """A fitted system model. G clusters; loads in core-seconds per second, prices in currency per core-second.

    Attributes:
        clusters: names of the clusters, in order.
        prices: the scale of prices on which the model is smooth.
        price_limit: (G,) highest price seen in training.
        report: errors on data held out from the end of the log, against persistence (see :meth:`fit`).
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
        seed: int = 0,
        device: str = "cpu",
        report: Mapping[str, Any] | None = None,
    ) -> None:
        if windows < 1 or hidden < 1:
            raise InputError(f"windows is {windows} and hidden {hidden}; both must be at least 1")
        self.clusters = tuple(clusters)
        self.prices = PriceScale(np.array(price_scale))
        self.price_limit = np.array(price_limit, dtype=np.float64)
        self.scaling = {name: [float(x) for x in values] for name, values in scaling.items()}
        self.windows, self.hidden, self.device = windows, hidden, device
        self.report: dict[str, Any] = dict(report or {})
        size = len(self.clusters)
        generator = torch.Generator().manual_seed(seed)
        self.response = Response(size, 2 * HARMONICS + windows, hidden, generator).to(device)
        self.level_shift = np.zeros((size, 1))  # (G, levels), of the log cost per request; level 0 shifts nothing
        self.persistence = nn.Parameter(torch.full((size,), 1.0, dtype=torch.float64, device=device))
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
            innovation = self.innovation(load, last, last_prices)
            fading = torch.sigmoid(self.persistence) * innovation
            logs = self.log_cost(self._log(prices), self._context(coming)) + fading
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
            logs = self.rollout_log_cost(load, last, last_prices, horizon)(self._log(prices))
            return logs.exp().cpu().numpy() * np.asarray(horizon.qps, dtype=np.float64)[:, None]

    def rollout_log_cost(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, horizon: Conditions
    ) -> Callable[[Tensor], Tensor]:
        """The rollout as a function of log prices: u (…,N,G) → log cost per request (…,N,G).

        The innovation of step i is K^i times today's whatever the prices in between, so a horizon costs no more
        than one batched evaluation of the response.
        """
        context = self._context(horizon)  # (N,F)
        innovation = self.innovation(load, last, last_prices)
        steps = torch.arange(1, context.shape[0] + 1, dtype=torch.float64, device=self.device)
        fading = torch.sigmoid(self.persistence) ** steps[:, None] * innovation  # (N,G)
        return lambda log_prices: self.log_cost(log_prices, context) + fading

    def sensitivity(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, horizon: Conditions, prices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Loads along one price sequence (N,G) and their exact derivative in the *log* prices u.

        Returns:
            Loads (N,G) and ∂Ĉ/∂u of each minute (N,G,G), [i, g, h] = ∂Ĉ_g/∂u_h at minute i. A price acts on its
            own minute alone: by construction every other block of the horizon's Jacobian is zero.
        """
        return self.linearise(self.rollout_log_cost(load, last, last_prices, horizon), horizon.qps, self._log(prices))

    @staticmethod
    def linearise(
        logs: Callable[[Tensor], Tensor], qps: np.ndarray, log_prices: Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Loads (N,G) and ∂Ĉ/∂u (N,G,G) of a :meth:`rollout_log_cost` at log prices (N,G)."""
        point = log_prices.detach().requires_grad_(True)
        costs = logs(point).exp()  # (N,G)
        # Rows do not interact, so one backward pass per cluster gives that cluster's derivative at every minute.
        rows = [torch.autograd.grad(costs[:, g].sum(), point, retain_graph=True)[0] for g in range(costs.shape[1])]
        traffic = np.asarray(qps, dtype=np.float64)[:, None]
        slopes = torch.stack(rows, dim=1).cpu().numpy() * traffic[..., None]
        return costs.detach().cpu().numpy() * traffic, slopes

    def jacobian(
        self, load: np.ndarray, last: Conditions, last_prices: np.ndarray, coming: Conditions, prices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact derivatives of :meth:`predict` for one minute.

        Returns:
            ∂Ĉ_{t+1}/∂λ (G,G) with respect to the coming prices, and ∂Ĉ_{t+1}/∂Ĉ_t (G,G).
        """
        from torch.func import jacrev

        before, after = self._context(last), self._context(coming)
        last_log, gain = self._log(last_prices), torch.sigmoid(self.persistence)
        scale = self._tensor(self.prices.scale)

        def step(price: Tensor, loads: Tensor) -> Tensor:
            innovation = torch.log(loads / float(last.qps)) - self.log_cost(last_log, before)
            return float(coming.qps) * torch.exp(self.log_cost(torch.log1p(price / scale), after) + gain * innovation)

        point = (self._tensor(prices), self._tensor(load).clamp_min(_FLOOR * float(last.qps)))
        by_price, by_load = jacrev(step, argnums=(0, 1))(*point)
        return by_price.detach().cpu().numpy(), by_load.detach().cpu().numpy()

    def log_cost(self, log_prices: Tensor, context: Tensor) -> Tensor:
        """r: log prices (…,G) and context (…,F) → log cost per request (…,G)."""
        scaled = (log_prices - self._scale["price_mean"]) / self._scale["price_std"]
        context = context.expand(*log_prices.shape[:-1], context.shape[-1])
        when, shift = context[..., : -self.n_clusters], context[..., -self.n_clusters :]
        return self.response(scaled, when) * self._scale["cost_std"] + self._scale["cost_mean"] + shift

    def innovation(self, load: np.ndarray, last: Conditions, last_prices: np.ndarray) -> Tensor:
        """log c_t − r(λ_t, z_t), shape (…,G)."""
        cost = np.maximum(load, 0.0) / np.maximum(np.asarray(last.qps, dtype=np.float64), 1e-9)[..., None]
        logs = self._tensor(np.log(np.maximum(cost, _FLOOR)))
        return logs - self.log_cost(self._log(last_prices), self._context(last))

    def _context(self, conditions: Conditions) -> Tensor:
        """Time of day (harmonics, window), then the shift of the degradation levels: (…,F)."""
        minute = self._tensor(np.asarray(conditions.minute)) % 1440
        angles = [2 * math.pi * k * minute / 1440 for k in range(1, HARMONICS + 1)]
        waves = torch.stack([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=-1)
        window = F.one_hot((minute * self.windows // 1440).long(), self.windows).to(waves)
        levels = np.clip(np.asarray(conditions.degradation), 0, self.level_shift.shape[1] - 1).astype(np.int64)
        shift = self.level_shift[np.arange(self.n_clusters), levels]
        return torch.cat([waves, window, self._tensor(shift)], dim=-1)

    def _log(self, prices: np.ndarray) -> Tensor:
        return self._tensor(self.prices.to_log(np.asarray(prices, dtype=np.float64)))

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float64), device=self.device)

    # -- fitting, saving -------------------------------------------------------------------------------------------
    @classmethod
    def fit(cls, system_log: pd.DataFrame, **settings: Any) -> SystemModel:
        """Fit on a system log; see :func:`mpc.fitting.fit_system_model` for the settings and the report."""
        from mpc.fitting import fit_system_model

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
            model.persistence.data = tensors.pop("persistence")
            model.level_shift = tensors.pop("level_shift").cpu().numpy()
            model.response.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder}: weights and description do not fit ({error}); save the model again") from None
        return model
