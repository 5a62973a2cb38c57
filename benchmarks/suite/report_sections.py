"""Sections of a report: tables and figures of an experiment, what was compared, where, and with which commands."""

from __future__ import annotations

import base64
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.suite import reference
from benchmarks.suite.api import Row, rows_by_method
from benchmarks.suite.flat_tables import FlatTable
from benchmarks.suite.own_experiments import may_import
from benchmarks.suite.public_data import assume_available
from benchmarks.suite.published_tables import PUBLISHED
from benchmarks.suite.records import newest, read
from benchmarks.suite.registry import load_experiment
from benchmarks.suite.runner import default_seeds, takes_methods
from benchmarks.suite.select_records import SelectedRecords, select_records
from marca_env.utils.errors import InputError, one_line

FIGURES = "figures"
"""Folder of the figures beside the report."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report: its caption and its PNG file."""

    caption: str
    folder: Path
    """Folder of the report."""
    file: str
    """Path within that folder."""

    @property
    def uri(self) -> str:
        """The picture as a data URI, for HTML."""
        return f"data:image/png;base64,{base64.b64encode((self.folder / self.file).read_bytes()).decode()}"


@dataclass
class Section:
    """Report of one experiment."""

    name: str
    summary: str
    facts: dict[str, str]
    """Label → text."""
    commands: list[str]
    """Commands that measure the rows again."""
    warnings: list[str]
    rows: list[Row]
    tables: list[FlatTable] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    published: tuple[FlatTable, ...] = ()
    """Tables of the paper."""
    failed: bool = False
    """Whether the tables or figures could not be made."""


@assume_available()
def build_section(name: str, out: Path, to: Path, scratch: Path | None = None, *, is_named: bool = False) -> Section:
    """Build the section of an experiment; an error in its tables or figures becomes a warning.

    Args:
        name: of the experiment.
        out: folder of the records.
        to: folder of the report; figures are copied into it.
        scratch: folder in which the experiment draws its figures; ``None``: that of its records.
        is_named: whether the user has named the experiment, and so allows its module to be imported.
    """
    folder = out / name
    try:
        if not (is_named or may_import(folder, name)):
            raise InputError(
                f"its module is not imported, because these records may be somebody else's; if you trust it, name it: "
                f"marca bench report {name}"
            )
        experiment = load_experiment(name)
        selected = select_records(name, folder)
    except Exception as error:  # a user's module may have any fault by now
        rows = newest(read(folder))
        kind = "" if isinstance(error, (InputError, ImportError)) else f"{type(error).__name__}: "
        return Section(name, "", {"rows": str(len(rows))}, [], [kind + one_line(error)], rows, failed=True)
    summary, published = (experiment.__doc__ or "").strip().partition("\n")[0], PUBLISHED.get(name, ())
    commands = _commands(name, experiment, selected, out)
    if not selected.rows:
        warnings = [_all_outdated(selected, commands)]
        return Section(name, summary, {"rows": "0"}, commands, warnings, [], published=published)
    facts, warnings = _facts(experiment, selected), _warnings(selected)
    section = Section(name, summary, facts, commands, warnings, selected.rows, published=published)
    try:
        section.tables += [FlatTable.from_rich(table) for table in experiment.tables(selected.rows)]
        draw: Any = getattr(experiment, "figures", None)
        pictures = draw(selected.rows, scratch / name if scratch else folder) if draw else {}
        section.figures += [_copy_figure(caption, Path(path), name, to) for caption, path in pictures.items()]
    except Exception as error:  # the other experiments still have their sections
        section.warnings.append(f"Not everything can be shown: {type(error).__name__}: {one_line(error)}")
        section.failed = True
    return section


def _copy_figure(caption: str, path: Path, name: str, to: Path) -> Figure:
    copy = to / FIGURES / name / path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)
    return Figure(caption, to, copy.relative_to(to).as_posix())


def overall_facts(rows: Sequence[Row]) -> dict[str, str]:
    """Describe all rows of a report: how many, how long, where, with which versions."""
    facts = {
        "measured": f"{len(rows)} rows in {_duration(sum(row.seconds for row in rows))}{_when(rows)}",
        "machines": "; ".join(_machines(rows)),
        "versions": ", ".join(f"{name} {' / '.join(several)}" for name, several in _versions(rows).items()),
    }
    return {label: text for label, text in facts.items() if text}


