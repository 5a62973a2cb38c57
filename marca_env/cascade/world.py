"""World behind the live cascade: items, users, clicks, and each model's noisy view of them.

The affinity of a user to an item decides clicks. Each model sees users and items with errors, which are smaller for
more expensive models (``Catalogue.noise``). Computation thus buys revenue with diminishing returns.

There are two sources of users and items: a seed (:mod:`marca_env.cascade.generated_world`) and a table of ratings
(:mod:`marca_env.cascade.rated_world`). Bids, placements and the time of a request are generated in both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import ndtr

from marca_env.scenario.scenario import Scenario

MODELS = ("two_tower", "item_to_item", "rescoring", "pre_ranking", "ranking")
FEATURES = ("uv", "w", "g", "i", "history")
"""Features that a request of the live cascade can have."""
HISTORY_EDGES = (1, 3, 6, 9)
"""A user's history of 0, 1–2, 3–5, 6–8 or more items falls in bucket 0 … 4."""


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
    user_row: np.ndarray
    """Row of the user in the ratings that the world is built from; −1 in a generated world, int64 (M,)."""

    def __len__(self) -> int:
        return len(self.states)

    def take(self, index: np.ndarray | list[int] | slice) -> RequestBatch:
        """Return the requests at ``index``, in that order."""
        return RequestBatch(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class UserDraw:
    """Users of M requests, before what is generated for each request."""

    user: np.ndarray
    """Hidden interest, float32 (M, d)."""
    history: np.ndarray
    """Items of the history, −1 beyond its length, int64 (M, max_history)."""
    length: np.ndarray
    """Number of items in the history, also of those beyond ``max_history``, int64 (M,)."""
    user_row: np.ndarray
    """See :attr:`RequestBatch.user_row`."""


class World(ABC):
    """Items and users of a scenario; ``scenario.catalogue.seed`` decides what is generated. I items, d dimensions."""

    category: np.ndarray
    """Category of each item, int64 (I,)."""
    centres: np.ndarray
    """Embedding of each category, float32 (categories, d)."""
    embedding: np.ndarray
    """Embedding of each item, float32 (I, d), of unit variance in each dimension."""
    bid: np.ndarray
    """Bid for a click on each item, currency, (I,)."""
    basket: np.ndarray
    """Basket value of a conversion, currency, (I,)."""
    conversion: np.ndarray
    """Conversions per click, (I,)."""
    eligible: np.ndarray
    """Whether each placement group may show each item, bool (groups, I)."""
    item_views: dict[str, np.ndarray]
    """Each model's view of the items: embedding and quality with errors, float32 (I, d + 1)."""
    logit_shift: dict[str, np.ndarray]
    """Shift of the click logit for each category of the features ``w`` and ``i``."""
    quality: np.ndarray
    """What all users like in an item, of unit variance, float32 (I,)."""
    popularity: np.ndarray
    """The popularity channel returns items with the largest values, (I,)."""
    history_edges: np.ndarray | tuple[int, ...] = HISTORY_EDGES
    """Lengths of the history at which buckets 1, 2, … of the feature ``history`` begin."""
    user_scale: np.ndarray | float = 1.0
    """Standard deviation of the users' interests, of which a model's error is a share; float or (d,)."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.slots = np.array(scenario.display.slots)

    def _draw_auctions(self, rng: np.random.Generator, n: int) -> None:
        """Draw the bid, basket, conversion rate and eligibility of ``n`` items."""
        audience = self.scenario.audience
        self.bid = audience.bid * np.exp(0.5 * rng.standard_normal(n))
        self.basket = audience.basket * np.exp(0.6 * rng.standard_normal(n))
        self.conversion = audience.conversion * np.exp(0.5 * rng.standard_normal(n))
        self.eligible = rng.random((len(self.slots), n)) < 0.7

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

    @abstractmethod
    def affinity(self, user: np.ndarray, embedding: np.ndarray, quality: np.ndarray) -> np.ndarray:
        """Return the affinity of a user (d,) or users (B, d) to items (B, d), as far as models can know it: (B,)."""

    def true_affinity(self, request: RequestBatch, items: np.ndarray) -> np.ndarray:
        """Return the affinity of one user to items (n,), with what no model can know, (n,); a batch of one request."""
        return self.affinity(request.user[0][None], self.embedding[items], self.quality[items])

    def click_probability(self, request: RequestBatch, items: np.ndarray) -> np.ndarray:
        """Return the probability of a click on each examined item, (n,), in a batch of one request."""
        audience = self.scenario.audience
        score = self.true_affinity(request, items)
        return 1.0 / (1.0 + np.exp(-(audience.click_bias + audience.affinity_scale * score + request.logit_shift[0])))

    # -- requests ------------------------------------------------------------------------------------------
    def sample_requests(self, rng: np.random.Generator, n: int, windows: np.ndarray | None = None) -> RequestBatch:
        """Draw ``n`` requests; ``windows`` (n,) fixes their time windows (default: uniform)."""
        scenario = self.scenario
        sizes = {f.name: f.size for f in scenario.features}
        value = np.exp(scenario.audience.value_sigma * rng.standard_normal(n))
        placement = rng.integers(len(self.slots), size=n)
        centre = rng.integers(sizes.get("i", 1), size=n)
        window = rng.integers(sizes.get("w", 1), size=n) if windows is None else np.asarray(windows)
        drawn = self._draw_users(rng, n)
        observed = {
            "uv": _quantile_bucket(np.log(value) / max(scenario.audience.value_sigma, 1e-9), sizes.get("uv", 1)),
            "w": window,
            "g": placement % sizes.get("g", 1),
            "i": centre,
            "history": np.minimum(
                np.searchsorted(self.history_edges, drawn.length, side="right"), sizes.get("history", 1) - 1
            ),
        }
        states = np.stack([observed[f.name] for f in scenario.features], axis=1).astype(np.int64)
        logit_shift = np.zeros(n)
        for name, shift in self.logit_shift.items():
            logit_shift += shift[observed[name]]
        value /= np.exp(scenario.audience.value_sigma**2 / 2)
        views = self._user_views(rng, drawn.user, drawn.length)
        return RequestBatch(states, drawn.user, views, drawn.history, value, placement, logit_shift, drawn.user_row)

    @abstractmethod
    def _draw_users(self, rng: np.random.Generator, n: int) -> UserDraw:
        """Draw the users of ``n`` requests."""

    def _user_views(self, rng: np.random.Generator, user: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Draw each model's view of the users, float32 (n, models, d); a longer history means a smaller error."""
        noise = np.array([self.scenario.catalogue.noise.get(m, 0.5) for m in MODELS])
        sigma = noise[None, :, None] * self.user_scale / np.sqrt(1 + length)[:, None, None]
        views = user[:, None, :] + sigma * rng.standard_normal((len(user), len(MODELS), user.shape[1]))
        return views.astype(np.float32)


def _quantile_bucket(standard_normal: np.ndarray, buckets: int) -> np.ndarray:
    return np.minimum((ndtr(standard_normal) * buckets).astype(np.int64), buckets - 1)
