"""Pages of results, generated from the records that come with the package."""

from __future__ import annotations

from pathlib import Path


def result_pages(root: Path) -> dict[str, str | bytes]:
    """Return path → content of the results: pages as Markdown, figures as PNG."""
    return {"results/index.md": "# Results\n"}
