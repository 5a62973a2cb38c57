"""Packaging: type checkers and IDEs see what an editable install provides, and ``dir`` lists the public names."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGES = ("marca_env", "agents", "mpc", "benchmarks")


@pytest.mark.slow
def test_an_editable_install_is_a_path_that_type_checkers_follow(tmp_path: Path) -> None:
    """The default is an import hook, which neither mypy nor IDEs see."""
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith("_finder.py")]
        (path,) = [name for name in archive.namelist() if name.endswith(".pth")]
        assert Path(archive.read(path).decode().strip()) == ROOT


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed_and_list_their_public_names(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    stub = ast.parse((ROOT / package / "__init__.pyi").read_text(encoding="utf-8"))
    names = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    names |= {
        node.target.id for node in stub.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    module = importlib.import_module(package)
    assert names - {"__all__"} <= set(dir(module))
    for name in names:
        assert hasattr(module, str(name))
