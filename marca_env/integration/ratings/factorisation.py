"""Factorise ratings or events, and judge the factorisation on pairs that it was not fitted to.

Explicit ratings: biased matrix factorisation, r̂ = μ + b_u + b_i + p_u · q_i (Koren et al., 2009; the package Surprise).
Events: confidence-weighted factorisation, whether a pair has events ≈ p_u · q_i, where the confidence grows with their
number (Hu et al., 2008; the package implicit).

Shapes: E pairs, U users, I items, f factors. Neither builds a matrix of all users and items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from marca_env.integration.ratings.tables import Ratings
from marca_env.utils.errors import InputError

HELD_OUT = 5
"""One pair of so many of each user is held out."""
TOP = 20
"""Length of the lists of recommendations that are judged."""
STRENGTHS: dict[str, tuple[float, ...]] = {"explicit": (0.02, 0.05, 0.1, 0.15), "implicit": (1.0, 5.0, 20.0)}
"""Regularisation (explicit) or weight of events in the confidence (implicit), of which the best is chosen."""
_EPOCHS, _LEARNING_RATE = 60, 0.01
_ITERATIONS, _REGULARISATION = 15, 1.0
_MOST_SELECTED = 200_000  # pairs on which the strength is chosen
_MOST_JUDGED = 2_000  # users whose lists are judged; of large catalogues fewer, down to 100
_MOST_SCORES = 2 * 10**8  # pairs that are scored for that
_SAMPLE = 200_000
_SEEDS = 2**32  # number of seeds of the two packages
_MANY = 1_000_000  # pairs above which the fit uses all cores; below, starting threads takes longer
_MISSING = "marca fit --ratings needs {}: pip install 'marca-env[ratings]'"


@dataclass(frozen=True)
class Factors:
    """Predicted value of a pair: ``offset[u] + user[u] @ item[i]``."""

    user: np.ndarray
    """float64 (U, f); zero for a user without pairs."""
    item: np.ndarray
    """float64 (I, f)."""
    offset: np.ndarray
    """A user's mean level, which says nothing about items, float64 (U,)."""

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return the predicted value of pairs (n,)."""
        return self.offset[user] + (self.user[user] * self.item[item]).sum(axis=1)


@dataclass(frozen=True)
class Judgement:
    """Errors on held-out pairs of factors that were fitted to the others."""

    metric: str
    """``RMSE`` (lower is better) or ``recall@20`` (higher is better)."""
    factors: float
    baselines: dict[str, float]
    held_out: int
    strength: float
    """The chosen one of :data:`STRENGTHS`."""
    signal_share: float
    """Share of the variance of users' interest in single items that the factors explain."""

    @property
    def best_baseline(self) -> str:
        """Name of the best baseline."""
        return (min if self.metric == "RMSE" else max)(self.baselines, key=self.baselines.__getitem__)

    @property
    def beats_baselines(self) -> bool:
        """Whether the factors are better than every baseline."""
        other = self.baselines[self.best_baseline]
        return self.factors < other if self.metric == "RMSE" else self.factors > other


# -- fit -----------------------------------------------------------------------------------------------------------
def factorise(ratings: Ratings, factors: int, strength: float, seed: int) -> Factors:
    """Fit users and items to all pairs.

    Args:
        ratings: the pairs.
        factors: dimensions of users and items; with explicit ratings one of them is the item's bias.
        strength: see :data:`STRENGTHS`.
        seed: seed of the start.
    """
    fit = _fit_explicit if ratings.feedback == "explicit" else _fit_implicit
    return fit(ratings, factors, strength, seed)


def _fit_explicit(ratings: Ratings, factors: int, strength: float, seed: int) -> Factors:
    model = _surprise().SVD(
        n_factors=max(factors - 1, 1),
        n_epochs=_EPOCHS,
        lr_all=_LEARNING_RATE,
        reg_all=strength,
        random_state=seed % _SEEDS,
    )
    trainset = _trainset(ratings)
    model.fit(trainset)
    users, items = _rows(trainset)
    user = np.zeros((ratings.n_users, factors))
    item = np.zeros((len(ratings.item_ids), factors))
    offset = np.full(ratings.n_users, trainset.global_mean)
    user[:, -1], item[items, -1] = 1.0, model.bi
    offset[users] += model.bu
    user[users, : factors - 1], item[items, : factors - 1] = model.pu[:, : factors - 1], model.qi[:, : factors - 1]
    return Factors(user, item, offset)


def _trainset(ratings: Ratings) -> Any:
    """Return the pairs as Surprise takes them."""
    surprise = _surprise()
    frame = pd.DataFrame({"user": ratings.user, "item": ratings.item, "value": ratings.value})
    scale = (float(ratings.value.min()), float(ratings.value.max()))
    return surprise.Dataset.load_from_df(frame, surprise.Reader(rating_scale=scale)).build_full_trainset()


