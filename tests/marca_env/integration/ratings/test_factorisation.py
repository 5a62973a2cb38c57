"""Factorisations: better than the baselines where there is taste, judged on pairs that they have not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from marca_env.integration.ratings import factorisation
from marca_env.integration.ratings.factorisation import Factors, factorise, judge
from marca_env.integration.ratings.tables import Ratings, read_ratings
from marca_env.utils.errors import InputError
from tests.helpers.paths import SHARED_DATA
from tests.helpers.ratings import ITEMS, USERS, make_events, make_ratings


def ratings_of(table: object, folder: Path) -> Ratings:
    table.to_parquet(folder / "r.parquet")  # type: ignore[attr-defined]
    return read_ratings(folder / "r.parquet")


def test_taste_is_found_in_ratings(tmp_path: Path) -> None:
    judgement = judge(ratings_of(make_ratings(), tmp_path), factors=6, seed=0)
    assert judgement.metric == "RMSE"
    assert judgement.beats_baselines
    assert judgement.factors < 0.8 * judgement.baselines["user and item biases"]
    assert judgement.held_out == USERS * (24 // 5)
    assert judgement.signal_share > 0.5


def test_ratings_without_taste_are_no_better_than_biases(tmp_path: Path) -> None:
    judgement = judge(ratings_of(make_ratings(noise=1.0, taste=0.0), tmp_path), factors=6, seed=0)
    assert judgement.best_baseline == "user and item biases"
    assert judgement.factors > 0.97 * judgement.baselines[judgement.best_baseline]


def test_taste_is_found_in_events(tmp_path: Path) -> None:
    judgement = judge(ratings_of(make_events(), tmp_path), factors=6, seed=0)
    assert judgement.metric == "recall@20"
    assert judgement.best_baseline == "popularity"
    assert judgement.factors > 1.3 * judgement.baselines["popularity"]


def test_factors_fit_the_ratings_and_repeat_with_the_seed(tmp_path: Path) -> None:
    ratings = ratings_of(make_ratings(), tmp_path)
    one, two = (factorise(ratings, 6, 0.05, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.user, two.user)
    assert one.user.shape == (USERS, 6)
    assert one.item.shape == (ITEMS - 2, 6)
    error = one.predict(ratings.user, ratings.item) - ratings.value
    assert np.sqrt(np.mean(error**2)) < 0.5


def test_a_fifth_of_each_users_pairs_is_held_out(tmp_path: Path) -> None:
    ratings = ratings_of(make_ratings(), tmp_path)
    few = ratings.take((ratings.user > 0) | (np.arange(len(ratings.user)) < 4))  # user 0 keeps four pairs
    mask = factorisation._hold_out(few, np.random.default_rng(0))
    held_out = np.bincount(few.user[mask], minlength=few.n_users)
    assert held_out[0] == 0
    assert set(held_out[1:]) == {24 // 5}


def test_too_few_ratings_to_judge_are_refused(tmp_path: Path) -> None:
    ratings = ratings_of(make_ratings(), tmp_path)
    rank = np.arange(len(ratings.user)) % 24
    with pytest.raises(InputError, match="no user has 5 items"):
        judge(ratings.take(rank < 4), factors=4, seed=0)


def test_equal_ratings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all are 5, which says nothing about taste; pass --feedback implicit"):
        judge(ratings_of(make_ratings().assign(rating=5.0), tmp_path), factors=4, seed=0)


def test_the_latent_share_is_that_of_the_law() -> None:
    """Events where s · score + noise exceeds a threshold, held out at random: the estimate is s²."""
    rng, users, items, s = np.random.default_rng(0), 300, 400, 0.6
    factors = Factors(rng.standard_normal((users, 16)), rng.standard_normal((items, 16)) / 4, np.zeros(users))
    score = factors.user @ factors.item.T
    latent = s * score / score.std() + np.sqrt(1 - s**2) * rng.standard_normal(score.shape)
    user, item = np.nonzero(latent > -ndtri(0.03))
    ids = np.arange(items).astype(str)
    events = Ratings("implicit", user, item, np.ones(len(user)), users, ids, False, 0, 0, {})
    mask = rng.random(len(user)) < 0.2
    # users are drawn evenly here: their activity would shift the reference
    share = factorisation._latent_share(factors, events.take(~mask), events.take(mask), rng)
    assert share == pytest.approx(s**2, abs=0.08)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "ratings").is_dir(), reason="the MovieLens ratings are not beside this checkout")
def test_movielens_as_events_beats_popularity() -> None:
    events = read_ratings(SHARED_DATA / "ratings" / "ratings.csv.gz", feedback="implicit")
    assert (len(events.user), events.n_users, len(events.item_ids)) == (100_004, 671, 9_066)
    judgement = judge(events, factors=16, seed=0)
    assert judgement.factors > 1.4 * judgement.baselines["popularity"]
