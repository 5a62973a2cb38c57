"""Code of the README that tests run."""

from __future__ import annotations

import re

from tests.helpers.paths import ROOT

README = ROOT / "README.md"
TEN_LINES = next(
    block
    for block in re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if "class MyQMIX" in block
)
"""A user's method: a mixer and its configuration."""
