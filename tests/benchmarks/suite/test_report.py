"""``marca bench report``: complete, self-contained, clear about its rows; the same pages for the same records."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from benchmarks.cli.main import main
from benchmarks.experiments.games import experiment as games
from benchmarks.experiments.online import experiment as online
from benchmarks.experiments.online.report_tables import MEASURES
from benchmarks.suite import records, reference
from benchmarks.suite.api import Case, Row
from benchmarks.suite.flat_tables import FlatTable
from benchmarks.suite.own_experiments import mark_own
from benchmarks.suite.published_tables import LABEL, PUBLISHED
from benchmarks.suite.select_records import UNKNOWN_METHOD, select_records

ROOTS = "tests.helpers.roots_experiment"


class Page(HTMLParser):
    """Parsed page: its references, ids, words and table cells; checks that tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def run(*arguments: Any) -> int:
    return main(["bench", *map(str, arguments)])


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Record an experiment with two methods and return the folder of the records."""
    out = tmp_path / "records"
    assert run("run", ROOTS, "--methods", "newton", f"{ROOTS}.guess", "--seeds", 2, 3, "--out", out) == 0
    return out


def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_report_has_summary_tables_versions_and_commands(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run("report", "--out", recorded, "--to", tmp_path / "report") == 0
    assert "report.html" in capsys.readouterr().out
    html = page(tmp_path / "report")
    assert html.tables[0][0] == ["method", "largest error"]
    assert [row[0] for row in html.tables[0][1:]] == ["newton", f"{ROOTS}.guess"]
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for words in (html.words, markdown):
        assert "Square roots by several methods, an experiment for tests." in words
        assert "ends its process" not in words.replace("\n", " ")  # the summary is the docstring's first line
        assert "4 (2 of the 4 cases that these seeds have)" in words
        assert f"marca bench run {ROOTS} --out {recorded}" in words
        assert f"marca bench run {ROOTS} --out {recorded} --methods {ROOTS}.guess" in words
        assert "default (version 0)" in words
        assert "throughput" in words.split("o records of")[1]
        assert f"numpy {records.versions()['numpy']}" in words
    assert "square <roots>" in html.words
    assert r"square \<roots>" in markdown
    assert "| newton |" in markdown


def test_the_html_needs_no_other_file(recorded: Path, tmp_path: Path) -> None:
    assert run("report", "--out", recorded, "--to", tmp_path / "report") == 0
    html = page(tmp_path / "report")
    (picture,) = (r for r in html.references if r.startswith("data:image/png;base64,"))
    assert base64.b64decode(picture.partition(",")[2]).startswith(b"\x89PNG")
    others = [r for r in html.references if r != picture]
    assert others == [f"#{name}" for name in html.ids]
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "http" not in text.replace(picture, "")
    assert "url(" not in text
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    (file,) = (line.partition("](")[2].rstrip(")") for line in markdown.splitlines() if line.startswith("!["))
    assert (tmp_path / "report" / file).read_bytes() == base64.b64decode(picture.partition(",")[2])


def test_several_versions_several_machines_and_left_out_rows_are_reported(recorded: Path, tmp_path: Path) -> None:
    first = records.read(recorded / ROOTS)[0]
    other = {**first.about, "versions": {**first.about["versions"], "numpy": "0.9"}}
    other["machine"] = {**first.about["machine"], "processor": "Abacus"}
    records.append(recorded / ROOTS, dataclasses.replace(first, about=other))
    old = dataclasses.replace(first.case, budget={"steps": 99})
    records.append(recorded / ROOTS, dataclasses.replace(first, case=old, numbers={"error": 77.0}))
    quick = dataclasses.replace(first, about={**first.about, "quick": True}, case=Case("newton", 2, task="other"))
    records.append(recorded / ROOTS, quick)
    assert run("report", ROOTS, "--out", recorded, "--to", tmp_path / "report") == 0
    html = page(tmp_path / "report")
    assert f"Rows of several versions: numpy 0.9, {first.about['versions']['numpy']}" in html.words
    assert "Rows of several machines: Abacus" in html.words
    assert "Left out: 1 row measured again since." in html.words
    assert "Left out: 1 row of quick runs." in html.words
    assert "Left out: 1 row of other settings than the experiment has now." in html.words
    assert all(row[1] != "77" for row in html.tables[0])


def test_rows_of_other_settings_alone_are_not_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import tests.helpers.roots_experiment as roots

    out, settings = tmp_path / "records", {"steps": 1}

    def cases(*, quick: bool, seeds: Sequence[int], methods: Sequence[str] | None = None) -> list[Case]:
        return [Case(m, s, budget=dict(settings)) for s in seeds for m in methods or roots.METHODS]

    monkeypatch.setattr(roots, "cases", cases)
    options = (ROOTS, "--methods", "newton", f"{ROOTS}.guess", "--seeds", 5, "--out", out)
    assert run("run", *options) == 0
    settings["steps"] = 2
    assert run("report", "--out", out, "--to", tmp_path / "report") == 0
    words = page(tmp_path / "report").words
    commands = f"marca bench run {ROOTS} --out {out}; marca bench run {ROOTS} --out {out} --methods {ROOTS}.guess"
    assert f"All 2 rows are of other settings than the experiment has now; measure again: {commands}" in words
    assert page(tmp_path / "report").tables == []
    assert f"{ROOTS}: All 2 rows are" in capsys.readouterr().err
    assert run("run", *options) == 0
    assert "2 of the recorded rows not shown: of other settings than the" in capsys.readouterr().out


def test_a_removed_method_is_not_reported_as_other_settings(tmp_path: Path) -> None:
    cases = online.cases(quick=True, seeds=(0,))
    gone = dataclasses.replace(cases[0], method="gone")
    records.append(tmp_path, *(Row(case, {}, 1.0, {"quick": True}) for case in (cases[0], gone)))
    selected = select_records("online", tmp_path)
    assert [row.case.method for row in selected.rows] == [cases[0].method]
    assert selected.left_out == {UNKNOWN_METHOD: 1}


def test_the_command_has_the_seeds_that_the_run_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the seeds of cases that have a fixed one, or that are numbered from 1,000."""
    import tests.helpers.roots_experiment as roots

    def cases(*, quick: bool, seeds: Sequence[int]) -> list[Case]:
        shifted = [Case("bisection", 1000 + seed, budget={"steps": 2}) for seed in seeds]
        return [
            Case("newton", 7, budget={"steps": 2}),
            *shifted,
            *(Case("newton", s, "d", "t", {"steps": 2}) for s in seeds),
        ]

    monkeypatch.setattr(roots, "cases", cases)
    out = tmp_path / "records"
    assert run("run", ROOTS, "--seeds", 4, 5, "--out", out) == 0
    assert run("report", "--out", out, "--to", tmp_path / "report") == 0
    words = page(tmp_path / "report").words
    assert f"marca bench run {ROOTS} --seeds 4 5 --out {out}" in words
    assert "5 (5 of the 5 cases that these seeds have)" in words


