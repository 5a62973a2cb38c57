"""``marca score`` and ``marca allocate``: tables on the screen and in files; faults on one line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.cli.main import main

PREDICTIONS = "city,prediction,revenue\nrome,3,1\nrome,3,1\noslo,1,3\noslo,1,3\n"
VALUES = "city,channel,value\nrome,0,3\nrome,1,1\noslo,0,2\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a file of predictions and the three files of an allocation into the current folder."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "predictions.csv": PREDICTIONS,
        "values.csv": VALUES,
        "quotas.csv": "channel,quota\n0,3\n1,1\n",
        "counts.csv": "city,requests\nrome,2\noslo,3\n",
        "other.csv": "city,channel,requests\nrome,1,2\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_score_prints_every_slice_and_writes_every_value(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "predictions.csv", "--out", "slices.csv"]) == 0
    printed = capsys.readouterr().out
    lines = {line.split("│")[2].strip(): line for line in printed.splitlines() if "│ prediction │" in line}
    assert "0.0%" in lines["all"]  # the total is right
    assert "-1.000" in lines["city"]
    assert "100.0%" in lines["city"]  # (2 · 200 % + 6 · 67 %) / 8
    table = pd.read_csv(folder / "slices.csv").set_index("group")
    assert table.loc["rome", "pe"] == pytest.approx(2.0)
    assert table.loc["oslo", "pe"] == pytest.approx(-2 / 3)


def test_allocate_prints_totals_and_writes_the_allocation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["values.csv", "--quotas", "quotas.csv", "--counts", "counts.csv"]
    assert main(["allocate", *files, "--compare", "other.csv", "--out", "allocation.csv"]) == 0
    printed = capsys.readouterr().out
    greedy, other = (
        next(x for x in printed.splitlines() if f"│ {name}" in x).split("│") for name in ("greedy", "other")
    )
    assert [cell.strip() for cell in greedy[2:5]] == ["3", "2", "8"]
    assert [cell.strip() for cell in other[2:5]] == ["2", "3", "2"]
    assert other[6].strip() == "25.00"
    assert pd.read_csv(folder / "allocation.csv").to_dict("list") == {
        "city": ["rome", "oslo"],
        "channel": [0, 0],
        "value": [3.0, 2.0],
        "requests": [2, 1],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "predictions.csv", "--label", "money"], "unknown column 'money'"),
        (["score", "missing.csv"], "missing.csv: no such file"),
        (["score", "predictions.csv", "--out", "slices.txt"], "unknown kind of file '.txt'"),
        (["allocate", "values.csv", "--quotas", "counts.csv", "--counts", "counts.csv"], "column 'quota' is missing"),
        (["allocate", "values.csv", "--quotas", "quotas.csv"], "required: --counts"),
        (
            ["allocate", "values.csv", "--quotas", "quotas.csv", "--counts", "counts.csv", "--requests-column", "n"],
            "column 'n' is missing",
        ),
    ],
)
def test_faults_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
