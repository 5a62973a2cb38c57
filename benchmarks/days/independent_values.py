"""Values of joint actions as stages see them that know only their own mean effects."""

from __future__ import annotations

import numpy as np

from marca_env.scenario.scenario import Scenario


def independent_values(scenario: Scenario, values: np.ndarray) -> np.ndarray:
    """Return the sum of each stage's own mean effect on the values (M,J), (M,J): the values without interaction."""
    grid = values.reshape(len(values), *scenario.action_shape)
    centre = values.mean(axis=1, keepdims=True)
    independent = np.repeat(centre, values.shape[1], axis=1)
    for stage in set(scenario.decision_stage):
        other_axes = tuple(1 + k for k, s in enumerate(scenario.decision_stage) if s != stage)
        effect = grid.mean(axis=other_axes, keepdims=True)
        independent += np.broadcast_to(effect, grid.shape).reshape(values.shape) - centre
    return independent