def test_published_tables_stand_beside_ours(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, ROOTS, PUBLISHED["balancing"])
    assert run("report", "--out", recorded, "--to", tmp_path / "report") == 0
    html = page(tmp_path / "report")
    assert html.tables[-1][1:] == [["feedback", "92.33 %", "2.91 %"], ["MPC", "95.29 %", "0.64 %"]]
    assert f"({LABEL})" in html.words
    assert f"({LABEL})" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert any(r.startswith("data:image/png") for r in html.references)
    for tables in PUBLISHED.values():
        assert all(len(cells) == len(t.headings) == len(t.right) for t in tables for cells in t.rows)


def test_an_experiment_that_cannot_be_shown_does_not_stop_the_others(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    records.append(recorded / ROOTS, Row(Case("newton", 9), {"unknown": 1}, 1.0))
    records.append(recorded / "gone_module", Row(Case("m", 0), {"x": 1}, 1.0))
    mark_own(recorded / "gone_module", "gone_module")
    case = games.cases(quick=False, seeds=(0,))[0]
    records.append(recorded / "games", Row(case, {"return": 7.0}, 1.0))
    assert run("report", "--out", recorded, "--to", tmp_path / "report") == 1
    error = capsys.readouterr().err
    assert f"{ROOTS}: Not everything can be shown: KeyError" in error
    assert "gone_module: unknown experiment" in error
    assert page(tmp_path / "report").ids == ["games", "gone_module", ROOTS]


def test_a_broken_module_does_not_stop_the_others(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "broken_by_now.py").write_text("def cases(:")
    monkeypatch.syspath_prepend(tmp_path)
    records.append(recorded / "broken_by_now", Row(Case("m", 0), {"x": 1}, 1.0))
    mark_own(recorded / "broken_by_now", "broken_by_now")
    assert run("report", "--out", recorded, "--to", tmp_path / "report") == 1
    assert "broken_by_now: SyntaxError" in capsys.readouterr().err
    assert ROOTS in page(tmp_path / "report").ids


def test_rows_are_shown_in_the_order_of_the_cases(tmp_path: Path) -> None:
    cases = online.cases(quick=True, seeds=(0, 1))
    numbers: dict[str, Any] = dict.fromkeys(MEASURES, 1.0) | {"degraded": 0.0, "lost": 0.0}
    for case in reversed(cases):
        row = Row(case, numbers | {"mu": {"all": 0.9}, "nu": {"all": 0.0}}, 1.0, {"quick": True})
        records.append(tmp_path / "online", row)
    rows = select_records("online", tmp_path / "online").rows
    assert [row.case.key for row in rows] == [case.key for case in cases]
    pairs = list(list(online.tables(rows))[1].columns[0].cells)
    assert pairs == ["dcaf over static", "marca-mpc over dcaf"]


@pytest.mark.slow
def test_pages_of_the_reference_records_are_the_same_wherever_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for folder in ("one", "two"):
        monkeypatch.setenv("MARCA_TRACES", str(tmp_path / folder))  # whether the traces are there does not matter
        assert run("report", "games", "balancing", "ablation", "--reference", "--pages", "--to", tmp_path / folder) == 0
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / "nyc_taxi.csv").touch()
    (tmp_path / "two" / "nyc_taxi.csv").unlink()
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert {"index.md", "games.md", "balancing.md", "ablation.md", "figures/ablation/curves.png"} == set(
        map(str, files)
    )
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    index = (tmp_path / "one" / "index.md").read_text(encoding="utf-8")
    assert "| [games](games.md) | " in index
    page_text = (tmp_path / "one" / "ablation.md").read_text(encoding="utf-8")
    assert "](figures/ablation/curves.png)" in page_text
    assert "```bash\nmarca bench run ablation\n```" in page_text
    assert "written" not in index + page_text
    assert not list(reference.FOLDER.rglob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["gamse"], "unknown experiment 'gamse'; did you mean 'games'"),
        (["games"], "no records of games; measure first: marca bench run games"),
        ([], "no records of any experiment"),
        (["--reference"], "--reference and --out exclude each other"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    tmp_path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture
) -> None:
    assert run("report", *arguments, "--out", tmp_path / "none", "--to", tmp_path / "report") == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_tables_of_rich_become_plain_text() -> None:
    table = Table("name", title="[b]all[/b]", caption="n = 2", show_footer=True)
    table.add_column(Text("|x|", style="bold"), Text("sum"), justify="right")
    inner = Table.grid()
    inner.add_row("in")
    table.add_row("[red]a*b[/red] [0.1, 0.2]", "1\n<2>")
    table.add_row(Text("[b]kept"), inner)
    flat = FlatTable.from_rich(table)
    assert (flat.title, flat.note, flat.right) == ("all", "n = 2", (False, True))
    assert flat.rows == (("a*b [0.1, 0.2]", "1\n<2>"), ("[b]kept", "in"), ("", "sum"))
    assert flat.markdown.splitlines() == [
        r"| name | \|x\| |",
        "| --- | ---: |",
        r"| a\*b [0.1, 0.2] | 1<br>\<2> |",
        "| [b]kept | in |",
        "|  | sum |",
    ]
