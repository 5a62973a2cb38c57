"""The valleys of Eq. 17: dynamic programming over loads, and sampled starts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mpc.planning.load_valleys import SampledStarts, best_load_sequence, reachable_loads
from mpc.planning.objective import Objective, ObjectiveSettings, PlanStart

REFERENCE = {"threshold": 44 / 46}
"""The threshold of the reference code."""


def start_from(*load: float, target: float = 0.995) -> PlanStart:
    return PlanStart(np.zeros(len(load)), np.array(load), np.full(len(load), target))


@pytest.mark.parametrize("last", [0.5, 0.96, 1.0, 1.3])
def test_the_best_loads_are_those_of_a_search_over_all_sequences(last):
    objective = Objective(ObjectiveSettings(horizon=3, **REFERENCE))
    start, low, high = start_from(last), np.full((3, 1), 0.2), np.full((3, 1), 1.5)
    loads, value = best_load_sequence(objective, start, low, high)
    levels = np.concatenate([np.linspace(0.9, 1.35, 46), [44 / 46 - 1e-6, 0.995, last]])
    every = np.array(list(itertools.product(levels, repeat=3)))[..., None]
    assert value == pytest.approx(float(objective(loads, start.load, start.target)))
    assert value <= 1.02 * objective(every, start.load, start.target).min() + 1e-6


def test_clusters_far_from_the_budget_stay_below_the_threshold_and_the_others_at_the_target():
    objective = Objective(ObjectiveSettings(horizon=4, **REFERENCE))
    start = start_from(1.4, 0.995)
    loads, _ = best_load_sequence(objective, start, np.full((4, 2), 0.1), np.full((4, 2), 2.0))
    assert loads[0] == pytest.approx([44 / 46, 0.995], abs=1e-3)
    assert loads[0, 0] < 44 / 46


def test_loads_out_of_reach_are_not_planned():
    objective = Objective(ObjectiveSettings(horizon=4))
    low, high = np.full((4, 2), [0.2, 1.2]), np.full((4, 2), [0.7, 2.0])
    loads, _ = best_load_sequence(objective, start_from(0.6, 1.5), low, high)
    assert np.all((loads >= low) & (loads <= high))
    assert loads[:, 0] == pytest.approx(0.7)


def test_reach_and_samples_follow_from_the_model(problems):
    predicted, start = problems[0]
    top, nominal = np.array([5.0, 5.0]), np.broadcast_to(start.in_force, (6, 2))
    least, most = reachable_loads(predicted, nominal, np.zeros((6, 2)), np.broadcast_to(top, (6, 2)))
    free = np.array(nominal)
    free[:, 0] = 0.0
    assert most[:, 0] == pytest.approx(predicted.loads(free)[:, 0])
    assert np.all(least < most)
    objective = Objective(ObjectiveSettings(horizon=6, **REFERENCE))
    starts = SampledStarts((6, 2), top).best(objective, predicted, start, nominal, 3)
    values = [float(objective(predicted.loads(u), start.load, start.target)) for u in starts]
    assert len(starts) == 3
    assert values == sorted(values)
    assert all(np.all((u >= 0) & (u <= top)) for u in starts)
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(starts, 2)) > 0.1
    again = SampledStarts((6, 2), top).best(objective, predicted, start, nominal, 3)
    assert np.array(again).tolist() == np.array(starts).tolist()
