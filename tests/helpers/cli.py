"""Commands that are refused."""

from __future__ import annotations

import pytest

from benchmarks.cli.main import main


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused and return its one-line error."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("marca: error: ")
    assert error.count("\n") == 1, error
    return error
