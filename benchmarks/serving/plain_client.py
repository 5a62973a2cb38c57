"""A plain HTTP client of a decision server: standard library only, one keep-alive connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from marca_env.utils.errors import InputError

Samples = dict[tuple[str, ...], float]
"""Name of a metric and values of its labels, in the order of the page → value."""


def server_address(url: str) -> tuple[str, int]:
    """Return host and port of an address.

    Raises:
        InputError: it is not an address such as ``http://127.0.0.1:8080``.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise InputError(f"{url!r}: give an address such as http://127.0.0.1:8080")
    return parts.hostname, parts.port or 80


class PlainClient:
    """Calls a decision server; one thread may use it.

    Args:
        url: address of the server.
        token: bearer token; ``None``: none.
        timeout: seconds to wait for an answer.
        attempts: times that a call is sent where the connection breaks, such as by a server that restarts.

    Attributes:
        retries: number of calls that were sent again.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 20.0, attempts: int = 2) -> None:
        self.attempts, self.retries = attempts, 0
        self.url, self._address, self._timeout = url, server_address(url), timeout
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and content of an answer, parsed where it is JSON.

        Args:
            method: ``GET``, ``POST`` or ``PUT``.
            path: such as ``/decide``.
            body: values of JSON, or bytes that are sent as they are; ``None``: none.

        Raises:
            OSError: no answer.
            http.client.HTTPException: the answer ends too early.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        for left in reversed(range(self.attempts)):
            try:
                status, text = self._send(method, path, data)
                break
            except (ConnectionError, http.client.HTTPException):  # such as a kept connection that the server closed
                if not left:
                    raise
                self.retries += 1
        with contextlib.suppress(ValueError):
            return status, json.loads(text)
        return status, text

    def _send(self, method: str, path: str, data: bytes | None) -> tuple[int, str]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=self._timeout)
        try:
            self._connection.request(method, path, data, self._headers)
            answer = self._connection.getresponse()
            text = answer.read().decode()
        except BaseException:
            self.close()
            raise
        if answer.will_close:
            self.close()
        return answer.status, text

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the content of an answer with status 200.

        Raises:
            InputError: another status; the message holds the answer.
            OSError: no answer.
        """
        status, answer = self.call(method, path, body)
        if status != 200:
            raise InputError(f"{method} {self.url}{path}: status {status}: {answer}")
        return answer

    def decide(self, requests: Sequence[Any]) -> dict[str, Any]:
        """Return the answer of /decide; see :meth:`ask`."""
        return dict(self.ask("POST", "/decide", {"requests": list(requests)}))

    def metrics(self) -> Samples:
        """Return the samples of /metrics, read by the parser of Prometheus' own client."""
        families = text_string_to_metric_families(self.ask("GET", "/metrics"))
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    def wait_for_version(self, version: int, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until the server uses prices of a version or a later one; return what /prices says.

        Raises:
            InputError: it does not in time; names the controller as the likely cause.
        """
        end = time.monotonic() + seconds
        while True:
            prices = dict(self.ask("GET", "/prices"))
            if prices["version"] >= version:
                return prices
            if time.monotonic() > end:
                raise InputError(
                    f"{self.url}: no prices of version {version} within {seconds:g} s, the last have "
                    f"{prices['version']}; check that `marca control` runs on the server's --state folder"
                )
            time.sleep(0.01)

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
