"""Detection of another package's module ``agents``, such as that of openai-agents, in place of the one of marca-env."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

_OURS = "AllocationPolicy"
"""Name in the docstring of the module of marca-env."""


def foreign_agents() -> str | None:
    """Return a line about a module ``agents`` that is not the one of marca-env; ``None`` if there is none.

    Nothing is imported. Two packages with a module of this name overwrite each other's files, or hide each other.
    """
    try:
        spec = importlib.util.find_spec("agents")
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    try:
        if spec.origin is not None and _OURS in Path(spec.origin).read_text(encoding="utf-8"):
            return None
    except (OSError, UnicodeDecodeError):
        return None
    place = spec.origin or next(iter(spec.submodule_search_locations or ()), "?")
    others = sorted(set(metadata.packages_distributions().get("agents", [])) - {"marca-env"})
    owner = f" of {' and '.join(others)}" if others else ""
    return (
        f"the module 'agents' in {place} is another one{owner}, not that of marca-env; install marca-env in a virtual "
        "environment of its own, or rename your module"
    )
