"""The experiment on balancers, from its cases to its tables and figures."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from benchmarks.days.calibration import Calibration
from benchmarks.experiments.balancing import experiment as balancing
from benchmarks.suite.api import Row
from marca_env.models.engine import Engine
from marca_env.traffic.days import GENERATED


def test_the_experiment_runs_from_case_to_figure(
    exact_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = Calibration(exact_engine, requests=40, days=1, epochs=3, tuning=5)
    for cached in (balancing._pool, balancing._evaluation):
        monkeypatch.setattr(
            balancing, cached.__name__, functools.cache(cached.__wrapped__)
        )  # not shared with other tests
    monkeypatch.setattr(balancing, "_calibration", lambda effort: calibration)
    monkeypatch.setenv("MARCA_TRACES", str(tmp_path / "none"))
    cases = balancing.cases(quick=True, seeds=(0, 1))
    assert {case.method for case in cases} == {"clairvoyant", "mpc", "feedback"}
    rows = [Row(case, balancing.measure(case, tmp_path), 1.0) for case in cases]
    again = balancing.measure(cases[1], tmp_path)
    assert json.dumps(again) == json.dumps(
        rows[1].numbers
    )  # independent of earlier cases; nan if no minute has a price
    (table,) = balancing.tables(rows)
    assert table.row_count == 3
    (figure,) = balancing.figures(rows, tmp_path).values()
    assert figure.stat().st_size > 10_000
    assert balancing.figures(rows[:2], tmp_path) == {}  # one of the three methods is missing
    assert balancing.figures([*rows[:2], *rows[5:]], tmp_path) == {}  # the third method has another seed only
    (partial,) = balancing.tables([*rows[1:3], rows[5]])  # the clairvoyant is missing
    assert [list(column.cells) for column in partial.columns[:2]] == [["mpc", "feedback"], ["1", "2"]]
    assert [next(iter(column.cells)).count("[") for column in partial.columns[4:6]] == [
        0,
        0,
    ]  # one seed has no interval


def test_the_full_experiment_has_every_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARCA_TRACES", str(tmp_path / "none"))
    cases = balancing.cases(quick=False)
    assert {case.task for case in cases} == set(GENERATED)  # no trace is available
    assert len({case.key for case in cases}) == len(cases)
    for name in balancing.TRACES.values():
        (tmp_path / name).touch()
    monkeypatch.setenv("MARCA_TRACES", str(tmp_path))
    assert {case.task for case in balancing.cases(quick=False)} == {*GENERATED, *balancing.TRACES}
