"""The shipped handover-v0 is what its law says, and asks for what it is meant to ask."""

from __future__ import annotations

import numpy as np
import pytest

import marca_env
from benchmarks.days.headroom import card
from marca_env.envs.handover_preset import NAME, PRICE, make_handover
from marca_env.models.engine import get_engine
from marca_env.scenario.scenario import Scenario


@pytest.fixture(scope="module")
def made():
    return make_handover()


def test_shipped_files_follow_the_law(made):
    engine = get_engine(NAME)
    assert Scenario.load(NAME) == made.scenario
    np.testing.assert_array_equal(engine.records.table, made.records.table)
    np.testing.assert_array_equal(engine.population.counts, made.population.counts)


def test_a_request_earns_and_costs_what_the_docstring_says(made):
    scenario, records = made.scenario, made.records
    joint = int(scenario.joint_index(np.array([[2, 3, 3]]))[0])  # both sources, 540 candidates, the large model
    row = records.table[-1, joint]  # highest level of everything
    relevance = 1 - 0.7 * 0.05
    reach = 1 - np.exp(-540 / 120)
    assert row[-1] == pytest.approx(0.05 * relevance * (1 - 0.9 * (1 - reach)), rel=1e-5)
    assert row[6:8] == pytest.approx([8e-4, 540 * 6e-7 + 2.4e-3], rel=1e-5)
    assert row[:3].tolist() == [600, 600, 540]


def test_only_retrieval_sees_the_user_and_only_later_stages_the_list(made):
    env = marca_env.batched_env(4, NAME, reward="lagrangian")
    before = env.reset(seed=0)
    users = env.states.copy()
    users[:, :2] = (users[:, :2] + 1) % 3
    results = env.engine.results(env.states, np.zeros((4, 3), dtype=int), 1)
    seen, _, _ = env.encoder.encode(env.states, np.zeros((4, 3), dtype=int), results, 1, np.full(2, PRICE))
    other, _, _ = env.encoder.encode(users, np.zeros((4, 3), dtype=int), results, 1, np.full(2, PRICE))
    assert not np.array_equal(seen["retrieval"], other["retrieval"])
    for agent in ("pre_ranking", "ranking"):
        np.testing.assert_array_equal(seen[agent], other[agent])
        assert not np.array_equal(seen[agent], before.observations[agent])  # signals have come


@pytest.mark.slow
def test_own_information_loses_at_least_15_percent_of_the_gain():
    gains = card(NAME).gains
    assert gains["own_information"] <= 0.85 * gains["joint"]
    assert gains["joint"] > 0.4
    assert gains["truncation"] < gains["own_information"]
