"""Deadlines of planning."""

from __future__ import annotations

import time

import pytest

from mpc.planning.deadline import DeadlineError, Watchdog


def test_the_watchdog_hands_on_results_and_errors():
    watchdog = Watchdog()
    assert watchdog.run(lambda: 7, 5.0) == 7
    with pytest.raises(ZeroDivisionError):
        watchdog.run(lambda: 1 // 0, 5.0)
    with pytest.raises(DeadlineError, match="longer than"):
        watchdog.run(lambda: time.sleep(0.5), 0.05)
    assert watchdog.busy
    with pytest.raises(DeadlineError, match="still runs"):
        watchdog.run(lambda: 7, 5.0)
    time.sleep(0.8)
    assert watchdog.run(lambda: 7, 5.0) == 7
