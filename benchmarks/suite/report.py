"""Reports of records: ``report.md`` and a self-contained ``report.html``, or a Markdown page for each experiment."""

from __future__ import annotations

import datetime
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite import records, reference
from benchmarks.suite.flat_tables import escape_markdown
from benchmarks.suite.published_tables import LABEL
from benchmarks.suite.registry import experiment_names
from benchmarks.suite.report_sections import Section, build_section, overall_facts
from marca_env.utils.errors import InputError
from marca_env.utils.files import atomic_path

STEM = "report"
INDEX = "index.md"


def write_report(out: Path, to: Path, names: Sequence[str] = ()) -> tuple[list[Path], list[Section]]:
    """Write ``report.md`` and ``report.html``; the HTML needs no other file.

    Args:
        out: folder of the records.
        to: folder of the reports and their figures.
        names: experiments; none: all that have records.

    Returns:
        The files written and the sections.

    Raises:
        InputError: no records, or damaged ones.
        ImportError: Jinja2 is missing; the message names the install command.
    """
    templates = _templates()
    sections, without = _build_sections(out, to, names)
    written = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    values = _values(sections) | {"without": without}
    values["facts"] = {"written": written, **values["facts"]}
    files = [to / f"{STEM}.{kind}" for kind in ("md", "html")]
    for file in files:
        _write(file, templates.get_template(file.name).render(values))
    return files, sections


def write_pages(out: Path, to: Path, names: Sequence[str] = ()) -> tuple[list[Path], list[Section]]:
    """Write a Markdown page for every experiment, and ``index.md``; the same records give the same bytes.

    Arguments, returned values and errors are those of :func:`write_report`.
    """
    templates = _templates()
    sections, _ = _build_sections(out, to, names)
    values = _values(sections)
    files = {to / INDEX: templates.get_template(INDEX).render(values)}
    for section in sections:
        files[to / f"{section.name}.md"] = templates.get_template("page.md").render(values, section=section)
    for file, text in files.items():
        _write(file, text)
    return list(files), sections


def _templates() -> Any:
    try:
        import jinja2
    except ImportError:
        raise ImportError("the report needs Jinja2: pip install 'marca-env[bench]'") from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmarks.suite"),
        autoescape=jinja2.select_autoescape(("html",)),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["escape_markdown"] = escape_markdown
    return environment


def _build_sections(out: Path, to: Path, names: Sequence[str]) -> tuple[list[Section], list[str]]:
    """Return the sections, and the suite's experiments without records."""
    recorded = [name for name in _candidates(out) if records.read(out / name)]
    missing = [name for name in names if name not in recorded]
    if missing or not recorded:
        what = ", ".join(missing) or "any experiment"
        raise InputError(
            f"{out}: no records of {what}; measure first: marca bench run {missing[0] if missing else 'ID'}"
        )
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) if out == reference.FOLDER else None  # the installed package is left as it is
        sections = [build_section(name, out, to, scratch, is_named=bool(names)) for name in names or recorded]
    return sections, [name for name in experiment_names() if name not in recorded]


def _candidates(out: Path) -> list[str]:
    """Return the suite's experiments, then those of users that have records in ``out``."""
    recorded = sorted(path.parent.name for path in out.glob(f"*/{records.FILE}"))
    return list(dict.fromkeys([*experiment_names(), *recorded]))


def _values(sections: Sequence[Section]) -> dict[str, Any]:
    rows = [row for section in sections for row in section.rows]
    return {"facts": overall_facts(rows), "sections": sections, "label_published": LABEL}


def _write(file: Path, text: str) -> None:
    with atomic_path(file) as path:
        path.write_text(re.sub(r"\n{3,}", "\n\n", text), encoding="utf-8")
