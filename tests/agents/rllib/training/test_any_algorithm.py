"""RLlib's own algorithms on a team: masks hold, parameters can be shared, PPO learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from pettingzoo import ParallelEnv
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_NEXT_PREDS, QF_PREDS, QF_TARGET_NEXT_PREDS
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

import tests.helpers.small_team as small_team
from agents.rllib import VDNConfig, independent, shared, train
from agents.rllib.core.cluster import start_ray
from agents.rllib.envs.sequential_env import bare_key
from agents.rllib.envs.team_env import TeamEnv, make_rllib_env
from agents.rllib.modules.masked_modules import MaskedAPPOModule, MaskedDQNModule, MaskedPPOModule, masked_module
from agents.rllib.training.any_algorithm import algorithm_config
from agents.rllib.training.flat_options import apply_options, validate_config
from marca_env.envs.batched_env import IllegalActionError
from marca_env.utils.errors import InputError
from tests.helpers.rllib_envs import Leavers

N, WIDTH, ROWS = 6, 5, 400
SPACE = gym.spaces.Dict(
    {
        "observation": gym.spaces.Box(-np.inf, np.inf, (WIDTH,), np.float32),
        "action_mask": gym.spaces.Box(0, 1, (N,), np.int8),
    }
)
GAME = "benchmarks.experiments.games.matrix_games.TwoStepGame"


def module_of(config: Any, module_class: type, **settings: Any) -> Any:
    """Build a module for the masked observation space."""
    spec = config.get_default_rl_module_spec()
    model = {**config.model_config, **settings}
    made = module_class(
        observation_space=SPACE,
        action_space=gym.spaces.Discrete(N),
        model_config=model,
        catalog_class=spec.catalog_class,
        inference_only=False,
    )
    if hasattr(made, "make_target_networks"):
        made.make_target_networks()
    return made


def masked_batch(seed: int = 0) -> tuple[dict[str, Any], torch.Tensor]:
    """Return random observations and masks with one to N legal actions."""
    rng = np.random.default_rng(seed)
    mask = rng.random((ROWS, N)) < 0.4
    mask[np.arange(ROWS), rng.integers(0, N, ROWS)] = True
    observations = {
        "observation": torch.as_tensor(rng.normal(0, 5, (ROWS, WIDTH)), dtype=torch.float32),
        "action_mask": torch.as_tensor(mask, dtype=torch.int8),
    }
    return {
        Columns.OBS: observations,
        Columns.NEXT_OBS: {k: v.flip(0) for k, v in observations.items()},
    }, torch.as_tensor(mask)


@pytest.mark.parametrize(
    ("config", "module_class"), [(PPOConfig(), MaskedPPOModule), (APPOConfig(), MaskedAPPOModule)], ids=["PPO", "APPO"]
)
def test_masked_policies_draw_only_legal_actions(config: Any, module_class: type) -> None:
    torch.manual_seed(0)
    module, (batch, mask) = module_of(config, module_class), masked_batch()
    draw = module.get_exploration_action_dist_cls()
    for forward in (module.forward_exploration, module.forward_inference, module.forward_train):
        logits = forward(batch)[Columns.ACTION_DIST_INPUTS]
        for _ in range(20):
            drawn = draw.from_logits(logits).sample()
            assert mask[torch.arange(ROWS), drawn].all()
        assert mask[torch.arange(ROWS), logits.argmax(-1)].all()
        assert torch.isfinite(draw.from_logits(logits).entropy()).all()
    assert module.compute_values(batch).shape == (ROWS,)
    if isinstance(module, MaskedAPPOModule):
        (old,) = module.forward_target(batch).values()
        assert (old[~mask] < -1e30).all()
    # control: the same weights without masks draw illegal actions
    bare = super(type(module).__mro__[1], module)._forward({Columns.OBS: batch[Columns.OBS]["observation"]})
    assert not mask[torch.arange(ROWS), bare[Columns.ACTION_DIST_INPUTS].argmax(-1)].all()


@pytest.mark.parametrize("settings", [{}, {"dueling": False}, {"double_q": False}, {"num_atoms": 5}], ids=str)
def test_masked_dqn_uses_only_legal_actions(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = DQNConfig().training(**{**settings, **({"v_min": -1.0, "v_max": 1.0} if "num_atoms" in settings else {})})
    module, (batch, mask) = module_of(config, MaskedDQNModule, epsilon=1.0), masked_batch()
    rows = torch.arange(ROWS)
    assert mask[rows, module.forward_inference(batch)[Columns.ACTIONS]].all()
    explored = torch.stack([module.forward_exploration(batch, t=0)[Columns.ACTIONS] for _ in range(60)])
    assert mask[rows, explored].all()
    several = mask.sum(-1) > 1  # all legal actions occur about equally often
    counts = torch.stack([(explored == a).float().mean(0) for a in range(N)], -1)
    assert (counts - mask / mask.sum(-1, keepdim=True))[several].abs().max() < 0.35
    out = module.forward_train(batch)
    nexts = mask.flip(0)
    next_actions = out.get(QF_NEXT_PREDS, out[QF_TARGET_NEXT_PREDS]).argmax(-1)
    assert nexts[rows, next_actions].all()
    assert torch.isfinite(out[QF_PREDS][mask]).all()
    assert torch.isinf(out[QF_PREDS][~mask]).all()
    out[QF_PREDS][mask].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_dqn_explores_legal_actions_with_value_zero() -> None:
    """RLlib's own exploration treats a value of 0 as masked and fails where all values are 0."""
    module, (batch, mask) = module_of(DQNConfig(), MaskedDQNModule, epsilon=1.0), masked_batch()
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    taken = module.forward_exploration(batch, t=0)[Columns.ACTIONS]
    assert mask[torch.arange(ROWS), taken].all()
    assert len(set(taken.tolist())) == N


