"""Pointwise models of the cascade: a small re-scorer, a light pre-ranking network and a heavy ranking network.

Hidden layers are random features (Rahimi & Recht, 2007). The last layer is a ridge regression of the true affinity on
the model's noisy view of users and items: a network of real cost, fitted in closed form from a seed.
"""

from __future__ import annotations

import numpy as np

from marca_env.cascade.world import MODELS, World

HIDDEN: dict[str, tuple[int, ...]] = {"rescoring": (48,), "pre_ranking": (64, 32), "ranking": (2048, 512)}
_FIT_PAIRS = 16_384
_RIDGE = 3.0


class Scorer:
    """Model of the affinity of a user to items."""

    def __init__(self, world: World, name: str, rng: np.random.Generator) -> None:
        self.items = world.item_views[name]
        self.model_index = MODELS.index(name)
        dim = world.scenario.catalogue.dim
        width = 3 * dim + 1
        self.layers = []
        for hidden in HIDDEN[name]:
            weight = rng.standard_normal((width, hidden)) * np.sqrt(2.0 / width)
            self.layers.append((weight.astype(np.float32), (0.1 * rng.standard_normal(hidden)).astype(np.float32)))
            width = hidden
        self._fit(world, rng)

    def _fit(self, world: World, rng: np.random.Generator) -> None:
        """Fit the last layer to (user, item) pairs: half random, half biased to liked items, as in a real log."""
        sample = world.sample_requests(rng, 512)
        users = np.repeat(np.arange(len(sample)), _FIT_PAIRS // len(sample))
        items = rng.integers(len(self.items), size=(2, len(users)))
        score = np.stack([world.affinity(sample.user[users], world.embedding[i], world.quality[i]) for i in items])
        choice = np.where(rng.random(len(users)) < 0.5, score.argmax(axis=0), 0)
        item, target = items[choice, np.arange(len(users))], score[choice, np.arange(len(users))]
        features = self._features(sample.views[users, self.model_index], item)
        design = np.concatenate([self._hidden(features), features, np.ones((len(users), 1))], axis=1).astype(np.float64)
        gram = design.T @ design + _RIDGE * np.eye(design.shape[1])
        solution = np.linalg.solve(gram, design.T @ target).astype(np.float32)
        hidden = self.layers[-1][0].shape[1]
        self.head, self.skip, self.bias = solution[:hidden], solution[hidden:-1], solution[-1]

    def _features(self, view: np.ndarray, items: np.ndarray) -> np.ndarray:
        item_view = self.items[items]
        view = np.broadcast_to(view, (len(items), view.shape[-1]))
        dim = view.shape[1]
        return np.concatenate([view * item_view[:, :dim], view, item_view], axis=1)

    def _hidden(self, features: np.ndarray) -> np.ndarray:
        out = features
        for weight, bias in self.layers:
            out = np.maximum(out @ weight + bias, 0.0)
        return out

    def score(self, views: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict the affinity of one user, ``views`` (models, d), to ``items`` (n,): float32 (n,)."""
        features = self._features(views[self.model_index][None], items)
        return self._hidden(features) @ self.head + features @ self.skip + self.bias
