"""The registry: experiments by name, their list, and which ones ``all`` stands for."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmarks.cli.main import main
from benchmarks.suite import registry


def test_every_experiment_keeps_the_convention() -> None:
    assert "throughput" in registry.experiment_names()
    for name in registry.experiment_names():
        experiment = registry.load_experiment(name)
        cases = experiment.cases(quick=True, seeds=experiment.SEEDS[:1])
        assert len({case.key for case in cases}) == len(cases) > 0
        assert registry.experiment_summary(name).endswith((".", "?"))


def test_all_leaves_out_experiments_without_a_quick_form_in_quick_runs(
    two_experiments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "NOT_QUICK", ("second",))
    assert registry.expand_names(["all"]) == ["first", "second"]
    monkeypatch.setattr(sys.modules["benchmarks.experiments.first.experiment"], "PARTS", ())
    assert registry.expand_names(["all"], quick=True) == ["first"]
    assert registry.expand_names(["second"], quick=True) == ["second"]


def test_the_list_shows_summaries_without_importing_the_experiments(
    two_experiments: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("first", "second"):
        monkeypatch.delitem(sys.modules, f"benchmarks.experiments.{name}.experiment")  # the files cannot be imported
    for arguments in (["bench"], ["bench", "list"]):
        assert main(arguments) == 0
        assert "Measures second." in capsys.readouterr().out
    assert two_experiments == {}


def test_an_experiments_name_alone_is_answered_with_the_command(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "games", "--quick"]) == 2
    assert "marca bench run games --quick" in capsys.readouterr().err
