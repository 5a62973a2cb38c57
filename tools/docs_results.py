"""Pages of results, generated from the records that come with the package."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.suite import reference
from benchmarks.suite.report import write_pages


def with_glossary(page: str) -> str:
    """Return a page with a link to the glossary under its title."""
    title, _, rest = page.partition("\n")
    return f"{title}\n\nTerms and symbols: [glossary](../glossary.md).\n{rest}"


def result_pages() -> dict[str, str | bytes]:
    """Return path → content of the results: Markdown pages and their figures."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder)
        write_pages(reference.FOLDER, to)
        files = sorted(path for path in to.rglob("*") if path.is_file())
        return {
            f"results/{path.relative_to(to).as_posix()}": (
                with_glossary(path.read_text(encoding="utf-8")) if path.suffix == ".md" else path.read_bytes()
            )
            for path in files
        }
