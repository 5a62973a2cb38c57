"""Reference pages: the command line from its parsers, the API from the packages' public names."""

from __future__ import annotations

import ast
from pathlib import Path

from benchmarks.cli.reference import cli_reference

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "marca_env": "marca_env/__init__.pyi",
    "agents": "agents/__init__.pyi",
    "agents.rllib": "agents/rllib/__init__.py",
    "mpc": "mpc/__init__.pyi",
    "benchmarks": "benchmarks/__init__.pyi",
}
"""Package → the file that lists its public names by importing them."""


def cli_page() -> str:
    """Return the reference of the ``marca`` command as Markdown."""
    return cli_reference()


def public_names(package: str) -> list[tuple[str, str]]:
    """Return (public name, full path of its definition) for every name that a package exports, in order of name."""
    tree = ast.parse((ROOT / PACKAGES[package]).read_text(encoding="utf-8"))
    names = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module not in (None, "__future__"):
            module = f"{package}.{node.module}" if node.level else str(node.module)
            names += [(alias.asname or alias.name, f"{module}.{alias.name}") for alias in node.names]
    return sorted(names)


def api_page() -> str:
    """Return the API reference: an entry for mkdocstrings for each public name."""
    lines = ["# API", "", "Everything that the packages export. Other names may move without notice.", ""]
    for package in PACKAGES:
        lines += [f"## `{package}`", ""]
        for _, path in public_names(package):
            lines += [f"::: {path}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines)
