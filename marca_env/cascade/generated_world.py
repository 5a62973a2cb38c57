"""Generated world: users and items drawn from ``scenario.catalogue.seed``."""

from __future__ import annotations

import numpy as np

from marca_env.cascade.world import UserDraw, World
from marca_env.scenario.scenario import Scenario

CATEGORY_SHARE = 0.5
"""Share of the variance of an item's embedding that its category explains."""
NEWCOMERS = 0.25
"""Share of users without a history."""
QUALITY_WEIGHT = 0.25
TASTE_WEIGHT = 0.6
"""Weights of an item's quality and of the non-linear term in the affinity."""
_INTEREST_CATEGORIES = 3


class GeneratedWorld(World):
    """Items and users of a scenario, drawn from ``scenario.catalogue.seed``."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
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
        self.popularity = self.quality
        self._draw_auctions(rng, n)
        self.item_views = self._item_views(rng)
        self.logit_shift = self._logit_shifts(rng)

    def affinity(self, user: np.ndarray, embedding: np.ndarray, quality: np.ndarray) -> np.ndarray:
        """Return the affinity of a user (d,) or users (B, d) to items (B, d): (B,).

        It is not linear, so that a deeper model earns more.
        """
        d = self.scenario.catalogue.dim
        product = user * embedding
        taste = product[:, : d // 2].sum(axis=1) * product[:, d // 2 :].sum(axis=1) / (d / 2)
        return product.sum(axis=1) / np.sqrt(d) + QUALITY_WEIGHT * quality + TASTE_WEIGHT * np.tanh(taste)

    def _draw_users(self, rng: np.random.Generator, n: int) -> UserDraw:
        longest = self.scenario.catalogue.max_history
        length = np.where(rng.random(n) < NEWCOMERS, 0, np.minimum(rng.geometric(0.16, size=n), longest))
        user, history = self._interests(rng, length)
        return UserDraw(user, history, length, np.full(n, -1))

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
