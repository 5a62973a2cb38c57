"""Errors of the model that are remembered by time window."""

from __future__ import annotations

import numpy as np
import pytest

from mpc import FeedbackBalancer, FeedbackSettings, MPCBalancer
from mpc.controller.window_memory import WindowMemory
from tests.helpers.small_system import fitted, make_pool, simulate


def feed(memory, minutes, *errors):
    for minute in minutes:
        memory.observe(minute, np.array(errors))


def test_the_errors_of_yesterday_are_expected_when_the_window_begins_again():
    memory = WindowMemory(2, 6)
    assert np.isnan(memory.expected(np.arange(0, 1440, 60))).all()
    feed(memory, range(240), 0.1, 0.0)
    feed(memory, range(240, 480), 0.3, -0.2)
    feed(memory, range(480, 490), 0.0, 0.0)
    ahead = memory.expected(np.array([10, 239, 241, 482, 720]))
    assert ahead[:2] == pytest.approx(np.array([[0.1, 0.0]] * 2))
    assert ahead[2] == pytest.approx([0.3, -0.2])
    assert np.isnan(ahead[3:]).all()  # the present window, and one that was never seen
    assert memory.is_other(np.array([489, 719, 720])).tolist() == [False, False, True]


def test_a_change_of_all_costs_today_is_expected_in_the_next_window_too():
    memory = WindowMemory(1, 2)
    feed(memory, range(720), 0.1)
    feed(memory, range(720, 1440), 0.4)
    feed(memory, range(60), 0.25)  # costs have risen by 15 % since yesterday
    assert memory.expected(np.array([720]))[0] == pytest.approx([0.55])


def test_only_the_first_hour_counts_and_a_few_minutes_are_not_enough():
    memory = WindowMemory(1, 6)
    feed(memory, range(60), 0.1)
    feed(memory, range(60, 240), 9.0)
    feed(memory, range(240, 243), 0.5)
    feed(memory, range(480, 481), 0.0)
    assert memory.expected(np.array([0]))[0] == pytest.approx([0.1])
    assert np.isnan(memory.expected(np.array([240]))).all()


def test_reset_forgets_the_day_but_not_the_log():
    memory = WindowMemory(1, 6)
    memory.learn(np.arange(480), np.full((480, 1), 0.2))
    assert memory.expected(np.array([0, 240]))[:, 0] == pytest.approx([0.2, 0.2])
    feed(memory, range(480, 720), 0.5)
    feed(memory, range(720, 730), 0.5)
    memory.reset()
    known = memory.expected(np.array([0, 240, 480]))[:, 0]
    assert known[:2] == pytest.approx([0.2, 0.2])
    assert np.isnan(known[2])


@pytest.mark.slow
def test_a_balancer_that_learnt_from_yesterday_foresees_the_change_of_the_mix():
    """Control other requests than those that the model was fitted on, across the change at 4:00."""
    _, _, model = fitted()
    pool = make_pool(seed=5, per_window=15)
    traffic = np.full((1, 1440), 300.0)
    yesterday = simulate(
        pool,
        FeedbackBalancer(FeedbackSettings(scale=tuple(model.prices.scale))),
        traffic,
        seed=1,
        start=(5.0, 5.0),
        minutes=(180, 320),
    ).log
    jumps = {}
    for name in ("first day", "second day"):
        balancer = MPCBalancer(model)
        if name == "second day":
            balancer.learn(yesterday)
        run = simulate(pool, balancer, traffic, seed=2, start=(5.0, 5.0), minutes=(180, 260))
        load = run.log[["load_retrieval", "load_ranking"]].to_numpy() / pool.scenario.budgets
        jumps[name] = np.abs(load[60] / load[59] - 1).max()
    assert jumps["first day"] > 0.08
    assert jumps["second day"] < 0.6 * jumps["first day"]
