"""Who may import whom: read from the sources, whether or not the optional packages are installed."""

import ast

import pytest

from tests.helpers.paths import ROOT

PACKAGES = ("marca_env", "agents", "mpc", "benchmarks")
MAY_IMPORT = {
    "marca_env": {"marca_env"},
    "agents": {"agents", "marca_env"},
    "mpc": {"mpc", "marca_env"},
    "benchmarks": set(PACKAGES),
}
TORCH_AT_THE_TOP = {"cost_model", "revenue_model", "exact", "fitting"}
"""Modules of marca_env that fit, load or run models."""
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(nodes):
    """Top-level package names that the given syntax nodes import."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write the package's name"
            names.add((node.module or "").split(".")[0])
    return names


def at_import_time(tree):
    """Nodes that run when the module is imported: not in functions, not under TYPE_CHECKING."""
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        yield node
        todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_table(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package, *folders = path.relative_to(ROOT).parts
    names = imported(ast.walk(tree))
    assert names & set(PACKAGES) <= MAY_IMPORT[package]
    if package == "agents" and folders[0] != "rllib":
        assert "ray" not in names
    if package in ("marca_env", "mpc"):
        assert "ray" not in names
    if package in ("marca_env", "agents"):
        assert "cvxpy" not in names
    if package == "marca_env":
        assert "matplotlib" not in names
        if path.stem not in TORCH_AT_THE_TOP:
            assert "torch" not in imported(at_import_time(tree))


def test_the_rules_see_what_they_should():
    tree = ast.parse("if TYPE_CHECKING:\n  import torch\ndef f():\n  import ray\nclass A:\n  import cvxpy\n")
    assert imported(ast.walk(tree)) == {"torch", "ray", "cvxpy"}
    assert imported(at_import_time(tree)) == {"cvxpy"}
    assert len(SOURCES) > 20
