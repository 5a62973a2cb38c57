"""Code blocks of the README and of the documentation's pages, which tests run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"
BLOCK = re.compile(r"^ *```(\w+)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def code_blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return [code for found, code in BLOCK.findall(path.read_text(encoding="utf-8")) if found == language]


USER_METHOD = next(b for b in code_blocks(DOCS / "how-to" / "your-algorithm.md", "python") if "class MyQMIX" in b)
"""A user's method: a mixer and its configuration."""
USER_EXPERIMENT = next(b for b in code_blocks(DOCS / "how-to" / "your-experiment.md", "python") if "def cases" in b)
"""A user's experiment: the module's whole text."""
