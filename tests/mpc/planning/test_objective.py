"""The objective of Eq. 17 and its settings."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.utils.errors import InputError
from mpc.planning.objective import Objective, ObjectiveSettings, read_peak_slots


def test_the_damping_settings_select_the_damped_minutes():
    loads, last = np.array([[1.2], [0.97], [0.8]]), np.array([1.1])

    def damped(**changes):
        return Objective(ObjectiveSettings(horizon=3, **changes)).damped(loads, last).ravel().tolist()

    assert damped() == [True, False, False]
    assert damped(threshold=44 / 46) == [True, True, False]
    assert damped(damping="measured") == [True, True, True]
    assert damped(damping="measured", threshold=1.2) == [False, False, False]
    assert damped(damping="none") == [False, False, False]


def test_the_objective_takes_batches():
    objective, rng = Objective(), np.random.default_rng(0)
    loads, last = rng.uniform(0.5, 1.5, (4, 3, 10, 2)), np.array([1.0, 0.9])
    values = objective(loads, last)
    assert values.shape == (4, 3)
    assert values[2, 1] == pytest.approx(float(objective(loads[2, 1], last)))


def test_the_gradient_matches_finite_differences():
    rng = np.random.default_rng(3)
    for damping in ("predicted", "measured", "none"):
        objective = Objective(ObjectiveSettings(horizon=5, alpha=0.7, damping=damping))
        loads, last, target = rng.uniform(0.8, 1.3, (5, 2)), rng.uniform(0.9, 1.3, 2), np.array([0.99, 0.97])
        emphasis = np.array([1.0, 2.0, 2.0, 1.0, 1.0])
        slope = objective.gradient(loads, last, target, emphasis)
        for i, g in ((0, 0), (2, 1), (4, 0)):
            step = np.zeros_like(loads)
            step[i, g] = 1e-6
            ends = [float(objective(loads + s * step, last, target, emphasis)) for s in (1, -1)]
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope[i, g], rel=1e-4, abs=1e-8)


def test_a_plan_keeps_a_distance_from_the_threshold_that_grows_with_the_step():
    objective = Objective(ObjectiveSettings(threshold=44 / 46, load_error=0.005))
    last = np.array([44 / 46, 1.0, 1.1, 1.5, 0.5])
    distance = 44 / 46 - objective.edge(last)
    assert distance[0] == 0.0
    assert np.all(np.diff(distance[:4]) > 0)
    assert np.all(distance <= 4 * 0.005)
    assert distance[4] > distance[1]
    for k in (2, 3):  # the least expected J, by simulation
        errors = np.random.default_rng(0).normal(0, 0.005, 200_000)
        grid = np.linspace(0, 0.02, 21)
        weights = objective.weights.sum()
        jump = 8.0 * (last[k] - 44 / 46) ** 2
        cost = [weights * (1 - 44 / 46 + d) ** 2 + jump * (errors > d).mean() for d in grid]
        assert distance[k] == pytest.approx(grid[int(np.argmin(cost))], abs=0.0021)
    loads = np.full((10, 5), 44 / 46 - 0.004)
    assert objective.damped(loads, last).any(0).tolist() == [False, True, True, True, True]
    assert not Objective(ObjectiveSettings(threshold=44 / 46)).damped(loads, last).any()


def test_peak_slots_are_read_as_times():
    assert read_peak_slots("11:00-13:00") == ((660, 780),)
    assert read_peak_slots("9:05-10:00+22:30-1:15") == ((545, 600), (1350, 75))
    assert read_peak_slots("none") == ()
    for text in ("", "11-13", "11:00", "24:00-25:00", "11:60-12:00", "11:00-13:00,", "11:00-13:00+"):
        with pytest.raises(InputError, match="write HH:MM-HH:MM"):
            read_peak_slots(text)


@pytest.mark.parametrize(
    "slots", [5, "11:00-13:00", ((600,),), ((600, 1440),), ((600.5, 700),), (600, 700), (("a", "b"),)]
)
def test_peak_slots_that_are_no_pairs_of_minutes_are_refused(slots):
    with pytest.raises(InputError, match="give pairs"):
        ObjectiveSettings(peak_slots=slots)
