"""The registry of experiments and the command that runs them."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from benchmarks import experiments
from benchmarks.cli import main
from benchmarks.commands import bench
from marca_env.errors import InputError


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two experiments of the test's own in place of the suite; what they were called with."""
    calls: dict[str, Any] = {}
    monkeypatch.setattr(experiments, "names", lambda: ("first", "second"))

    def module(name: str, **extra: Any) -> types.ModuleType:
        made = types.ModuleType(f"benchmarks.experiments.{name}", f"Measures {name}.\n\nMore.")

        def run(out: Path, *, quick: bool = False, seeds: Any = (0,)) -> dict[str, Any]:
            calls[name] = (out, quick, tuple(seeds))
            return {"rate": 2.5}

        made.run = run  # type: ignore[attr-defined]
        for key, value in extra.items():
            setattr(made, key, value)
        monkeypatch.setitem(sys.modules, made.__name__, made)
        return made

    module("first", PARTS=("second", "absent"), SEEDS=(3, 4))
    module("second")
    return calls


def test_every_experiment_keeps_the_convention() -> None:
    assert "throughput" in experiments.names()
    for name in experiments.names():
        assert callable(experiments.experiment(name).run)
        assert experiments.summary(name).endswith(".")


def test_results_are_kept_with_what_is_needed_to_judge_them(own: dict[str, Any], tmp_path: Path) -> None:
    assert main(["bench", "first", "second", "--out", str(tmp_path)]) == 0
    assert own == {"first": (tmp_path / "first", False, (3, 4)), "second": (tmp_path / "second", False, (0,))}
    kept = json.loads((tmp_path / "first.json").read_text())
    assert kept["result"] == {"rate": 2.5}
    assert kept["seeds"] == [3, 4]
    assert kept["quick"] is False
    assert kept["machine"]["cores"] >= 1
    assert "torch" in kept["versions"]


def test_seeds_and_quick_are_passed_on(own: dict[str, Any], tmp_path: Path) -> None:
    assert main(["bench", "second", "--quick", "--seeds", "7", "8", "--out", str(tmp_path)]) == 0
    assert own == {"second": (tmp_path / "second", True, (7, 8))}
    assert json.loads((tmp_path / "second.json").read_text())["quick"] is True


def test_the_list(own: dict[str, Any], capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--list"]) == 0
    assert "Measures second." in capsys.readouterr().out
    assert own == {}


def test_unknown_experiments_and_seeds(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "troughput"]) == 2
    assert "unknown experiment 'troughput'; did you mean 'throughput'" in capsys.readouterr().err
    assert main(["bench", "throughput", "--seeds", "-1"]) == 2
    assert "-1 is negative" in capsys.readouterr().err
    with pytest.raises(InputError):
        bench.with_parts(["nothing"])