def test_values_are_finite_where_no_action_is_legal() -> None:
    """Environments may send an empty mask with the last observation of an episode."""
    module, (batch, _) = module_of(DQNConfig(), MaskedDQNModule, epsilon=0.0), masked_batch()
    batch[Columns.NEXT_OBS]["action_mask"] = torch.zeros(ROWS, N, dtype=torch.int8)
    out = module.forward_train(batch)
    assert torch.isfinite(out[QF_TARGET_NEXT_PREDS]).all()


@pytest.mark.slow
@pytest.mark.parametrize("share", [False, True], ids=["independent", "shared"])
@pytest.mark.parametrize("kind", [PPOConfig, IMPALAConfig, DQNConfig], ids=lambda k: k.__name__)
def test_random_weights_never_take_an_illegal_action(kind: type, share: bool) -> None:
    """The environment would raise an error; 40 exploring and 40 greedy episodes run to their end."""
    config = (shared if share else independent)(kind(), small_team.make)
    if kind is DQNConfig:
        config.training(epsilon=0.5)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=1).debugging(seed=3)
    config.validate()
    runner = MultiAgentEnvRunner(config=config, worker_index=0)
    for explore in (True, False):
        episodes = runner.sample(num_episodes=40, explore=explore)
        assert len(episodes) == 40
        assert {len(e) for e in episodes} == {4}
    policies = {e.module_for(a) for e in episodes for a in e.agent_ids}
    assert policies == ({"shared"} if share else {"retrieval", "pre_ranking"})
    runner.stop()


def test_the_environment_raises_at_an_illegal_action() -> None:
    """Otherwise the test above could not fail."""
    env = TeamEnv({"env": small_team.make})
    env.reset(seed=0)
    with pytest.raises(IllegalActionError):
        env.step(dict.fromkeys(env.possible_agents, 0))


