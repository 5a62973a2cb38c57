"""The notebooks: they run in an empty folder, and git holds only their source."""

from __future__ import annotations

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.helpers.documents import DOCS
from tests.helpers.paths import ROOT

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
NAMES = ["first_episode", "train_and_compare", "your_system"]
ABSOLUTE = re.compile(r"""(?:^|[\s"'`(=\[])(?:file:|~?/\w|[A-Za-z]:[\\/])""", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def test_all_notebooks_are_tested() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs_and_no_absolute_paths(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert not ABSOLUTE.search(cell.source), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_to_files(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for target in LINK.findall(cell.source):
                assert (path.parent / target).is_file(), target


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    nbclient.execute(notebook, cwd=str(tmp_path), kernel_name="python3", timeout=280)  # raises the error of a cell
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
