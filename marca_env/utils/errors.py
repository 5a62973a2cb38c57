"""Errors that a user can fix: one base class, a message of one line, no traceback on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_LISTED = 100  # names; RLlib's configurations have about three hundred


class InputError(ValueError):
    """Invalid input; the message names the file, row, column or field, the fault and the remedy."""


class UnknownArgumentError(InputError, TypeError):
    """Unknown keyword argument; also the ``TypeError`` that Python raises, which callers of a factory expect."""


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split())


def unknown_option(what: str, name: object, valid: Iterable[str]) -> str:
    """Return the message for an unknown name: the nearest valid name, and all valid names if they are few."""
    valid = sorted(set(valid))
    near = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(valid) > _MOST_LISTED:
        close = difflib.get_close_matches(str(name), valid, n=6, cutoff=0.4)[1:]
        return f"unknown {what} {name!r}{hint}" + (f" (also near: {', '.join(close)})" if close else "")
    return f"unknown {what} {name!r}{hint} (valid: {', '.join(valid)})"
