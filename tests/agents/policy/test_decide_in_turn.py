"""Decisions in turn: agents use what stages report, and know nothing that is reported later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.algorithms.presets import preset
from agents.offline.episodes import team_encoder
from agents.policy.allocation_policy import AllocationPolicy
from agents.policy.value_parts import value_parts
from agents.team.team import Team, TeamSpec
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage
from marca_env.utils.errors import InputError

PRICES = np.array([0.4])
ROWS = 9


class Law:
    """Candidates, signals and costs in closed form; the signal of a request differs from the expected one."""

    def __init__(self, scenario: Scenario, *, is_expected: bool) -> None:
        self.scenario, self.is_expected, self.calls = scenario, is_expected, []
        self.cost_map = self

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        depth, model = actions[:, 0], actions[:, 1]
        return np.stack([10.0 + depth, 5.0 + model, states[:, 0] + 0.1 * depth], axis=1).astype(np.float32)

    def cost(self, actions: np.ndarray, results: np.ndarray, site: None = None) -> np.ndarray:
        return (0.1 * results[..., 0] * (1 + actions[..., 1]) + 0.05 * actions[..., 2])[..., None]

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return self.cost(actions, self.results(states, actions))

    def observe(self, states: np.ndarray, actions: np.ndarray, turn: int) -> np.ndarray:
        """Return what a service would report."""
        self.calls.append((actions.copy(), turn))
        results = self.results(states, actions)
        results[:, 2] += 0.0 if self.is_expected else np.sin(7.0 * states[:, -1])  # by the hidden row
        return results


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario(
        name="reporting",
        stages=(
            Stage("first", "api", (Decision("depth", "queue", (10, 20, 30)),), signals=("best",)),
            Stage(
                "second", "api", (Decision("model", "model", ("a", "b")), Decision("again", "model", ("off", "a", "b")))
            ),
        ),
        clusters=(Cluster("api", cores=20.0, budget=10.0),),
        features=(Feature("taste", 2, kind="number"), Feature("segment", 3), Feature("row", ROWS, hidden=True)),
        peak_qps=10.0,
    )


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.column_stack([rng.normal(size=(ROWS, 2)), rng.integers(3, size=ROWS), np.arange(ROWS)])


def make_policy(scenario: Scenario, law: Any, name: str = "QMIX", **options: Any) -> AllocationPolicy:
    torch.manual_seed(3)
    small = preset(name, **{"gru": 8, "hidden": (8,), **options})
    team = Team(TeamSpec.from_source(team_encoder(scenario, joint=small.joint)), small)
    for parameter in team.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return AllocationPolicy(team, scenario, law, reward_scale=2.0, reward_shift=0.5)


@pytest.mark.parametrize("name", ["QMIX", "JointDRQN"])
def test_without_news_the_decisions_are_those_at_once(scenario, states, name) -> None:
    law = Law(scenario, is_expected=True)
    policy = make_policy(scenario, law, name)
    np.testing.assert_array_equal(policy.decide_in_turn(states, PRICES, law.observe), policy.decide(states, PRICES))


def test_agents_observe_only_what_is_settled(scenario, states) -> None:
    law = Law(scenario, is_expected=False)
    actions = make_policy(scenario, law).decide_in_turn(states, PRICES, law.observe)
    (seen, turn), *others = law.calls
    assert (turn, others) == (1, [])  # the first stage reports once, before the second one decides
    np.testing.assert_array_equal(seen[:, 0], actions[:, 0])
    assert not seen[:, 1:].any()


def test_later_agents_take_the_best_continuation_given_the_signal(scenario, states) -> None:
    law = Law(scenario, is_expected=False)
    policy = make_policy(scenario, law)
    at_once, in_turn = policy.decide(states, PRICES), policy.decide_in_turn(states, PRICES, law.observe)
    np.testing.assert_array_equal(in_turn[:, 0], at_once[:, 0])
    assert (in_turn != at_once).any()
    observed = law.observe(states, np.where(np.arange(3) < 1, in_turn, 0), 1)

    def results(rows: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        return np.where([True, False, True], observed, law.results(rows, prefix))

    scores = []
    for rest in ((m, a) for m in range(2) for a in range(3)):
        action = np.column_stack([in_turn[:, 0], np.tile(rest, (ROWS, 1))])
        total = value_parts(policy.team, policy.encoder, results, states, action)[2]
        cost = law.cost(action, results(states, action))
        scores.append(total * 2.0 + 0.5 - cost @ PRICES)
    best = np.argmax(scores, axis=0)
    np.testing.assert_array_equal(in_turn[:, 1:], np.column_stack([best // 3, best % 3]))


def test_hidden_columns_may_be_left_out(scenario, states) -> None:
    policy = make_policy(scenario, Law(scenario, is_expected=True))
    np.testing.assert_array_equal(policy.values(states[:, :-1]), policy.values(states))
    np.testing.assert_array_equal(policy.decide(states[:, :-1], PRICES), policy.decide(states, PRICES))
    other = states.copy()
    other[:, -1] = 0
    np.testing.assert_array_equal(policy.values(other), policy.values(states))


def test_values_do_not_depend_on_the_rest_of_the_batch_and_repeated_states_share_them(scenario, states) -> None:
    policy = make_policy(scenario, Law(scenario, is_expected=True))
    twice = np.concatenate([states, states[::-1]])
    values = policy.values(twice)
    np.testing.assert_array_equal(values[:ROWS], values[ROWS:][::-1])
    parts = policy.value_parts(twice, policy.decide(twice, PRICES))
    joint = scenario.joint_index(policy.decide(twice, PRICES))
    np.testing.assert_allclose(parts["total"], values[np.arange(len(twice)), joint], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("observe", "message"),
    [
        (
            lambda s, a, t: np.zeros((len(s), 2)),
            r"shape \(9, 2\); return numbers \(9, 3\): result_first, result_second",
        ),
        (lambda s, a, t: np.full((len(s), 3), np.nan), "nan for result_first of request 0"),
    ],
)
def test_wrong_reports_are_refused(scenario, states, observe, message) -> None:
    with pytest.raises(InputError, match=message):
        make_policy(scenario, Law(scenario, is_expected=True)).decide_in_turn(states, PRICES, observe)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, 2)), "one column per name: taste_0, taste_1, segment, row"),
        (np.full((2, 3), np.nan), "state 0: taste_0 is nan"),
        (np.full((2, 4), 7.0), "state 0: segment is 7"),
        (np.zeros(3), "pass an array of shape"),
    ],
)
def test_wrong_states_are_refused(scenario, bad, message) -> None:
    with pytest.raises(InputError, match=message):
        make_policy(scenario, Law(scenario, is_expected=True)).values(bad)
