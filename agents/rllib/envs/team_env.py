"""Cooperative environments for RLlib's own algorithms, through RLlib's PettingZoo wrapper.

RLlib's wrapper does not flatten observations or pad spaces. Here observations become flat vectors beside their masks,
and agents that share one network get equal shapes.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from pettingzoo import AECEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv

from agents.rllib.envs.make_env import call_factory, find_factory
from agents.rllib.envs.sequential_env import MASK, bare_key
from marca_env.utils.errors import InputError

PARALLEL = {"marca_env/parallel-v0": ("marca_env", "parallel_env", {"on_illegal": "error"})}
"""Id → module, function and arguments of its PettingZoo form."""


def make_rllib_env(env: Any, env_config: Mapping[str, Any] | None = None) -> Any:
    """Build one environment for RLlib: a MultiAgentEnv, or a single-agent ``gymnasium.Env``.

    Args:
        env: an id (of this package or gymnasium), a name registered with RLlib, a dotted path, a class or a function,
            for a PettingZoo ParallelEnv, an RLlib MultiAgentEnv, a batched environment or a ``gymnasium.Env``.
        env_config: keyword arguments of the environment.

    Raises:
        InputError: an unknown name, or an environment of another kind.
    """
    options = dict(env_config or {})
    if isinstance(env, str) and env in PARALLEL:
        module, name, defaults = PARALLEL[env]
        made = getattr(importlib.import_module(module), name)(**{**defaults, **options})
    elif isinstance(env, str) and (registered_id := gym_id(env)):
        made = gym.make(registered_id, **options)
    else:
        made = call_factory(find_factory(env), 1, options)
    if isinstance(made, (MultiAgentEnv, gym.Env)):
        return made
    if hasattr(made, "observation_sizes"):
        return SingleBatchEnv(made)
    if isinstance(made, AECEnv):
        raise InputError(f"environment {env!r} is an AECEnv; wrap it in pettingzoo.utils.aec_to_parallel")
    if not getattr(made, "possible_agents", None):
        raise InputError(
            f"environment {env!r} is a {type(made).__name__}; use a PettingZoo ParallelEnv or an RLlib MultiAgentEnv"
        )
    wrapped = ParallelPettingZooEnv(made)
    # RLlib takes the agents from a set, whose order differs between processes. A shared network needs a fixed order.
    wrapped.possible_agents = list(made.possible_agents)
    return wrapped


def gym_id(name: str) -> str | None:
    """Return a gymnasium id in a form that worker processes can use too; ``None`` if it is not registered."""
    if name.partition(":")[2] or name not in gym.registry:
        return name if ":" in name else None
    return f"marca_env:{name}" if name.startswith("marca_env/") else name


class TeamEnv(MultiAgentEnv):
    """Cooperative environment for RLlib's own algorithms; checkpoints refer to this class, so it needs no registration.

    Observations become float32 vectors beside ``action_mask``; without masks they stay as they are. With ``shared`` all
    agents have the same spaces: vectors are padded with zeros and followed by a one-hot of the agent, action spaces
    are those of the agent with most actions, and the surplus actions are masked.

    Args:
        config: ``env`` and ``env_config`` (see :func:`make_rllib_env`), ``shared`` (default: false).

    Raises:
        InputError: masks or sharing with action spaces that are not ``Discrete(n)``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.inner = make_rllib_env(config["env"], config.get("env_config"))
        self.shared = bool(config.get("shared", False))
        self.possible_agents = list(self.inner.possible_agents)
        self.agents = list(self.possible_agents)
        spaces = {a: self.inner.get_observation_space(a) for a in self.possible_agents}
        actions = {a: self.inner.get_action_space(a) for a in self.possible_agents}
        self._keys = {a: bare_key(s) for a, s in spaces.items()}
        self.masked = any(self._keys.values())
        self._bare = {a: s if self._keys[a] is None else s[self._keys[a]] for a, s in spaces.items()}  # type: ignore[index]
        sizes = {a: gym.spaces.flatdim(s) for a, s in self._bare.items()}
        discrete = all(isinstance(s, gym.spaces.Discrete) and s.start == 0 for s in actions.values())
        if (self.shared or self.masked) and not discrete:
            raise InputError(f"action spaces {actions}: masks and parameter sharing need Discrete(n) with start 0")
        self._width = max(sizes.values())
        self._most = max(int(s.n) for s in actions.values()) if discrete else 0
        if self.shared:  # surplus actions must be masked
            self.masked = self.masked or len({int(s.n) for s in actions.values()}) > 1
        self._counts = {a: int(s.n) for a, s in actions.items()} if discrete else {}
        self.observation_spaces = {a: self._space(a, sizes[a]) for a in self.possible_agents}
        self.action_spaces = (
            dict.fromkeys(self.possible_agents, gym.spaces.Discrete(self._most)) if self.shared else actions
        )
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode and return observations and infos by agent.

        Raises:
            InputError: the environment has action masks in the infos, which RLlib would ignore.
        """
        observations, infos = self.inner.reset(seed=seed, options=options)
        if not any(self._keys.values()) and any(isinstance(i, Mapping) and MASK in i for i in infos.values()):
            raise InputError(
                "this environment has action masks in the infos, which RLlib's own algorithms ignore; "
                "put them beside the observations, {'observation': …, 'action_mask': …}, or choose a preset"
            )
        self.agents = list(observations)
        return {a: self._observation(a, o) for a, o in observations.items()}, infos

    def step(self, action_dict: dict[str, Any]) -> Any:
        """Take one step; every agent that is still in the episode acts."""
        observations, rewards, terminated, truncated, infos = self.inner.step(action_dict)
        over = terminated.get("__all__") or truncated.get("__all__")
        self.agents = [] if over else [a for a in observations if not (terminated.get(a) or truncated.get(a))]
        return {a: self._observation(a, o) for a, o in observations.items()}, rewards, terminated, truncated, infos

    def render(self) -> Any:
        """Render the wrapped environment."""
        inner = getattr(self.inner, "par_env", self.inner)
        return inner.render()

    def close(self) -> None:
        """Close the wrapped environment."""
        self.inner.close()

    def _space(self, agent: str, size: int) -> gym.Space:
        width = self._width + len(self.possible_agents) if self.shared else size
        box = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        if not self.masked:
            return box if self.shared else self._bare[agent]
        n = self._most if self.shared else self._counts[agent]
        return gym.spaces.Dict({"observation": box, MASK: gym.spaces.Box(0, 1, (n,), np.int8)})

    def _observation(self, agent: str, observation: Any) -> Any:
        key = self._keys[agent]
        if not (self.masked or self.shared):
            return observation
        bare = observation if key is None else observation[key]
        flat = np.asarray(gym.spaces.flatten(self._bare[agent], bare), np.float32)
        if self.shared:
            agent_id = np.array([a == agent for a in self.possible_agents], np.float32)
            flat = np.concatenate([flat, np.zeros(self._width - len(flat), np.float32), agent_id])
        if not self.masked:
            return flat
        legal = np.ones(self._counts[agent], np.int8) if key is None else np.asarray(observation[MASK], np.int8)
        if self.shared:
            legal = np.concatenate([legal, np.zeros(self._most - len(legal), np.int8)])
        return {"observation": flat, MASK: legal}


class SingleBatchEnv(MultiAgentEnv):
    """Batched environment with one sub-environment as an RLlib MultiAgentEnv; every agent gets the team's reward."""

    def __init__(self, batched: Any) -> None:
        super().__init__()
        self.batched = batched
        self.possible_agents = list(batched.agents)
        self.agents = list(batched.agents)
        self.observation_spaces = {
            a: gym.spaces.Dict(
                {
                    "observation": gym.spaces.Box(-np.inf, np.inf, (size,), np.float32),
                    MASK: gym.spaces.Box(0, 1, (batched.action_sizes[a],), np.int8),
                }
            )
            for a, size in batched.observation_sizes.items()
        }
        self.action_spaces: dict[str, gym.Space] = {a: gym.spaces.Discrete(n) for a, n in batched.action_sizes.items()}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode and return observations and infos by agent."""
        return self._observations(self.batched.reset(seed=seed)), {}

    def step(self, action_dict: dict[str, Any]) -> Any:
        """Take one step in which all agents act."""
        step = self.batched.step({a: np.array([int(action_dict[a])]) for a in self.possible_agents})
        rewards = dict.fromkeys(self.possible_agents, float(step.reward[0]))
        ended = dict.fromkeys([*self.possible_agents, "__all__"], bool(step.terminated[0]))
        cut = dict.fromkeys([*self.possible_agents, "__all__"], bool(step.truncated[0]))
        return self._observations(step), rewards, ended, cut, {}

    def close(self) -> None:
        """Close the batched environment."""
        if hasattr(self.batched, "close"):
            self.batched.close()

    def _observations(self, step: Any) -> dict[str, Any]:
        return {
            a: {"observation": step.observations[a][0].astype(np.float32), MASK: step.masks[a][0].astype(np.int8)}
            for a in self.possible_agents
        }
