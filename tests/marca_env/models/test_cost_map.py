from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marca_env.models.cost_map import CostMap, Curve
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import ExactLaw, make_cost_log


def test_decreasing_costs_are_pooled() -> None:
    """Costs 3 and 1 at lengths 2 and 3 break the order; their mean, 2, is the nearest monotone fit."""
    curve = Curve.isotonic(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 3.0, 1.0, 5.0]))
    np.testing.assert_allclose(curve(np.array([1, 2, 3, 4])), [0, 2, 2, 5])
    np.testing.assert_allclose(curve(np.array([1.5, 2.5, 3.5])), [1, 2, 3.5])  # linear in between


def test_repeated_lengths_share_a_knot() -> None:
    curve = Curve.isotonic(np.array([10.0, 10.0, 20.0]), np.array([1.0, 3.0, 6.0]))
    np.testing.assert_allclose(curve(np.array([10, 20])), [2, 6])


def test_curve_continues_at_its_mean_slope_beyond_the_knots() -> None:
    curve = Curve(np.array([10.0, 20.0, 40.0]), np.array([1.0, 4.0, 4.0]))  # 3 over 30: a slope of 0.1
    np.testing.assert_allclose(curve(np.array([5, 0, 50])), [0.5, 0.0, 5.0])
    assert Curve(np.array([10.0]), np.array([2.0]))(np.array(99)) == 2.0


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1, allow_subnormal=False)), min_size=1, max_size=30),
    st.lists(st.integers(0, 1000), min_size=2, max_size=30),
)
def test_every_curve_is_monotone_and_not_negative(points: list[tuple[int, float]], asked: list[int]) -> None:
    lengths, costs = np.array(points, dtype=float).T
    values = Curve.isotonic(lengths, costs)(np.sort(asked))
    assert (np.diff(values) >= -1e-12).all()
    assert (values >= 0).all()


def test_costs_behind_the_log_are_recovered(tiny_scenario: Scenario, exact_law: ExactLaw) -> None:
    cost_map = CostMap.from_log(tiny_scenario, make_cost_log(tiny_scenario))
    rng = np.random.default_rng(0)
    actions = rng.integers(0, tiny_scenario.action_shape, (200, 4))
    results = rng.integers(0, 60, (200, 3)).astype(float)
    np.testing.assert_allclose(cost_map.cost(actions, results), exact_law.cost(actions, results), rtol=1e-5)
    np.testing.assert_allclose(cost_map.degradation(np.array([1, 3])), [1e-3, 6e-3])
    np.testing.assert_allclose(cost_map.degradation(np.array([0, 0])), [0, 0])


def test_cost_of_a_request_matches_a_case_by_hand(tiny_scenario: Scenario) -> None:
    """Two-tower at 20 and re-scoring of 30 candidates; 30 pre-ranked, 10 ranked."""
    cost_map = CostMap.from_log(tiny_scenario, make_cost_log(tiny_scenario))
    cost = cost_map.cost(np.array([1, 1, 1, 1]), np.array([30.0, 30.0, 10.0]))
    retrieval = 2e-3 + 1e-3 + 20 * 5e-5 + 30 * 1e-4
    ranking = 1e-3 + 30 * 5e-5 + 1e-3 + 10 * 6e-4
    np.testing.assert_allclose(cost, [retrieval, ranking])
    cheaper = cost_map.cost(np.array([0, 1, 0, 1]), np.array([30.0, 30.0, 10.0]))  # channel and model off
    np.testing.assert_allclose(cheaper, [3e-3, ranking])


@pytest.mark.parametrize(
    "component", ["base", "queue", "channel:popularity", "channel:two_tower", "model:rescoring=personalised"]
)
def test_missing_component_is_named_in_the_error(component: str, tiny_scenario: Scenario) -> None:
    log = make_cost_log(tiny_scenario)
    with pytest.raises(InputError, match=f"{component}.*marca testbench"):
        CostMap.from_log(tiny_scenario, log[log["component"] != component])


def test_missing_degradation_is_named_in_the_error(tiny_scenario: Scenario) -> None:
    log = make_cost_log(tiny_scenario)
    cost_map = CostMap.from_log(tiny_scenario, log[log["component"] != "degradation"])
    assert (cost_map.degradation(np.array([0, 0])) == 0).all()
    with pytest.raises(InputError, match="'ranking'"):
        cost_map.degradation(np.array([0, 1]))


def test_cost_map_survives_json(tiny_scenario: Scenario) -> None:
    cost_map = CostMap.from_log(tiny_scenario, make_cost_log(tiny_scenario))
    again = CostMap.from_dict(tiny_scenario, json.loads(json.dumps(cost_map.to_dict())))
    actions, results = np.array([[1, 2, 1, 2]]), np.array([[45.0, 45.0, 20.0]])
    np.testing.assert_array_equal(again.cost(actions, results), cost_map.cost(actions, results))
    with pytest.raises(InputError, match="'curves' is missing"):
        CostMap.from_dict(tiny_scenario, {})


def test_leading_dimensions_are_kept(tiny_scenario: Scenario) -> None:
    cost_map = CostMap.from_log(tiny_scenario, make_cost_log(tiny_scenario))
    assert cost_map.cost(np.zeros((5, 7, 4), int), np.ones((5, 7, 3))).shape == (5, 7, 2)
    assert cost_map.cost(np.zeros(4, int), np.ones(3)).shape == (2,)


def test_value_buckets_of_a_length_are_pooled(tiny_scenario: Scenario) -> None:
    log = make_cost_log(tiny_scenario)
    dear = log.assign(value_bucket=1, cost=3 * log["cost"])
    pooled = CostMap.from_log(tiny_scenario, pd.concat([log, dear]))
    actions, results = np.array([[1, 2, 1, 2]]), np.array([[45.0, 45.0, 20.0]])
    single = CostMap.from_log(tiny_scenario, log)
    np.testing.assert_allclose(pooled.cost(actions, results), 2 * single.cost(actions, results))


@pytest.mark.parametrize(("column", "message"), [("stage", "did you mean 'ranking'"), ("cluster", "unknown cluster")])
def test_rows_of_another_system_raise(column: str, message: str, tiny_scenario: Scenario) -> None:
    """Without the check a misspelt cluster would lose its f(D) silently."""
    log = make_cost_log(tiny_scenario)
    log.loc[log["component"] == "degradation", column] = "rankin"
    with pytest.raises(InputError, match=message):
        CostMap.from_log(tiny_scenario, log)
