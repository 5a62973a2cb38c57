"""Agents that all see and act in the same spaces, for libraries that stack agents or know no Dict observations."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo.utils.wrappers import BaseParallelWrapper

from marca_env.envs.pettingzoo_env import RecommenderParallel

Observation = dict[str, np.ndarray] | np.ndarray


class UniformAgents(BaseParallelWrapper):
    """A Parallel environment in which every agent has the spaces of every other.

    An observation is the one-hot of the agent among the agents, its own observation, and zeros up to the longest.
    Actions are numbered up to the most of any agent; an agent's mask forbids those that it has not, and where the
    environment takes the nearest legal action they are its ``wait``.

    Args:
        env: what :func:`marca_env.parallel_env` makes.
        flat: an observation is one Box, whose last numbers are the action mask, instead of a Dict of both.
    """

    def __init__(self, env: RecommenderParallel, flat: bool = False) -> None:
        super().__init__(env)
        self.flat = flat
        self._own = {agent: int(env.action_space(agent).n) for agent in env.possible_agents}  # type: ignore[attr-defined]
        sizes = [env.observation_space(agent)["observation"].shape[0] for agent in env.possible_agents]  # type: ignore[index]
        self._size, self._actions = len(sizes) + max(sizes), max(self._own.values())
        self._clips = env._core.on_illegal == "nearest"
        self._observation_space = self._make_space(env)
        self._action_space: spaces.Discrete = spaces.Discrete(self._actions)

    def observation_space(self, agent: str) -> spaces.Space:
        """The same for every agent: Dict of ``observation`` and ``action_mask``, or a Box of both."""
        return self._observation_space

    def action_space(self, agent: str) -> spaces.Discrete:
        """The same for every agent."""
        return self._action_space

    def reset(
        self, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """As the environment's own."""
        seen, infos = self.env.reset(seed=seed, options=options)
        return self._shown(seen), infos

    def step(
        self, actions: dict[str, int]
    ) -> tuple[dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """As the environment's own."""
        if self._clips:
            actions = {agent: self._nearest(agent, action) for agent, action in actions.items()}
        seen, *others = self.env.step(actions)
        return (self._shown(seen), *others)

    def _nearest(self, agent: str, action: int) -> int:
        return min(action, self._own[agent] - 1) if action in self._action_space else action

    def _shown(self, seen: dict[str, dict[str, np.ndarray]]) -> dict[str, Observation]:
        shown: dict[str, Observation] = {}
        for agent, own in seen.items():
            observation, mask = np.zeros(self._size, dtype=np.float32), np.zeros(self._actions, dtype=np.int8)
            place = self.possible_agents.index(agent)
            start = len(self.possible_agents)
            observation[place] = 1.0
            observation[start : start + len(own["observation"])] = own["observation"]
            mask[: self._own[agent]] = own["action_mask"]
            both = {"observation": observation, "action_mask": mask}
            shown[agent] = np.concatenate([observation, mask.astype(np.float32)]) if self.flat else both
        return shown

    def _make_space(self, env: RecommenderParallel) -> spaces.Space:
        high = np.ones(self._size, dtype=np.float32)
        start = len(env.possible_agents)
        for agent in env.possible_agents:
            own = env.observation_space(agent)["observation"].high  # type: ignore[index]
            part = high[start : start + len(own)]
            np.maximum(part, own, out=part)
        if self.flat:
            high = np.concatenate([high, np.ones(self._actions, dtype=np.float32)])
            return spaces.Box(np.zeros_like(high), high, dtype=np.float32)
        mask = spaces.Box(0, 1, shape=(self._actions,), dtype=np.int8)
        seen = spaces.Box(np.zeros_like(high), high, dtype=np.float32)
        return spaces.Dict({"observation": seen, "action_mask": mask})