def _facts(experiment: Any, selected: SelectedRecords) -> dict[str, str]:
    rows = selected.rows
    keys = {row.case.key for row in rows}
    cases = {case.key for case in experiment.cases(quick=selected.quick, seeds=selected.seeds)}
    facts = {
        "rows": f"{len(rows)} ({len(cases & keys)} of the {len(cases)} cases that these seeds have)",
        "measured": _duration(sum(row.seconds for row in rows)) + _cpu(rows) + _when(rows),
        "compared": _join(row.case.method for row in rows),
        "tasks": _join(row.case.task for row in rows if row.case.task),
        "scenarios": _join(row.case.scenario + _scenario_version(row) for row in rows),
        "seeds": _join(map(str, selected.seeds)),
        "revisions": _join(row.about["revision"] for row in rows if row.about.get("revision")),
    }
    return {label: text for label, text in facts.items() if text}


def _warnings(selected: SelectedRecords) -> list[str]:
    warnings = ["Quick runs: they show that everything works, and nothing else."] if selected.quick else []
    several = {name: values for name, values in _versions(selected.rows).items() if len(values) > 1}
    if several:
        named = "; ".join(f"{name} {', '.join(values)}" for name, values in several.items())
        warnings.append(f"Rows of several versions: {named}.")
    machines = _machines(selected.rows)
    if len(machines) > 1:
        warnings.append(f"Rows of several machines: {'; '.join(machines)}.")
    left_out = selected.left_out.items()
    return warnings + [f"Left out: {number} {'row' if number == 1 else 'rows'} {why}." for why, number in left_out]


def _all_outdated(selected: SelectedRecords, commands: Sequence[str]) -> str:
    number = len(selected.outdated)
    rows = "The one row is" if number == 1 else f"All {number} rows are"
    return f"{rows} {selected.why_outdated}; measure again: {'; '.join(commands)}"


def _commands(name: str, experiment: Any, selected: SelectedRecords, out: Path) -> list[str]:
    """Return the commands that measure the rows again; the methods of users need their own."""
    usual_seeds, options = sorted(default_seeds(experiment, selected.quick)), ""
    seeds = selected.seeds or usual_seeds
    if seeds != usual_seeds:
        options += f" --seeds {' '.join(map(str, seeds))}"
    options += " --quick" if selected.quick else ""
    if out != reference.FOLDER and out.name != ("bench-quick" if selected.quick else "bench"):
        options += f" --out {shlex.quote(str(out))}"
    commands = [f"marca bench run {name}{options}"]
    if takes_methods(experiment):
        usual = {case.method for case in experiment.cases(quick=selected.quick, seeds=seeds)}
        users = [method for method in rows_by_method(selected.rows or selected.outdated) if method not in usual]
        if users:
            commands.append(f"marca bench run {name}{options} --methods {' '.join(map(shlex.quote, users))}")
    return commands


def _machines(rows: Iterable[Row]) -> list[str]:
    """Describe the machines, each once."""
    text = "{processor}, {cores} cores, {memory_gib} GiB, {system}"
    return list(dict.fromkeys(text.format(**machine) for row in rows if (machine := row.about.get("machine"))))


def _versions(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Return package → its versions, each once."""
    pairs = dict.fromkeys(pair for row in rows for pair in row.about.get("versions", {}).items())
    versions: dict[str, list[str]] = {}
    for name, version in pairs:
        versions.setdefault(name, []).append(version)
    return versions


def _scenario_version(row: Row) -> str:
    version = row.about.get("scenario_version")
    return "" if version is None else f" (version {version})"


def _join(texts: Iterable[str]) -> str:
    unique = list(dict.fromkeys(texts))
    return ("; " if any("," in text for text in unique) else ", ").join(unique)


def _cpu(rows: Sequence[Row]) -> str:
    seconds = [row.cpu_seconds for row in rows if row.cpu_seconds is not None]
    return f" ({_duration(sum(seconds))} of CPU time)" if seconds else ""


def _when(rows: Iterable[Row]) -> str:
    days = sorted({str(row.about["when"])[:10] for row in rows if "when" in row.about})
    return f", {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
