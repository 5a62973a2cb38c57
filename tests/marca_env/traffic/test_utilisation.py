"""Utilisation and over-utilisation against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.traffic.utilisation import overutilisation, utilisation


def test_utilisation_and_overutilisation_by_hand():
    load = np.array([[5.0, 20.0], [15.0, 20.0], [10.0, 40.0]])
    budget = np.array([10.0, 20.0])
    assert utilisation(load, budget) == pytest.approx([(0.5 + 1 + 1) / 3, 1.0])
    assert overutilisation(load, budget) == pytest.approx([0.5 / 3, 1.0 / 3])


def test_weights_choose_the_minutes_that_count():
    load, weights = np.array([[0.5, 2.0], [1.5, 1.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    assert utilisation(load, weights=weights)[0] == 1.0
    assert overutilisation(load, weights=weights)[0] == 0.5
    assert np.isnan(utilisation(load, weights=weights)[1])
