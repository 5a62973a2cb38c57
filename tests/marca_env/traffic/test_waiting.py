"""Waiting times against Erlang's formula and a simulated queue."""

import math

import numpy as np
import pytest

from marca_env.traffic.waiting import HIGHEST_UTILISATION, mean_backlog, waiting_time


def erlang_wait(cores: int, utilisation: float) -> float:
    """Return the exact mean wait of M/M/c in service times (Erlang C)."""
    offered = cores * utilisation
    terms = [offered**k / math.factorial(k) for k in range(cores)]
    last = offered**cores / math.factorial(cores) / (1 - utilisation)
    return last / (sum(terms) + last) / (cores * (1 - utilisation))


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
@pytest.mark.parametrize("utilisation", [0.5, 0.8, 0.95])
def test_mean_wait_is_near_erlang_c(cores: int, utilisation: float) -> None:
    """The approximation is within 5 % of a service time or of the exact wait, whichever is larger."""
    wait = waiting_time(np.array([cores * utilisation]), np.array([float(cores)]), np.ones(1), np.zeros(1))
    exact = erlang_wait(cores, utilisation)
    assert abs(wait.mean[0] - exact) < 0.05 * max(exact, 1.0)


def test_moments_are_those_of_a_simulated_single_server_queue() -> None:
    """Mean and variance agree with Lindley's recursion for M/M/1, which the formula meets exactly."""
    rng, n, load = np.random.default_rng(3), 400_000, 0.6
    arrivals, service = rng.exponential(1 / load, n), rng.exponential(1.0, n)
    change = np.cumsum(service[:-1] - arrivals[1:])
    waits = change - np.minimum.accumulate(np.minimum(change, 0.0))
    wait = waiting_time(np.array([load]), np.ones(1), np.ones(1), np.zeros(1))
    assert wait.mean[0] == pytest.approx(waits.mean(), rel=0.03)
    assert wait.variance[0] == pytest.approx(waits.var(), rel=0.1)


def test_wait_rises_with_load_and_backlog_and_stays_finite() -> None:
    """More load or backlog means a longer wait; an idle cluster has none; overload is the backlog's business."""
    loads = np.array([[0.0], [0.5], [1.0], [1.3], [5.0]])
    cores, work = np.array([1.3]), np.full((5, 1), 0.002)
    wait = waiting_time(loads, cores, work, np.zeros((5, 1)))
    assert wait.mean[0, 0] == wait.variance[0, 0] == 0.0
    assert np.all(np.diff(wait.mean[:4, 0]) > 0)
    assert wait.mean[4, 0] == wait.mean[3, 0] <= 0.002 / (1.3 * (1 - HIGHEST_UTILISATION))
    later = waiting_time(loads, cores, work, np.full((5, 1), 2.0))
    np.testing.assert_allclose(later.mean, wait.mean + 2.0)


def test_mean_backlog_lies_between_both_ends() -> None:
    """The work of both ends counts half, in seconds of the cores."""
    np.testing.assert_allclose(mean_backlog(np.array([2.0]), np.array([6.0]), np.array([4.0])), [1.0])
