"""Toy cooperative PettingZoo and RLlib environments with unequal episodes."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from marca_env.envs.batched_env import BatchedStep

AGENTS = ["left", "right.arm"]  # names that are not in sorted order and not identifiers


class Corridor:
    """PettingZoo-like environment in which two agents walk ``length`` cells together and then stop.

    Action 1 of ``left`` moves on, anything else ends the episode. The reward of each move is 1. The legal actions of
    ``right.arm`` alternate. Episode k has 2 + k mod 3 cells.
    """

    possible_agents = AGENTS
    max_steps = 6

    def __init__(self, masked: bool = True) -> None:
        self.masked, self.episode, self.agents = masked, -1, list(AGENTS)

    def observation_space(self, agent: str) -> gym.Space:
        """Return the observation space of an agent."""
        return gym.spaces.Dict(
            {"observation": gym.spaces.Discrete(7), "action_mask": gym.spaces.Box(0, 1, (3,), np.int8)}
        )

    def action_space(self, agent: str) -> gym.Space:
        """Return the action space of an agent."""
        return gym.spaces.Discrete(2 if agent == "left" else 3)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        """Start an episode."""
        self.agents, self.at, self.episode = list(AGENTS), 0, self.episode + 1
        self.length = 2 + self.episode % 3
        return self._seen(), {a: {} for a in AGENTS}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """Take one step."""
        self.at += 1
        over = actions["left"] != 1 or self.at == self.length
        if over:
            self.agents = []
        reward = float(actions["left"] == 1)
        each = dict.fromkeys(AGENTS, reward)
        return self._seen(), each, dict.fromkeys(AGENTS, over), dict.fromkeys(AGENTS, False), {a: {} for a in AGENTS}

    def close(self) -> None:
        """Do nothing."""

    def _seen(self) -> dict[str, Any]:
        odd = np.array([self.at % 2 == 1, True, self.at % 2 == 0], dtype=np.int8)
        both = {"left": np.ones(2, np.int8), "right.arm": odd}
        return {a: {"observation": self.at, "action_mask": both[a]} for a in AGENTS}


def make_corridor(config: dict) -> Corridor:
    """Build a Corridor from one dict, as RLlib's environment creators do."""
    return Corridor(**config)


class Dice:
    """Batched environment whose episodes show six random numbers and pay for action 1 in two steps.

    Args:
        num_envs: B.
        fail_after: number of resets after which every step raises an error.
        fail_at: a file; once it exists, every step raises an error, or ends the process (``die``).
        die: whether to end the process instead of raising an error.
        only_at: id of the only process in which it can be built.
    """

    agents = ("a", "b")
    max_steps, state_size = 2, 6

    def __init__(
        self,
        num_envs: int,
        fail_after: int | None = None,
        fail_at: str | None = None,
        die: bool = False,
        only_at: int | None = None,
    ) -> None:
        if only_at not in (None, os.getpid()):
            raise ArithmeticError("not in this process")
        self.num_envs, self.fail_after, self.fail_at, self.die = num_envs, fail_after, fail_at, die
        self.observation_sizes, self.action_sizes = {"a": 6, "b": 6}, {"a": 2, "b": 2}
        self._resets, self._at = 0, 0
        self._shown = np.zeros((num_envs, 6), np.float32)

    def reset(self, seed: int | None = None) -> BatchedStep:
        """Start an episode."""
        self._shown = np.random.default_rng(seed).random((self.num_envs, 6), dtype=np.float32)
        self._resets, self._at = self._resets + 1, 0
        return self._seen(np.zeros(self.num_envs))

    def step(self, actions: dict[str, np.ndarray]) -> BatchedStep:
        """Take one step."""
        doomed = self.fail_at is not None and os.path.exists(self.fail_at)
        if doomed and self.die:
            os._exit(3)
        if doomed or (self.fail_after is not None and self._resets > self.fail_after):
            raise ArithmeticError("the dice fell off the table")
        self._at += 1
        return self._seen(actions["a"] * 1.0)

    def _seen(self, reward: np.ndarray) -> BatchedStep:
        over = np.full(self.num_envs, self._at == 2)
        legal = {a: np.ones((self.num_envs, 2), bool) for a in self.agents}
        both = dict.fromkeys(self.agents, self._shown)
        return BatchedStep(both, legal, self._shown, reward.astype(np.float32), over, np.zeros_like(over))


