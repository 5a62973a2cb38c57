"""Environment runner that steps a natively batched environment and returns whole episodes as arrays."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    WEIGHTS_SEQ_NO,
)

from agents.offline.episodes import Columns
from agents.rllib.core.replay import EpisodeBatch
from agents.rllib.core.rollout import rollout
from agents.rllib.core.tensor_replay import is_on_host
from agents.rllib.core.tensor_rollout import make_tensor_env, sampling_device, tensor_rollout
from agents.rllib.envs.make_env import make_batched
from agents.team.team import TeamSpec
from marca_env.envs.tensor_env import TensorRecommender
from marca_env.utils.errors import InputError


class TeamEnvRunner(EnvRunner, Checkpointable):
    """Environment runner with ε-greedy agents; they are greedy if the configuration has ``explore=False``.

    Every batch of episodes is a pure function of the weights, of ε and of (seed, worker, whether it evaluates, round,
    batch of the round), including the environment's reset. :meth:`begin_round` sets the round. A resumed run therefore
    gets the same episodes as an uninterrupted one, and a restarted runner continues with the next round instead of
    repeating its data. This requires environments that ``reset(seed)`` determines.

    Local sampling and one remote runner give the same episodes. Two runners with B sub-environments do not give the
    episodes of one runner with 2B: a batch draws from one generator, because a generator for each sub-environment
    would cost more than the step itself.

    Without an environment (learning from a log) the runner only provides the spaces.
    """

    env: Any
    module: Any
    _tensors: TensorRecommender | None

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.spec = TeamSpec.from_dict(self.config.team())
        self._weights_seq_no = 0
        self._round: tuple[int, ...] = (0, 0)
        self._batches = 0
        self._evaluates = bool(self.config.in_evaluation)
        self.make_env()
        self.make_module()

    def make_env(self) -> None:
        """Build the environment and close the previous one."""
        if self.env is not None and hasattr(self.env, "close"):
            self.env.close()
        self.env = self._tensors = None
        if self.config.env is None:
            return
        self.env = make_batched(
            self.config.env,
            self.config.num_envs_per_env_runner,
            self.config.env_config,
            joint=self.config.preset().joint,
            max_steps=self.config.max_episode_steps,
            team_reward=self.config.team_reward,
        )
        if self.config.sampling == "tensors":
            self._tensors = make_tensor_env(self.env, sampling_device(self.config))

    def make_module(self) -> None:
        """Build the team's networks for acting."""
        spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self.module = spec.build()[DEFAULT_MODULE_ID].eval()
        if self._tensors is not None:
            self.module.to(self._tensors.device)

    def get_spaces(self) -> dict[str, tuple[gym.Space, gym.Space]]:
        """Return the observation and action spaces of the environment and of the module."""
        spaces = team_spaces(self.spec)
        return {INPUT_ENV_SPACES: spaces, DEFAULT_MODULE_ID: spaces}

    def assert_healthy(self) -> None:
        """Raise an error if the runner has no networks."""
        assert self.module is not None, "the runner has no module"

    def stop(self) -> None:
        """Close the environment."""
        if self.env is not None and hasattr(self.env, "close"):
            self.env.close()

    def begin_round(
        self, number: int, *, attempt: int = 0, env_steps: int | None = None, evaluates: bool | None = None
    ) -> None:
        """Set the position of the run, before :meth:`sample`.

        Args:
            number: rounds of sampling (or evaluations) so far.
            attempt: number of runners restored in this run, so that an interrupted round is not repeated.
            env_steps: lifetime steps of all runners together; ε depends on it.
            evaluates: whether to sample greedily and independently of training; ``None``: as configured.
        """
        self._round, self._batches = (number, attempt), 0
        self._evaluates = bool(self.config.in_evaluation) if evaluates is None else evaluates
        if env_steps is not None:
            self.num_env_steps_sampled_lifetime = env_steps

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
        **kwargs: Any,
    ) -> list[EpisodeBatch]:
        """Play whole batches of episodes until the requested number is complete; one batch by default.

        Raises:
            InputError: the configuration has no environment.
        """
        if self.env is None:
            raise InputError("no environment to sample from; set config.environment(...)")
        if explore is None:
            explore = self.config.explore and self._evaluates == self.config.in_evaluation
        batches: list[EpisodeBatch] = []
        steps = 0
        while True:
            rate = 1.0 if random_actions else self.epsilon() if explore else 0.0
            batch = EpisodeBatch(self._play_batch(rate), len(self.spec.agents))
            batches.append(batch)
            self._log(batch)
            steps += batch.env_steps()
            if steps >= (num_timesteps or 0) and len(batches) * self.env.num_envs >= (num_episodes or 0):
                return batches

    def epsilon(self) -> float:
        """Return the probability of a random action at the current step of the schedule."""
        schedule = self.config.epsilon
        if isinstance(schedule, (int, float)):
            return float(schedule)
        steps, values = zip(*schedule, strict=True)
        return float(np.interp(self.num_env_steps_sampled_lifetime, steps, values))

    def notice(self) -> str | None:
        """Return the warning of the environment, ``None`` so far."""
        env = self.env
        while hasattr(env, "env"):  # views
            env = env.env
        return getattr(env, "notice", None)

    def _play_batch(self, rate: float) -> Columns:
        """Play the next batch of episodes."""
        self._batches += 1
        if self.config.seed is None:
            rng = np.random.default_rng()
        else:
            worker = max(self.worker_index or 0, 1)  # the local runner plays the episodes of the first remote one
            rng = np.random.default_rng([self.config.seed, worker, int(self._evaluates), *self._round, self._batches])
        return self._rollout(rng, rate)

    def _rollout(self, rng: np.random.Generator, rate: float) -> Columns:
        """Play one episode in every sub-environment; ``rate`` is the probability of a random action."""
        if self._tensors is None:
            return rollout(self.env, self.module, self.spec, rng, rate)
        generator = torch.Generator(self._tensors.device)
        generator.manual_seed(int(rng.integers(2**63)))
        columns: dict[str, Any] = tensor_rollout(self._tensors, self.module, self.spec, generator, rate)
        keeps = self._tensors.device.type != "cpu"  # the replay is on the same device then
        return {n: x if keeps and not is_on_host(n) else x.cpu().numpy() for n, x in columns.items()}

    def _log(self, batch: EpisodeBatch) -> None:
        columns, steps = batch.columns, batch.env_steps()
        returns = columns["reward"].sum(1)
        self.num_env_steps_sampled_lifetime += steps
        log = self.metrics.log_value
        log(NUM_ENV_STEPS_SAMPLED, steps, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, reduce="lifetime_sum", with_throughput=True)
        log(NUM_EPISODES, len(returns), reduce="sum")
        log(NUM_EPISODES_LIFETIME, len(returns), reduce="lifetime_sum")
        log((NUM_MODULE_STEPS_SAMPLED, DEFAULT_MODULE_ID), steps, reduce="sum")
        for agent in self.spec.agents:
            log((NUM_AGENT_STEPS_SAMPLED, agent), steps, reduce="sum")
        log(EPISODE_RETURN_MEAN, float(returns.mean()), window=1)
        log(EPISODE_RETURN_MIN, float(returns.min()), reduce="min", window=1)
        log(EPISODE_RETURN_MAX, float(returns.max()), reduce="max", window=1)
        log(EPISODE_LEN_MEAN, float(columns["filled"].sum(1).mean()), window=1)

    def get_metrics(self) -> Any:
        """Return the metrics since the last call."""
        return self.metrics.reduce()

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Return the number of sampled steps and the weights of the networks."""
        state: dict[str, Any] = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = {DEFAULT_MODULE_ID: self.module.get_state(**kwargs)}
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`get_state` returned.

        Weights that the runner already has (same version number) are not loaded again.
        """
        if COMPONENT_RL_MODULE in state:
            number = state.get(WEIGHTS_SEQ_NO, 0)
            if number == 0 or number != self._weights_seq_no:  # smaller after an earlier state was restored
                weights = state[COMPONENT_RL_MODULE]
                weights = ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights
                self.module.set_state(weights.get(DEFAULT_MODULE_ID, weights))
            self._weights_seq_no = number
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = int(state[NUM_ENV_STEPS_SAMPLED_LIFETIME])

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return the constructor's arguments, as RLlib's checkpoints need them."""
        return (), {"config": self.config, "worker_index": self.worker_index}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the networks as the only component of a checkpoint."""
        return [(COMPONENT_RL_MODULE, self.module)]


def team_spaces(spec: TeamSpec) -> tuple[gym.Space, gym.Space]:
    """Return the observation and action spaces for RLlib, by agent; the networks are built from the TeamSpec."""
    observation_spaces: dict[str, gym.Space] = {}
    action_spaces: dict[str, gym.Space] = {}
    for agent, size, count in zip(spec.agents, spec.observation_sizes, spec.action_sizes, strict=True):
        observation_spaces[agent] = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        action_spaces[agent] = gym.spaces.Discrete(count)
    return gym.spaces.Dict(observation_spaces), gym.spaces.Dict(action_spaces)
