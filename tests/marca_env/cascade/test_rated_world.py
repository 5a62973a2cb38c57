"""The world of a table of ratings: what is real stays as it was, and the cascade serves it like a generated one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marca_env.cascade.cascade import LiveCascade
from marca_env.cascade.outcomes import outcome_table
from marca_env.cascade.rated_world import FILE, RatedData, RatedWorld
from marca_env.integration.ratings.rated_scenario import RatedSources, build_rated_scenario
from marca_env.logs.schema import OUTCOMES
from marca_env.scenario.scenario import Scenario, ScenarioError
from tests.helpers.factories import make_tiny_scenario
from tests.helpers.ratings import KINDS, make_events, make_ratings, write_tables
from tests.helpers.served_requests import assert_serving_agrees


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A scenario of 80 users and 60 items, two of which have no ratings."""
    folder = tmp_path_factory.mktemp("rated")
    scenario, _ = build_rated_scenario(RatedSources(*write_tables(folder)), folder / "out", make_tiny_scenario())
    return scenario


@pytest.fixture(scope="module")
def cascade(rated: Scenario) -> LiveCascade:
    return LiveCascade(rated)


@pytest.fixture(scope="module")
def world(cascade: LiveCascade) -> RatedWorld:
    assert isinstance(cascade.world, RatedWorld)
    return cascade.world


