"""Decisions for live requests: those of the policy, and a fault of one request never fails the others."""

from __future__ import annotations

import numpy as np
import pytest

from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.serving.decider import FALLBACK_REASONS, Decider
from benchmarks.serving.static_rule import make_static_rule, parse_action
from marca_env.utils.errors import InputError
from tests.helpers.decision_server import GOOD, PRICES, STATIC, FaultyPolicy


@pytest.fixture
def decider(policy: AllocationPolicy) -> Decider:
    return Decider(policy, policy.scenario, STATIC)


def test_decisions_and_estimates_are_those_of_the_policy(decider, policy):
    states = np.random.default_rng(0).integers(0, policy.scenario.feature_sizes, (40, 5))
    requests = [dict(zip(policy.scenario.feature_names, state.tolist(), strict=True)) for state in states]
    decisions = decider.decide(requests, PRICES)
    actions = policy.decide(states, PRICES)
    assert [d.action for d in decisions] == [tuple(a) for a in actions.tolist()]
    assert all(d.status == "ok" and d.applied == "policy" for d in decisions)
    assert [d.options for d in decisions] == policy.scenario.named_options(actions)
    rows, joint = np.arange(40), policy.scenario.joint_index(actions)
    assert np.allclose([d.value for d in decisions], policy.values(states)[rows, joint])
    assert np.allclose([d.costs for d in decisions], policy.costs(states)[rows, joint])


def test_a_withheld_decision_is_the_static_action_with_its_own_estimates(decider, policy):
    decision = decider.decide([GOOD], PRICES, enforced=[False])[0]
    state = np.array([list(GOOD.values())])
    assert (decision.action, decision.applied, decision.status) == (STATIC.action, "static", "ok")
    assert decision.policy_action == tuple(policy.decide(state, PRICES)[0])
    assert np.isclose(decision.value, policy.values(state)[0, 0])
    assert np.allclose(decision.costs, policy.costs(state)[0, 0])


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        ({k: v for k, v in GOOD.items() if k != "w"}, "missing-feature"),
        (GOOD | {"w": None}, "missing-feature"),
        (GOOD | {"uv": 10}, "unseen-value"),
        (GOOD | {"uv": -1}, "unseen-value"),
        (GOOD | {"uv": 10**400}, "unseen-value"),
        (GOOD | {"uv": "1"}, "wrong-type"),
        (GOOD | {"uv": 1.5}, "wrong-type"),
        (GOOD | {"uv": True}, "wrong-type"),
        (GOOD | {"uv": float("nan")}, "wrong-type"),
        (GOOD | {"uv": [1]}, "wrong-type"),
        (None, "wrong-type"),
        ([1, 2], "wrong-type"),
    ],
)
def test_a_bad_request_gets_the_static_action_and_the_others_theirs(decider, bad, status):
    alone = decider.decide([GOOD], PRICES)[0]
    first, wrong, last = decider.decide([GOOD, bad, GOOD], PRICES)
    assert first == alone
    assert last == alone
    assert (wrong.action, wrong.applied, wrong.status) == (STATIC.action, "static", status)
    assert wrong.message
    assert "\n" not in wrong.message
    assert status in FALLBACK_REASONS


def test_an_integral_number_and_unknown_fields_are_accepted(decider):
    assert decider.decide([GOOD | {"uv": 1.0, "session": "a"}], PRICES) == decider.decide([GOOD], PRICES)


def test_a_model_that_fails_for_some_requests_fails_those_alone(policy):
    faulty = FaultyPolicy(policy.team, policy.scenario, policy.cost_model)
    decisions = Decider(faulty, policy.scenario, STATIC).decide([GOOD | {"g": k % 4} for k in range(17)], PRICES)
    assert [d.status for d in decisions] == ["model-fault" if k % 4 == 3 else "ok" for k in range(17)]
    assert decisions[3].message == "the model is damaged in its second layer"
    assert decisions[3].action == STATIC.action


def test_what_is_not_decided_in_time_gets_the_static_action(decider):
    decisions = decider.decide([GOOD] * 3, PRICES, seconds=-1.0)
    assert [(d.status, d.action) for d in decisions] == [("time-out", STATIC.action)] * 3


def test_nothing_to_decide_is_no_fault(decider):
    assert decider.decide([], PRICES) == []


def test_warming_fills_the_memory_of_the_policy(policy):
    fresh = AllocationPolicy(policy.team, policy.scenario, policy.cost_model)
    assert fresh.remembered_share == 0.0
    decider = Decider(fresh, fresh.scenario, STATIC)
    decider.warm(np.array([[0, 0, 0, 0, k] for k in range(5)]))
    assert not decider.is_warm
    assert fresh.remembered_share == pytest.approx(5 / 3600)


def test_the_best_static_action_fits_the_budgets_at_the_peak_and_earns_most(policy):
    scenario, rule = policy.scenario, make_static_rule(policy, sample=40)
    assert (np.array(rule.costs) * scenario.peak_qps <= scenario.budgets).all()
    cheapest = make_static_rule(policy, "0,0,0,0,0", sample=40)
    assert rule.value >= cheapest.value
    small = scenario.replace(peak_qps=scenario.peak_qps * 1e6)
    with pytest.raises(InputError, match="even the cheapest joint action needs"):
        make_static_rule(AllocationPolicy(policy.team, small, policy.cost_model), sample=2)


def test_static_actions_are_read_by_index_and_by_name(policy):
    by_name = parse_action(policy.scenario, "truncation=60,channels=popularity+category")
    assert by_name == parse_action(policy.scenario, "1,0,0,0,2") == (1, 0, 0, 0, 2)
    for text, part in (
        ("0,0", "2 indices"),
        ("0,0,0,0,9", "options 0 to 4"),
        ("trunc=60", "did you mean 'truncation'"),
        ("truncation=61", "unknown option of truncation '61'"),
        ("cheap", "decision=option"),
    ):
        with pytest.raises(InputError, match=part):
            parse_action(policy.scenario, text)
