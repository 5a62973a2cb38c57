"""Exploration of the rollout."""

from __future__ import annotations

import numpy as np
import pytest

from agents.rllib.core.rollout import explore


def test_random_actions_are_legal_and_uniform() -> None:
    rng = np.random.default_rng(0)
    mask = np.tile([[True, False, True, True, False]], (6000, 1))
    counts = np.bincount(explore(None, mask, 1.0, rng), minlength=5)
    assert counts[[1, 4]].sum() == 0
    assert abs(counts[[0, 2, 3]] - 2000).max() < 150
    greedy = np.full(6000, 2)
    mixed = explore(greedy, mask, 0.3, rng)
    assert (mixed != 2).mean() == pytest.approx(0.3 * 2 / 3, abs=0.03)
    assert (greedy == 2).all()
    waiting = np.tile([[False, False, True]], (5, 1))
    assert explore(None, waiting, 1.0, rng).tolist() == [2] * 5
