"""Traces of traffic that come with the package, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

SUFFIX = ".csv.gz"


def shipped_traces() -> tuple[str, ...]:
    """Return the names of the production traces: requests or data of a service, one value a minute."""
    return tuple(sorted(p.name.removesuffix(SUFFIX) for p in _folder().iterdir() if p.name.endswith(SUFFIX)))


def trace_file(path: str | Path) -> Path:
    """Return ``path`` itself or, if there is no such file, that of the shipped trace of this name."""
    path = Path(path)
    return path if path.exists() or str(path) not in shipped_traces() else _folder() / f"{path}{SUFFIX}"


def _folder() -> Path:
    return Path(str(resources.files("marca_env"))) / "data" / "traces"
