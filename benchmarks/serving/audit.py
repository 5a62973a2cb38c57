"""Audit log of a decision server: a row a minute, and a sample of the requests.

``minutes-DATE.csv`` is a system log of all processes, which ``marca balance --log`` reads, with further columns.
``events-DATE-PROCESS.jsonl`` says what changed, and which minutes had no telemetry. ``requests-PROCESS.jsonl`` holds
one request a line; it is rotated by its size.
"""

from __future__ import annotations

import csv
import itertools
import json
import logging
import os
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from marca_env.utils.errors import InputError
from marca_env.utils.files import check_writable, describe_fault
from marca_env.utils.validation import as_number, as_whole_number

_MEGABYTE = 1_000_000
logger = logging.getLogger("marca.serve")


class AuditLog:
    """Writes rows to a folder; a fault of the disk is logged and never fails a decision.

    Args:
        folder: the folder; it is made.
        sample: share of the requests that are written.
        rotate_bytes: size at which the file of requests is rotated.
        keep: number of older files of requests that are kept.
        minutes: beginning of the name of the file with the minutes.

    Raises:
        InputError: the folder cannot be written, or a value out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        sample: float = 0.01,
        rotate_bytes: int = 64 * _MEGABYTE,
        keep: int = 10,
        minutes: str = "minutes",
    ) -> None:
        self.folder, self.sample = Path(folder), as_number("audit sample", sample, 0.0, 1.0)
        self.rotate_bytes = as_whole_number("rotate_bytes", rotate_bytes, 1_000)
        self.keep = as_whole_number("keep", keep, 1)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder}: a file; give a folder for the audit log")
        self.folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.folder)
        self._lock, self._random = threading.Lock(), random.Random()
        self._minutes, self._minutes_lock = minutes, FileLock(self.folder / f".{minutes}.lock")
        self._requests = self.folder / f"requests-{os.getpid()}.jsonl"

    def wants(self) -> bool:
        """Return whether the next request belongs to the sample."""
        return self.sample > 0 and self._random.random() < self.sample

    def request(self, record: Mapping[str, Any]) -> None:
        """Write a request of the sample."""
        line = json.dumps(record, default=str, separators=(",", ":"))
        with self._lock:
            try:
                with self._requests.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
                    size = file.tell()
                if size >= self.rotate_bytes:
                    self._rotate()
            except OSError as error:
                logger.error("audit log: %s", describe_fault(error))

    def minute(self, row: Mapping[str, Any]) -> None:
        """Write the row of a minute; ``None`` becomes an empty cell.

        Args:
            row: columns of a system log and others, the same in every minute.
        """
        with self._lock:
            try:
                with self._minutes_lock:
                    path, is_new = self._file_of_minutes(list(row))
                    with path.open("a", encoding="utf-8", newline="") as file:
                        writer = csv.writer(file)
                        if is_new:
                            writer.writerow(row)
                        writer.writerow(["" if value is None else value for value in row.values()])
            except OSError as error:
                logger.error("audit log: %s", describe_fault(error))

    def _file_of_minutes(self, columns: list[str]) -> tuple[Path, bool]:
        """Return today's file with these columns and whether it is new; a version with other columns begins another."""
        name = f"{self._minutes}-{time.strftime('%Y%m%d', time.gmtime())}"
        for number in itertools.count(1):
            path = self.folder / f"{name}{f'-{number}' if number > 1 else ''}.csv"
            if not path.exists():
                return path, True
            with path.open(encoding="utf-8", newline="") as file:
                if next(csv.reader(file), None) == columns:
                    return path, False
        raise AssertionError("unreachable")

    def event(self, event: Mapping[str, Any]) -> None:
        """Write an event, such as a change of the mode or a minute without telemetry, with its time."""
        path = self.folder / f"events-{time.strftime('%Y%m%d', time.gmtime())}-{os.getpid()}.jsonl"
        with self._lock:
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"at": time.time(), **event}, default=str) + "\n")
            except OSError as error:
                logger.error("audit log: %s", describe_fault(error))

    def _rotate(self) -> None:
        stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.monotonic_ns() % 10**9:09d}"
        self._requests.rename(self._requests.with_name(f"{self._requests.stem}-{stamp}.jsonl"))
        older = sorted(self.folder.glob(f"{self._requests.stem}-*.jsonl"))
        for path in older[: -self.keep]:
            path.unlink(missing_ok=True)
