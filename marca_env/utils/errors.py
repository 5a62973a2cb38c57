"""Errors that a user can fix: one base class, a message of one line, no traceback on the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

_MOST_LISTED = 100  # names; RLlib's configurations have about three hundred
MOST_OF_A_VALUE = 200
"""Characters of one value that a message shows."""
_MOST_SCANNED = 1_000_000  # characters of a message in which values are looked for; a longer one is cut at once
_MOST_OF_A_MESSAGE = 6_000  # characters; a list of about a hundred names fits
_QUOTED = re.compile(r"(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|(?<!\w)\"(?:[^\"\\]|\\.)*\"(?!\w)", re.DOTALL)
_WORD = re.compile(rf"\S{{{MOST_OF_A_VALUE + 1},}}")
_BRACKET = re.compile(r"[\[{\]}]")
_SHOWN = 80  # characters of a value that is shown in short


class InputError(ValueError):
    """Invalid input; the message names the file, row, column or field, the fault and the remedy.

    The message is shortened (:func:`shorten`): whatever a caller puts into it, no value fills the screen.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(shorten(a) if isinstance(a, str) else a for a in args))


class RowsError(InputError):
    """Invalid values in some rows of a column; the message names the first of them.

    Args:
        message: place, fault and remedy.
        column: name of the column.
        rows: bool (B,), the rows.
    """

    def __init__(self, message: str, column: str, rows: Any) -> None:
        super().__init__(message)
        self.column, self.rows = column, rows

    def __reduce__(self) -> tuple[type[RowsError], tuple[str, str, Any]]:
        """Pickle column and rows, too."""
        return RowsError, (str(self), self.column, self.rows)


class SystemFaultError(InputError):
    """Fault of the machine that all further work would meet too, such as a full disk or a ray that does not start."""


class WriteError(SystemFaultError, OSError):
    """File or folder that cannot be written; also the ``OSError`` that it began as."""


class UnknownArgumentError(InputError, TypeError):
    """Unknown keyword argument; also the ``TypeError`` that Python raises, which callers of a factory expect."""


class UnknownAgentError(InputError, KeyError):
    """Unknown agent; also the ``KeyError`` of a mapping of agents."""

    def __str__(self) -> str:
        """Return the message; a ``KeyError`` would quote it."""
        return str(self.args[0])


def shown(value: object) -> str:
    """Return a short description of a value for a message; big arrays and objects are described, not printed."""
    kind = type(value).__name__
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        if getattr(value, "shape", None) == ():
            return str(value)[:_SHOWN]
        return f"an array of {value.dtype} of shape {value.shape}"
    if kind in ("DataFrame", "Series", "Scenario"):
        return f"a {kind}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a user's object may not even print
        return f"an object of type {kind}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def is_missing_extra(error: BaseException) -> bool:
    """Return whether an error says which optional package to install; any other ImportError is a bug."""
    return isinstance(error, ImportError) and "pip install" in str(error)


def one_line(error: BaseException, most: int = 1_000) -> str:
    """Return the message of an error on one line, shortened to ``most`` characters."""
    return _cut(" ".join(str(error)[:_MOST_SCANNED].split()), most)


def shorten(message: str) -> str:
    """Return a message on one line, with every long value in it cut to :data:`MOST_OF_A_VALUE` characters.

    A value is what stands in quotes or in square or curly brackets, or a word without blanks. Characters that a
    terminal would not print, such as escape sequences from a file, become visible escapes.
    """
    if len(message) > _MOST_SCANNED:
        message = f"{message[:MOST_OF_A_VALUE]} … {message[-MOST_OF_A_VALUE:]}"
    if not message.isprintable():
        message = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in message)
    if len(message) <= MOST_OF_A_VALUE:
        return message
    message = "".join(_cut(part, MOST_OF_A_VALUE) if is_value else part for part, is_value in _split_brackets(message))
    message = _QUOTED.sub(lambda match: _cut(match[0], MOST_OF_A_VALUE), message)
    message = _WORD.sub(lambda match: _cut(match[0], MOST_OF_A_VALUE), message)
    return _cut(message, _MOST_OF_A_MESSAGE)


def _cut(text: str, most: int) -> str:
    """Return a text of at most ``most`` characters: its beginning and, where a path or a remedy ends, its end."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 1]}…{text[-end:]}"


def _split_brackets(message: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a message, and whether each is one bracketed value; an unclosed one runs to the end."""
    start = depth = 0
    for match in _BRACKET.finditer(message):
        if match[0] in "[{":
            if depth == 0:
                yield message[start : match.start()], False
                start = match.start()
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0:
                yield message[start : match.end()], True
                start = match.end()
    yield message[start:], depth > 1  # one unclosed bracket may be the fault itself; a pile of them is a value


def unknown_option(what: str, name: object, valid: Iterable[str]) -> str:
    """Return the message for an unknown name: the nearest valid name, and all valid names if they are few."""
    valid, given = sorted(set(valid)), name[:MOST_OF_A_VALUE] if isinstance(name, str) else ""
    near = difflib.get_close_matches(given, valid, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(valid) > _MOST_LISTED:
        close = difflib.get_close_matches(given, valid, n=6, cutoff=0.4)[1:]
        return f"unknown {what} {shown(name)}{hint}" + (f" (also near: {', '.join(close)})" if close else "")
    return f"unknown {what} {shown(name)}{hint} (valid: {', '.join(valid)})"
