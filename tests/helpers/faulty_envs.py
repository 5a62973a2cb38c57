"""A small PettingZoo-like environment with one fault at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

AGENTS = ("one", "two")


class Plain:
    """Environment of four steps: agents see three numbers and have three actions; the masks are in the infos."""

    possible_agents: ClassVar = list(AGENTS)
    max_steps = 4
    box: gym.Space = gym.spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self) -> None:
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space:
        """Return the observation space of an agent."""
        return self.box

    def action_space(self, agent: str) -> gym.Space:
        """Return the action space of an agent."""
        return gym.spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        """Start an episode."""
        self.agents, self.at = list(self.possible_agents), 0
        return self.seen(), self.infos()

    def step(self, actions: dict[str, int]) -> Any:
        """Take one step."""
        self.at += 1
        over = self.at == self.max_steps
        paid = {a: self.reward(a) for a in self.agents}
        acted = list(self.agents)
        self.agents = [] if over else self.agents
        return self.seen(acted), paid, dict.fromkeys(acted, over), dict.fromkeys(acted, False), self.infos(acted)

    def close(self) -> None:
        """Do nothing."""

    def reward(self, agent: str) -> Any:
        """Return the reward of an agent."""
        return 1.0

    def observe(self, agent: str) -> Any:
        """Return the observation of an agent."""
        return np.zeros(3, np.float32)

    def mask(self, agent: str) -> Any:
        """Return the legal actions of an agent."""
        return np.ones(3, np.int8)

    def seen(self, agents: list[str] | None = None) -> dict[str, Any]:
        """Return the observations."""
        return {a: self.observe(a) for a in agents or self.agents}

    def infos(self, agents: list[str] | None = None) -> dict[str, Any]:
        """Return the infos."""
        return {a: {"action_mask": self.mask(a)} for a in agents or self.agents}


def late(agent: str, value: Any, usual: Any) -> Callable[[Plain, str], Any]:
    """Return a method whose result is ``value`` for ``agent`` from step 2 on, else ``usual``."""
    return lambda env, name: value if name == agent and env.at >= 2 else usual


def faulty(**parts: Any) -> type[Plain]:
    """Return the environment with other attributes and methods."""
    return type("Faulty", (Plain,), parts)
