"""Cards: rows that can be computed by hand, and that better information never earns less."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.cli.main import main
from benchmarks.days.headroom import GAINS, card
from benchmarks.days.information import (
    ForestEstimator,
    Requests,
    TableEstimator,
    independent_actions,
    joint_actions,
    own_information_actions,
    static_action,
    truncation_actions,
)
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage
from marca_env.utils.errors import InputError


@pytest.fixture(scope="module")
def requests() -> Requests:
    """The first agent alone sees the user; the second alone sees the signal that the costlier source reveals."""
    scenario = Scenario(
        name="handed-over",
        stages=(
            Stage("first", "api", (Decision("source", "model", ("plain", "rich")),), signals=("match",)),
            Stage("second", "api", (Decision("ranker", "model", ("small", "large")),)),
        ),
        clusters=(Cluster("api", cores=1.0, budget=1.0),),
        features=(Feature("user", 2, seen_by=("first",)), Feature("request", 4, hidden=True)),
        peak_qps=1.0,
    )
    user, match = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    # the large ranker pays where the user is valuable and the list matches; it costs 1 elsewhere
    gain = np.where((user == 1) & (match == 1), 4.0, -1.0)
    values = np.zeros((4, 2, 2))
    values[:, 1] -= 0.25  # the rich source costs a little
    values[:, :, 1] += gain[:, None]
    results = np.zeros((4, 2, 2, 3))
    results[:, 1, :, 2] = match[:, None] + 1.0  # signal of the rich source; the plain one reveals nothing
    states = np.stack([user, np.arange(4)], axis=1)
    return Requests(scenario, states, np.full(4, 0.25), values.reshape(4, 4), results.reshape(4, 4, 3))


def test_rows_are_those_computed_by_hand(requests):
    tables = TableEstimator()
    assert static_action(requests) == 1  # plain and large: (4 − 3) / 4
    assert requests.mean(np.full(4, 1)) == pytest.approx(0.25)
    # joint: rich and large for (1, 1) alone; user 0 takes plain and small
    assert requests.mean(joint_actions(requests, requests, tables)) == pytest.approx((4 - 0.25 - 0.25) / 4)
    assert requests.mean(truncation_actions(requests, requests, tables)) == pytest.approx((4 - 1) / 4)
    # each with what it sees: the first agent tells the second by its source which user has come
    own = own_information_actions(requests, requests, tables, starts=20)
    assert requests.mean(own) == pytest.approx((4 - 0.25 - 0.25) / 4)
    # independent: the source never pays by itself, so that nothing is revealed
    independent = independent_actions(requests, requests, tables)
    assert requests.mean(independent) == pytest.approx(0.75)


def test_an_agent_observes_only_what_it_sees(requests):
    none = np.zeros(4, dtype=int)
    assert requests.observe(0, none, is_own=True).tolist() == requests.states[:, :1].tolist()
    second = requests.observe(1, none + 1, is_own=True)
    assert second.tolist() == [[0, 1], [0, 2], [0, 1], [0, 2]]  # count and signal of the first, not the user
    assert requests.observe(1, none + 1, is_own=False).shape == (4, 3)


def test_forests_come_near_the_tables(requests):
    rng = np.random.default_rng(0)
    rows = rng.integers(4, size=400)
    many = Requests(
        requests.scenario,
        requests.states[rows],
        np.full(400, 1 / 400),
        requests.values[rows] + rng.normal(size=(400, 4)) * 0.3,
        requests.results[rows],
    )
    exact = requests.mean(joint_actions(requests, requests, TableEstimator()))
    assert requests.mean(joint_actions(many, requests, ForestEstimator())) == pytest.approx(exact)


def test_the_card_of_a_law_orders_its_rows(tmp_path, capsys):
    path = tmp_path / "card.json"
    assert main(["headroom", "--scenario", "stages-2-v0", "--prices", "2", "2", "--json", str(path)]) == 0
    assert "by its law" in capsys.readouterr().out
    found = json.loads(path.read_text())
    gains = found["gains"]
    assert set(gains) == set(GAINS)
    assert gains["myopic"] is None
    assert 0 <= gains["truncation"] <= gains["joint"] == pytest.approx(gains["hindsight"])
    assert gains["independent"] <= gains["own_information"] + 1e-12 <= gains["joint"] + 1e-9
    assert found["random"] < found["static"] == pytest.approx(card("stages-2-v0", prices=(2.0, 2.0)).static)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truth": "oracle"}, "unknown truth 'oracle'"),
        ({"prices": (1.0,)}, "give one number per cluster \\(light, heavy\\)"),
    ],
)
def test_faults_are_named(options, message):
    with pytest.raises(InputError, match=message):
        card("stages-2-v0", **options)
