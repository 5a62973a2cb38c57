"""The Grafana dashboard shows metrics, and labels of them, that the server really exports."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serving.telemetry import TelemetryReading
from tests.helpers.decision_server import GOOD, service_of

NAMES = re.compile(r"\bmarca_\w+")
LABELS = re.compile(r"(?:by|without) \(([^)]*)\)|\{(\w+)=")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    text = (resources.files("benchmarks.serving") / "dashboard.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@pytest.fixture(scope="module")
def exported(policy) -> dict[str, set[str]]:
    """Return the labels of every sample that a server exports after a call and a reading."""
    service = service_of(policy)
    requests = [GOOD, {}]
    service.record(requests, service.decide(requests), 0.001)
    service.take_telemetry(b'{"minute": 1, "qps": 2, "load": {"retrieval": 0.1, "ranking": 0.1}}')
    service.metrics.calls.labels("200").inc()
    service.metrics.swaps.labels("loaded").inc()
    service.metrics.show_controller({"stale": 1}, 0)
    assert isinstance(service.take_telemetry(b'{"minute": 2, "state": "missing"}'), TelemetryReading)
    families = text_string_to_metric_families(service.page_of_metrics().decode())
    return {s.name: set(s.labels) for family in families for s in family.samples}


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_query_names_metrics_and_labels_that_the_server_exports(dashboard, exported):
    for query in queries(dashboard):
        names = NAMES.findall(query)
        assert names, query
        for name in names:
            assert name in exported, f"{query}: the server has no {name}"
        labels = {x.strip() for match in LABELS.finditer(query) for x in (match[1] or match[2]).split(",")}
        assert labels <= {label for name in names for label in exported[name]}, query


def test_every_metric_of_ours_is_on_the_dashboard(dashboard, exported):
    shown = " ".join(queries(dashboard))
    parts = ("_created", "_sum", "_count")
    assert [name for name in exported if not name.endswith(parts) and name not in shown] == []


def test_panels_do_not_overlap_and_have_ids(dashboard):
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
