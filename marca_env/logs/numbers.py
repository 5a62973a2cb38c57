"""Numbers as people write them: decimal points or commas, and separators of thousands."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

MISSING = ("", "nan", "na", "n/a", "null", "none", "-", "nil", "missing")
"""Texts, in lower case, that stand for a missing value."""
_BLANKS = re.compile("[ \u00a0\u2009\u202f'\u2019_]")
_GROUPS = {mark: re.compile(rf"[-+]?[1-9]\d{{0,2}}(?:\{mark}\d{{3}})+") for mark in ".,"}


def parse_numbers(texts: pd.Series, separator: str = ",") -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a column of text, NaN where it holds none, and which values are missing.

    The column as a whole says how its numbers are written: the last mark of ``1.234,5`` or ``1,234.5`` is the decimal
    one; a mark that repeats, or that always has three digits behind it while other values have no mark, separates
    thousands.

    Args:
        texts: the column.
        separator: separator of the file's fields; a semicolon speaks for decimal commas.

    Returns:
        Numbers, float64 (rows,), and bool (rows,).
    """
    texts = texts.str.strip()
    missing = texts.str.lower().isin(MISSING).to_numpy(dtype=bool)
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    plain = not (np.isnan(numbers) & ~missing).any()
    if plain and not (separator == ";" and _separates_thousands(texts, ".")):
        return numbers, missing
    texts = texts.str.replace(_BLANKS, "", regex=True)
    decimal = _decimal_mark(texts, separator)
    other = "," if decimal == "." else "."
    texts = texts.str.replace(other, "", regex=False).str.replace(decimal, ".", regex=False)
    return pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64), missing


def _decimal_mark(texts: pd.Series, separator: str) -> str:
    """Return the decimal mark of a column."""
    points, commas = texts.str.rfind("."), texts.str.rfind(",")
    both = (points >= 0) & (commas >= 0)
    if both.any():
        return "," if (commas[both] > points[both]).any() else "."
    if (commas >= 0).any():
        return "." if _separates_thousands(texts, ",") else ","
    return "," if separator == ";" and _separates_thousands(texts, ".") else "."


def _separates_thousands(texts: pd.Series, mark: str) -> bool:
    """Return whether a mark has three digits behind it in every value that holds it, and there are others too."""
    holds = texts.str.contains(mark, regex=False)
    if not holds.any() or not texts[holds].str.fullmatch(_GROUPS[mark].pattern).all():
        return False
    return bool((texts[holds].str.count(re.escape(mark)) > 1).any() or (~holds & (texts != "")).any())
