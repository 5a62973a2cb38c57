"""A policy of a day that decides in turn makes the learner's own decisions, at every price."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.traffic.policies import InTurnPolicy, PricedPolicy
from tests.agents.policy import test_decide_in_turn as source

scenario, states = source.scenario, source.states  # fixtures


class ConstantPrice:
    """A balancer whose price never moves."""

    def __init__(self, price: float) -> None:
        self.price = price

    def reset(self) -> None:
        """Do nothing."""

    def update(self, observation: object) -> np.ndarray:
        """Return the price."""
        return np.array([self.price])


@pytest.mark.parametrize("name", ["QMIX", "JointDRQN"])
@pytest.mark.parametrize("price", [0.0, 0.4, 2.0])
def test_tables_in_turn_give_the_decisions_in_turn(scenario, states, name, price) -> None:
    law = source.Law(scenario, is_expected=False)
    policy = source.make_policy(scenario, law, name)
    tables = policy.tables_in_turn(states, law.observe)
    assert [turn for turn, *_ in tables] == [0, 1]
    in_turn = InTurnPolicy("mine", scenario, tables, ConstantPrice(price))
    rows = np.arange(len(states))
    chosen, prices = in_turn.choose(None, rows)
    expected = policy.decide_in_turn(states, np.array([price]), law.observe)
    np.testing.assert_array_equal(scenario.joint_actions[chosen], expected)
    assert prices == price
    at_once = PricedPolicy("mine", *tables[0][1:], ConstantPrice(price)).choose(None, rows)[0]
    np.testing.assert_array_equal(scenario.joint_actions[at_once], policy.decide(states, np.array([price])))


def test_decisions_in_turn_differ_from_those_at_once(scenario, states) -> None:
    law = source.Law(scenario, is_expected=False)
    policy = source.make_policy(scenario, law)
    in_turn = InTurnPolicy("mine", scenario, policy.tables_in_turn(states, law.observe), ConstantPrice(0.1))
    chosen = in_turn.choose(None, np.arange(len(states)))[0]
    assert not np.array_equal(scenario.joint_actions[chosen], policy.decide(states, np.array([0.1])))
