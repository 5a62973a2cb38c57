"""PettingZoo and RLlib environments behind the batched protocol, stepped one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from agents.rllib.envs.team_reward import OpposedRewards, check_team_reward
from marca_env.envs.batched_env import BatchedStep
from marca_env.utils.errors import InputError

MASK = "action_mask"
ON_TURN = "on_turn"
"""Key of ``infos[agent]``: whether the agent acts in the next step; it may only wait if this is False."""
BARE_KEYS = ("observation", "observations", "obs")
"""Keys of the bare observation in environments whose observations contain an action mask."""


class SequentialEnv:
    """B cooperative environments behind the batched protocol, stepped one after the other.

    - It takes PettingZoo ParallelEnvs and RLlib MultiAgentEnvs.
    - An agent is on turn while it is in the episode: in a ParallelEnv the agents in ``env.agents``, in a MultiAgentEnv
      those that have just received an observation, as RLlib specifies. ``infos[agent]["on_turn"] = False``, or a method
      ``is_on_turn(agent)`` of the environment, says that an agent in the episode may only wait.
    - Episodes may differ in length. A sub-environment that has ended stays as it is until the next ``reset``, which
      resets all. The mask of an agent without an observation allows its last action, which has no effect.
    - The team's reward is the mean of the step's rewards, or their sum, over all possible agents. An agent that
      receives none, for instance because it has left, counts as 0. The mean of a shared reward is this reward. Agents
      whose rewards are opposed are named in a warning.
    - An episode counts as terminated (no value after it) if every agent in it terminated. If any agent was truncated
      instead, the last observation is valued, with the actions that were legal there.
    - Observations of any space are flattened to float32. An ``action_mask`` beside the observation or in the info is
      respected. The state is ``env.state()``, or the concatenated observations.

    Args:
        envs: sub-environments of the same kind.
        max_steps: longest episode; ``None``: the environment's own (``max_steps`` or ``max_cycles``). A longer
            episode is truncated there.
        team_reward: ``mean`` or ``sum``.

    Raises:
        InputError: no ``possible_agents``, actions that are not ``Discrete(n)``, or no maximum length.
    """

    def __init__(self, envs: list[Any], max_steps: int | None = None, team_reward: str = "mean") -> None:
        check_team_reward(team_reward)
        self.envs, self.num_envs, self.team_reward = envs, len(envs), team_reward
        first = envs[0]
        self.agents = tuple(getattr(first, "possible_agents", None) or ())
        if not self.agents:
            raise InputError(
                f"{type(first).__name__}: no possible_agents; use a PettingZoo ParallelEnv or a batched environment"
            )
        self.max_steps = max_steps or _stated_length(first)
        spaces = {a: _bare_space(_space(first, "observation", a)) for a in self.agents}
        self._flatten = {a: _flattener(s) for a, s in spaces.items()}
        self.observation_sizes = {a: gym.spaces.flatdim(s) for a, s in spaces.items()}
        self.action_sizes = {a: _discrete(first, a) for a in self.agents}
        self._has_state = callable(getattr(first, "state", None)) and getattr(first, "state_space", None) is not None
        self.state_size = (
            gym.spaces.flatdim(first.state_space) if self._has_state else sum(self.observation_sizes.values())
        )
        self._takes_seed = "seed" in inspect.signature(first.reset).parameters or _takes_any(first.reset)
        self._is_multi_agent_env = hasattr(first, "get_observation_space")  # an RLlib MultiAgentEnv
        self._agents_to_act: list[Collection[str]] = [self.agents] * self.num_envs
        self._over = np.zeros(self.num_envs, dtype=bool)
        self._opposed = OpposedRewards(self.agents, env_name(first), team_reward)
        self._observations = {a: np.zeros((self.num_envs, n), np.float32) for a, n in self.observation_sizes.items()}
        self._legal = {a: np.zeros((self.num_envs, n), bool) for a, n in self.action_sizes.items()}
        self._on_turn = {a: np.zeros(self.num_envs, bool) for a in self.agents}
        self._state = np.zeros((self.num_envs, self.state_size), np.float32)

    def reset(self, seed: int | None = None) -> BatchedStep:
        """Reset every sub-environment; with ``seed`` each gets a separate seed drawn from it."""
        seeds: list[Any] = [None] * self.num_envs
        if seed is not None:
            seeds = np.random.default_rng(seed).integers(2**31, size=self.num_envs).tolist()
        self._opposed.check()
        self._over[:] = False
        for rows in self._observations.values():  # clear the last episode for agents that get no observation yet
            rows[:] = 0.0
        for k, env in enumerate(self.envs):
            result = env.reset(seed=seeds[k]) if self._takes_seed else env.reset()
            if not isinstance(result, tuple) or len(result) != 2:
                raise InputError(f"{type(env).__name__}: reset() must return (observations, infos)")
            self._store(k, *result, over=False)
        zeros = np.zeros(self.num_envs)
        return self._batched_step(zeros, zeros.astype(bool), zeros.astype(bool))

    def step(self, actions: Mapping[str, np.ndarray]) -> BatchedStep:
        """Step the sub-environments that still run; ``actions`` agent → (B,) int."""
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        action_lists = {a: np.asarray(agent_actions).tolist() for a, agent_actions in actions.items()}
        for k in np.flatnonzero(~self._over).tolist():
            env, acting = self.envs[k], self._agents_to_act[k]
            observations, rewards, ended, cut, infos = env.step({a: action_lists[a][k] for a in acting})
            agent_rewards = np.array([float(rewards.get(a, 0.0)) for a in self.agents])
            self._opposed.add(agent_rewards)
            reward[k] = agent_rewards.mean() if self.team_reward == "mean" else agent_rewards.sum()
            all_ended = ended.get("__all__", all(ended.get(a, False) for a in acting))
            over = all_ended or cut.get("__all__", False)
            if not self._is_multi_agent_env:
                over = over or not getattr(env, "agents", True)
                over = over or all(ended.get(a, False) or cut.get(a, False) for a in acting)
            terminated[k], truncated[k] = all_ended, over and not all_ended
            self._over[k] = over
            gone = [a for a in self.agents if ended.get(a, False) or (cut.get(a, False) and not over)]
            self._store(k, observations, infos, over, self.agents if all_ended else gone)
        return self._batched_step(reward, terminated, truncated)

    def close(self) -> None:
        """Close all sub-environments."""
        for env in self.envs:
            env.close()

    def _store(
        self,
        k: int,
        observations: Mapping[str, Any],
        infos: Mapping[str, Any],
        over: bool,
        gone: Collection[str] = (),
    ) -> None:
        """Store the observations and masks of sub-environment ``k``, and which agents act next.

        Args:
            k: index of the sub-environment.
            observations: of its agents, by name.
            infos: of its agents, by name.
            over: whether its episode is over; a truncated agent is then on turn, so that its last observation is
                valued.
            gone: agents that act no more.
        """
        env = self.envs[k]
        present = observations if self._is_multi_agent_env else getattr(env, "agents", self.agents)
        for agent in self.agents:
            observation, info, legal = observations.get(agent), infos.get(agent), self._legal[agent][k]
            if observation is not None:
                self._flatten[agent](_bare(observation), self._observations[agent][k])
            takes_part = observation is not None and agent not in gone and (over or agent in present)
            self._on_turn[agent][k] = takes_part and _may_act(env, agent, info)
            legal[:] = _stated_mask(observation, info) if takes_part else False
            if not legal.any():
                legal[-1] = True
        self._agents_to_act[k] = tuple(a for a in self.agents if a in present)
        if self._has_state:
            self._state[k] = np.ravel(env.state())
        else:
            np.concatenate([self._observations[a][k] for a in self.agents], out=self._state[k])

    def _batched_step(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> BatchedStep:
        observations = {a: v.copy() for a, v in self._observations.items()}
        legal = {a: v.copy() for a, v in self._legal.items()}
        on_turn = {a: v.copy() for a, v in self._on_turn.items()}
        reward = reward.astype(np.float32)
        return BatchedStep(observations, legal, self._state.copy(), reward, terminated, truncated, on_turn=on_turn)


def env_name(env: Any) -> str:
    """Return the name that an environment states in its metadata, or its class."""
    inner = getattr(env, "unwrapped", env)
    stated = (getattr(inner, "metadata", None) or {}).get("name")
    return stated if isinstance(stated, str) else type(inner).__name__


def _bare(observation: Any) -> Any:
    """Return an observation without its mask."""
    if not isinstance(observation, Mapping):
        return observation
    name = next((n for n in BARE_KEYS if n in observation), None)
    return observation[name] if name is not None else {k: v for k, v in observation.items() if k != MASK}


def _bare_space(space: gym.Space) -> gym.Space:
    """Return the space of :func:`_bare` observations."""
    if not isinstance(space, gym.spaces.Dict):
        return space
    name = next((n for n in BARE_KEYS if n in space.spaces), None)
    if name is not None:
        return space[name]
    return gym.spaces.Dict({k: v for k, v in space.spaces.items() if k != MASK}) if MASK in space.spaces else space


def _flattener(space: gym.Space) -> Callable[[Any, np.ndarray], None]:
    """Return a function ``(observation, row)`` that writes the flat observation into ``row``, fast for a Box."""

    def flatten_box(observation: Any, row: np.ndarray) -> None:
        row[:] = observation.reshape(-1) if isinstance(observation, np.ndarray) else np.ravel(observation)

    def flatten_any(observation: Any, row: np.ndarray) -> None:
        row[:] = np.ravel(np.asarray(gym.spaces.flatten(space, observation)))

    return flatten_box if isinstance(space, gym.spaces.Box) else flatten_any


def _stated_mask(observation: Any, info: Any) -> np.ndarray | bool:
    for source in (observation, info):
        if isinstance(source, Mapping) and MASK in source:
            return np.asarray(source[MASK], dtype=bool)
    return True


def _may_act(env: Any, agent: str, info: Any) -> bool:
    declares = getattr(getattr(env, "par_env", env), "is_on_turn", None)  # RLlib wraps a ParallelEnv as par_env
    if callable(declares):
        return bool(declares(agent))
    return not isinstance(info, Mapping) or bool(info.get(ON_TURN, True))


def _space(env: Any, kind: str, agent: str) -> gym.Space:
    table = getattr(env, f"{kind}_spaces", None)
    if isinstance(table, Mapping) and agent in table:
        return table[agent]
    getter = getattr(env, f"get_{kind}_space", None) or getattr(env, f"{kind}_space", None)
    if callable(getter):
        return getter(agent)
    raise InputError(f"{type(env).__name__}: no {kind} space of agent {agent!r}; define {kind}_spaces")


def _discrete(env: Any, agent: str) -> int:
    space = _space(env, "action", agent)
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        raise InputError(f"agent {agent!r}: action space {space}; the algorithms need Discrete(n) with start 0")
    return int(space.n)


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _stated_length(env: Any) -> int:
    for source in (env, getattr(env, "unwrapped", env)):
        for name in ("max_steps", "max_cycles", "_max_episode_steps"):
            value = getattr(source, name, None)
            if isinstance(value, (int, np.integer)) and value > 0:
                return int(value)
    raise InputError(f"{type(env).__name__}: no maximum length of an episode; set max_episode_steps")


def bare_key(space: Any) -> str | None:
    """Return the key of the bare observation in a masked observation space; ``None`` if the space has no mask.

    Raises:
        InputError: a mask without an observation of a known name.
    """
    if not isinstance(space, gym.spaces.Dict) or MASK not in space.spaces:
        return None
    key = next((key for key in BARE_KEYS if key in space.spaces), None)
    if key is None:
        raise InputError(f"observations are {space}; use the key 'observation' for the entry beside {MASK!r}")
    return key
