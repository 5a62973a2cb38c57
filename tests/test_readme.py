"""The README: its Python runs, its figures are those of the records, its links lead somewhere, and it stays short."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.experiments.online import report_tables
from benchmarks.suite import records, reference
from benchmarks.suite.report import write_pages
from tests.helpers.documents import BLOCK, README, code_blocks
from tests.helpers.paths import ROOT

TEXT = README.read_text(encoding="utf-8")
MOST_WORDS = 850
ROW = re.compile(r"^\| `?([\w-]+)`? \| (.*) \|$", re.MULTILINE)


def test_the_first_block_prints_a_revenue_and_the_cost_on_each_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code_blocks(README, "python")[0], "README.md", "exec"), namespace)
    printed = capsys.readouterr().out.splitlines()
    assert float(printed[0]) == namespace["rewards"]["retrieval"] >= 0
    assert list(namespace["infos"]["retrieval"]["cost"]) == ["retrieval", "ranking"]
    assert all(cost > 0 for cost in namespace["infos"]["retrieval"]["cost"].values())


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_readme_is_short() -> None:
    assert len(BLOCK.sub("", TEXT).split()) < MOST_WORDS


def test_the_figures_are_those_of_the_records(tmp_path: Path) -> None:
    write_pages(reference.FOLDER, tmp_path, ["online"])
    recorded: dict[str, str] = {}
    for policy, cells in ROW.findall((tmp_path / "online.md").read_text(encoding="utf-8")):
        recorded[policy] = f"{recorded.get(policy, '')} {cells}"
    rows = [row for row in ROW.findall(TEXT) if row[0] in ("static", "dcaf", "rl-mpca", "marca-feedback", "marca-mpc")]
    assert len(rows) == 5
    for policy, cells in rows:
        figures = [figure.replace(" %", "") for figure in cells.split(" | ")]
        assert all(figure in recorded[policy] for figure in figures if figure != "0"), (policy, figures)


def test_a_claim_of_more_is_outside_the_noise() -> None:
    """The README says by how much MPC earns more than feedback; the interval is that of the records and excludes 0."""
    numbers = report_tables.by_case(records.read(reference.FOLDER / "online"))
    gains = report_tables.uplifts(numbers, "marca-mpc", "revenue", "marca-feedback")
    mean, low, high = report_tables.interval(100 * np.array([row.mean() for row in gains]))
    assert low > 0
    assert f"{mean:.1f} % [{low:.1f}, {high:.1f}] more than feedback" in " ".join(TEXT.split())