def test_sharing_pads_observations_and_actions() -> None:
    separate, padded = TeamEnv({"env": small_team.make}), TeamEnv({"env": small_team.make, "shared": True})
    assert (
        separate.action_spaces["retrieval"] != separate.action_spaces["pre_ranking"]
        or len(set(map(str, separate.observation_spaces.values()))) > 1
    )
    assert len({str(s) for s in padded.observation_spaces.values()}) == 1
    assert len({s.n for s in padded.action_spaces.values()}) == 1
    (observations, _), (bare, _) = padded.reset(seed=5), separate.reset(seed=5)
    for k, agent in enumerate(padded.possible_agents):
        assert padded.observation_spaces[agent].contains(observations[agent])
        vector, original = observations[agent]["observation"], bare[agent]["observation"]
        np.testing.assert_array_equal(vector[: len(original)], original)
        np.testing.assert_array_equal(vector[-2:], np.eye(2)[k])
        assert not vector[len(original) : -2].any()
        mask = observations[agent]["action_mask"]
        np.testing.assert_array_equal(mask[: separate.action_spaces[agent].n], bare[agent]["action_mask"])
        assert not mask[separate.action_spaces[agent].n :].any()


def test_batched_and_single_agent_environments_are_accepted() -> None:
    config = independent(PPOConfig(), GAME)
    assert config.env is TeamEnv
    assert config.is_multi_agent
    assert independent(PPOConfig(), "CartPole-v1").env == "CartPole-v1"
    assert not independent(PPOConfig(), "CartPole-v1").is_multi_agent
    env = make_rllib_env("marca_env/Recommender-v0")
    assert isinstance(env, gym.Env)
    assert independent(PPOConfig(), "marca_env/Recommender-v0").env == "marca_env:marca_env/Recommender-v0"


def test_masks_that_rllib_would_ignore_are_refused() -> None:
    mask, box = gym.spaces.Box(0, 1, (2,), np.int8), gym.spaces.Box(0, 1, (3,))
    for name in ("observation", "observations", "obs"):
        assert bare_key(gym.spaces.Dict({name: box, "action_mask": mask})) == name
    with pytest.raises(InputError, match="use the key 'observation' for the entry beside 'action_mask'"):
        bare_key(gym.spaces.Dict({"features": box, "action_mask": mask}))


def test_masks_in_infos_are_put_beside_the_observations() -> None:
    env = TeamEnv({"env": Leavers})
    observations, _ = env.reset(seed=0)
    assert env.masked
    assert observations["early"]["action_mask"].tolist() == [0, 1, 0]
    assert observations["early"]["observation"][2:].tolist() == [1, 0, 0, 0]  # one-hot of the turn
    assert all(env.observation_spaces[a].contains(o) for a, o in observations.items())
    observations, *_ = env.step({"early": 1, "late": 1})
    assert observations["late"]["action_mask"].tolist() == [0, 1, 1]


def test_algorithms_without_masks_are_refused() -> None:
    with pytest.raises(InputError, match="SAC does not support the action masks"):
        independent(SACConfig(), GAME)
    assert masked_module(SACConfig().get_default_rl_module_spec().module_class) is None
    with pytest.raises(InputError, match="has one agent"):
        shared(PPOConfig(), "CartPole-v1")
    assert shared(VDNConfig(), GAME).preset().network.share_parameters


class Greedy(PPO):
    """User-defined algorithm class without a configuration."""


def test_algorithms_are_found_by_name_and_path() -> None:
    assert type(algorithm_config("VDN")) is VDNConfig
    assert type(algorithm_config("PPO")) is PPOConfig
    separate = algorithm_config(f"{__name__}.Greedy")
    assert isinstance(separate, PPOConfig)
    assert separate.algo_class is Greedy
    assert algorithm_config("ray.rllib.algorithms.iql.IQL").algo_class.__name__ == "IQL"
    assert algorithm_config("IQL").algo_class.__module__.startswith("agents.")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PP0", "did you mean 'PPO'"),
        ("nowhere.Mine", "No module named 'nowhere'"),
        ("benchmarks.experiments.games.matrix_games.TwoStepGam", "did you mean 'TwoStepGame'"),
        ("benchmarks.experiments.games.matrix_games.TwoStepGame", "neither an Algorithm nor an AlgorithmConfig"),
    ],
)
def test_unknown_algorithms_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        algorithm_config(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epoch": 3}, "did you mean 'num_epochs'"),
        ({"num_epochs": "three"}, "num_epochs is 'three'; it must be a number"),
        ({"use_gae": 1}, "use_gae is 1; it must be true or false"),
        ({"model_config": {"fcnet_hidden": [8]}}, "did you mean 'fcnet_hiddens'"),
        ({"model_config": 3}, "model_config is 3"),
        ({"minibatch_size": 5000}, "PPO: .*minibatch"),
    ],
    ids=str,
)
def test_bad_options_of_rllibs_algorithms_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate_config(apply_options(independent(PPOConfig(), GAME), options))


