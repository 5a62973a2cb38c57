"""The live cascade: serving a request agrees with the joint evaluation of all its actions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marca_env.cascade.behaviour_policy import behaviour_actions, behaviour_log
from marca_env.cascade.cascade import LiveCascade
from marca_env.cascade.outcomes import DistinctPlans, OutcomeTable, _read, _write, evaluate_joint_actions, outcome_table
from marca_env.logs.schema import OUTCOMES
from marca_env.scenario.scenario import Scenario, ScenarioError
from tests.helpers.served_requests import assert_serving_agrees


@pytest.fixture(scope="module")
def cascade(tiny_scenario: Scenario) -> LiveCascade:
    return LiveCascade(tiny_scenario)


def test_joint_evaluation_agrees_with_serving_each_action(cascade: LiveCascade) -> None:
    assert_serving_agrees(cascade, 6)


def test_queues_only_shrink_and_respect_limits(cascade: LiveCascade, tiny_scenario: Scenario) -> None:
    requests = cascade.sample_requests(np.random.default_rng(4), 20)
    plans = DistinctPlans(cascade)
    truncation = np.array([5, 10, 20])[tiny_scenario.joint_actions[:, 3]]
    for k in range(len(requests)):
        results, _ = evaluate_joint_actions(cascade, plans, requests.take([k]))
        assert (results[:, 0] >= results[:, 1]).all()
        assert (results[:, 1] >= results[:, 2]).all()
        assert (results[:, 1] <= tiny_scenario.stages[0].queue_limit).all()
        assert (results[:, 2] <= truncation).all()


def test_sampled_outcomes_have_the_expected_mean(cascade: LiveCascade) -> None:
    requests = cascade.sample_requests(np.random.default_rng(5), 40)
    action = cascade.scenario.joint_actions[-1]
    # the request with most clicks, so that a few thousand draws tell a wrong law from the right one
    best = int(np.argmax([cascade.serve(requests.take([k]), action).clicks for k in range(len(requests))]))
    request = requests.take([best])
    served = cascade.serve(request, action)
    rng = np.random.default_rng(6)
    worth = cascade.expected_value(request, served.shown)
    draws = np.stack([cascade._react(request, served.shown, worth[:, 0], rng) for _ in range(20_000)])
    error = draws.std(axis=0) / np.sqrt(len(draws))
    expected = np.array([served.impressions, served.clicks, served.revenue, served.gmv])
    assert (np.abs(draws.mean(axis=0) - expected) < 4.5 * error + 1e-9).all()
    assert draws[:, 1].max() <= draws[:, 0].max()


@pytest.mark.slow
def test_more_computation_earns_more_on_average(tiny_scenario: Scenario, tmp_path: Path) -> None:
    table = outcome_table(tiny_scenario, 128, seed=1, workers=1, cache=tmp_path)
    mean = table.outcomes["revenue"].mean(axis=0)
    assert mean[-1] > 1.2 * mean[0]


@pytest.mark.slow
def test_outcome_table_is_cached_and_independent_of_workers(tiny_scenario: Scenario, tmp_path: Path) -> None:
    one = outcome_table(tiny_scenario, 100, seed=2, workers=1, cache=tmp_path / "a")
    two = outcome_table(tiny_scenario, 100, seed=2, workers=2, cache=tmp_path / "b")
    again = outcome_table(tiny_scenario, 100, seed=2, workers=1, cache=tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == 1
    for name in OUTCOMES:
        assert np.array_equal(one.outcomes[name], two.outcomes[name])
        assert np.array_equal(one.outcomes[name], again.outcomes[name])
    assert np.array_equal(one.results, again.results)
    other = outcome_table(tiny_scenario, 100, seed=3, workers=1, cache=tmp_path / "a")
    assert not np.array_equal(one.states, other.states)


def test_long_queues_survive_the_cache(tiny_scenario: Scenario, tmp_path: Path) -> None:
    shape = (1, tiny_scenario.n_joint_actions)
    results = np.full((*shape, 3), 2105.0, dtype=np.float32)
    outcomes = {name: np.zeros(shape, dtype=np.float32) for name in OUTCOMES}
    table = OutcomeTable(tiny_scenario, np.zeros((1, 4), dtype=np.int64), results, outcomes)
    _write(table, tmp_path / "t.npz")
    assert np.array_equal(_read(tiny_scenario, tmp_path / "t.npz").results, results)


@pytest.mark.slow
def test_the_behaviour_log_is_seeded_and_covers_every_option(tiny_scenario: Scenario) -> None:
    one = behaviour_log(tiny_scenario, 600, seed=1, workers=1)
    two = behaviour_log(tiny_scenario, 600, seed=1, workers=2)
    assert one.equals(two)
    assert not one.equals(behaviour_log(tiny_scenario, 600, seed=2, workers=1))
    assert (one["result_retrieval"] >= one["result_pre_ranking"]).all()
    assert 0 < (one["revenue"] > 0).mean() < 0.6
    for name, size in zip(tiny_scenario.decision_names, tiny_scenario.action_shape, strict=True):
        assert set(one[name]) == set(range(size))


def test_the_behaviour_policy_spends_more_on_valuable_users(tiny_scenario: Scenario) -> None:
    states = np.zeros((4000, 4), dtype=int)
    states[2000:, 0] = 2
    actions = behaviour_actions(tiny_scenario, states, np.random.default_rng(0))
    assert (actions[2000:].mean(axis=0) > actions[:2000].mean(axis=0)).all()


def test_request_features_are_within_their_sizes_and_windows_are_kept(
    cascade: LiveCascade, tiny_scenario: Scenario
) -> None:
    windows = np.arange(50) % 4
    states = cascade.sample_requests(np.random.default_rng(0), 50, windows).states
    assert (states >= 0).all()
    assert (states < tiny_scenario.feature_sizes).all()
    assert np.array_equal(states[:, 1], windows)


def test_other_stages_are_refused_with_a_remedy(tiny_scenario: Scenario) -> None:
    other = tiny_scenario.replace(stages=tiny_scenario.stages[:2])
    with pytest.raises(ScenarioError, match="fit its models on logs"):
        LiveCascade(other)
