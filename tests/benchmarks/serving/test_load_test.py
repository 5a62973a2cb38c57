"""The load script: it answers for every call, and counts what went wrong."""

from __future__ import annotations

import json

import pytest

from benchmarks.serving.app import create_app
from benchmarks.serving.load_test import main
from tests.helpers.decision_server import running, service_of


def test_malformed_requests_are_answered_and_counted(policy, capsys):
    with running(create_app(service_of(policy, seconds=5.0))) as url:
        assert main([url, "--rates", "50", "100", "--seconds", "0.4", "--batch", "5", "--malformed", "0.3"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["answered"] for row in rows] == [20, 40]
    for row in rows:
        assert row["errors"] == 0
        assert sum(row["statuses"].values()) == 5 * row["answered"]
        assert row["statuses"]["ok"] > row["statuses"]["missing-feature"] > 0
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]


def test_calls_without_an_answer_are_errors(policy, capsys):
    with running(create_app(service_of(policy), token="0123456789abcdef")) as url:
        assert main([url, "--rates", "20", "--seconds", "0.2"]) == 1
    assert json.loads(capsys.readouterr().out)["error_kinds"] == {"401": 4}


@pytest.mark.parametrize("url", ["ftp://x", "localhost"])
def test_an_address_that_is_none_is_one_line(url, capsys):
    assert main([url]) == 2
    assert "give an address" in capsys.readouterr().err
