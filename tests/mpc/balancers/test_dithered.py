"""Random variation of prices."""

from __future__ import annotations

import numpy as np
import pytest

from mpc import (
    DitheredBalancer,
    FeedbackBalancer,
    FeedbackSettings,
    StaticBalancer,
)
from tests.helpers.control_observation import observation


def test_dither_is_seeded_and_centred_and_does_not_disturb_its_base():
    runs = []
    for _ in range(2):
        balancer = DitheredBalancer(StaticBalancer([2.0]), seed=5, spread=0.4, zero=0.0)
        runs.append([float(balancer.update(observation([1.0]))[0]) for _ in range(4000)])
    assert runs[0] == runs[1]
    logs = np.log(np.array(runs[0]) / 2.0)
    assert abs(logs.mean()) < 0.05
    assert logs.std() == pytest.approx(0.4, rel=0.1)
    base = FeedbackBalancer(FeedbackSettings(integral=0.0))
    balancer = DitheredBalancer(base, seed=0, spread=1.0)
    price = 1.0
    for _ in range(200):  # at the target the base holds its price, so the disturbed one does not drift
        price = float(balancer.update(observation([1.0], (price,)))[0])
    assert balancer._undisturbed == pytest.approx([1.0])
