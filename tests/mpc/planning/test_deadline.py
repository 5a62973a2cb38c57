"""Deadlines of planning."""

from __future__ import annotations

import threading

import pytest

from mpc.planning.deadline import DeadlineError, Watchdog, WorkError


@pytest.fixture
def released():
    """Return an event for which work can wait; it is set after the test."""
    event = threading.Event()
    yield event
    event.set()


def test_the_watchdog_hands_on_results_and_errors():
    watchdog = Watchdog()
    assert watchdog.run(lambda: 7, 5.0) == 7
    with pytest.raises(ZeroDivisionError):
        watchdog.run(lambda: 1 // 0, 5.0)
    assert (watchdog.overruns, watchdog.abandoned) == (0, 0)


def test_work_that_hangs_is_abandoned_and_the_next_work_runs(released):
    watchdog = Watchdog()
    with pytest.raises(DeadlineError, match="no answer within"):
        watchdog.run(released.wait, 0.05)
    assert (watchdog.overruns, watchdog.abandoned) == (1, 1)
    assert watchdog.run(lambda: 7, 5.0) == 7


def test_the_number_of_abandoned_threads_is_bounded_and_work_is_accepted_again(released):
    watchdog = Watchdog(most=2)
    for _ in range(2):
        with pytest.raises(DeadlineError, match="no answer within"):
            watchdog.run(released.wait, 0.02)
    with pytest.raises(DeadlineError, match="2 earlier calls still run"):
        watchdog.run(lambda: 7, 5.0)
    assert (watchdog.overruns, watchdog.busy) == (2, True)
    released.set()
    for thread in watchdog._threads:
        thread.join(5.0)
    assert watchdog.run(lambda: 7, 5.0) == 7


def test_a_panic_of_the_work_is_an_ordinary_error():
    """Errors of solvers written in Rust derive from ``BaseException`` and would end the control loop."""

    class PanicException(BaseException):
        pass

    def panic():
        raise PanicException("index out of bounds")

    with pytest.raises(WorkError, match="PanicException: index out of bounds"):
        Watchdog().run(panic, 5.0)


def test_an_infinite_deadline_waits_for_the_work():
    assert Watchdog().run(lambda: 7, float("inf")) == 7
