"""Targets, own-turn processes, losses and weights match values by hand or a search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.algorithms import td_targets


def test_greedy_actions_are_legal() -> None:
    q = torch.tensor([[5.0, 1.0, 3.0], [-9.0, -8.0, -7.0]])
    mask = torch.tensor([[False, True, True], [True, True, False]])
    assert td_targets.greedy(q, mask).tolist() == [2, 1]


def test_the_td_target_has_no_next_value_after_termination() -> None:
    actual = td_targets.td_target(torch.ones(2), torch.full((2,), 10.0), torch.tensor([False, True]), 0.9)
    assert actual.tolist() == [10.0, 1.0]


def test_carry_forward_returns_the_value_at_the_latest_turn() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    on = torch.tensor([[False, True, False, True]])
    assert td_targets.carry_forward(values, on).tolist() == [[0.0, 2.0, 2.0, 4.0]]


def test_values_are_carried_within_a_round_of_turns() -> None:
    """Of two agents that decide alternately, the one on turn begins a round where it has decided in the last."""
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    first, second = torch.tensor([[True, False, True, False]]), torch.tensor([[False, True, False, True]])
    rounds = td_targets.turn_rounds([first, second])
    assert rounds.tolist() == [[1, 1, 2, 2]]
    assert td_targets.carry_forward(values, first, rounds).tolist() == [[1.0, 1.0, 3.0, 3.0]]
    assert td_targets.carry_forward(values, second, rounds).tolist() == [[0.0, 2.0, 0.0, 4.0]]
    after = torch.tensor([[1, 1, 2, 2, 3]])  # rounds with one more step: what remains at the next one
    assert td_targets.carry_forward(values, second, after).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert td_targets.carry_forward(values, first, after).tolist() == [[1.0, 0.0, 3.0, 0.0]]


@pytest.mark.parametrize("seed", range(4))
def test_the_own_turn_process_matches_a_search(seed: int) -> None:
    """Each turn collects rewards until the agent's next turn and the value there, unless the episode ends before."""
    rng = np.random.default_rng(seed)
    b, t, k = 30, 6, 2
    reward, value = rng.normal(size=(b, t)), rng.normal(size=(b, t + 1, k))
    on = rng.random((b, t + 1)) < 0.5
    end = rng.integers(0, t + 3, b)  # beyond t: cut off, not ended
    terminated = np.arange(t)[None] == end[:, None]
    reward[np.arange(t)[None] > end[:, None]] = 0
    on[np.arange(t + 1)[None] > end[:, None]] = False
    rewards, next_values = td_targets.own_turn_process(*map(torch.tensor, (reward, value, on, terminated)))
    for i in range(b):
        for s in np.flatnonzero(on[i, :t]):
            later = [u for u in range(s + 1, t + 1) if on[i, u] and u <= end[i]]
            stop = later[0] if later else t
            assert rewards[i, s] == pytest.approx(reward[i, s:stop].sum())
            np.testing.assert_allclose(next_values[i, s], value[i, later[0]] if later else np.zeros(k))


