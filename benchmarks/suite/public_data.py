"""Folders of public data that comes with no package: beside the checkout, or named by an environment variable."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

log = logging.getLogger(__name__)
_assume_available: ContextVar[bool] = ContextVar("_assume_available", default=False)


@contextmanager
def assume_available() -> Iterator[None]:
    """Let :func:`available_traces` return every name: what is recorded may have been measured on another machine."""
    token = _assume_available.set(True)
    try:
        yield
    finally:
        _assume_available.reset(token)


def trace_folder() -> Path:
    """Return the folder of public traffic traces: ``MARCA_TRACES``, or one beside a checkout of the sources."""
    return _folder("MARCA_TRACES", "traces")


def available_traces(files: Mapping[str, str]) -> list[str]:
    """Return the names whose trace is in :func:`trace_folder`, and warn of the others.

    Args:
        files: name → file in the folder.
    """
    if _assume_available.get():
        return list(files)
    missing = [name for name, file in files.items() if not (trace_folder() / file).is_file()]
    if missing:
        log.warning(
            "no traces %s; `marca traces` says where to get them, MARCA_TRACES names their folder", ", ".join(missing)
        )
    return [name for name in files if name not in missing]


def sample_folder() -> Path:
    """Return the folder of published logs: ``MARCA_SAMPLES``, or one beside a checkout of the sources."""
    return _folder("MARCA_SAMPLES", "sample_logs")


def _folder(variable: str, name: str) -> Path:
    default = Path(__file__).resolve().parents[3] / "shared" / "data" / name
    return Path(os.environ.get(variable) or default)