def moments(cascade: LiveCascade, n: int) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield the user's row, the history (oldest first) and the history's bucket of ``n`` requests."""
    requests = cascade.sample_requests(np.random.default_rng(0), n)
    column = cascade.scenario.feature_names.index("history")
    for user, history, state in zip(requests.user_row, requests.history, requests.states, strict=True):
        yield int(user), history[history >= 0], int(state[column])


def item_rows(scenario: Scenario) -> dict[int, int]:
    """Return the row of each item by its id."""
    assert scenario.home is not None
    ids = pd.read_parquet(scenario.home / "items.parquet")["item"].astype(int)
    return {item: row for row, item in enumerate(ids)}


def users_by_row() -> list[int]:
    """Return the id of the user of each row: ids are sorted as text."""
    return [int(text) for text in sorted(str(user) for user in make_ratings()["userId"].unique())]


def test_the_affinity_of_a_rated_pair_follows_its_rating(cascade: LiveCascade, world: RatedWorld) -> None:
    table, rows, ids = make_ratings(), item_rows(cascade.scenario), users_by_row()
    requests = cascade.sample_requests(np.random.default_rng(1), 20)
    gains = []
    for k in range(len(requests)):
        own = table[table["userId"] == ids[requests.user_row[k]]]
        score = world.true_affinity(requests.take([k]), np.array([rows[i] for i in own["itemId"]]))
        slope, intercept = np.polyfit(own["rating"], score, 1)
        np.testing.assert_allclose(score, slope * own["rating"] + intercept, atol=1e-4)
        gains.append(slope)
    assert gains[0] > 0
    np.testing.assert_allclose(gains, gains[0], rtol=1e-3)


def test_an_unrated_pair_has_the_affinity_of_the_factors(cascade: LiveCascade, world: RatedWorld) -> None:
    request = cascade.sample_requests(np.random.default_rng(2), 1)
    own = make_ratings().query(f"userId == {users_by_row()[request.user_row[0]]}")["itemId"]
    items = np.array(sorted(set(range(60)) - {item_rows(cascade.scenario)[i] for i in own}))
    expected = world.affinity(request.user[0][None], world.embedding[items], world.quality[items])
    np.testing.assert_allclose(world.true_affinity(request, items), expected)


def test_histories_are_the_latest_liked_items_before_the_request(cascade: LiveCascade) -> None:
    table, rows, ids = make_ratings(), item_rows(cascade.scenario), users_by_row()
    longest, edge = cascade.scenario.catalogue.max_history, int(cascade.world.history_edges[0])
    for user, history, bucket in moments(cascade, 60):
        own = table[table["userId"] == ids[user]].sort_values("timestamp")
        liked = [rows[i] for i in own["itemId"][own["rating"] >= own["rating"].mean()]]
        ends = [k for k in range(len(liked) + 1) if liked[max(0, k - longest) : k] == history.tolist()]
        assert ends, (history, liked)
        assert bucket in {int(end >= edge) for end in ends}


def test_active_users_ask_more_often(rated: Scenario, tmp_path: Path) -> None:
    table = make_ratings()
    table = table[(table["userId"] >= 40) | (table.groupby("userId").cumcount() < 6)]  # a quarter of the ratings
    table.to_parquet(tmp_path / "r.parquet")
    scenario, report = build_rated_scenario(
        RatedSources(tmp_path / "r.parquet"), tmp_path / "out", make_tiny_scenario()
    )
    row_of_busy = [row for row, user in enumerate(users_by_row()) if user >= 40]
    drawn = RatedWorld(scenario).sample_requests(np.random.default_rng(0), 4000).user_row
    assert np.isin(drawn, row_of_busy).mean() == pytest.approx(0.8, abs=0.03)
    assert "clusters of the factors" in report["categories"]["source"]


def test_items_without_ratings_are_like_their_category(cascade: LiveCascade, world: RatedWorld) -> None:
    rows = item_rows(cascade.scenario)
    assert world.popularity[rows[58]] == 0
    others = [rows[i] for i in range(58) if i % KINDS == 58 % KINDS]
    assert set(world.category[others]) == {world.category[rows[58]]}  # not "all", which every item has
    np.testing.assert_allclose(world.embedding[rows[58]], world.embedding[others].mean(axis=0), atol=1e-5)


def test_serving_agrees_with_the_joint_evaluation(cascade: LiveCascade) -> None:
    assert_serving_agrees(cascade, 3)


def test_the_two_tower_model_knows_leading_dimensions_only(world: RatedWorld) -> None:
    view = world.item_views["two_tower"][:, :-1]
    assert view[:, :2].std() > 1
    assert not view[:, 2:].any()
    np.testing.assert_allclose(np.mean(world.embedding**2, axis=0), 1.0, rtol=0.2)


def test_events_raise_the_affinity_of_their_pairs(tmp_path: Path) -> None:
    make_events().to_parquet(tmp_path / "e.parquet")
    scenario, report = build_rated_scenario(
        RatedSources(tmp_path / "e.parquet"), tmp_path / "out", make_tiny_scenario()
    )
    assert report["feedback"] == "implicit"
    world = RatedWorld(scenario)
    requests = world.sample_requests(np.random.default_rng(0), 30)
    items = np.arange(scenario.catalogue.items)
    data = RatedData.load(tmp_path / "out" / FILE)
    for k in range(len(requests)):
        own = data.event_item[slice(*data.starts[requests.user_row[k] : requests.user_row[k] + 2])]
        score = world.true_affinity(requests.take([k]), items)
        assert score[own].mean() > np.delete(score, own).mean() + 1


@pytest.mark.slow
def test_other_processes_serve_the_same_world(rated: Scenario, tmp_path: Path) -> None:
    one = outcome_table(rated, 70, seed=2, workers=1, cache=tmp_path / "a")
    two = outcome_table(rated, 70, seed=2, workers=2, cache=tmp_path / "b")
    for name in OUTCOMES:
        assert np.array_equal(one.outcomes[name], two.outcomes[name])


def test_a_scenario_without_its_world_is_refused(rated: Scenario, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"not read from a folder that holds world\.npz; use the folder"):
        RatedWorld(Scenario.from_dict(json.loads(json.dumps(rated.to_dict()))))
    rated.replace(home=None).save(tmp_path / "scenario.yaml")
    with pytest.raises(ScenarioError, match=r"world\.npz: no such file, but the scenario's users"):
        RatedWorld(Scenario.load(tmp_path))
    (tmp_path / FILE).write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(ScenarioError, match=r"world\.npz: cannot be read"):
        RatedWorld(Scenario.load(tmp_path))
    assert rated.home is not None
    data = RatedData.load(rated.home / FILE)
    replace(data, shift=data.shift + 1).save(tmp_path / FILE)
    with pytest.raises(ScenarioError, match="is not the file that it was written with"):
        RatedWorld(Scenario.load(tmp_path))
    data.save(tmp_path / FILE)
    assert len(RatedWorld(Scenario.load(tmp_path)).embedding) == 60
    smaller = rated.replace(catalogue=replace(rated.catalogue, items=10), home=tmp_path)
    with pytest.raises(ScenarioError, match=r"60 items, 8 dimensions and .* set catalogue\.items"):
        RatedWorld(smaller)
