"""Options of the commands that compare, measure and fit, with values that none of them takes: one line, status 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cli.main import main

SCENARIO = "stages-3-v0"
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "headroom": (["--scenario", SCENARIO, "--requests", "20"], ["--requests", "--seed", "--budgets", "--costs"]),
    "simulate": (
        ["--scenario", SCENARIO, "--requests", "20", "--minutes", "3", "--seeds", "0", "--policies", "static"],
        [
            *("--requests", "--minutes", "--seeds", "--iterations", "--policies", "--trace"),
            *("--checkpoint", "--single-checkpoint", "--scenario"),
        ],
    ),
    "balance": (
        ["--scenario", SCENARIO, "--requests", "20", "--minutes", "3", "--methods", "static"],
        [
            *("--requests", "--minutes", "--seeds", "--days", "--epochs", "--tuning", "--members", "--hidden"),
            *(
                "--windows",
                "--learning-rate",
                "--methods",
                "--trace",
                "--traffic",
                "--model",
                "--log",
                "--sweep",
                "--require",
            ),
        ],
    ),
    "fit": (
        ["--out", "fitted", "--requests", "nowhere.csv"],
        ["--rows", "--members", "--truth", "--budget", "--seed", "--device", "--costs", "--system", "--mapping"],
    ),
    "testbench": (
        ["--target", "nowhere.yaml"],
        [
            *("--repeats", "--seconds", "--budget", "--qps", "--utilisation", "--arrivals", "--machines"),
            *("--seed", "--target", "--scenario"),
        ],
    ),
}
"""Command → arguments that keep it small, and the options that get a wrong value."""
VALUES = ("-1", "nan", "inf", "-inf", "1e308", str(2**70), "x", "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_values_of_options_are_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, options = COMMANDS[command]
    faults = []
    for option in options:
        for value in VALUES:
            status = main([command, *arguments, option, value])
            error = capsys.readouterr().err
            lines = [line for line in error.splitlines() if line.startswith("marca: error: ")]
            if status != 2 or len(lines) != 1 or len(lines[0]) > 1200 or "Traceback" in error:
                faults.append((option, value, status, error[-200:]))
    assert not faults


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["headroom", "--scenario", SCENARIO, "--requests", "0"], "--requests is 0; pass an integer from 1"),
        (["headroom", "--scenario", SCENARIO, "--seed", str(2**64)], "--seed is 18446744073709551616"),
        (["headroom", "--scenario", SCENARIO, "--costs", "c.csv"], "has no live cascade"),
        (["simulate", "--scenario", SCENARIO, "--seeds", str(2**64)], "pass an integer from 0 to 2**64 - 1"),
        (["simulate", "--scenario", SCENARIO, "--seeds", "1", "1"], "has a seed twice"),
        (["simulate", "--scenario", SCENARIO, "--requests", "0"], "--requests is 0"),
        (["simulate", "--scenario", SCENARIO, "--checkpoint", "none"], "--checkpoint none: no such folder"),
        (["balance", "--scenario", SCENARIO, "--requests", "0"], "--requests is 0"),
        (["testbench", "--seed", str(2**64)], "seed is 18446744073709551616"),
    ],
)
def test_what_is_refused_is_named(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
