"""Users, items and pairs of a table of ratings in the units of the live cascade.

Shapes: U users, I items, E pairs of a user and an item, C categories, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from marca_env.cascade.rated_world import RatedData
from marca_env.integration.ratings.categories import ItemCategories, cluster_items, read_categories
from marca_env.integration.ratings.factorisation import Factors, Judgement, event_strength, random_pairs
from marca_env.integration.ratings.tables import Attributes, Ratings
from marca_env.scenario.scenario import Scenario

SHARES = (0.01, 0.75)
"""Least and most share of an interest that the factors are taken to explain, so that the world stays playable."""
_TWO_TOWER_SHARE = 4  # the two-tower model knows one dimension in so many


def rated_data(
    ratings: Ratings,
    factors: Factors,
    judgement: Judgement,
    attributes: Attributes | None,
    base: Scenario,
    seed: int,
) -> tuple[RatedData, ItemCategories]:
    """Return the world of ratings in the units of the live cascade, and the categories of its items."""
    rng = np.random.default_rng([seed, 11])
    count = np.bincount(ratings.item, minlength=len(ratings.item_ids))
    if attributes is None:
        categories = cluster_items(factors.item, count, base.catalogue.categories, seed)
    else:
        categories = read_categories(attributes, ratings.item_ids)
    item = _with_unrated_items(factors.item, count, categories.category)
    scaled = _scale(factors.user, item, ratings, judgement, rng)
    residual = _residual(ratings, factors, scaled.gain)
    liked = _liked(ratings)
    activity = np.bincount(ratings.user, minlength=ratings.n_users) / len(ratings.user)
    quality = scaled.item @ (activity @ scaled.user)
    size = next((f.size for f in base.features if f.name == "history"), 1)
    data = RatedData(
        user=scaled.user.astype(np.float32),
        item=scaled.item.astype(np.float32),
        quality=((quality - quality.mean()) / max(quality.std(), 1e-12)).astype(np.float32),
        popularity=count,
        category=categories.category,
        centres=_means(scaled.item, categories.category, len(categories.names)).astype(np.float32),
        starts=np.concatenate([[0], np.cumsum(np.bincount(ratings.user, minlength=ratings.n_users))]),
        event_item=ratings.item,
        event_liked=liked,
        event_residual=residual.astype(np.float32),
        shift=np.array(scaled.shift),
        history_edges=_history_edges(ratings, liked, size),
        similarity_weight=scaled.weight,
        two_tower_rank=np.array(max(2, item.shape[1] // _TWO_TOWER_SHARE)),
    )
    return data, categories


def _with_unrated_items(item: np.ndarray, count: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Return the factors (I, f) with those of items without ratings replaced by the mean of their category."""
    rated = count > 0
    if rated.all():
        return item
    n = int(category.max()) + 1
    means = _means(item[rated], category[rated], n)
    known = np.bincount(category[rated], minlength=n) > 0
    means[~known] = item[rated].mean(axis=0)
    return np.where(rated[:, None], item, means[category])


@dataclass(frozen=True)
class _Scaled:
    """Users and items in the units of the live cascade: ``user @ item / √d + shift`` is the explained affinity."""

    user: np.ndarray
    item: np.ndarray
    shift: float
    gain: float
    """Affinity for one unit of the predicted value."""
    weight: np.ndarray
    """Relative weight of each dimension of the items, (d,); its mean square is 1."""


def _scale(
    user: np.ndarray, item: np.ndarray, ratings: Ratings, judgement: Judgement, rng: np.random.Generator
) -> _Scaled:
    """Rotate the factors so that the first explain most, and scale items to unit mean square in each dimension.

    A model's error is then the same share of every dimension, as in the generated world.

    A click happens if the affinity plus logistic noise, of variance π²/3, exceeds a threshold. The noise stands for
    what the factors cannot know: their share of the sum's variance is that which the held-out pairs show.
    """
    d, n = item.shape[1], len(item)
    (left, r_user), (right, r_item) = np.linalg.qr(user), np.linalg.qr(item)
    u, singular, v = np.linalg.svd(r_user @ r_item.T, full_matrices=False)
    left, right = left @ u * singular, right @ v.T
    left, right = (np.pad(x, ((0, 0), (0, d - x.shape[1]))) for x in (left, right))
    item = right * np.sqrt(n)
    pair_user, pair_item = random_pairs(ratings, rng)
    value = (left[pair_user] * right[pair_item]).sum(axis=1)
    share = float(np.clip(judgement.signal_share, *SHARES))
    gain = np.pi * np.sqrt(share / (1.0 - share) / 3.0) / max(float(value.std()), 1e-12)
    root = np.sqrt(np.pad(singular, (0, d - len(singular))))
    weight = root / max(float(np.sqrt(np.mean(root**2))), 1e-12)
    return _Scaled(left * gain * np.sqrt(d / n), item, -gain * float(value.mean()), gain, weight)


def _residual(ratings: Ratings, factors: Factors, gain: float) -> np.ndarray:
    """Return what the rating, or the strength of its events, adds to the affinity of each pair, (E,).

    A rating says how much a user likes what was chosen, not that it was chosen. Pairs with ratings therefore get the
    same mean click probability as others (of small click probabilities: the mean of exp(residual) is 1).
    """
    if ratings.feedback == "implicit":
        strength = event_strength(ratings)
        target = 1.0 + strength - strength.min()  # the factors predict 1 for a pair with events
        return gain * (target - factors.predict(ratings.user, ratings.item))
    residual = gain * (ratings.value - factors.predict(ratings.user, ratings.item))
    return residual - logsumexp(residual) + np.log(len(residual))


def _liked(ratings: Ratings) -> np.ndarray:
    """Return the pairs that belong to histories: ratings of at least the user's mean, and all pairs with events."""
    if ratings.feedback == "implicit":
        return np.ones(len(ratings.user), dtype=bool)
    count = np.maximum(np.bincount(ratings.user, minlength=ratings.n_users), 1)
    mean = np.bincount(ratings.user, weights=ratings.value, minlength=ratings.n_users) / count
    return ratings.value >= mean[ratings.user] - 1e-9


def _history_edges(ratings: Ratings, liked: np.ndarray, buckets: int) -> np.ndarray:
    """Return the lengths of the history at which buckets begin, so that requests fill them evenly."""
    before = np.concatenate([[0], np.cumsum(liked)])
    starts = np.concatenate([[0], np.cumsum(np.bincount(ratings.user, minlength=ratings.n_users))])
    length = before[:-1] - before[starts[ratings.user]]
    shares = np.arange(1, buckets) / buckets
    return np.unique(np.maximum(np.ceil(np.quantile(length, shares)), 1)).astype(np.int64)


def _means(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Return the mean of the rows of each group, (groups, d); zero for an empty group."""
    count = np.maximum(np.bincount(group, minlength=groups), 1)
    return (
        np.stack([np.bincount(group, weights=column, minlength=groups) for column in values.T], axis=1) / count[:, None]
    )
