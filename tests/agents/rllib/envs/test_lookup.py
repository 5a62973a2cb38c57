"""Environments are found by id, module and path; what is missing is named with its remedy."""

from __future__ import annotations

import sys

import pytest
import ray

from agents.rllib.core.cluster import start_ray
from agents.rllib.envs.lookup import list_environments
from agents.rllib.envs.make_env import make_batched
from agents.rllib.training.any_algorithm import algorithm_config
from marca_env.utils.errors import InputError


@pytest.mark.parametrize("name", ["mpe2.simple_spread_v3", "simple_spread_v3", "mpe2.simple_spread_v3:parallel_env"])
def test_pettingzoo_modules_are_environments(name):
    pytest.importorskip("mpe2", reason="needs mpe2: pip install 'marca-env[marl]'")
    env = make_batched(name, 2, {"N": 2, "max_cycles": 7})
    assert (env.agents, env.max_steps) == (("agent_0", "agent_1"), 7)


@pytest.mark.parametrize("name", ["lbforaging:Foraging-5x5-2p-1f-v3", "Foraging-5x5-2p-1f-v3"])
def test_gymnasium_ids_of_teams_are_environments(name):
    pytest.importorskip("lbforaging", reason="needs lbforaging: pip install 'marca-env[marl]'")
    env = make_batched(name, 2, {"max_episode_steps": 9})
    assert (env.agents, env.max_steps, env.action_sizes["agent_1"]) == (("agent_0", "agent_1"), 9, 6)


@pytest.mark.parametrize(
    ("name", "steps"), [("CartPole-v1", 500), ("marca_env/Recommender-v0", 5), ("classic/rps-v2", 15)]
)
def test_other_ids_are_environments(name, steps):
    env = make_batched(name, 1)
    assert env.max_steps == steps
    env.reset(seed=0)
    env.close()


@pytest.mark.parametrize("name", [n for n in list_environments() if n.startswith("games/")])
def test_games_are_batched(name):
    assert make_batched(name, 3).num_envs == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("games/climbin-v0", "did you mean 'games/climbing-v0'"),
        ("mpe2.simple_spred_v3", "did you mean 'mpe2.simple_spread_v3'"),
        ("lbforaging:Foragin-5x5-2p-1f-v3", "did you mean 'lbforaging:Foraging-5x5-2p-1f-v3'"),
        ("pettingzoo.butterfly.pistonball_v5", "did you mean 'pettingzoo.butterfly.pistonball_v6'"),
        ("CartPole-v7", "did you mean 'CartPole-v1'"),
        ("rware:rware-tiny-2ag-v2", "needs the package 'rware': pip install rware"),
        ("my_modul.Thing", "no module 'my_modul'; check the name"),
        ("numpy.pi", "is a float; use a class or a function"),
        ("json", "unknown environment 'json'"),
        ("", "unknown environment ''"),
        (3, "use an id, a dotted path or a callable"),
        ("Pendulum-v1", "the presets need Discrete actions: make them discrete, or choose PPO or SAC"),
    ],
)
def test_what_is_not_found_is_named_on_one_line(name, message):
    with pytest.raises(InputError, match="environment") as caught:
        make_batched(name, 1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("name", "package", "command"),
    [
        ("mpe2.simple_spread_v3", "mpe2", "pip install 'marca-env[marl]'"),
        ("Foraging-5x5-2p-1f-v3", "lbforaging", "pip install 'marca-env[marl]'"),
        ("pettingzoo.sisl.pursuit_v5", "pygame", "pip install 'pettingzoo[sisl]'"),
    ],
)
def test_packages_that_are_not_installed_are_named_with_the_command(name, package, command, monkeypatch):
    for module in [m for m in sys.modules if m.partition(".")[0] == package or m.startswith("pettingzoo.sisl.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as caught:
        make_batched(name, 1)
    assert f"needs the package {package!r}: {command}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mpe2.simple_spread_v3", {"n": 2}, "mpe2.simple_spread_v3 takes no option 'n'"),
        ("lbforaging:Foraging-5x5-2p-1f-v3", {"max_episode_steps": 0}, "max_episode_steps is 0; use a whole number"),
        ("lbforaging:Foraging-5x5-2p-1f-v3", {"playrs": 3}, "takes no option 'playrs'"),
        ("games/penalty-v0", {"penalt": -3}, "did you mean 'penalty'"),
        ("json.loads", {}, "building it raised TypeError"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(InputError) as caught:
        make_batched(name, 1, options)
    assert message in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_foraging_pays_the_sum_and_spread_the_mean_of_the_agents_rewards():
    pytest.importorskip("lbforaging", reason="needs lbforaging: pip install 'marca-env[marl]'")
    assert make_batched("Foraging-5x5-2p-1f-v3", 1).team_reward == "sum"
    assert make_batched("Foraging-5x5-2p-1f-v3", 1, team_reward="mean").team_reward == "mean"
    assert make_batched("mpe2.simple_spread_v3", 1).team_reward == "mean"


@pytest.mark.slow
def test_a_name_that_tune_cannot_store_is_unknown_while_ray_runs():
    """A running ray looks names up in its own store, whose keys are ASCII."""
    ray.shutdown()
    start_ray(num_cpus=1)
    try:
        with pytest.raises(InputError, match="unknown environment 'größe'"):
            make_batched("größe", 2, {})
        with pytest.raises(InputError, match="unknown algorithm 'größe'"):
            algorithm_config("größe")
    finally:
        ray.shutdown()
