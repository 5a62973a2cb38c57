"""Progress: about ten lines without a terminal, a bar on one."""

from __future__ import annotations

import pytest

from marca_env.utils.progress import count_progress, track_progress


@pytest.mark.parametrize("total", [1, 7, 10, 999, 86_400])
def test_known_work_prints_a_line_for_every_tenth(total: int, capsys: pytest.CaptureFixture[str]) -> None:
    with count_progress("working", total) as advance:
        for _ in range(total):
            advance()
    out, error = capsys.readouterr()
    assert out == ""
    lines = error.splitlines()
    assert len(lines) == min(total, 10)
    assert lines[-1] == f"working: {total} of {total}"


def test_work_of_unknown_length_prints_a_line_at_each_doubling(capsys: pytest.CaptureFixture[str]) -> None:
    with track_progress(
        "a label that is longer than any narrow terminal would ever have room for, by far, [really]"
    ) as tell:
        for done in range(1, 1001):
            tell(done, None)
    lines = capsys.readouterr().err.splitlines()
    assert [int(line.rsplit(": ")[1]) for line in lines] == [2**k for k in range(10)]


def test_empty_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with track_progress("idle") as tell:
        tell(0, 0)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with count_progress("working", 3) as advance:
        advance(3)
    assert "3/3" in capsys.readouterr().err
