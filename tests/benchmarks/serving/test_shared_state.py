"""Prices and telemetry shared by processes through a folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from benchmarks.serving.shared_state import SharedPriceBoard, TelemetrySpool
from benchmarks.serving.telemetry import MOST_QUEUED, TelemetryReading
from marca_env.utils.errors import InputError

CLUSTERS, BUDGETS = ("retrieval", "ranking"), (7.0, 7.0)


def test_boards_of_one_file_count_versions_together_and_see_each_other(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    one, two = SharedPriceBoard(path, CLUSTERS), SharedPriceBoard(path, CLUSTERS)
    assert one.latest is None
    assert one.publish((1.0, 2.0), "mpc").version == 1
    assert two.latest is not None
    assert two.latest.prices == (1.0, 2.0)
    assert two.publish((3.0, 4.0), "operator").version == 2
    assert one.current().prices == (1.0, 2.0)  # until it looks at the file
    assert one.latest is not None
    assert (one.latest.source, one.current().version) == ("operator", 2)
    assert one.publish((5.0, 6.0), "mpc").version == 3
    with pytest.raises(InputError, match="ranking"):
        one.publish((1.0, -1.0), "mpc")
    path.write_text("{")
    assert two.publish((1.0, 1.0), "mpc").version == 3  # it has seen version 2; the file is whole again
    assert one.publish((1.0, 1.0), "mpc").version == 4
    path.write_text("{")
    with pytest.raises(InputError, match=r"prices\.json"):
        SharedPriceBoard(path, CLUSTERS).publish((1.0, 1.0), "mpc")


def test_readings_wait_for_a_controller_that_is_down_and_are_taken_once(tmp_path: Path) -> None:
    spools = [TelemetrySpool(tmp_path / "telemetry.json", CLUSTERS, BUDGETS) for _ in range(3)]
    for minute in range(MOST_QUEUED + 2):
        spools[minute % 2].post(TelemetryReading(minute, "value", 10.0, (1.0, 2.0), degradation=(0, 1)))
    stop = threading.Event()
    first = spools[2].read(0.0, stop)
    assert first == TelemetryReading(2, "value", 10.0, (1.0, 2.0), degradation=(0, 1))
    restarted = TelemetrySpool(tmp_path / "telemetry.json", CLUSTERS, BUDGETS)
    second = restarted.read(0.0, stop)
    assert second is not None
    assert second.minute == 3
    stop.set()
    began = time.monotonic()
    (tmp_path / "telemetry.json").write_text("damaged")
    assert restarted.read(30.0, stop) is None
    assert time.monotonic() - began < 5
    restarted.post(TelemetryReading(700, "no-traffic", 0.0, (0.0, 0.0)))
    again = restarted.read(0.0, stop)
    assert again is not None
    assert again.state == "no-traffic"
