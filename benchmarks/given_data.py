"""Where public data lies that comes with no package: beside the checkout, or where an environment variable says."""

from __future__ import annotations

import os
from pathlib import Path


def trace_folder() -> Path:
    """The public traces of traffic: ``MARCA_TRACES``, or ``shared/data/traces`` beside the checkout."""
    return _folder("MARCA_TRACES", "traces")


def sample_folder() -> Path:
    """The published samples of logs: ``MARCA_SAMPLES``, or ``shared/data/sample_logs`` beside the checkout."""
    return _folder("MARCA_SAMPLES", "sample_logs")


def _folder(variable: str, name: str) -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / name
    return Path(os.environ.get(variable) or beside)
