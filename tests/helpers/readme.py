"""What the README promises, read from it."""

from __future__ import annotations

import re

from tests.helpers.paths import ROOT

README = ROOT / "README.md"
TEN_LINES = next(
    block
    for block in re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if "class MyQMIX" in block
)
"""Somebody else's method: a mixer of their own, in a configuration of their own."""
