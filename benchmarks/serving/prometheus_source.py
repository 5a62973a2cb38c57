"""Telemetry that is read from Prometheus, by one query for each quantity."""

from __future__ import annotations

import http.client
import math
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.telemetry import TelemetryReading, make_reading
from marca_env.utils.errors import InputError, one_line, shown, unknown_option
from marca_env.utils.files import parse_json
from marca_env.utils.units import MINUTES_PER_DAY, SECONDS_PER_MINUTE
from marca_env.utils.validation import as_number
from marca_env.utils.yaml import read_mapping

_MOST_BYTES = 1024**2  # of an answer; a query that matters has a value per cluster
_FIELDS = ("url", "qps", "load", "updated", "most_age", "timeout")


class PrometheusError(RuntimeError):
    """Prometheus cannot be reached, or its answer cannot be used; the reading is then missing."""


@dataclass(frozen=True)
class PrometheusQueries:
    """What is asked. Each query is PromQL whose answer is one number."""

    url: str
    """Address of Prometheus, such as ``http://127.0.0.1:9090``."""
    qps: str
    """Query of the requests per second of the last minute."""
    load: Mapping[str, str]
    """Cluster → query of its load, core-seconds per second."""
    updated: str | None = None
    """Query of the Unix time of the newest sample, such as ``max(timestamp(requests_total))``; ``None``: the answer is
    as new as Prometheus, which drops a series after five minutes without a sample."""
    most_age: float = 120.0
    """Age of the newest sample, seconds, above which the reading is stale."""
    timeout: float = 5.0
    """Seconds that one query may take."""

    def __post_init__(self) -> None:
        if not isinstance(self.url, str) or urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise InputError(f"url is {shown(self.url)}; give an address such as http://127.0.0.1:9090")
        for name in ("qps", *(() if self.updated is None else ("updated",))):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise InputError(f"{name} is {shown(getattr(self, name))}; give a query in PromQL, as text")
        if not isinstance(self.load, Mapping) or not all(isinstance(q, str) and q.strip() for q in self.load.values()):
            raise InputError(f"load is {shown(self.load)}; give a query in PromQL for each cluster")
        as_number("most_age", self.most_age, 1.0)
        as_number("timeout", self.timeout, 0.01, 600.0)

    @classmethod
    def read(cls, path: str | Path) -> PrometheusQueries:
        """Read the queries of a YAML or JSON file whose fields are those of this class.

        Raises:
            InputError: the file is missing or not valid, or a field is unknown, missing or wrong; names the field.
        """
        data = read_mapping(Path(path), "telemetry")
        for name in data:
            if name not in _FIELDS:
                raise InputError(f"{path}: {unknown_option('field', name, _FIELDS)}")
        for name in _FIELDS[:3]:
            if name not in data:
                raise InputError(f"{path}: {name} is missing; it needs url, qps and load")
        try:
            return cls(**data)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def check_clusters(self, clusters: Sequence[str]) -> None:
        """Check that there is a query for each cluster, and for nothing else.

        Raises:
            InputError: a cluster without a query, or an unknown one.
        """
        for name in self.load:
            if name not in clusters:
                raise InputError(f"load: {unknown_option('cluster', name, clusters)}")
        for name in clusters:
            if name not in self.load:
                raise InputError(f"load: cluster {name!r} has no query; give one for each of {', '.join(clusters)}")


class PrometheusSource:
    """Reads the telemetry of the last minute from Prometheus; no fault of it is raised.

    Args:
        queries: what is asked.
        clusters: names of the G clusters.
        budgets: (G,) core-seconds per second.
        clock: Unix time, seconds.
        utc_offset: seconds by which the day of the system model begins before that of UTC.

    Raises:
        InputError: a cluster without a query, or a query of an unknown cluster.
    """

    is_pushed = False

    def __init__(
        self,
        queries: PrometheusQueries,
        clusters: Sequence[str],
        budgets: Sequence[float],
        *,
        clock: Callable[[], float] = time.time,
        utc_offset: float = 0.0,
    ) -> None:
        queries.check_clusters(clusters)
        self.queries, self.clusters, self.budgets = queries, tuple(clusters), tuple(float(b) for b in budgets)
        self._clock, self._offset = clock, utc_offset
        # No proxy and no redirect: the queries go to the address that was given, and nowhere else.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def read(self, wait: float, stop: threading.Event) -> TelemetryReading:
        """Return the reading of the last minute; a failed query makes it missing."""
        now = self._clock()
        minute = int((now + self._offset) // SECONDS_PER_MINUTE - 1) % MINUTES_PER_DAY
        try:
            if self.queries.updated is not None:
                updated = self.ask(self.queries.updated)
                age = math.inf if updated is None else now - updated
                if age > self.queries.most_age:
                    return TelemetryReading(minute, "stale", reason=f"the newest sample is {age:.0f} seconds old")
            qps = self.ask(self.queries.qps)
            load = [self.ask(self.queries.load[cluster]) for cluster in self.clusters]
        except PrometheusError as fault:
            return TelemetryReading(minute, "missing", reason=str(fault))
        return make_reading(minute, qps, load, self.budgets)

    def ask(self, query: str) -> float | None:
        """Return the number that a query gives; ``None`` if nothing matches it.

        Raises:
            PrometheusError: no answer, or one that is not a single number.
        """
        address = f"{self.queries.url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with self._opener.open(address, timeout=self.queries.timeout) as answer:
                body = answer.read(_MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{query}: {_message(error) or f'status {error.code}'}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PrometheusError(f"{self.queries.url}: {one_line(error, 200) or type(error).__name__}") from None
        if len(body) > _MOST_BYTES:
            raise PrometheusError(f"{query}: the answer is longer than {_MOST_BYTES // 1024} KiB; ask for one number")
        return _number(query, body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect; the answer is then an error."""

    def redirect_request(self, *args: Any, **keywords: Any) -> None:
        """Return no request."""


def _message(error: urllib.error.HTTPError) -> str:
    """Return what Prometheus says about a query that it refuses."""
    try:
        data = parse_json(error.read(_MOST_BYTES), "answer")
        return one_line(ValueError(data["error"]), 200)
    except (InputError, OSError, http.client.HTTPException, KeyError, TypeError):
        return ""


def _number(query: str, body: bytes) -> float | None:
    """Return the number of an answer of Prometheus' HTTP API; ``None`` for an empty vector and for NaN."""
    try:
        data = parse_json(body, "answer")
        kind, result = data["data"]["resultType"], data["data"]["result"]
        if kind == "vector":
            if len(result) > 1:
                raise PrometheusError(f"{query}: {len(result)} values; ask for one number, such as sum(…)")
            sample = result[0]["value"] if result else None
        elif kind == "scalar":
            sample = result
        else:
            raise PrometheusError(f"{query}: a {shown(kind)}; ask for one number at one time")
        value = math.nan if sample is None else float(sample[1])
    except (InputError, KeyError, IndexError, TypeError, ValueError) as error:
        raise PrometheusError(f"{query}: not an answer of Prometheus ({one_line(error, 100)})") from None
    return None if math.isnan(value) else value
