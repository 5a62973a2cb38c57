"""Imports: light packages, imports at the top of modules. Who may import whom is checked by import-linter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGES = ("marca_env", "agents", "mpc", "benchmarks")
OPTIONAL = {
    "clarabel",
    "cvxpy",
    "filelock",
    "implicit",
    "jinja2",
    "lbforaging",
    "matplotlib",
    "mpe2",
    "osqp",
    "pygame",
    "ray",
    "surprise",
    "tensorboardX",
    "vmas",
    "wandb",
}
"""Packages of the extras: a module that is useful without them imports them inside a function."""
SLOW = ("scipy.stats", "sklearn.isotonic")
"""Modules that take as long to import as everything else; a command that does not need them starts without them."""
NEED_EXTRAS = ("agents.rllib", "mpc", "benchmarks")
"""Our packages whose modules may need an extra, so that others import them inside a function."""
MOST_IMPORTS_IN_FUNCTIONS = 70
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_in_functions(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of every module that is imported inside a function."""
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    statements = {node for f in functions for node in ast.walk(f) if isinstance(node, (ast.Import, ast.ImportFrom))}
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            yield str(node.module)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_inside_functions_are_of_optional_packages(path: Path) -> None:
    for name in imports_in_functions(ast.parse(path.read_text(encoding="utf-8"))):
        may_be_late = name.split(".")[0] in OPTIONAL or name.startswith(NEED_EXTRAS) or name in SLOW
        assert may_be_late, f"move the import of {name} to the top"


@pytest.mark.slow
def test_few_imports_stand_inside_functions() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    assert sum(len(list(imports_in_functions(tree))) for tree in trees) < MOST_IMPORTS_IN_FUNCTIONS


def test_the_finder_sees_imports_in_methods_and_nested_functions() -> None:
    tree = ast.parse("import a\nclass C:\n  def f(self):\n    import b.c\n    def g():\n      from d.e import h\n")
    assert sorted(imports_in_functions(tree)) == ["b.c", "d.e"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import marca_env", ("torch", "ray", "cvxpy", "sklearn", "pandas", "pettingzoo", "scipy", "matplotlib")),
        ("import agents, mpc", ("torch", "ray", "cvxpy", "pandas", "scipy")),
        ("import marca_env; marca_env.Scenario.load('default')", ("torch", "ray", "cvxpy", "matplotlib")),
        ("import marca_env; marca_env.parallel_env()", ("ray", "cvxpy", "matplotlib", "sklearn", "scipy.stats")),
        ("import mpc; mpc.FeedbackBalancer", ("torch", "ray", "cvxpy")),
        ("import agents; agents.AllocationPolicy", ("ray", "cvxpy")),
        ("from benchmarks.cli.main import main; main(['--version'])", ("torch", "ray", "cvxpy", "pandas")),
    ],
)
def test_light_imports_stay_light(code: str, absent: tuple[str, ...]) -> None:
    program = (
        f"import sys\ntry:\n  {code}\nexcept SystemExit:\n  pass\nprint([m for m in {absent!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
