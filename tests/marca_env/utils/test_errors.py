"""Messages of errors: one line, and never more than 200 characters of a value."""

from __future__ import annotations

import pickle
import time

import pytest

from marca_env.utils.errors import (
    MOST_OF_A_VALUE,
    InputError,
    UnknownArgumentError,
    WriteError,
    one_line,
    shorten,
    unknown_option,
)

VALUES = {
    "word": "x" * 5000,
    "words": "some words " * 500,
    "quotes": 'it\'s "quoted" ' * 400,
    "list": list(range(3000)),
    "nested": [[[k] for k in range(50)] for _ in range(50)],
    "unclosed": "[{" * 3000,
    "closed": "]}" * 3000,
    "mapping": {f"key {k}": "value" * 9 for k in range(300)},
    "lines": "line\n" * 900,
    "escapes": "\x1b[2J\x07" * 900,
    "bytes": b"\x00\xff" * 2000,
    "surrogate": "\udcff" * 2000,
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_message_shows_at_most_200_characters_of_a_value(kind: str) -> None:
    message = str(InputError(f"file.yaml: peak_qps is {VALUES[kind]!r}; give a number of at least 1"))
    assert message.startswith("file.yaml: peak_qps is ")
    assert len(message) < MOST_OF_A_VALUE + 70
    assert "…" in message
    assert message.isprintable()
    if kind not in ("unclosed",):
        assert message.endswith("; give a number of at least 1")


def test_values_without_quotes_are_escaped_and_shortened() -> None:
    message = str(InputError(f"column {'x' * 999}: \x1b[31mred\nnext\t\udcff"))
    assert message.isprintable()
    assert "\\x1b[31mred next \\udcff" in message
    assert len(message) < 300


@pytest.mark.parametrize(
    "message",
    [
        "policy.json: the agents' argmaxes need not be the team's. " * 6,
        f"unknown option 'x' (valid: {', '.join(f'option_{k}' for k in range(100))})",
        f"{'/a/folder' * 12}/model.json: no such file; fit and save the model again, or copy the whole folder",
        "expected [a, b], got (c); write {a: 1, b: 2} or 'a' in quotes; " * 5,
        "line 3: expected ',' or ']', but got '['; correct the text there. " + "It has more words after it. " * 9,
    ],
)
def test_sentences_lists_of_names_and_paths_are_left_as_they_are(message: str) -> None:
    assert str(InputError(message.strip())) == message.strip()


def test_a_message_of_many_megabytes_is_made_at_once() -> None:
    began = time.perf_counter()
    for value in ("[" * 20_000_000, "' " * 10_000_000, "x\n" * 10_000_000):
        assert len(str(InputError(f"file: value is {value!r}; remedy"))) < 600
        assert len(one_line(ValueError(value), 200)) <= 200
        assert len(shorten(unknown_option("name", value, ["valid"]))) < 800
    assert time.perf_counter() - began < 5


def test_errors_keep_their_kinds_and_survive_a_pickle() -> None:
    for kind, other in ((InputError, ValueError), (WriteError, OSError), (UnknownArgumentError, TypeError)):
        error = pickle.loads(pickle.dumps(kind("file: fault; remedy")))
        assert isinstance(error, kind)
        assert isinstance(error, other)
        assert str(error) == "file: fault; remedy"
