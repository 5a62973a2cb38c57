"""Tests of the package: light import, public names, registered ids."""

import subprocess
import sys

import gymnasium
import pytest

import marca_env

HEAVY = ("torch", "ray", "cvxpy", "sklearn", "pandas", "pettingzoo", "scipy", "matplotlib")


def test_import_loads_no_heavy_package():
    code = f"import sys, marca_env; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(marca_env.__all__))
def test_public_names_exist(name):
    assert getattr(marca_env, name) is not None
    assert name in dir(marca_env)


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match=r"attribute '?Senario"):
        marca_env.Senario  # noqa: B018


@pytest.mark.parametrize("name", sorted(marca_env.ENVIRONMENTS))
def test_ids_are_registered_with_a_complete_docstring(name, exact_engine):
    has_sites = name == "marca_env/Fleet-v0"  # its agents are sites, which the small system does not have
    env = gymnasium.make(name, **({} if has_sites else {"engine": exact_engine}))
    first, _ = env.reset(seed=3)
    second, _ = env.reset(seed=3)
    assert (first == second).all()
    assert env.observation_space.contains(first)
    sections = ("Description", "Action Space", "Observation Space", "Rewards", "Starting State", "Episode End")
    for section in (*sections, "Arguments", "Version History"):
        assert f"## {section}" in type(env.unwrapped).__doc__
