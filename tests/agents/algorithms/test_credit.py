"""Variance-guided credit assignment (VGCA) matches a float64 loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.algorithms.credit import action_variance, agent_loss_weights, credit_weights, team_loss_weights


def slow_variance(returns: np.ndarray, actions: np.ndarray, on: np.ndarray) -> float:
    """Return the variance of the mean returns of the actions that occur."""
    means = [returns[on & (actions == a)].mean() for a in np.unique(actions[on])]
    return float(np.var(means)) if means else 0.0


@pytest.fixture
def batch() -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Return returns, actions and on-turn masks of 40 episodes with two agents and three steps."""
    rng = np.random.default_rng(3)
    on = [np.tile([True, True, False], (40, 1)), np.tile([False, False, True], (40, 1))]
    actions = [np.where(o, rng.integers(0, n, (40, 3)), n) for o, n in zip(on, (4, 3), strict=True)]
    returns = rng.exponential(size=40) + (actions[1][:, 2] == 2) * 3.0
    return returns, actions, on


def both_forms(batch, form: str) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Return the credit weights of a batch in one form."""
    returns, actions, on = batch
    return credit_weights(
        torch.tensor(returns), [torch.tensor(a) for a in actions], [torch.tensor(o) for o in on], [5, 4], form
    ).numpy()


def test_variance_weights_are_the_variances_of_the_action_means(batch) -> None:  # type: ignore[no-untyped-def]
    returns, actions, on = batch
    expected = [[slow_variance(returns, a[:, t], o[:, t]) for t in range(3)] for a, o in zip(actions, on, strict=True)]
    np.testing.assert_allclose(both_forms(batch, "variance"), expected, rtol=1e-12)


def test_the_decision_with_the_largest_effect_gets_the_largest_weight(batch) -> None:  # type: ignore[no-untyped-def]
    w = both_forms(batch, "variance")
    assert w[1, 2] == w.max()


def test_cumulative_weights_are_running_shares_of_an_agents_variance(batch) -> None:  # type: ignore[no-untyped-def]
    returns, actions, on = batch
    first, second, _ = (slow_variance(returns, actions[0][:, t], on[0][:, t]) for t in range(3))
    actual = both_forms(batch, "cumulative")
    np.testing.assert_allclose(actual, [[first / (first + second), 1.0, 1.0], [0.0, 0.0, 1.0]], rtol=1e-12)


def test_cumulative_weights_are_normalised_within_each_agent() -> None:
    """An agent that moves revenue little learns from as large a share as one that moves it much."""
    rng = np.random.default_rng(5)
    on = [np.ones((400, 4), bool), np.tile([False, False, False, True], (400, 1))]
    actions = [rng.integers(0, 3, (400, 4)) for _ in on]
    returns = actions[0] @ np.array([0.4, 0.2, 0.2, 0.1]) + 10.0 * actions[1][:, 3]
    weights = both_forms((returns, actions, on), "cumulative")
    assert (np.diff(weights[0]) >= 0).all()
    np.testing.assert_allclose(weights[:, 3], 1.0)


def test_variance_is_zero_where_fewer_than_two_actions_occur() -> None:
    ones = torch.ones(6, dtype=torch.bool)
    assert action_variance(torch.arange(6.0), torch.zeros(6, dtype=torch.long), ones, 3) == 0
    assert action_variance(torch.arange(6.0), torch.arange(6), ~ones, 6) == 0
    same = credit_weights(
        torch.ones(4), [torch.arange(4)[:, None]], [torch.ones(4, 1, dtype=torch.bool)], [4], "cumulative"
    )
    assert float(same) == 1.0


def test_credit_as_a_weight_has_mean_one_over_the_turns() -> None:
    credits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    acts = torch.tensor([[True, True, False], [True, False, False]])
    weights = agent_loss_weights(credits, [acts, acts], share=1.0)
    torch.testing.assert_close(weights[0], credits[0] / (7 / 3))  # two turns at 3, one at 1
    assert torch.equal(weights[1], torch.ones(3))  # an agent without any credit learns as before
    half = agent_loss_weights(credits, [acts, acts], share=0.5)
    torch.testing.assert_close(half[0], 0.5 + 0.5 * weights[0])


def test_the_team_s_weight_is_the_credit_of_those_who_act() -> None:
    credits = torch.tensor([[4.0, 1.0], [2.0, 0.0]])
    first, second = torch.tensor([[True, False]]), torch.tensor([[True, False]])
    filled = torch.tensor([[True, True]])
    weights = team_loss_weights(credits, [first, second], filled, share=1.0)
    assert torch.equal(weights, torch.ones(1, 2))  # the only step with a decision, and one in which nobody acts
    second = torch.tensor([[False, True]])
    weights = team_loss_weights(credits, [first, second], filled, share=1.0)
    assert torch.equal(weights, torch.tensor([[2.0, 0.0]]))
