"""State of a decision server on disk: prices and mode, shared by its processes and kept over restarts.

Every change is written at once under a lock, and every process looks for changes of the others a few times a second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from marca_env.utils.files import read_json, write_json

_REMEDY = "remove the file to begin from the options of the command"


class StateFile:
    """A JSON file that several processes read and change.

    Args:
        path: the file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> Any:
        """Return the content; ``None`` without a file.

        Raises:
            InputError: the file is damaged.
        """
        self._seen = self._stamp()
        return None if self._seen is None else read_json(self.path, _REMEDY, finite=True)

    @property
    def is_changed(self) -> bool:
        """Whether the file was written, by any process, since it was last read."""
        return self._stamp() != self._seen

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the other processes from writing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            yield

    def write(self, data: Any) -> None:
        """Write the content, atomically.

        Raises:
            WriteError: the file cannot be written.
        """
        write_json(self.path, data)
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
