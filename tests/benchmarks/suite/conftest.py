"""Fixtures of the suite's tests."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite import registry
from benchmarks.suite.api import Case
from tests.helpers.paths import ROOT


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and its children import the experiments of ``tests.helpers``."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def two_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put two experiments in place of the suite; return name → (folder, quick, seed) of every measured case."""
    measured: dict[str, Any] = {}
    suite = tmp_path / "suite"
    monkeypatch.setattr(registry, "FOLDER", suite)

    def add(name: str, **constants: Any) -> None:
        folder = suite / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "experiment.py").write_text(f'"""Measures {name}.\n\nMore.\n"""\nimport not_importable\n')
        module = types.ModuleType(f"{registry.PACKAGE}.{name}.experiment")

        def cases(*, quick: bool, seeds: Any) -> list[Case]:
            return [Case(name, seed, config={"quick": quick}) for seed in seeds]

        def measure(case: Case, folder: Path) -> dict[str, Any]:
            measured.setdefault(name, []).append((folder, case.config["quick"], case.seed))
            return {"rate": 2.5}

        vars(module).update(cases=cases, measure=measure, tables=lambda rows: (), **constants)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    add("first", PARTS=("second", "absent"), SEEDS=(3, 4))
    add("second")
    return measured
