"""Predicted loads of a horizon."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mpc.planning.predicted_loads import PredictedLoads


def test_slopes_include_the_corrections(problems):
    predicted, start = problems[3]
    corrected = PredictedLoads(
        predicted.costs,
        predicted._traffic[:, 0],
        np.ones(2),
        bias=np.array([0.1, -0.1]),
        tilt=np.array([-2.0, 0.0]),
        pivot=start.in_force,
    )
    u = np.broadcast_to(start.in_force, (6, 2)) + np.linspace(-0.3, 0.3, 6)[:, None]
    linearised = corrected.linearise(u)
    assert linearised.loads == pytest.approx(corrected.loads(u))
    for g in range(2):
        moved = np.array(u)
        moved[:, g] += 1e-6
        assert (corrected.loads(moved) - linearised.loads) / 1e-6 == pytest.approx(
            linearised.slopes[:, :, g], rel=1e-4, abs=1e-6
        )
    tensor = torch.tensor(u, requires_grad=True)
    corrected.tensor(tensor).sum().backward()
    assert tensor.grad.numpy() == pytest.approx(linearised.slopes.sum(1), abs=1e-9)