def _surprise() -> Any:
    """Return the library of explicit factorisation, an extra."""
    try:
        import surprise
    except ImportError:
        raise ImportError(_MISSING.format("scikit-surprise")) from None
    return surprise


def _rows(trainset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the row in the ratings of each user and item of Surprise."""
    users = np.array([trainset.to_raw_uid(k) for k in range(trainset.n_users)])
    return users, np.array([trainset.to_raw_iid(k) for k in range(trainset.n_items)])


def _fit_implicit(ratings: Ratings, factors: int, strength: float, seed: int) -> Factors:
    try:
        from implicit.als import AlternatingLeastSquares
    except ImportError:
        raise ImportError(_MISSING.format("implicit")) from None
    confidence = 1.0 + strength * event_strength(ratings)
    with threadpool_limits(1, "blas"):  # implicit runs its own threads and warns of others
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=_REGULARISATION,
            alpha=1.0,
            iterations=_ITERATIONS,
            random_state=seed % _SEEDS,
            num_threads=1 if len(ratings.user) < _MANY else 0,
        )
        model.fit(_matrix(ratings, confidence), show_progress=False)
    user, item = (np.asarray(x, dtype=np.float64) for x in (model.user_factors, model.item_factors))
    user[np.bincount(ratings.user, minlength=ratings.n_users) == 0] = 0.0
    item[np.bincount(ratings.item, minlength=len(ratings.item_ids)) == 0] = 0.0
    return Factors(user, item, np.zeros(ratings.n_users))


def event_strength(ratings: Ratings) -> np.ndarray:
    """Return the logarithm of each pair's number of events, relative to its mean over pairs, (E,)."""
    logarithm = np.log1p(ratings.value)
    return logarithm / logarithm.mean()


def _matrix(ratings: Ratings, values: np.ndarray) -> csr_matrix:
    shape = (ratings.n_users, len(ratings.item_ids))
    return csr_matrix((values.astype(np.float32), (ratings.user, ratings.item)), shape=shape)


# -- judge ---------------------------------------------------------------------------------------------------------
def judge(ratings: Ratings, factors: int, seed: int) -> Judgement:
    """Fit four fifths of each user's pairs and judge on the rest.

    The strength is chosen within the four fifths, so that the held-out pairs decide nothing.

    Raises:
        InputError: no user has enough pairs, or all ratings are equal.
    """
    if ratings.feedback == "explicit" and np.ptp(ratings.value) == 0:
        raise InputError(
            f"ratings: all are {ratings.value[0]:g}, which says nothing about taste; pass --feedback implicit"
        )
    rng = np.random.default_rng([seed, 7])
    held_out = _hold_out(ratings, rng)
    if not held_out.any():
        raise InputError(
            f"ratings: no user has {HELD_OUT} items, so none can be held out to judge the factors; pass more ratings"
        )
    train, test = ratings.take(~held_out), ratings.take(held_out)
    strength = _choose_strength(train, factors, rng, seed)
    fitted = factorise(train, factors, strength, seed)
    if ratings.feedback == "explicit":
        baselines = {name: _rmse(p, test.value) for name, p in _mean_baselines(train, test)}
        error = _rmse(fitted.predict(test.user, test.item), test.value)
        spread = _spread(fitted, train, rng)
        return Judgement("RMSE", error, baselines, len(test.user), strength, spread / (spread + error**2))
    popular = np.bincount(train.item, minlength=len(train.item_ids)).astype(np.float64)
    popularity = Factors(np.ones((train.n_users, 1)), popular[:, None], np.zeros(train.n_users))
    recalls = [_recall(f, train, test, np.random.default_rng([seed, 8])) for f in (fitted, popularity)]
    share = _latent_share(fitted, train, test, rng)
    return Judgement(f"recall@{TOP}", recalls[0], {"popularity": recalls[1]}, len(test.user), strength, share)


def _hold_out(ratings: Ratings, rng: np.random.Generator) -> np.ndarray:
    """Return a mask of a random fifth of each user's pairs, rounded down."""
    count = np.bincount(ratings.user, minlength=ratings.n_users)
    order = np.lexsort((rng.random(len(ratings.user)), ratings.user))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    mask = np.zeros(len(order), dtype=bool)
    mask[order] = rank < np.repeat(count // HELD_OUT, count)
    return mask


def _choose_strength(train: Ratings, factors: int, rng: np.random.Generator, seed: int) -> float:
    """Return the strength that is best on a fifth of the training pairs, or of those of some users."""
    if len(train.user) > _MOST_SELECTED:
        size = np.bincount(train.user, minlength=train.n_users)
        chosen = rng.permutation(train.n_users)
        chosen = chosen[np.cumsum(size[chosen]) <= _MOST_SELECTED]
        train = train.take(np.isin(train.user, chosen))
    inner = _hold_out(train, rng)
    options = STRENGTHS[train.feedback]
    if not inner.any():
        return options[len(options) // 2]
    fit, test = train.take(~inner), train.take(inner)
    scores = []
    for strength in options:
        fitted = factorise(fit, factors, strength, seed)
        if train.feedback == "explicit":
            scores.append(-_rmse(fitted.predict(test.user, test.item), test.value))
        else:
            scores.append(_recall(fitted, fit, test, np.random.default_rng([seed, 9])))
    return options[int(np.argmax(scores))]


def _rmse(predicted: np.ndarray, value: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - value) ** 2)))


