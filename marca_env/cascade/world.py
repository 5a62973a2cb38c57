"""Generated world behind the live cascade: items, users, clicks, and each model's noisy view of them.

The affinity of a user to an item decides clicks. Each model sees users and items with errors, which are smaller for
more expensive models (``Catalogue.noise``). Computation thus buys revenue with diminishing returns.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.special import ndtr

from marca_env.scenario.scenario import Scenario

MODELS = ("two_tower", "item_to_item", "rescoring", "pre_ranking", "ranking")
HISTORY_EDGES = (1, 3, 6, 9)
"""A user's history of 0, 1–2, 3–5, 6–8 or more items falls in bucket 0 … 4."""
CATEGORY_SHARE = 0.5
"""Share of the variance of an item's embedding that its category explains."""
NEWCOMERS = 0.25
"""Share of users without a history."""
QUALITY_WEIGHT = 0.25
TASTE_WEIGHT = 0.6
"""Weights of an item's quality and of the non-linear term in the affinity."""
_INTEREST_CATEGORIES = 3


@dataclass(frozen=True)
class RequestBatch:
    """Requests of M users: the observed ``states``, and the hidden quantities behind them."""

    states: np.ndarray
    """Observable features, int64 (M, F)."""
    user: np.ndarray
    """Hidden interest, float32 (M, d)."""
    views: np.ndarray
    """Interest as each model of :data:`MODELS` sees it, float32 (M, models, d)."""
    history: np.ndarray
    """Items of the user's history, −1 beyond its length, int64 (M, max_history)."""
    value: np.ndarray
    """Value of the user to advertisers, relative to the mean, float64 (M,)."""
    placement: np.ndarray
    """Placement group, int64 (M,)."""
    logit_shift: np.ndarray
    """Shift of the click logit by time window and data centre, float64 (M,)."""

    def __len__(self) -> int:
        return len(self.states)

    def take(self, index: np.ndarray | list[int] | slice) -> RequestBatch:
        """Return the requests at ``index``, in that order."""
        return RequestBatch(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


class World:
    """Items and users of a scenario, drawn from ``scenario.catalogue.seed``."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        spec = scenario.catalogue
        rng = np.random.default_rng(spec.seed)
        n, d = spec.items, spec.dim
        popularity = 1.0 / np.arange(1, spec.categories + 1) ** 0.7
        self.category_weight = popularity / popularity.sum()
        self.centres = rng.standard_normal((spec.categories, d)).astype(np.float32)
        self.category = rng.choice(spec.categories, n, p=self.category_weight)
        residual = rng.standard_normal((n, d))
        embedding = np.sqrt(CATEGORY_SHARE) * self.centres[self.category] + np.sqrt(1 - CATEGORY_SHARE) * residual
        self.embedding = embedding.astype(np.float32)
        self.quality = rng.standard_normal(n).astype(np.float32)
        self.bid = scenario.audience.bid * np.exp(0.5 * rng.standard_normal(n))
        self.basket = scenario.audience.basket * np.exp(0.6 * rng.standard_normal(n))
        self.conversion = scenario.audience.conversion * np.exp(0.5 * rng.standard_normal(n))
        self.eligible = rng.random((len(scenario.display.slots), n)) < 0.7
        self.item_views = self._item_views(rng)
        self.logit_shift = self._logit_shifts(rng)
        self.slots = np.array(scenario.display.slots)

    def _item_views(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw each model's view of the items: embedding and quality with errors, float32 (items, d + 1)."""
        views = {}
        truth = np.concatenate([self.embedding, self.quality[:, None]], axis=1)
        for model in MODELS:
            sigma = self.scenario.catalogue.noise.get(model, 0.5)
            views[model] = (truth + sigma * rng.standard_normal(truth.shape)).astype(np.float32)
        return views

    def _logit_shifts(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the shift of the click logit for each category of the features ``w`` and ``i``, if they exist."""
        sizes = {f.name: f.size for f in self.scenario.features}
        shifts = {}
        if "w" in sizes:
            hours = (np.arange(sizes["w"]) + 0.5) / sizes["w"]
            shifts["w"] = -0.4 * np.cos(2 * np.pi * (hours - 0.1))
        if "i" in sizes:
            shifts["i"] = 0.1 * rng.standard_normal(sizes["i"])
        return shifts

    def affinity(self, user: np.ndarray, embedding: np.ndarray, quality: np.ndarray) -> np.ndarray:
        """Return the true affinity of a user (d,) or users (B, d) to items (B, d): (B,).

        It is not linear, so that a deeper model earns more.
        """
        d = self.scenario.catalogue.dim
        product = user * embedding
        taste = product[:, : d // 2].sum(axis=1) * product[:, d // 2 :].sum(axis=1) / (d / 2)
        return product.sum(axis=1) / np.sqrt(d) + QUALITY_WEIGHT * quality + TASTE_WEIGHT * np.tanh(taste)

    def click_probability(self, user: np.ndarray, items: np.ndarray, logit_shift: float) -> np.ndarray:
        """Return the probability of a click on each examined item, (n,)."""
        audience = self.scenario.audience
        score = self.affinity(user[None], self.embedding[items], self.quality[items])
        return 1.0 / (1.0 + np.exp(-(audience.click_bias + audience.affinity_scale * score + logit_shift)))

    # -- requests ------------------------------------------------------------------------------------------
    def sample_requests(self, rng: np.random.Generator, n: int, windows: np.ndarray | None = None) -> RequestBatch:
        """Draw ``n`` requests; ``windows`` (n,) fixes their time windows (default: uniform)."""
        scenario, spec = self.scenario, self.scenario.catalogue
        sizes = {f.name: f.size for f in scenario.features}
        value = np.exp(scenario.audience.value_sigma * rng.standard_normal(n))
        placement = rng.integers(len(self.slots), size=n)
        centre = rng.integers(sizes.get("i", 1), size=n)
        window = rng.integers(sizes.get("w", 1), size=n) if windows is None else np.asarray(windows)
        length = np.where(rng.random(n) < NEWCOMERS, 0, np.minimum(rng.geometric(0.16, size=n), spec.max_history))
        user, history = self._interests(rng, length)
        observed = {
            "uv": _quantile_bucket(np.log(value) / max(scenario.audience.value_sigma, 1e-9), sizes.get("uv", 1)),
            "w": window,
            "g": placement % sizes.get("g", 1),
            "i": centre,
            "history": np.minimum(np.searchsorted(HISTORY_EDGES, length, side="right"), sizes.get("history", 1) - 1),
        }
        states = np.stack([observed[f.name] for f in scenario.features], axis=1).astype(np.int64)
        logit_shift = np.zeros(n)
        for name, shift in self.logit_shift.items():
            logit_shift += shift[observed[name]]
        value /= np.exp(scenario.audience.value_sigma**2 / 2)
        return RequestBatch(states, user, self._user_views(rng, user, length), history, value, placement, logit_shift)

    def _interests(self, rng: np.random.Generator, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw hidden interests (n, d), and the histories of liked items (n, max_history)."""
        n, d = len(length), self.scenario.catalogue.dim
        liked = rng.choice(len(self.centres), size=(n, _INTEREST_CATEGORIES), p=self.category_weight)
        weight = rng.dirichlet([2.0, 1.0, 0.5], size=n)
        mix = np.einsum("nk,nkd->nd", weight, self.centres[liked]) / np.sqrt((weight**2).sum(axis=1, keepdims=True))
        user = (np.sqrt(0.6) * mix + np.sqrt(0.4) * rng.standard_normal((n, d))).astype(np.float32)
        history = np.full((n, self.scenario.catalogue.max_history), -1)
        for k in range(n):
            if length[k]:
                offered = rng.integers(len(self.embedding), size=40 * length[k])
                score = self.affinity(user[k][None], self.embedding[offered], self.quality[offered])
                noisy = score + 0.7 * rng.gumbel(size=len(offered))
                history[k, : length[k]] = offered[np.argpartition(-noisy, length[k] - 1)[: length[k]]]
        return user, history

    def _user_views(self, rng: np.random.Generator, user: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Draw each model's view of the users, float32 (n, models, d); a longer history means a smaller error."""
        noise = np.array([self.scenario.catalogue.noise.get(m, 0.5) for m in MODELS])
        sigma = noise[None, :, None] / np.sqrt(1 + length)[:, None, None]
        views = user[:, None, :] + sigma * rng.standard_normal((len(user), len(MODELS), user.shape[1]))
        return views.astype(np.float32)


def _quantile_bucket(standard_normal: np.ndarray, buckets: int) -> np.ndarray:
    return np.minimum((ndtr(standard_normal) * buckets).astype(np.int64), buckets - 1)