class Leavers:
    """PettingZoo-like environment: ``early`` leaves after one step, ``late`` after three (terminated or truncated).

    Observations are Tuples of a Box and a Discrete, masks are in the infos, and the agents' rewards differ.
    """

    possible_agents: ClassVar = ["early", "late"]
    max_cycles = 8

    def __init__(self, cut: bool = True) -> None:
        self.cut, self.agents = cut, []

    def observation_space(self, agent: str) -> gym.Space:
        """Return the observation space of an agent."""
        return gym.spaces.Tuple((gym.spaces.Box(0, 1, (2,)), gym.spaces.Discrete(4)))

    def action_space(self, agent: str) -> gym.Space:
        """Return the action space of an agent."""
        return gym.spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        """Start an episode."""
        self.rng, self.at, self.agents = np.random.default_rng(seed), 0, list(self.possible_agents)
        return self._seen(self.agents)

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """Take one step."""
        assert sorted(actions) == sorted(self.agents)
        acted, self.at = list(self.agents), self.at + 1
        paid = {a: {"early": 1.0, "late": 3.0}[a] for a in acted}
        last = self.at == 3
        ended = {a: a == "early" or (last and not self.cut) for a in acted}
        cut = {a: a == "late" and last and self.cut for a in acted}
        for agent in acted:
            if ended[agent] or cut[agent]:
                self.agents.remove(agent)  # in place, as some environments do
        return *self._seen(acted)[:1], paid, ended, cut, self._seen(acted)[1]

    def close(self) -> None:
        """Do nothing."""

    def _seen(self, agents: list[str]) -> tuple[dict, dict]:
        observations = {a: (self.rng.random(2).astype(np.float32), self.at) for a in agents}
        return observations, {a: {"action_mask": np.array([0, 1, self.at % 2], np.int8)} for a in agents}


class Turns(MultiAgentEnv):
    """RLlib environment with four turns; only the agent on turn gets an observation."""

    max_steps = 4

    def __init__(self, config: dict | None = None) -> None:
        super().__init__()
        self.agents = self.possible_agents = ["one", "two"]
        self.observation_spaces = dict.fromkeys(self.agents, gym.spaces.Box(0, 9, (1,)))
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(3))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        """Start an episode."""
        self.at = 0
        return self._seen(), {}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """Take one step."""
        assert list(actions) == [self.agents[self.at % 2]]
        (agent,) = actions
        self.at += 1
        return self._seen(), {agent: float(actions[agent])}, {"__all__": self.at == 4}, {"__all__": False}, {}

    def _seen(self) -> dict[str, np.ndarray]:
        return {self.agents[self.at % 2]: np.array([self.at], np.float32)}


