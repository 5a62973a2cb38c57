"""Errors that a user can mend: one class, one message, no traceback on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_LISTED = 100  # names; RLlib's configurations have some three hundred


class InputError(ValueError):
    """Bad input. The message names the file, row, column or field, and the remedy."""


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())


def unknown_option(what: str, name: object, valid: Iterable[str]) -> str:
    """The message for an unknown name: what was given, the nearest valid one, and all valid ones if they are few."""
    valid = sorted(set(valid))
    near = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(valid) > _MOST_LISTED:
        close = difflib.get_close_matches(str(name), valid, n=6, cutoff=0.4)[1:]
        return f"unknown {what} {name!r}{hint}" + (f" (also near: {', '.join(close)})" if close else "")
    return f"unknown {what} {name!r}{hint} (valid: {', '.join(valid)})"
