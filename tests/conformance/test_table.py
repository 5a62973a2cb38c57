"""The page "Other libraries" has every row of the table that these tests print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.conftest import ROWS, Row

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "other-libraries.md"


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_page_has_the_row(row: Row) -> None:
    answer = f"write {row.instead}" if row.instead else "works"
    cells = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in PAGE.read_text().splitlines()]
    assert (row.library, row.tried, answer) in cells