@pytest.fixture(scope="module")
def running_ray() -> Iterator[None]:
    """Start a ray with one CPU."""
    start_ray(1)
    yield
    ray.shutdown()


def random_return(episodes: int = 400) -> float:
    """Return the mean return of random legal actions."""
    env, rng = small_team.make(), np.random.default_rng(0)
    total = 0.0
    for k in range(episodes):
        observations, _ = env.reset(seed=0 if k == 0 else None)
        while env.agents:
            legal = {a: np.flatnonzero(s["action_mask"]) for a, s in observations.items()}
            observations, rewards, *_ = env.step({a: int(rng.choice(which)) for a, which in legal.items()})
        total += rewards["retrieval"]
    return total / episodes


@pytest.mark.slow
@pytest.mark.parametrize("share", [False, True], ids=["independent", "shared"])
def test_ppo_learns(share: bool, running_ray: None) -> None:
    """With two seeds the return ends clearly above that of random legal actions."""
    start = random_return()
    for seed in (0, 1):
        config = (shared if share else independent)(PPOConfig(), small_team.make)
        config.training(lr=3e-3, gamma=1.0, lambda_=1.0, train_batch_size_per_learner=480, minibatch_size=240)
        config.training(num_epochs=6, entropy_coeff=0.0)
        config.rl_module(model_config={"fcnet_hiddens": [32]})
        config.env_runners(num_env_runners=0, num_envs_per_env_runner=20).debugging(seed=seed)
        algorithm, numbers = train(config, stop={"training_iteration": 12})
        algorithm.stop()
        assert numbers["episode_return_mean"] > 1.25 * start, (seed, start, numbers)


class Crowd(ParallelEnv):
    """Environment with many agents; one name has a slash, at which RLlib splits column names."""

    metadata: ClassVar = {"name": "crowd"}
    max_episode_steps = 3

    def __init__(self) -> None:
        self.possible_agents = ["b/2", *(f"agent.{k}" for k in range(11, 0, -1))]

    def observation_space(self, agent: str) -> gym.Space:
        """Return the observation space of an agent."""
        return gym.spaces.Box(0, 1, (1,), np.float32)

    def action_space(self, agent: str) -> gym.Space:
        """Return the action space of an agent."""
        return gym.spaces.Discrete(2 + len(agent) % 2)

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode."""
        self.agents, self.t = list(self.possible_agents), 0
        return {a: np.zeros(1, np.float32) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        """Take one step."""
        self.t += 1
        alive, over = self.agents, self.t == 3
        self.agents = [] if over else alive
        observations = {a: np.full(1, self.t / 3, np.float32) for a in alive}
        return (
            observations,
            dict.fromkeys(alive, float(sum(actions.values()))),
            dict.fromkeys(alive, over),
            dict.fromkeys(alive, False),
            {a: {} for a in alive},
        )


def test_agents_keep_the_order_of_the_environment() -> None:
    """RLlib's wrapper takes the agents from a set, whose order differs between processes."""
    env = TeamEnv({"env": Crowd, "shared": True})
    assert env.possible_agents == Crowd().possible_agents
    observations, _ = env.reset(seed=0)
    for k, agent in enumerate(Crowd().possible_agents):
        assert observations[agent]["observation"][-12:].argmax() == k


@pytest.mark.slow
def test_presets_accept_unusual_agent_names() -> None:
    config = VDNConfig().environment(Crowd).env_runners(num_envs_per_env_runner=2).debugging(seed=0)
    config.training(hidden=[4], gru=None, learning_starts=2, train_batch_size_per_learner=2, updates_per_iteration=1)
    config.max_episode_steps = 3
    algorithm, numbers = train(config, stop={"training_iteration": 1})
    algorithm.stop()
    assert numbers["gradient_steps"] == 1
