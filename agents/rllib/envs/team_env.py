"""Cooperative environments for RLlib's own algorithms.

Here observations become vectors that RLlib has networks for, beside their masks, and agents that share one network get
equal shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from agents.rllib.envs.make_env import build_env
from agents.rllib.envs.parallel_view import ParallelView
from agents.rllib.envs.sequential_env import MASK, bare_key
from agents.rllib.envs.single_env import has_network
from marca_env.utils.errors import InputError

PARALLEL = {"marca_env/parallel-v0": ("marca_env:parallel_env", {"on_illegal": "error"})}
"""Id → function of its PettingZoo form, and default arguments."""


def make_rllib_env(env: Any, env_config: Mapping[str, Any] | None = None) -> Any:
    """Build one environment for RLlib: a MultiAgentEnv, or a single-agent ``gymnasium.Env``.

    Args:
        env: a name (:mod:`agents.rllib.envs.lookup`), a class or a function, of any environment that
            :mod:`agents.rllib.envs.adapters` knows, or of a single-agent ``gymnasium.Env``.
        env_config: keyword arguments of the environment.

    Raises:
        InputError: an unknown name, a package that is not installed, or an environment of another kind.
    """
    options = dict(env_config or {})
    if isinstance(env, str) and env in PARALLEL:
        env, defaults = PARALLEL[env]
        options = {**defaults, **options}
    made = build_env(env, options, teams_only=False)
    if isinstance(made, gym.Env):
        return made
    return SingleBatchEnv(made) if hasattr(made, "observation_sizes") else ParallelView(made)


def gym_id(name: str) -> str | None:
    """Return a gymnasium id in a form that worker processes can use too; ``None`` if it is not registered."""
    if name.rpartition(":")[2] not in gym.registry:
        return None
    return f"marca_env:{name}" if name.startswith("marca_env/") else name


class TeamEnv(MultiAgentEnv):
    """Cooperative environment for RLlib's own algorithms; checkpoints refer to this class, so it needs no registration.

    - Observations for which RLlib has networks stay as they are: vectors and images of floating-point numbers, the
      images of a size that RLlib knows. All others become float32 vectors.
    - With action masks, beside the observation or in the infos, an observation becomes ``{"observation": …,
      "action_mask": …}`` and its vector float32.
    - With ``shared`` all agents have the same spaces: vectors are padded with zeros and followed by a one-hot of the
      agent, action spaces are those of the agent with most actions, and the surplus actions are masked.
    - Discrete actions start at 0 for the algorithm, wherever the environment's start.

    Args:
        config: ``env`` and ``env_config`` (see :func:`make_rllib_env`), ``shared`` (default: false).

    Raises:
        InputError: masks or sharing with action spaces that are not Discrete.
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
        self._masks_in_infos = not any(self._keys.values()) and self._finds_masks_in_infos()
        self.masked = any(self._keys.values()) or self._masks_in_infos
        self._bare = {a: s if self._keys[a] is None else s[self._keys[a]] for a, s in spaces.items()}  # type: ignore[index]
        discrete = {a: s for a, s in actions.items() if isinstance(s, gym.spaces.Discrete)}
        if (self.shared or self.masked) and len(discrete) < len(actions):
            other = next(a for a in actions if a not in discrete)
            raise InputError(
                f"agent {other!r}: actions {str(actions[other])[:80]}; masks and sharing need Discrete actions"
            )
        self._first_action = {a: int(s.start) for a, s in discrete.items()}
        self._counts = {a: int(s.n) for a, s in discrete.items()}
        self._most = max(self._counts.values(), default=0)
        if self.shared:  # surplus actions must be masked
            self.masked = self.masked or len(set(self._counts.values())) > 1
        self._flattens = {a: self.shared or not has_network(s, vectors=not self.masked) for a, s in self._bare.items()}
        self._sizes = {a: gym.spaces.flatdim(s) for a, s in self._bare.items() if self._flattens[a]}
        self._width = max(self._sizes.values(), default=0)
        self.observation_spaces = {a: self._space(a) for a in self.possible_agents}
        self.action_spaces: dict[str, gym.Space] = {
            a: gym.spaces.Discrete(self._most if self.shared else self._counts[a]) if a in discrete else actions[a]
            for a in self.possible_agents
        }
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode and return observations and infos by agent."""
        observations, infos = self.inner.reset(seed=seed, options=options)
        self.agents = list(observations)
        return self._observed(observations, infos), infos

    def step(self, action_dict: dict[str, Any]) -> Any:
        """Take one step; every agent that is still in the episode acts."""
        taken = {a: action + self._first_action.get(a, 0) for a, action in action_dict.items()}
        observations, rewards, terminated, truncated, infos = self.inner.step(taken)
        over = terminated.get("__all__") or truncated.get("__all__")
        self.agents = [] if over else [a for a in observations if not (terminated.get(a) or truncated.get(a))]
        return self._observed(observations, infos), rewards, terminated, truncated, infos

    def render(self) -> Any:
        """Render the wrapped environment."""
        inner = getattr(self.inner, "par_env", self.inner)
        return inner.render()

    def close(self) -> None:
        """Close the wrapped environment."""
        self.inner.close()

    def _finds_masks_in_infos(self) -> bool:
        _, infos = self.inner.reset()
        return any(isinstance(i, Mapping) and MASK in i for i in infos.values())

    def _space(self, agent: str) -> gym.Space:
        space = self._bare[agent]
        if self._flattens[agent]:
            width = self._width + len(self.possible_agents) if self.shared else self._sizes[agent]
            space = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        if not self.masked:
            return space
        n = self._most if self.shared else self._counts[agent]
        return gym.spaces.Dict({"observation": space, MASK: gym.spaces.Box(0, 1, (n,), np.int8)})

    def _observed(self, observations: Mapping[str, Any], infos: Mapping[str, Any]) -> dict[str, Any]:
        return {a: self._observation(a, o, infos.get(a)) for a, o in observations.items()}

    def _observation(self, agent: str, observation: Any, info: Any) -> Any:
        key = self._keys[agent]
        bare = observation if key is None else observation[key]
        if self._flattens[agent]:
            bare = np.asarray(gym.spaces.flatten(self._bare[agent], bare), np.float32)
        if self.shared:
            agent_id = np.array([a == agent for a in self.possible_agents], np.float32)
            bare = np.concatenate([bare, np.zeros(self._width - len(bare), np.float32), agent_id])
        if not self.masked:
            return bare
        stated = observation if key is not None else info if self._masks_in_infos and isinstance(info, Mapping) else {}
        legal = np.ones(self._counts[agent], np.int8) if MASK not in stated else np.asarray(stated[MASK], np.int8)
        if self.shared:
            legal = np.concatenate([legal, np.zeros(self._most - len(legal), np.int8)])
        return {"observation": bare, MASK: legal}


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
