"""Telemetry from Prometheus' HTTP API, asked over a real connection."""

from __future__ import annotations

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.serving.prometheus_source import PrometheusQueries, PrometheusSource
from marca_env.utils.errors import InputError

CLUSTERS, BUDGETS = ("retrieval", "ranking"), (10.0, 20.0)
NOW = 600 * 60 + 30.0


def vector(*values: str) -> dict:
    """Return an answer with a sample for each value."""
    result = [{"metric": {"n": str(n)}, "value": [NOW, value]} for n, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@pytest.fixture
def prometheus():
    """Serve the answers of a dictionary from query to answer; yield both the dictionary and the address."""
    answers: dict[str, object] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            assert url.path == "/api/v1/query"
            answer = answers[urllib.parse.parse_qs(url.query)["query"][0]]
            status = 200
            if isinstance(answer, tuple):
                status, answer = answer
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 302:
                self.send_header("Location", "/api/v1/query?query=qps")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield answers, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def source(url: str, **changes) -> PrometheusSource:
    load = {"retrieval": "load{a}", "ranking": "load{b}"}
    queries = PrometheusQueries(**{"url": url, "qps": "qps", "load": load, "timeout": 2.0, **changes})
    return PrometheusSource(queries, CLUSTERS, BUDGETS, clock=lambda: NOW)


def read(each: PrometheusSource):
    return each.read(0.0, threading.Event())


def test_values_and_a_quiet_minute_are_read(prometheus):
    answers, url = prometheus
    answers |= {"qps": vector("312.5"), "load{a}": vector("5.1"), "load{b}": vector("6")}
    reading = read(source(url))
    assert (reading.minute, reading.state, reading.qps, reading.load) == (599, "value", 312.5, (5.1, 6.0))
    answers["qps"] = {"status": "success", "data": {"resultType": "scalar", "result": [NOW, "0"]}}
    answers |= {"load{a}": vector("0.1"), "load{b}": vector("0")}
    assert read(source(url)).state == "no-traffic"


@pytest.mark.parametrize(
    ("query", "answer", "reason"),
    [
        ("qps", vector(), "qps was not measured"),
        ("load{b}", vector("NaN"), "the load of a cluster was not measured"),
        ("qps", vector("+Inf"), "infinite"),
        ("qps", vector("1", "2"), "2 values; ask for one number"),
        ("qps", vector("many"), "not an answer of Prometheus"),
        ("qps", b"<html>", "not an answer of Prometheus"),
        ("qps", b"x" * (1024**2 + 10), "longer than"),
        ("qps", (400, {"status": "error", "error": "parse error: unexpected end"}), "unexpected end"),
        ("qps", (503, b"busy"), "status 503"),
        ("qps", (302, b""), "status 302"),
        ("qps", {"status": "success", "data": {"resultType": "matrix", "result": []}}, "at one time"),
    ],
)
def test_what_was_not_measured_is_missing_with_a_reason(prometheus, query, answer, reason):
    answers, url = prometheus
    answers |= {"qps": vector("312.5"), "load{a}": vector("5.1"), "load{b}": vector("6"), query: answer}
    reading = read(source(url))
    assert reading.state == "missing"
    assert reason in reading.reason


def test_old_samples_are_stale_and_a_silent_server_is_missing(prometheus):
    answers, url = prometheus
    answers |= {"qps": vector("312.5"), "load{a}": vector("5.1"), "load{b}": vector("6")}
    for age, state in ((60, "value"), (121, "stale")):
        answers["updated"] = vector(str(NOW - age))
        assert read(source(url, updated="updated")).state == state
    answers["updated"] = vector()
    assert read(source(url, updated="updated")).state == "stale"
    nobody = read(source("http://127.0.0.1:9"))
    assert nobody.state == "missing"
    assert "127.0.0.1:9" in nobody.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("qps: q\nload: {retrieval: a, ranking: b}", "url is missing"),
        ("url: file:///etc/passwd\nqps: q\nload: {retrieval: a, ranking: b}", "url is"),
        ("url: http://h\nqps: 3\nload: {retrieval: a, ranking: b}", "qps is 3"),
        ("url: http://h\nqps: q\nload: [a]", "load is"),
        ("url: http://h\nqps: q\nload: {retrieval: a, rankin: b}", "did you mean 'ranking'"),
        ("url: http://h\nqps: q\nload: {retrieval: a}", "'ranking' has no query"),
        ("url: http://h\nqps: q\nload: {retrieval: a, ranking: b}\nmost_age: soon", "most_age"),
        ("url: http://h\nqps: q\nload: {retrieval: a, ranking: b}\nquery: q", "did you mean"),
    ],
)
def test_a_wrong_file_of_queries_names_its_field(tmp_path, text, words):
    path = tmp_path / "telemetry.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        PrometheusSource(PrometheusQueries.read(path), CLUSTERS, BUDGETS)
    assert words in str(caught.value)
