"""Hostile inputs of many kinds end in the recorded line: no traceback, no hang, no memory without bound."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.kinds import ACCEPTED, Input
from tests.fuzz.record import CORPUS, make_artefacts

LONGEST = 1000
"""Most characters of a message; values in it are cut to 200."""
MEMORY = 2 << 20
"""Most KiB by which the process may grow."""
FILES = sorted(CORPUS.glob("*.jsonl"))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the artefacts that the inputs damage."""
    home = tmp_path_factory.mktemp("artefacts")
    make_artefacts(home)
    return home


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Fail if the process grows by more than two GiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def test_the_corpus_has_at_least_a_thousand_inputs() -> None:
    assert sum(len(rows(path)) for path in FILES) >= 1000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recorded_lines_are_single_short_lines(path: Path) -> None:
    for row in rows(path):
        assert "\n" not in row["expected"], row
        assert len(row["expected"]) <= LONGEST, row
        assert not row["expected"].startswith("FAULT"), row


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_inputs_end_in_the_recorded_line(path: Path, artefacts: Path, tmp_path: Path) -> None:
    wrong = []
    for number, row in enumerate(rows(path)):
        expected = row.pop("expected")
        (folder := tmp_path / str(number)).mkdir()
        actual = Input(row.pop("kind"), row).run(folder, artefacts)
        if actual != expected:
            wrong.append(f"line {number + 1}: {row}\n  expected {expected}\n  actual   {actual}")
    assert not wrong, "\n".join(wrong)


def test_a_valid_input_is_accepted(tmp_path: Path) -> None:
    """The inputs above differ from valid ones in one place."""
    data = {"reader": "scenario", "path": "name", "yaml": "another"}
    assert Input("document", data).run(tmp_path, tmp_path) == ACCEPTED
