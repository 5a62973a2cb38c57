"""Wrapper that gives all agents the same spaces, for libraries that stack agents or lack Dict observations."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from marca_env.envs.pettingzoo_env import Observation, RecommenderParallel
from marca_env.utils.errors import InputError, shown


class UniformAgents(BaseParallelWrapper):
    """A Parallel environment in which all agents have the same spaces.

    An observation is the one-hot of the agent, then its own observation, padded with zeros to the longest. All agents
    have the largest number of actions of any agent. An agent's mask forbids the actions that it lacks; if the
    environment takes the nearest legal action (``on_illegal="nearest"``), they count as ``wait``. Masks in the infos
    are padded, too.

    Args:
        env: environment that :func:`marca_env.parallel_env` returned.
        flat: whether an observation is one Box, ending with the action mask, instead of a Dict of both.
    """

    def __init__(self, env: RecommenderParallel, flat: bool = False) -> None:
        if not isinstance(flat, (bool, np.bool_)):
            raise InputError(f"UniformAgents: flat is {shown(flat)}; pass True or False")
        if not isinstance(env, ParallelEnv) or not isinstance(env.unwrapped, RecommenderParallel):
            raise InputError(f"UniformAgents takes an environment of marca_env.parallel_env; got {shown(env)}")
        super().__init__(env)
        if not all(isinstance(env.observation_space(agent), spaces.Dict) for agent in env.possible_agents):
            raise InputError("UniformAgents takes Dict observations; leave out observations='box' and pass flat=True")
        self.flat = flat
        self._n_own_actions = {agent: int(env.action_space(agent).n) for agent in env.possible_agents}  # type: ignore[attr-defined]
        sizes = [env.observation_space(agent)["observation"].shape[0] for agent in env.possible_agents]  # type: ignore[index]
        self._size, self._n_actions = len(sizes) + max(sizes), max(self._n_own_actions.values())
        self._takes_nearest = env._core.on_illegal == "nearest"
        self._observation_space = self._make_space(env)
        self._action_space: spaces.Discrete = spaces.Discrete(self._n_actions)

    def observation_space(self, agent: str) -> spaces.Space:
        """Return the space of every agent: a Dict of ``observation`` and ``action_mask``, or a Box of both."""
        return self._observation_space

    def action_space(self, agent: str) -> spaces.Discrete:
        """Return the space of every agent."""
        return self._action_space

    def reset(
        self, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Reset the environment."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return self._uniform(observations), self._padded(infos)

    def step(
        self, actions: dict[str, int]
    ) -> tuple[dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Pass all agents' actions to the environment; return padded observations and masks."""
        if self._takes_nearest:
            actions = {agent: self._nearest(agent, action) for agent, action in actions.items()}
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        return self._uniform(observations), rewards, terminated, truncated, self._padded(infos)

    def _nearest(self, agent: str, action: int) -> int:
        """Return ``wait`` for an action that only other agents have."""
        return min(action, self._n_own_actions[agent] - 1) if action in self._action_space else action

    def _padded(self, infos: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Pad the action masks of the infos."""
        return {agent: {**info, "action_mask": self._padded_mask(info["action_mask"])} for agent, info in infos.items()}

    def _padded_mask(self, own: np.ndarray) -> np.ndarray:
        """Return the agent's mask (A,) with zeros for the actions that it lacks, int8."""
        return np.pad(own, (0, self._n_actions - len(own)))

    def _uniform(self, observations: dict[str, Any]) -> dict[str, Observation]:
        """Pad observations and masks to the spaces of every agent."""
        uniform: dict[str, Observation] = {}
        for agent, own in observations.items():
            observation, mask = np.zeros(self._size, dtype=np.float32), self._padded_mask(own["action_mask"])
            index = self.possible_agents.index(agent)
            start = len(self.possible_agents)
            observation[index] = 1.0
            observation[start : start + len(own["observation"])] = own["observation"]
            both = {"observation": observation, "action_mask": mask}
            uniform[agent] = np.concatenate([observation, mask.astype(np.float32)]) if self.flat else both
        return uniform

    def _make_space(self, env: RecommenderParallel) -> spaces.Space:
        """Return the observation space that covers those of all agents."""
        high = np.ones(self._size, dtype=np.float32)
        start = len(env.possible_agents)
        for agent in env.possible_agents:
            own = env.observation_space(agent)["observation"].high  # type: ignore[index]
            part = high[start : start + len(own)]
            np.maximum(part, own, out=part)
        if self.flat:
            high = np.concatenate([high, np.ones(self._n_actions, dtype=np.float32)])
            return spaces.Box(np.zeros_like(high), high, dtype=np.float32)
        mask = spaces.Box(0, 1, shape=(self._n_actions,), dtype=np.int8)
        observation = spaces.Box(np.zeros_like(high), high, dtype=np.float32)
        return spaces.Dict({"observation": observation, "action_mask": mask})
