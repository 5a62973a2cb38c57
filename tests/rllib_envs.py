"""Toy cooperative environments of the PettingZoo and RLlib kinds, whose episodes differ in length."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np

from marca_env.batched import BatchedStep

AGENTS = ["left", "right.arm"]  # names that neither sort in this order nor are identifiers


class Corridor:
    """A PettingZoo ParallelEnv in all but its base class: walk ``length`` cells together, then stop.

    Action 1 of ``left`` moves on, anything else ends the episode. The reward of each move is 1. The legal actions of
    ``right.arm`` alternate. Episode k has 2 + k mod 3 cells.
    """

    possible_agents = AGENTS
    max_steps = 6

    def __init__(self, masked: bool = True) -> None:
        self.masked, self.episode, self.agents = masked, -1, list(AGENTS)

    def observation_space(self, agent: str) -> gym.Space:
        return gym.spaces.Dict(
            {"observation": gym.spaces.Discrete(7), "action_mask": gym.spaces.Box(0, 1, (3,), np.int8)}
        )

    def action_space(self, agent: str) -> gym.Space:
        return gym.spaces.Discrete(2 if agent == "left" else 3)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.agents, self.at, self.episode = list(AGENTS), 0, self.episode + 1
        self.length = 2 + self.episode % 3
        return self._seen(), {a: {} for a in AGENTS}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        self.at += 1
        over = actions["left"] != 1 or self.at == self.length
        if over:
            self.agents = []
        reward = float(actions["left"] == 1)
        each = dict.fromkeys(AGENTS, reward)
        return self._seen(), each, dict.fromkeys(AGENTS, over), dict.fromkeys(AGENTS, False), {a: {} for a in AGENTS}

    def close(self) -> None:
        pass

    def _seen(self) -> dict[str, Any]:
        odd = np.array([self.at % 2 == 1, True, self.at % 2 == 0], dtype=np.int8)
        both = {"left": np.ones(2, np.int8), "right.arm": odd}
        return {a: {"observation": self.at, "action_mask": both[a]} for a in AGENTS}


def make_corridor(config: dict) -> Corridor:
    """A creator as RLlib knows them."""
    return Corridor(**config)


class Dice:
    """Batched: each episode shows six random numbers, from the seed alone, and pays for action 1 in two steps.

    Args:
        num_envs: B.
        fail_after: resets after which every step raises, or with ``die`` ends the process.
        only_at: the only process in which it can be built.
    """

    agents = ("a", "b")
    max_steps, state_size = 2, 6

    def __init__(
        self, num_envs: int, fail_after: int | None = None, die: bool = False, only_at: int | None = None
    ) -> None:
        if only_at not in (None, os.getpid()):
            raise ArithmeticError("not in this process")
        self.num_envs, self.fail_after, self.die = num_envs, fail_after, die
        self.observation_sizes, self.action_sizes = {"a": 6, "b": 6}, {"a": 2, "b": 2}
        self._resets, self._at = 0, 0
        self._shown = np.zeros((num_envs, 6), np.float32)

    def reset(self, seed: int | None = None) -> BatchedStep:
        self._shown = np.random.default_rng(seed).random((self.num_envs, 6), dtype=np.float32)
        self._resets, self._at = self._resets + 1, 0
        return self._seen(np.zeros(self.num_envs))

    def step(self, actions: dict[str, np.ndarray]) -> BatchedStep:
        if self.fail_after is not None and self._resets > self.fail_after:
            if self.die:
                os._exit(3)
            raise ArithmeticError("the dice fell off the table")
        self._at += 1
        return self._seen(actions["a"] * 1.0)

    def _seen(self, reward: np.ndarray) -> BatchedStep:
        over = np.full(self.num_envs, self._at == 2)
        legal = {a: np.ones((self.num_envs, 2), bool) for a in self.agents}
        both = dict.fromkeys(self.agents, self._shown)
        return BatchedStep(both, legal, self._shown, reward.astype(np.float32), over, np.zeros_like(over))
