"""One report of whatever was measured: ``report.md`` and a self-contained ``report.html``.

An experiment is a section: what was compared, with how many seeds, where and how long; its tables and figures; the
paper's tables beside them, where there are any; and the command that measures it again.
"""

from __future__ import annotations

import base64
import datetime
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.suite import records
from benchmarks.suite.api import Row, by_method
from benchmarks.suite.flat_tables import FlatTable, escaped
from benchmarks.suite.published_tables import LABEL, PUBLISHED
from benchmarks.suite.registry import load, names
from benchmarks.suite.runner import takes_methods, usual_seeds
from benchmarks.suite.select_records import Shown, shown
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import atomic_path

STEM = "report"
FIGURES = "figures"


@dataclass(frozen=True)
class Figure:
    """A picture of a section."""

    caption: str
    file: str
    """Where the Markdown finds it."""
    uri: str
    """The picture itself, for the HTML."""


@dataclass
class Section:
    """What the report says of an experiment."""

    name: str
    summary: str
    facts: dict[str, str]
    """Label → words."""
    commands: list[str]
    warnings: list[str]
    rows: list[Row]
    tables: list[FlatTable] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    published: tuple[FlatTable, ...] = ()
    failed: bool = False
    """Whether tables or figures could not be made of the rows."""


def write(out: Path, to: Path, chosen: Sequence[str] = ()) -> tuple[dict[str, Path], list[Section]]:
    """Write both reports.

    Args:
        out: folder of the records.
        to: folder of the reports and their figures.
        chosen: experiments; none: all that have records.

    Returns:
        Kind of file → path, and the sections.

    Raises:
        InputError: no records, or damaged ones.
        ImportError: Jinja2 is missing; the message says how to install it.
    """
    try:
        import jinja2
    except ImportError:
        raise ImportError("the report needs Jinja2: pip install 'marca-env[bench]'") from None
    recorded = [name for name in known(out) if records.read(out / name)]
    missing = [name for name in chosen if name not in recorded]
    if missing or not recorded:
        what = ", ".join(missing) or "any experiment"
        raise InputError(
            f"{out}: no records of {what}; measure first: marca bench run {missing[0] if missing else 'ID'}"
        )
    sections = [section(name, out, to) for name in chosen or recorded]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmarks.suite"),
        autoescape=jinja2.select_autoescape(("html",)),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["escaped"] = escaped
    told = {
        "facts": _overall([row for part in sections for row in part.rows]),
        "without": [name for name in names() if name not in recorded],
        "sections": sections,
        "label_published": LABEL,
    }
    files = {}
    for kind in ("md", "html"):
        files[kind] = to / f"{STEM}.{kind}"
        with atomic_path(files[kind]) as path:
            path.write_text(environment.get_template(f"{STEM}.{kind}").render(told), encoding="utf-8")
    return files, sections


def known(out: Path) -> list[str]:
    """The suite's experiments, then those of users that have records in ``out``."""
    own = sorted(path.parent.name for path in out.glob(f"*/{records.FILE}"))
    return list(dict.fromkeys([*names(), *own]))


def section(name: str, out: Path, to: Path) -> Section:
    """What there is to say of an experiment; what its tables or figures raise is a warning."""
    folder = out / name
    try:
        experiment = load(name)
        found = shown(name, folder)
    except Exception as error:  # a module of one's own may have any fault by now
        rows = records.newest(records.read(folder))
        kind = "" if isinstance(error, (InputError, ImportError)) else f"{type(error).__name__}: "
        return Section(name, "", {"rows": str(len(rows))}, [], [kind + one_line(error)], rows, failed=True)
    summary, published = (experiment.__doc__ or "").strip().partition("\n")[0], PUBLISHED.get(name, ())
    commands = _commands(name, experiment, found, out)
    if not found.rows:
        told = _nothing_left(found, commands)
        return Section(name, summary, {"rows": "0"}, commands, [told], [], published=published)
    facts, warnings = _facts(experiment, found), _warnings(found)
    made = Section(name, summary, facts, commands, warnings, found.rows, published=published)
    try:
        made.tables += [FlatTable.of(table) for table in experiment.tables(found.rows)]
        draw: Any = getattr(experiment, "figures", None)
        pictures = draw(found.rows, folder) if draw else {}
        made.figures += [_figure(caption, Path(path), name, to) for caption, path in pictures.items()]
    except Exception as error:  # one experiment's fault is no reason to have no report
        made.warnings.append(f"Not everything can be shown: {type(error).__name__}: {one_line(error)}")
        made.failed = True
    return made


