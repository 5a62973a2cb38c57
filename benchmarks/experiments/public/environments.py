"""Two public cooperative tasks as PettingZoo ParallelEnvs: mpe2's simple_spread and level-based foraging.

The published packages simulate; this module only adapts the interface. The agents of both tasks observe the whole
world, so that feed-forward networks suffice. Episodes end at a step limit, which is a truncation: no agent observes the
time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv

Observations = dict[str, np.ndarray]
INSTALL = "pip install 'marca-env[marl]'"


class SimpleSpread(ParallelEnv):
    """``mpe2.simple_spread_v3``, discrete: N agents cover N landmarks and avoid each other.

    Trajectories, rewards and state are those of ``simple_spread_v3.parallel_env``. That one observes every agent three
    times a step; here the AEC environment is stepped directly and observed once.

    Args:
        agents: N, also the number of landmarks.
        local_ratio: weight of an agent's own collisions (−1 each) against the shared −Σ distance of each landmark to
            its nearest agent, in an agent's reward.
        max_cycles: steps of every episode.

    Raises:
        ImportError: mpe2 is not installed; the message says how to install it.
    """

    metadata = {"name": "simple_spread_v3"}  # noqa: RUF012

    def __init__(self, agents: int = 3, local_ratio: float = 0.5, max_cycles: int = 25) -> None:
        try:
            from mpe2.simple_spread_v3 import raw_env
        except ImportError as error:
            raise ImportError(f"simple_spread needs mpe2: {INSTALL}") from error
        self.aec = raw_env(N=agents, local_ratio=local_ratio, max_cycles=max_cycles)
        self.possible_agents = list(self.aec.possible_agents)
        self.agents: list[str] = []
        self.max_steps = max_cycles
        self.state_space = self.aec.state_space
        self._observations: Observations = {}

    def observation_space(self, agent: str) -> gym.Space:
        """Return the space of own velocity and position, relative positions of landmarks and agents, empty messages.

        It has 6N numbers for N = 3.
        """
        return self.aec.observation_space(agent)

    def action_space(self, agent: str) -> gym.Space:
        """Return the space of five actions: stay, left, right, down, up."""
        return self.aec.action_space(agent)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observations, dict]:
        """Start an episode at random positions."""
        self.aec.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return self._observe(), {a: {} for a in self.agents}

    def step(self, actions: Mapping[str, int]) -> tuple[Observations, dict, dict, dict, dict]:
        """Move all agents at once; episodes end by truncation only."""
        for agent in self.agents:
            self.aec.step(int(actions[agent]))
        out = (self._observe(), dict(self.aec.rewards), dict(self.aec.terminations), dict(self.aec.truncations))
        infos: dict[str, dict] = {a: {} for a in self.agents}
        if any(self.aec.truncations.values()):
            self.agents = []
        return *out, infos

    def state(self) -> np.ndarray:
        """Return the concatenated observations, as mpe2 does."""
        return np.concatenate([self._observations[a] for a in self.possible_agents])

    def close(self) -> None:
        """Close the environment."""
        self.aec.close()

    def _observe(self) -> Observations:
        self._observations = {a: self.aec.observe(a) for a in self.possible_agents}
        return dict(self._observations)


class Foraging(ParallelEnv):
    """Level-based foraging: agents collect food together if the sum of their levels reaches the level of the food.

    Every agent receives the team's reward, the sum of the players' (at most 1 an episode). The package reports its
    step limit as termination; here it is truncation. All six actions are legal at all times, as in the published
    benchmarks; an impossible action has no effect.

    Args:
        task: id registered by lbforaging.

    Raises:
        ImportError: lbforaging is not installed; the message says how to install it.
    """

    metadata = {"name": "lbforaging"}  # noqa: RUF012

    def __init__(self, task: str = "Foraging-8x8-2p-2f-coop-v3") -> None:
        try:
            import lbforaging  # noqa: F401 - registers its ids
        except ImportError as error:
            raise ImportError(f"foraging needs lbforaging: {INSTALL}") from error
        self.game = cast(Any, gym.make(task, disable_env_checker=True).unwrapped)
        self.possible_agents = [f"agent_{k}" for k in range(self.game.n_agents)]
        self.agents: list[str] = []
        self.max_steps = int(self.game.spec.kwargs["max_episode_steps"])
        self._observation_spaces = dict(zip(self.possible_agents, self.game.observation_space, strict=True))
        self._action_spaces = dict(zip(self.possible_agents, self.game.action_space, strict=True))
        size = sum(space.shape[0] for space in self._observation_spaces.values())
        self.state_space = gym.spaces.Box(-1.0, np.inf, (size,), np.float32)
        self._observations: Observations = {}

    def observation_space(self, agent: str) -> gym.Space:
        """Return the space of position and level of every food, then of the agent and of the others."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space:
        """Return the space of six actions: nothing, north, south, west, east, load."""
        return self._action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observations, dict]:
        """Start an episode with random positions and levels."""
        observations, _ = self.game.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return self._record(observations), {a: {} for a in self.agents}

    def step(self, actions: Mapping[str, int]) -> tuple[Observations, dict, dict, dict, dict]:
        """Let all agents act at once; terminated when the food is gone, truncated at the step limit."""
        acting = self.agents
        observations, rewards, ended, _, _ = self.game.step([int(actions[a]) for a in acting])
        eaten = not self.game.field.any()
        self.agents = [] if ended else acting
        return (
            self._record(observations),
            dict.fromkeys(acting, float(sum(rewards))),
            dict.fromkeys(acting, eaten),
            dict.fromkeys(acting, bool(ended) and not eaten),
            {a: {} for a in acting},
        )

    def state(self) -> np.ndarray:
        """Return the concatenated observations."""
        return np.concatenate([self._observations[a] for a in self.possible_agents])

    def close(self) -> None:
        """Close the environment."""
        self.game.close()

    def _record(self, observations: tuple[np.ndarray, ...]) -> Observations:
        self._observations = dict(zip(self.possible_agents, observations, strict=True))
        return dict(self._observations)
