"""Categories of items: from a column of attributes, or clusters of their factors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from marca_env.integration.ratings.tables import Attributes

UNKNOWN = "unknown"
"""Category of items without attributes."""


@dataclass(frozen=True)
class ItemCategories:
    """Category of each item."""

    category: np.ndarray
    """int64 (I,)."""
    names: tuple[str, ...]
    source: str
    """Where they come from, for the report."""


def read_categories(attributes: Attributes, item_ids: np.ndarray) -> ItemCategories:
    """Return the category of each item (I,): of several values the rarest, which says most about the item.

    Items without attributes share the category :data:`UNKNOWN`.
    """
    count = Counter(value for values in attributes.values for value in values)
    chosen = {
        item: min(values, key=lambda value: (count[value], value))
        for item, values in zip(attributes.ids, attributes.values, strict=True)
        if values
    }
    names = [chosen.get(item, UNKNOWN) for item in item_ids]
    used = sorted(set(names))
    row = {name: k for k, name in enumerate(used)}
    category = np.array([row[name] for name in names], dtype=np.int64)
    return ItemCategories(category, tuple(used), f"column {attributes.column!r}, of several values the rarest")


def cluster_items(item: np.ndarray, count: np.ndarray, clusters: int, seed: int) -> ItemCategories:
    """Return clusters of the rated items' factors (I, f); items without ratings join the cluster nearest to the mean.

    Args:
        item: factors.
        count: ratings of each item, (I,).
        clusters: number of clusters; fewer for small catalogues.
        seed: seed of the start.
    """
    rated = count > 0
    clusters = int(min(clusters, max(rated.sum() // 2, 1)))
    length = np.linalg.norm(item, axis=1, keepdims=True)
    direction = item / np.maximum(length, 1e-12)
    model = MiniBatchKMeans(clusters, random_state=seed % 2**32, n_init=3).fit(direction[rated])
    category = model.predict(direction).astype(np.int64)
    used, category = np.unique(category, return_inverse=True)
    return ItemCategories(
        category.astype(np.int64), tuple(f"cluster {k + 1}" for k in range(len(used))), "clusters of the factors"
    )
