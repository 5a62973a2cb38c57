"""Start `marca serve` and `marca control` as processes of their own, for rehearsals on one machine."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serving.plain_client import PlainClient
from marca_env.utils.errors import InputError

_URL = re.compile(r"http://[\w.:\[\]]+:\d+")
_READY = re.compile(r"(?:Starting|Continuing) .* prices in ")
_SLOWEST_START = 180.0  # seconds; imports and warming on a busy machine
_SLOWEST_END = 40.0


class MarcaProcess:
    """A command of marca in a process.

    Args:
        arguments: of the command line, such as ``["serve", "--policy", "results/awrq"]``.
        log: file that gets its output.
    """

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.arguments, self.log = arguments, log
        self._start = log.stat().st_size if log.exists() else 0
        command = [sys.executable, "-m", "benchmarks.cli", *arguments]
        with log.open("ab") as out:
            environment = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | os.environ
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)

    def wait_for(self, pattern: re.Pattern[str], seconds: float = _SLOWEST_START) -> str:
        """Wait until its output has a pattern, and return what matches.

        Raises:
            InputError: it ended or took too long; the message has its last line.
        """
        end = time.monotonic() + seconds
        while True:
            is_over = self.process.poll() is not None
            text = self.log.read_bytes()[self._start :].decode(errors="replace")
            if match := pattern.search(text):
                return match[0]
            if is_over or time.monotonic() > end:
                last = (text.strip().splitlines() or ["no output"])[-1]
                why = f"ended with status {self.process.returncode}" if is_over else f"not ready after {seconds:g} s"
                raise InputError(f"marca {self.arguments[0]}: {why}: {last}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        self.process.kill()
        self.process.wait(_SLOWEST_END)

    def stop(self) -> int:
        """End it with SIGTERM, or SIGKILL where that takes too long; return its status."""
        if self.process.poll() is None:
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(_SLOWEST_END)
        self.kill()
        return self.process.returncode


@contextlib.contextmanager
def running_server(arguments: list[str], log: Path) -> Iterator[tuple[str, MarcaProcess]]:
    """Start `marca serve`; yield its address, once it answers, and the process; stop it at the end.

    Args:
        arguments: options of the command; the port is any free one unless they name it.
        log: file that gets its output.

    Raises:
        InputError: the server does not start.
    """
    port = [] if "--port" in arguments else ["--port", "0"]
    server = MarcaProcess(["serve", *arguments, *port], log)
    try:
        url = server.wait_for(_URL)
        _wait_until_ready(server, url)
        yield url, server
    finally:
        server.stop()


def _wait_until_ready(server: MarcaProcess, url: str) -> None:
    client, end = PlainClient(url, timeout=5.0), time.monotonic() + _SLOWEST_START
    while server.process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            if client.call("GET", "/readyz")[0] == 200:
                client.close()
                return
        time.sleep(0.05)
    server.wait_for(re.compile("(?!)"), 0.0)  # says why


def start_controller(arguments: list[str], log: Path) -> MarcaProcess:
    """Start `marca control` and return it once it reads telemetry.

    Raises:
        InputError: it does not start.
    """
    controller = MarcaProcess(["control", *arguments], log)
    try:
        controller.wait_for(_READY)
    except BaseException:
        controller.stop()
        raise
    return controller


@contextlib.contextmanager
def running_controller(arguments: list[str], log: Path) -> Iterator[MarcaProcess]:
    """Start `marca control`, yield it, and stop it at the end; see :func:`start_controller`."""
    controller = start_controller(arguments, log)
    try:
        yield controller
    finally:
        controller.stop()
