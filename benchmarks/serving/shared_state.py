"""Prices and telemetry that decision servers and a controller in another process share through files of one folder."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.prices import PriceBoard, PublishedPrices
from benchmarks.serving.state_folder import StateFile
from benchmarks.serving.telemetry import MOST_QUEUED, TelemetryReading, parse_telemetry, to_json
from marca_env.utils.errors import InputError

log = logging.getLogger(__name__)
PRICES, TELEMETRY, CONTROLLER = "prices.json", "telemetry.json", "controller.json"
"""Files of the folder."""
_POLL = 0.1  # seconds between two looks at the files


class SharedPriceBoard(PriceBoard):
    """A price board whose prices are those of a file; several processes may publish.

    Args:
        path: the file.
        clusters: names of the G clusters.
        options: see :class:`PriceBoard`.
    """

    def __init__(self, path: Path, clusters: Sequence[str], **options: Any) -> None:
        super().__init__(clusters, **options)
        self._file = StateFile(path)

    @property
    def latest(self) -> PublishedPrices | None:
        """The prices that any process published last; ``None`` before the first.

        A file that is damaged while this process runs is written again with the next prices.
        """
        if self._file.is_changed:
            with self._file.locked():
                self._try_to_read()
        return self._latest

    def publish(
        self, prices: Sequence[float] | Mapping[str, float], source: str, *, at: float | None = None
    ) -> PublishedPrices:
        """Publish prices under the next version of all processes; see :meth:`PriceBoard.publish`."""
        with self._file.locked():
            self._try_to_read()
            published = super().publish(prices, source, at=at)
            self._file.write(self.state_dict())
        return published

    def _try_to_read(self) -> None:
        try:
            self._read()
        except InputError as error:
            if self._latest is None:  # nobody knows the version to continue from
                raise
            log.error("%s", error)

    def _read(self) -> None:
        data = self._file.read()
        if isinstance(data, Mapping) and data.get("version", 0) >= (self._latest.version if self._latest else 0):
            self.load_state_dict(data, str(self._file.path))


class TelemetrySpool:
    """Posted readings in a file, where any server adds them and one controller takes them, oldest first.

    Readings that came while the controller was down wait for it; the oldest are dropped.

    Args:
        path: the file.
        clusters: names of the G clusters.
        budgets: (G,) core-seconds per second.
    """

    is_pushed = True

    def __init__(self, path: Path, clusters: Sequence[str], budgets: Sequence[float]) -> None:
        self._file, self.clusters = StateFile(path), tuple(clusters)
        self.budgets = tuple(float(budget) for budget in budgets)

    def post(self, reading: TelemetryReading) -> None:
        """Add a reading.

        Raises:
            WriteError: the file cannot be written.
        """
        with self._file.locked():
            waiting = self._waiting()
            self._file.write([*waiting, json.loads(to_json(reading, self.clusters))][-MOST_QUEUED:])

    def read(self, wait: float, stop: threading.Event) -> TelemetryReading | None:
        """Take the oldest reading; ``None`` if none came in ``wait`` seconds, or ``stop`` was set."""
        end = time.monotonic() + wait
        while True:
            with self._file.locked():
                if waiting := self._waiting():
                    self._file.write(waiting[1:])
                    return parse_telemetry(waiting[0], self.clusters, self.budgets)
            left = end - time.monotonic()
            if left <= 0 or stop.wait(min(left, _POLL)):
                return None

    def _waiting(self) -> list[dict[str, Any]]:
        """Return the readings of the file; a damaged one has none."""
        try:
            data = self._file.read()
        except InputError:
            return []
        return list(data) if isinstance(data, list) and all(isinstance(entry, dict) for entry in data) else []
