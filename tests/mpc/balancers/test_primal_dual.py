"""Primal-dual steps."""

from __future__ import annotations

import pytest

from mpc import (
    PrimalDualBalancer,
)
from tests.helpers.control_observation import observation


def test_primal_dual_matches_a_hand_computed_case_and_averages_its_window():
    balancer = PrimalDualBalancer(2.0, window=2)
    assert balancer.update(observation([1.1])) == pytest.approx([1.2])
    assert balancer.update(observation([1.3], (1.2,))) == pytest.approx([1.2 + 2 * 0.2])
    assert balancer.update(observation([0.1], (0.1,))).tolist() == [0.0]
    balancer.reset()
    assert balancer.update(observation([1.1])) == pytest.approx([1.2])
