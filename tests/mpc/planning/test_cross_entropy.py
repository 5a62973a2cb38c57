"""The cross-entropy method."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.planning.cross_entropy import cross_entropy

TARGET = np.array([0.3, 0.8])


def minimise(seed=0, high=1.0, **options):
    return cross_entropy(
        lambda points: ((points - TARGET) ** 2).sum(-1),
        np.zeros(2),
        0.5,
        np.random.default_rng(seed),
        project=lambda points: np.clip(points, 0.0, high),
        **{"samples": 40, "elite": 6, "rounds": 30, **options},
    )


def test_the_minimum_is_found_and_the_draws_converge():
    best, rounds, converged = minimise()
    assert best == pytest.approx(TARGET, abs=0.03)
    assert converged
    assert rounds < 30


def test_the_search_is_seeded_and_stays_within_the_feasible_points():
    assert minimise(seed=1)[0].tolist() == minimise(seed=1)[0].tolist() != minimise(seed=2)[0].tolist()
    assert minimise(high=0.5)[0] == pytest.approx([0.3, 0.5], abs=0.03)


def test_the_search_ends_when_it_is_out_of_time_and_never_above_its_start():
    best, rounds, converged = minimise(out_of_time=lambda: True)
    assert (rounds, converged) == (1, False)
    assert ((best - TARGET) ** 2).sum() <= (TARGET**2).sum()