def _figure(caption: str, path: Path, name: str, to: Path) -> Figure:
    kept = to / FIGURES / name / path.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, kept)
    encoded = base64.b64encode(kept.read_bytes()).decode()
    return Figure(caption, kept.relative_to(to).as_posix(), f"data:image/png;base64,{encoded}")


# -- facts ----------------------------------------------------------------------------------------------------------
def _facts(experiment: Any, found: Shown) -> dict[str, str]:
    rows = found.rows
    keys = {row.case.key for row in rows}
    cases = {case.key for case in experiment.cases(quick=found.quick, seeds=found.seeds)}
    told = {"rows": f"{len(rows)} ({len(cases & keys)} of the {len(cases)} cases that these seeds have)"}
    told["measured"] = _duration(sum(row.seconds for row in rows)) + _cpu(rows) + _when(rows)
    told["compared"] = _listed(row.case.method for row in rows)
    told["tasks"] = _listed(row.case.task for row in rows if row.case.task)
    told["scenarios"] = _listed(row.case.scenario + _version(row) for row in rows)
    told["seeds"] = _listed(map(str, found.seeds))
    told["revisions"] = _listed(row.about["revision"] for row in rows if row.about.get("revision"))
    return {label: words for label, words in told.items() if words}


def _overall(rows: Sequence[Row]) -> dict[str, str]:
    told = {
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "measured": f"{len(rows)} rows in {_duration(sum(row.seconds for row in rows))}{_when(rows)}",
        "machines": "; ".join(_machines(rows)),
        "versions": ", ".join(f"{name} {' / '.join(found)}" for name, found in _versions(rows).items()),
    }
    return {label: words for label, words in told.items() if words}


def _warnings(found: Shown) -> list[str]:
    told = ["Quick runs: they show that everything works, and nothing else."] if found.quick else []
    several = {name: values for name, values in _versions(found.rows).items() if len(values) > 1}
    if several:
        named = "; ".join(f"{name} {', '.join(values)}" for name, values in several.items())
        told.append(f"Rows of several versions: {named}.")
    machines = _machines(found.rows)
    if len(machines) > 1:
        told.append(f"Rows of several machines: {'; '.join(machines)}.")
    return told + [f"Left out: {n} {'row' if n == 1 else 'rows'} {why}." for why, n in found.left_out.items()]


def _nothing_left(found: Shown, commands: Sequence[str]) -> str:
    """What to do where every row is outdated."""
    number = len(found.outdated)
    rows = "The one row is" if number == 1 else f"All {number} rows are"
    return f"{rows} {found.why_outdated}; measure again: {'; '.join(commands)}"


def _commands(name: str, experiment: Any, found: Shown, out: Path) -> list[str]:
    """What measures the rows again; methods of users are a command of their own."""
    usual_ones, chosen = sorted(usual_seeds(experiment, found.quick)), ""
    seeds = found.seeds or usual_ones
    if seeds != usual_ones:
        chosen += f" --seeds {' '.join(map(str, seeds))}"
    chosen += " --quick" if found.quick else ""
    if out.name != ("bench-quick" if found.quick else "bench"):
        chosen += f" --out {shlex.quote(str(out))}"
    commands = [f"marca bench run {name}{chosen}"]
    if takes_methods(experiment):
        usual = {case.method for case in experiment.cases(quick=found.quick, seeds=seeds)}
        own = [m for m in by_method(found.rows or found.outdated) if m not in usual]
        commands += [f"marca bench run {name}{chosen} --methods {' '.join(map(shlex.quote, own))}"] if own else []
    return commands


def _machines(rows: Iterable[Row]) -> list[str]:
    """The machines in words, each once."""
    words = "{processor}, {cores} cores, {memory_gib} GiB, {system}"
    return list(dict.fromkeys(words.format(**m) for row in rows if (m := row.about.get("machine"))))


def _versions(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Package → its versions, each once."""
    pairs = dict.fromkeys(pair for row in rows for pair in row.about.get("versions", {}).items())
    found: dict[str, list[str]] = {}
    for name, version in pairs:
        found.setdefault(name, []).append(version)
    return found


def _version(row: Row) -> str:
    found = row.about.get("scenario_version")
    return "" if found is None else f" (version {found})"


def _listed(words: Iterable[str]) -> str:
    each = list(dict.fromkeys(words))
    return ("; " if any("," in word for word in each) else ", ").join(each)


def _cpu(rows: Sequence[Row]) -> str:
    known = [row.cpu_seconds for row in rows if row.cpu_seconds is not None]
    return f" ({_duration(sum(known))} of CPU time)" if known else ""


def _when(rows: Iterable[Row]) -> str:
    days = sorted({str(row.about["when"])[:10] for row in rows if "when" in row.about})
    return f", {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
