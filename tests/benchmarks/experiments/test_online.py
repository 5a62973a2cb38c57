"""Experiment ``online``: cached parts, paired uplifts, a quick run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments.online import experiment as online
from benchmarks.experiments.online import report_tables
from benchmarks.suite.api import Case, Row
from benchmarks.suite.cached_folder import cached_folder


def test_a_cached_folder_is_made_once_and_complete(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(home: Path) -> None:
        made.append(home)
        (home / "x").write_text("done")

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: cached_folder(tmp_path / "new", "x", {"seed": 0}, make), range(8)))
    assert len(made) == len(found) == 1
    assert (found.pop() / "x").read_text() == "done"
    assert cached_folder(tmp_path / "new", "x", {"seed": 1}, make).is_dir()
    assert len(made) == 2

    def killed(home: Path) -> None:
        (home / "x").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder(tmp_path, "x", {}, killed)
    assert (cached_folder(tmp_path, "x", {}, make) / "x").read_text() == "done"


def row(method: str, day: str, seed: int, revenue: float) -> Row:
    numbers = dict.fromkeys(report_tables.MEASURES, revenue) | {"degraded": 0.0, "lost": 0.0}
    return Row(Case(method, seed, task=day), numbers | {"mu": {"all": 0.9}, "nu": {"all": 0.0}}, 1.0)


def test_uplifts_are_paired_by_day_and_seed() -> None:
    """The policy earns a tenth more everywhere, however much days and seeds differ; missing rows do not count."""
    base = {("a", 0): 10.0, ("a", 1): 30.0, ("b", 0): 200.0, ("b", 1): 100.0}
    rows = [row("static", day, seed, x) for (day, seed), x in base.items()]
    rows += [row("dcaf", day, seed, (1.1 + seed / 1e3) * x) for (day, seed), x in base.items()][:-1]
    found = report_tables.uplifts(report_tables.by_case(rows), "dcaf", "revenue")
    assert found == pytest.approx(np.array([[0.1, 0.1], [0.101, np.nan]]), nan_ok=True)
    tables = list(report_tables.tables(rows, online.BOUND))
    assert next(iter(tables[0].columns[1].cells)) == "+10.1 [+9.4, +10.7]"
    assert list(tables[1].columns[3].cells) == ["3 of 3"]
    assert "not comparable yet: 7 of 8 rows" in str(tables[0].title)  # seeds would be means of different days
    assert "comparable" not in str(next(iter(report_tables.tables(rows[:2] + rows[4:6], online.BOUND))).title)


@pytest.mark.slow
def test_quick_run_from_case_to_table_and_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARCA_CACHE", str(tmp_path / "cache"))
    cases = online.cases(quick=True, seeds=(0,))
    numbers = {case.method: online.measure(case, tmp_path / "folder") for case in cases}
    again = next(case for case in cases if case.method == "marca-mpc")
    assert online.measure(again, tmp_path / "folder") == numbers["marca-mpc"]  # from the cached parts
    bound = numbers[online.BOUND]["revenue"]
    for policy in ("static", "dcaf", "marca-mpc"):
        assert 0 < numbers[policy]["revenue"] <= bound * (1 + 1e-6)
        assert numbers[policy]["roi"] == pytest.approx(numbers[policy]["gmv"] / numbers[policy]["revenue"])
    rows = [Row(case, numbers[case.method], 0.0) for case in cases]
    assert len(list(online.tables(rows))) == 4
    figures = online.figures(rows, tmp_path / "figures")
    assert [path.name for path in figures.values() if path.is_file()] == ["uplift.png", "profiles.png"]
    assert len(online.figures(rows[1:], tmp_path / "figures")) == 1  # no bound to take shares of
    assert not list(online.tables([]))
    assert online.figures([], tmp_path) == {}


def test_days_of_traces_are_cases_if_their_folder_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MARCA_TRACES", str(tmp_path))
    assert {case.task for case in online.cases(quick=False, seeds=(0,))} == {"embedded day", "smooth", "flash-sale"}
    assert "MARCA_TRACES names their folder" in caplog.text
    (tmp_path / "nyc_taxi.csv").write_text("timestamp,value\n")
    assert len({case.task for case in online.cases(quick=False, seeds=(0,))}) == 5
