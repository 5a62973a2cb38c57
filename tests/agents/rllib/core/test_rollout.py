"""Exploration of the rollout."""

from __future__ import annotations

import numpy as np
import pytest

from agents.rllib.core.rollout import explore


def test_random_actions_are_legal_and_uniform() -> None:
    rng = np.random.default_rng(0)
    mask = np.tile([[True, False, True, True, False]], (6000, 1))
    on_turn = np.ones(6000, dtype=bool)
    counts = np.bincount(explore(None, mask, 1.0, rng, on_turn), minlength=5)
    assert counts[[1, 4]].sum() == 0
    assert abs(counts[[0, 2, 3]] - 2000).max() < 150
    greedy = np.full(6000, 2)
    mixed = explore(greedy, mask, 0.3, rng, on_turn)
    assert (mixed != 2).mean() == pytest.approx(0.3 * 2 / 3, abs=0.03)
    assert (greedy == 2).all()
    waits = np.zeros(6000, dtype=bool)
    assert (explore(None, mask, 1.0, rng, waits) == 0).all()  # the first legal action
    half = np.arange(6000) < 3000
    assert (explore(None, mask, 1.0, rng, half)[3000:] == 0).all()


def test_a_forced_last_action_is_not_a_wait() -> None:
    """An agent on turn draws its random numbers whatever its mask allows."""
    only_last, draws = np.tile([[False, True]], (3, 1)), np.random.default_rng(1)
    assert explore(None, only_last, 1.0, draws, np.ones(3, bool)).tolist() == [1, 1, 1]
    assert draws.bit_generator.state != np.random.default_rng(1).bit_generator.state
