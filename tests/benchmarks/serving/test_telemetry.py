"""Posted readings: their states, and what a sender did wrong."""

from __future__ import annotations

import json
import math
import threading
import time

import numpy as np
import pytest

from benchmarks.serving.telemetry import MOST_QUEUED, TelemetryInbox, TelemetryReading, parse_telemetry, to_json
from marca_env.utils.errors import InputError

CLUSTERS, BUDGETS = ("retrieval", "ranking"), (10.0, 20.0)
GOOD = {"minute": 601, "qps": 312.5, "load": {"ranking": 6.0, "retrieval": 5.1}}


def parse(**changes) -> TelemetryReading:
    data = {k: v for k, v in {**GOOD, **changes}.items() if v != "left out"}
    return parse_telemetry(json.dumps(data), CLUSTERS, BUDGETS)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "value"),
        ({"load": [5.1, 6.0]}, "value"),
        ({"qps": 0, "load": [0, 0.0]}, "no-traffic"),
        ({"qps": 0, "load": [0.5, 1.0]}, "no-traffic"),  # the last requests are still served
        ({"qps": 0}, "missing"),  # the load is that of a busy minute
        ({"qps": None}, "missing"),
        ({"qps": "left out"}, "missing"),
        ({"load": {"ranking": None, "retrieval": 5.1}}, "missing"),
        ({"load": {"ranking": 6.0}}, "missing"),
        ({"load": "left out"}, "missing"),
        ({"qps": "left out", "load": "left out", "state": "missing"}, "missing"),
        ({"qps": "left out", "state": "no-traffic"}, "no-traffic"),  # said outright, although machines are not idle
        ({"state": "stale"}, "stale"),
    ],
)
def test_a_reading_says_what_it_is(changes, state):
    reading = parse(**changes)
    assert (reading.minute, reading.state) == (601, state)
    assert reading.is_usable == (state in ("value", "no-traffic"))
    assert bool(reading.reason) == (not reading.is_usable)
    observation = reading.observation(BUDGETS, (1.0, 2.0))
    assert observation.minute == 602
    assert observation.state == state
    assert math.isnan(observation.qps) != reading.is_usable
    assert np.isfinite(observation.load).all() == reading.is_usable
    assert parse_telemetry(to_json(reading, CLUSTERS), CLUSTERS, BUDGETS).state == state


def test_values_come_in_the_order_of_the_scenario_and_budgets_may_change():
    reading = parse(budget={"ranking": 15.0, "retrieval": 9.0}, degradation=[0, 2], backlog=[0.0, 1.5])
    observation = reading.observation(BUDGETS, (1.0, 2.0))
    assert observation.load.tolist() == [5.1, 6.0]
    assert observation.budget.tolist() == [9.0, 15.0]
    assert observation.degradation.tolist() == [0, 2]
    assert observation.backlog.tolist() == [0.0, 1.5]
    assert parse().observation(BUDGETS, (1.0, 2.0)).budget.tolist() == list(BUDGETS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minute": 1440}, "minute"),
        ({"minute": "left out"}, "minute"),
        ({"minute": 601.5}, "minute"),
        ({"qps": "many"}, "qps"),
        ({"qps": -1}, "qps"),
        ({"qps": True}, "qps"),
        ({"qps": 10**400}, "qps"),
        ({"load": 5.0}, "load"),
        ({"load": [1.0]}, "load has 1 values"),
        ({"load": {"rankin": 6.0}}, "did you mean 'ranking'"),
        ({"load": {"ranking": "high", "retrieval": 1}}, "'ranking'"),
        ({"budget": [0, 1]}, "budget"),
        ({"budget": [None, 1]}, "budget"),
        ({"degradation": [0.5, 1]}, "degradation"),
        ({"state": "fine"}, "state"),
        ({"state": "no-traffic"}, "qps is 312.5"),
        ({"state": "value", "qps": None}, "qps was not measured"),
        ({"rate": 3}, "field"),
    ],
)
def test_a_wrong_reading_names_its_field(changes, words):
    with pytest.raises(InputError, match="telemetry") as caught:
        parse(**changes)
    assert words in str(caught.value)


@pytest.mark.parametrize("body", ["", "{", "[1]", "null", b"\xff", '{"minute": 1, "qps": NaN}', "[" * 100_000])
def test_a_body_that_is_no_reading_is_one_line(body):
    with pytest.raises(InputError, match="telemetry"):
        parse_telemetry(body, CLUSTERS, BUDGETS)


def test_the_inbox_gives_readings_in_order_drops_the_oldest_and_ends_when_told():
    inbox, stop = TelemetryInbox(), threading.Event()
    assert inbox.read(0.01, stop) is None
    for minute in range(MOST_QUEUED + 5):
        inbox.post(TelemetryReading(minute, "missing"))
    first = inbox.read(0.0, stop)
    assert first is not None
    assert first.minute == 5
    assert len(inbox) == MOST_QUEUED - 1
    empty = TelemetryInbox()
    threading.Timer(0.05, stop.set).start()
    began = time.monotonic()
    assert empty.read(30.0, stop) is None
    assert time.monotonic() - began < 5
