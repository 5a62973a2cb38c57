"""Advantages are those of a hand-computed episode, and the loss moves probabilities towards what pays."""

from __future__ import annotations

import math

import pytest
import torch

from agents.team.ppo_losses import Decisions, PPOSettings, advantages, log_probabilities, ppo_losses


def test_advantages_are_those_of_the_recursion_by_hand() -> None:
    """Two episodes of unequal length: the first terminates after two steps, the second is truncated after three."""
    reward = torch.tensor([[1.0, 2.0, 9.0], [0.0, 0.0, 3.0]])
    values = torch.tensor([[0.5, 1.0, 7.0, 7.0], [1.0, 1.0, 1.0, 4.0]])
    terminated = torch.tensor([[False, True, False], [False, False, False]])
    filled = torch.tensor([[True, True, False], [True, True, True]])
    gamma, lam = 0.9, 0.5
    got = advantages(reward, values, terminated, filled, gamma=gamma, lambda_=lam)
    second = 2.0 - 1.0
    first = 1.0 + gamma * 1.0 - 0.5 + gamma * lam * second
    last = 3.0 + gamma * 4.0 - 1.0  # valued at its last state
    middle = gamma * 1.0 - 1.0 + gamma * lam * last
    start = gamma * 1.0 - 1.0 + gamma * lam * middle
    torch.testing.assert_close(got, torch.tensor([[first, second, 0.0], [start, middle, last]]))


def test_with_lambda_one_an_advantage_is_the_return_less_the_value() -> None:
    reward, values = torch.rand(4, 6), torch.rand(4, 7)
    terminated = torch.zeros(4, 6, dtype=torch.bool)
    terminated[:, -1] = True
    got = advantages(reward, values, terminated, torch.ones_like(terminated), gamma=1.0, lambda_=1.0)
    torch.testing.assert_close(got, reward.flip(1).cumsum(1).flip(1) - values[:, :-1])


def test_forbidden_actions_have_no_probability_and_no_entropy() -> None:
    mask = torch.tensor([[True, False, True], [False, True, False]])
    log, entropy = log_probabilities(torch.zeros(2, 3), mask, torch.tensor([0, 1]))
    torch.testing.assert_close(log.exp(), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(entropy, torch.tensor([math.log(2), 0.0]))
    forbidden, _ = log_probabilities(torch.zeros(2, 3), mask, torch.tensor([1, 0]))
    assert (forbidden.exp() == 0).all()


@pytest.mark.parametrize(("gain", "ratio", "moves"), [(1.0, 1.0, True), (1.0, 1.3, False), (-1.0, 1.3, True)])
def test_a_ratio_beyond_the_clip_pays_nothing_more(gain: float, ratio: float, moves: bool) -> None:
    """A good action is not made more probable than 1.2 times; a bad one may still become less probable."""
    logits = torch.zeros(1, 1, 2, requires_grad=True)
    agent = Decisions(
        logits=logits,
        mask=torch.ones(1, 1, 2, dtype=torch.bool),
        action=torch.zeros(1, 1, dtype=torch.long),
        is_acting=torch.ones(1, 1, dtype=torch.bool),
        old_log=torch.log(torch.tensor([[0.5 / ratio]])),
    )
    batch = {
        "advantage": torch.tensor([[gain]]),
        "value_target": torch.zeros(1, 1),
        "filled": torch.ones(1, 1, dtype=torch.bool),
    }
    out = ppo_losses([agent], torch.zeros(1, 1), batch, PPOSettings(entropy_coeff=0.0))
    out["loss"].backward()
    assert logits.grad is not None
    assert bool(logits.grad.abs().sum() > 0) is moves
    if moves:
        assert float(logits.grad[0, 0, 0]) * gain < 0


def test_steps_at_which_an_agent_waits_are_not_learnt_from() -> None:
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    agent = Decisions(
        logits=logits,
        mask=torch.ones(1, 2, 2, dtype=torch.bool),
        action=torch.zeros(1, 2, dtype=torch.long),
        is_acting=torch.tensor([[True, False]]),
        old_log=torch.full((1, 2), math.log(0.5)),
    )
    batch = {"advantage": torch.ones(1, 2), "value_target": torch.zeros(1, 2), "filled": torch.ones(1, 2).bool()}
    ppo_losses([agent], torch.zeros(1, 2), batch, PPOSettings())["loss"].backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].abs().sum() > 0
    assert logits.grad[0, 1].abs().sum() == 0