def test_adaptive_weights_are_proportional_to_the_losses() -> None:
    losses = torch.tensor([[[1.0, 3.0], [0.0, 0.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert td_targets.adaptive_weights(losses, valid).tolist() == [[[0.25, 0.75], [0.5, 0.5]]]
    losses = torch.tensor([[[1.0, 3.0], [100.0, 0.0]]])
    valid = torch.tensor([[True, False]])
    assert td_targets.adaptive_weights(losses, valid, "batch").tolist() == [[[0.25, 0.75]]]


def test_random_weights_are_convex_and_seeded() -> None:
    draw = [td_targets.random_weights(7, torch.zeros(1), torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(draw[0], draw[1])
    assert float(draw[0].sum()) == pytest.approx(1.0)
    assert float(draw[0].min()) >= 0


def test_no_gradient_flows_through_adaptive_weights() -> None:
    losses = torch.rand(3, 2, 4, requires_grad=True)
    assert not td_targets.adaptive_weights(losses, torch.ones(3, 2, dtype=torch.bool)).requires_grad


def test_td_losses_match_values_by_hand() -> None:
    error = torch.tensor([-3.0, -0.5, 0.0, 0.5, 2.0])
    assert td_targets.td_loss(error).tolist() == [9.0, 0.25, 0.0, 0.25, 4.0]
    assert td_targets.td_loss(error, "mae").tolist() == [3.0, 0.5, 0.0, 0.5, 2.0]
    assert td_targets.td_loss(error, "huber", 1.0).tolist() == [2.5, 0.125, 0.0, 0.125, 1.5]
    assert td_targets.td_loss(error, "huber", 2.0).tolist() == [4.0, 0.125, 0.0, 0.125, 2.0]
    np.testing.assert_allclose(
        td_targets.td_loss(error, "huber", 0.7), torch.nn.functional.huber_loss(error, error * 0, "none", 0.7)
    )


def test_weighted_qmix_weights_match_values_by_hand() -> None:
    above = torch.tensor([1.0, 0.0, -1.0])
    assert td_targets.optimistic_weights(above, 0.25).tolist() == [1.0, 0.25, 0.25]
    goal, best = torch.tensor([1.0, 1.0, 3.0, 2.0]), torch.tensor(2.0)
    taken = torch.tensor([False, True, False, False])
    assert td_targets.central_weights(goal, best, taken, 0.25).tolist() == [0.25, 1.0, 1.0, 0.25]


def slow_lambda_return(row: dict[str, list], t: int, gamma: float, lam: float) -> float:
    """Return G_t as the mixture of n-step returns, Σ_n (1 − λ) λ^(n−1) G^(n), up to the end of the trace; float64."""
    total, weight, reward, discount = 0.0, 1.0, 0.0, 1.0
    for u in range(t, len(row["reward"])):
        reward += discount * row["reward"][u]
        discount *= gamma
        if row["terminated"][u]:
            return total + weight * reward
        follows = u + 1 < len(row["reward"]) and row["is_kept"][u + 1]
        share = (1 - lam) if follows else 1.0
        total += weight * share * (reward + discount * row["next_value"][u])
        weight *= 1 - share
        if not follows:
            break
    return total


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_lambda_targets_match_the_mixture_of_n_step_returns(lam: float) -> None:
    """Episodes end by termination or truncation at any step; traces are cut at random; padding has no effect."""
    rng = np.random.default_rng(0)
    length = rng.integers(1, 6, 40)
    filled = np.arange(5)[None] < length[:, None]
    ended = (np.arange(5)[None] == length[:, None] - 1) & (rng.random(40) < 0.5)[:, None]
    columns = {
        "reward": rng.normal(size=(40, 5)) * filled,
        "next_value": rng.normal(size=(40, 5)),
        "terminated": ended,
        "is_kept": filled & (rng.random((40, 5)) < 0.7),
    }
    tensors = {name: torch.as_tensor(values) for name, values in columns.items()}
    actual = td_targets.lambda_targets(**tensors, gamma=0.9, td_lambda=lam).numpy()
    for i, steps in enumerate(length):
        row = {name: values[i, :steps].tolist() for name, values in columns.items()}
        expected = [slow_lambda_return(row, t, 0.9, lam) for t in range(steps)]
        np.testing.assert_allclose(actual[i, :steps], expected, rtol=1e-12)


def test_a_better_return_replaces_the_value_where_that_is_allowed() -> None:
    reward, value = torch.tensor([[0.0, 5.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [3.0, 0.0]])
    ended, never = torch.tensor([[False, True]] * 2), torch.zeros(2, 2, dtype=torch.bool)
    targets = td_targets.lambda_targets(reward, value, ended, never, gamma=1.0, td_lambda=1.0, may_improve=~never)
    assert targets.tolist() == [[5.0, 5.0], [3.0, 1.0]]
    assert td_targets.lambda_targets(reward, value, ended, never, gamma=1.0, td_lambda=1.0)[:, 0].tolist() == [3, 3]


def test_disagreement_is_the_distance_from_the_mean_over_legal_actions() -> None:
    q = torch.tensor([[[1.0, 9.0, 0.0], [3.0, -9.0, 4.0]]])  # one state, two heads, three actions
    mask = torch.tensor([[True, False, True]])
    actual = td_targets.head_disagreement(q, mask)
    torch.testing.assert_close(actual, torch.tensor([[(1.0 + 4.0) / 2, (1.0 + 4.0) / 2]]))
    one_off = torch.tensor([[[0.0], [0.0], [3.0]]])
    weights = td_targets.adaptive_weights(td_targets.head_disagreement(one_off, mask[:, :1])[None], mask[None, :, 0])
    torch.testing.assert_close(weights, torch.tensor([[[1 / 6, 1 / 6, 4 / 6]]]))


def test_advantage_weights_fall_with_the_distance_from_the_best_value() -> None:
    value, valid = torch.tensor([[2.0, 1.0, 0.0, -50.0]]), torch.tensor([[True, True, True, False]])
    weights = td_targets.advantage_weights(value, torch.full((1, 4), 2.0), valid, alpha=0.1)
    expected = 0.1 + 0.9 * torch.exp(-torch.tensor([0.0, 1.0, 2.0]))  # the mean distance is 1
    torch.testing.assert_close(weights[0, :3], expected)
    assert torch.equal(td_targets.advantage_weights(value, value, valid, 0.1), torch.ones(1, 4))
