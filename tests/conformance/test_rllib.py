"""RLlib's own checker and plain PPO take the environments through RLlib's wrappers, also in worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import marca_env

ray = pytest.importorskip("ray", reason="needs ray: pip install 'marca-env[conformance]'")
from ray.rllib.algorithms.ppo import PPOConfig  # noqa: E402
from ray.rllib.connectors.env_to_module import FlattenObservations  # noqa: E402
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv, PettingZooEnv  # noqa: E402
from ray.rllib.utils.pre_checks.env import check_multiagent_environments  # noqa: E402
from ray.tune.registry import register_env  # noqa: E402

VIEWS = {
    "aec": lambda **options: PettingZooEnv(marca_env.env(**options)),
    "parallel": lambda **options: ParallelPettingZooEnv(marca_env.parallel_env(**options)),
}


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.shutdown()  # another module of this process may have left one
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def check_often(view: str, times: int, **options: Any) -> None:
    for _ in range(times):
        check_multiagent_environments(VIEWS[view](**options))


def quick(config: PPOConfig) -> PPOConfig:
    """Eighty steps in this process."""
    config.env_runners(num_env_runners=0, rollout_fragment_length="auto")
    config.training(train_batch_size_per_learner=80, minibatch_size=40, num_epochs=1)
    return config.rl_module(model_config={"fcnet_hiddens": [16]}).debugging(log_level="ERROR", seed=0)


def train_once(config: PPOConfig) -> dict[str, Any]:
    algorithm = config.build_algo()
    result = algorithm.train()
    algorithm.stop()
    assert np.isfinite(result["env_runners"]["episode_return_mean"])
    return result


@pytest.mark.library("rllib-check")
@pytest.mark.parametrize("options", [{}, {"observations": "box"}], ids=["dict", "box"])
@pytest.mark.parametrize("view", VIEWS)
def test_checker_passes_whatever_it_samples(view: str, options: dict[str, Any]) -> None:
    """It samples without the masks; by default the environment takes the nearest legal action."""
    check_often(view, 40, **options)


@pytest.mark.library("rllib-strict")
@pytest.mark.parametrize("view", VIEWS)
def test_checker_finds_illegal_actions_where_they_are_errors(view: str) -> None:
    """`on_illegal="error"` stays strict: it is for learners that keep to the masks."""
    with pytest.raises(ValueError, match="step"):
        check_often(view, 200, on_illegal="error")


@pytest.mark.library("rllib-box")
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.slow
def test_ppo_takes_box_observations_with_a_policy_for_each_agent(view: str, local_ray: None) -> None:
    register_env("box", lambda _: VIEWS[view](observations="box"))
    config = quick(PPOConfig().environment("box"))
    agents = marca_env.parallel_env().possible_agents
    train_once(config.multi_agent(policies=set(agents), policy_mapping_fn=lambda agent, *_, **__: agent))


@pytest.mark.library("rllib-flat")
@pytest.mark.slow
def test_ppo_takes_flat_uniform_agents_with_one_policy(local_ray: None) -> None:
    env = marca_env.UniformAgents(marca_env.parallel_env(), flat=True)
    register_env("flat", lambda _: ParallelPettingZooEnv(env))
    config = quick(PPOConfig().environment("flat"))
    train_once(config.multi_agent(policies={"shared"}, policy_mapping_fn=lambda *_, **__: "shared"))


@pytest.mark.library("rllib-dict")
@pytest.mark.slow
def test_ppo_takes_dict_observations_through_rllibs_connector(local_ray: None) -> None:
    register_env("dict", lambda _: VIEWS["parallel"]())
    config = quick(PPOConfig().environment("dict"))
    config.env_runners(env_to_module_connector=lambda *_, **__: FlattenObservations(multi_agent=True))
    agents = marca_env.parallel_env().possible_agents
    train_once(config.multi_agent(policies=set(agents), policy_mapping_fn=lambda agent, *_, **__: agent))


@pytest.mark.library("rllib-worker")
@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
@pytest.mark.slow
def test_gymnasium_id_works_in_a_worker_process(mode: str, local_ray: None) -> None:
    """Workers import the module before the colon, which registers the ids."""
    config = quick(PPOConfig().environment("marca_env:marca_env/Recommender-v0"))
    config.env_runners(num_env_runners=1, num_envs_per_env_runner=4, gym_env_vectorize_mode=mode)
    result = train_once(config)
    assert 0 <= result["env_runners"]["episode_return_mean"] < 5