class Cue:
    """PettingZoo-like environment: each agent sees a cue, 0 or 1, while it has one legal action, and then repeats it.

    Each agent earns 1 for its own cue. Without the first observation a team earns 0.5 on average.

    Args:
        forced: legal action at the first step, 0 or 1 (the last).
    """

    possible_agents: ClassVar = ["one", "two"]
    max_steps = 2

    def __init__(self, forced: int = 1) -> None:
        self.forced, self.agents = forced, []

    def observation_space(self, agent: str) -> gym.Space:
        """Return the observation space of an agent."""
        return gym.spaces.Box(-1, 1, (2,))

    def action_space(self, agent: str) -> gym.Space:
        """Return the action space of an agent."""
        return gym.spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        """Draw the cues."""
        self.agents, self.at = list(self.possible_agents), 0
        self.cues = dict(zip(self.agents, np.random.default_rng(seed).integers(2, size=2), strict=True))
        return self._seen()

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """Take one step."""
        self.at += 1
        over = self.at == 2
        paid = {a: float(over and actions[a] == cue) for a, cue in self.cues.items()}
        observations, infos = self._seen()
        self.agents = [] if over else self.agents
        return observations, paid, dict.fromkeys(paid, over), dict.fromkeys(paid, False), infos

    def close(self) -> None:
        """Do nothing."""

    def _seen(self) -> tuple[dict, dict]:
        first = self.at == 0
        observations = {
            a: np.array([2.0 * cue - 1.0 if first else 0.0, self.at / 2], np.float32) for a, cue in self.cues.items()
        }
        legal = np.array([k == self.forced or not first for k in range(2)], np.int8)
        return observations, {a: {"action_mask": legal} for a in self.cues}


class MayLeave:
    """PettingZoo-like environment of three steps: ``rich`` earns 2 for each and ``poor`` 1; leaving pays half of it.

    The best return of the team is 9, if both stay. A team that maximises the mean over the agents still present lets
    ``poor`` leave at once and earns 6.5.
    """

    possible_agents: ClassVar = ["rich", "poor"]
    max_steps = 3

    def __init__(self) -> None:
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space:
        """Return the observation space of an agent."""
        return gym.spaces.Box(0, 1, (3,))

    def action_space(self, agent: str) -> gym.Space:
        """Return the action space of an agent: leave or stay."""
        return gym.spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        """Start an episode."""
        self.agents, self.at = list(self.possible_agents), 0
        return self._seen(self.agents), {a: {} for a in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """Take one step."""
        acted, self.at = list(self.agents), self.at + 1
        paid = {a: {"rich": 2.0, "poor": 1.0}[a] * (1.0 if actions[a] else 0.5) for a in acted}
        ended = {a: self.at == 3 or not actions[a] for a in acted}
        self.agents = [a for a in acted if not ended[a]]
        return self._seen(acted), paid, ended, dict.fromkeys(acted, False), {a: {} for a in acted}

    def close(self) -> None:
        """Do nothing."""

    def _seen(self, agents: list[str]) -> dict[str, np.ndarray]:
        return {
            a: np.array([self.at / 3, *(x in self.agents for x in self.possible_agents)], np.float32) for a in agents
        }


class Lamps:
    """PettingZoo-like environment of one step: each agent sees an image and says which half of it is brighter."""

    possible_agents: ClassVar = ["one", "two"]
    max_steps = 1

    def __init__(self, side: int = 8) -> None:
        self.side, self.agents = side, []

    def observation_space(self, agent: str) -> gym.Space:
        """Return the observation space of an agent."""
        return gym.spaces.Box(0, 255, (self.side, self.side, 3), np.uint8)

    def action_space(self, agent: str) -> gym.Space:
        """Return the action space of an agent."""
        return gym.spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        """Draw the images."""
        self.agents, self.rng = list(self.possible_agents), np.random.default_rng(seed)
        self.lit = dict(zip(self.agents, self.rng.integers(2, size=2), strict=True))
        return self._seen(), {a: {} for a in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """Take the only step."""
        paid = {a: float(actions[a] == half) for a, half in self.lit.items()}
        self.agents = []
        return self._seen(), paid, dict.fromkeys(paid, True), dict.fromkeys(paid, False), {a: {} for a in paid}

    def close(self) -> None:
        """Do nothing."""

    def _seen(self) -> dict[str, np.ndarray]:
        images = {}
        for agent, half in self.lit.items():
            image = self.rng.integers(0, 60, (self.side, self.side, 3)).astype(np.uint8)
            image[:, half * self.side // 2 : (half + 1) * self.side // 2] += 150
            images[agent] = image
        return images
