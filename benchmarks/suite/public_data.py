"""Where public data lies that comes with no package: beside the checkout, or where an environment variable says."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)


def trace_folder() -> Path:
    """The public traces of traffic: ``MARCA_TRACES``, or ``shared/data/traces`` beside the checkout."""
    return _folder("MARCA_TRACES", "traces")


def known_traces(files: Mapping[str, str]) -> list[str]:
    """Those names whose trace is there; the others are warned of. ``files``: name → file in the folder."""
    missing = [name for name, file in files.items() if not (trace_folder() / file).is_file()]
    if missing:
        log.warning("no traces %s in %s; set MARCA_TRACES", ", ".join(missing), trace_folder())
    return [name for name in files if name not in missing]


def sample_folder() -> Path:
    """The published samples of logs: ``MARCA_SAMPLES``, or ``shared/data/sample_logs`` beside the checkout."""
    return _folder("MARCA_SAMPLES", "sample_logs")


def _folder(variable: str, name: str) -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / name
    return Path(os.environ.get(variable) or beside)
