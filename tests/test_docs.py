"""The documentation site: it builds strictly, its Python blocks run, its commands parse, its terms are defined."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.cli.parsers import COMMANDS, build_parsers, split_command
from marca_env.integration.feature_coding import FeatureCoder, FeatureCoding
from marca_env.scenario.scenario import Scenario
from tests.helpers.documents import BLOCK, DOCS, code_blocks
from tests.helpers.paths import ROOT
from tests.helpers.policies import save_untrained_policy

PAGES = sorted(path for path in DOCS.rglob("*.md"))
DEFINED = {
    "λ": r"price",
    "μ": r"utilisation",
    "ν": r"over-utilisation",
    "r_s": r"rank correlation",
    "Return%": r"revenue",
    "AW": r"adaptive weighting|Adaptive Weighting",
    "SMC": r"monotonicity",
    "VGCA": r"credit assignment",
    "DCAF": r"dynamic computation allocation framework|Dynamic Computation Allocation Framework|truncation",
}
"""Term → a word of its definition, which stands in the paragraph of the first use unless that links the glossary."""


def name_of(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for page in (
        "index.html",
        "environments/parallel/index.html",
        "results/online/index.html",
        "reference/cli/index.html",
    ):
        assert (tmp_path / "site" / page).exists()


def save_coding(folder: Path) -> None:
    """Save a coding of raw features as `marca fit` does, for the features of the default scenario."""
    log = pd.DataFrame({"value": range(20), "time": 600, "page": "home", "site": "Lyon", "visits": range(20)})
    columns = ("value", "quantile"), ("time", "time"), ("page", "frequency"), ("site", "hash"), ("visits", "quantile")
    features = zip(Scenario.load("default").features, columns, strict=True)
    codings = [FeatureCoding(f.name, f.size, column, coding) for f, (column, coding) in features]
    folder.mkdir(parents=True)
    FeatureCoder.fit(codings, log).save(folder / "features.json")


SLOW_PAGES = ("how-to/your-policy.md", "how-to/your-controller.md")
"""Pages whose blocks calibrate controllers."""


def page_cases() -> list[Any]:
    """Return the pages with Python blocks."""
    pages = [p for p in PAGES if code_blocks(p, "python")]
    return [pytest.param(p, marks=[pytest.mark.slow] if name_of(p) in SLOW_PAGES else []) for p in pages]


@pytest.mark.parametrize("path", page_cases(), ids=name_of)
def test_python_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    if "AllocationPolicy.load" in path.read_text(encoding="utf-8"):
        save_untrained_policy(tmp_path / "results" / "awrq")
        save_coding(tmp_path / "results" / "mine")
    for code in code_blocks(path, "python"):
        exec(compile(code, name_of(path), "exec"), namespace)


def commands(path: Path) -> list[str]:
    """Return the `marca` commands in the shell blocks of a page, continued lines joined."""
    lines = "\n".join(code_blocks(path, "bash")).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip().startswith("marca ")]


@pytest.mark.parametrize("path", [p for p in PAGES if commands(p)], ids=name_of)
def test_commands_parse(path: Path) -> None:
    parsers = build_parsers(load=COMMANDS)
    for line in commands(path):
        command, rest = split_command(shlex.split(line)[1:])
        parsers[command].parse_args(rest)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_terms_are_defined_where_they_first_appear(path: Path) -> None:
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    paragraphs = re.split(r"\n\s*\n", text)
    for term, word in DEFINED.items():
        pattern = re.compile(rf"(?<![\w%]){re.escape(term)}(?![\w%])")
        first = next((p for p in paragraphs if pattern.search(p)), None)
        if first is not None and path.name != "glossary.md":
            assert re.search(word, first, re.I) or "glossary.md" in first, f"{name_of(path)}: {term} is not defined"