def _mean_baselines(train: Ratings, test: Ratings) -> Iterator[tuple[str, np.ndarray]]:
    """Yield predictions of the test pairs by means: of all ratings, of the user, of the item, and by both biases."""
    mean = train.value.mean()
    yield "global mean", np.full(len(test.value), mean)
    for name, size in (("user", train.n_users), ("item", len(train.item_ids))):
        rows = getattr(train, name)
        count = np.bincount(rows, minlength=size)
        total = np.bincount(rows, weights=train.value, minlength=size)
        yield f"{name} mean", np.where(count > 0, total / np.maximum(count, 1), mean)[getattr(test, name)]
    trainset = _trainset(train)
    model = _surprise().BaselineOnly(verbose=False).fit(trainset)
    users, items = _rows(trainset)
    user, item = np.zeros(train.n_users), np.zeros(len(train.item_ids))
    user[users], item[items] = model.bu, model.bi
    yield "user and item biases", trainset.global_mean + user[test.user] + item[test.item]


def _recall(factors: Factors, train: Ratings, test: Ratings, rng: np.random.Generator) -> float:
    """Return the mean over users of the share of their held-out items among the best that they do not have yet.

    The share is that of at most :data:`TOP` items, so that 1 can be reached.
    """
    users = np.unique(test.user)
    most = min(_MOST_JUDGED, max(100, _MOST_SCORES // len(factors.item)))
    users = rng.choice(users, min(most, len(users)), replace=False)
    owned, wanted = (_matrix(r, np.ones(len(r.user))) for r in (train, test))
    with threadpool_limits(1):  # many small products
        return float(np.mean([_recall_of(factors, user, owned[user].indices, wanted[user].indices) for user in users]))


def _recall_of(factors: Factors, user: int, owned: np.ndarray, wanted: np.ndarray) -> float:
    score = factors.item @ factors.user[user]
    score[owned] = -np.inf
    top = min(TOP, len(score))
    best = np.argpartition(-score, top - 1)[:top]
    return float(np.isin(best, wanted).sum() / min(TOP, len(wanted)))


def random_pairs(ratings: Ratings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return users, by their activity, and items of random pairs, (n,) each."""
    user = ratings.user[rng.integers(len(ratings.user), size=_SAMPLE)]
    return user, rng.integers(len(ratings.item_ids), size=_SAMPLE)


def _spread(factors: Factors, ratings: Ratings, rng: np.random.Generator) -> float:
    """Return the variance of what the factors predict for random pairs, without the users' levels."""
    user, item = random_pairs(ratings, rng)
    return float((factors.user[user] * factors.item[item]).sum(axis=1).var())


def _latent_share(factors: Factors, train: Ratings, test: Ratings, rng: np.random.Generator) -> float:
    """Return the share of the interest's variance that the factors explain, where only events are known.

    A pair has events if a normal interest exceeds a threshold. If the factors' score z, made normal by its rank among
    random pairs, has the correlation s with it, then E[z | events] = s φ(t) / ρ, where ρ = 1 − Φ(t) is the share of
    pairs with events. The held-out pairs give E[z | events].
    """
    user, item = random_pairs(train, rng)
    reference = np.sort((factors.user[user] * factors.item[item]).sum(axis=1))
    score = (factors.user[test.user] * factors.item[test.item]).sum(axis=1)
    rank = np.searchsorted(reference, score, side="left") + np.searchsorted(reference, score, side="right")
    normal = ndtri(np.clip(0.5 * rank / len(reference), 1e-5, 1 - 1e-5))
    density = min((len(train.user) + len(test.user)) / (train.n_users * len(train.item_ids)), 0.5)
    tail = np.exp(-0.5 * ndtri(density) ** 2) / np.sqrt(2 * np.pi) / density
    return float(np.clip(normal.mean() / tail, 0.0, 1.0) ** 2)
