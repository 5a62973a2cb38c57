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

from agents.rllib.envs.agent_data import (
    MASK,
    NO_ACTION,
    Flattener,
    as_box,
    as_reward,
    bare,
    bare_space,
    check_mask_name,
    has_mask,
    may_act,
    stated_mask,
)
from agents.rllib.envs.env_watch import EnvWatch
from agents.rllib.envs.make_env import build_env
from agents.rllib.envs.parallel_view import ParallelView
from agents.rllib.envs.single_env import has_network
from agents.team.images import as_float
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
        self._watch = EnvWatch(getattr(self.inner, "par_env", self.inner), self.possible_agents)
        if not self.possible_agents:
            raise InputError(f"{self._watch.name}: no possible_agents; list all agents there")
        self._done: set[str] = set()
        spaces = {a: self.inner.get_observation_space(a) for a in self.possible_agents}
        actions = {a: self.inner.get_action_space(a) for a in self.possible_agents}
        masks_in_observations = any(has_mask(s) for s in spaces.values())
        infos = self._first_infos()
        self.masked = masks_in_observations or any(isinstance(i, Mapping) and MASK in i for i in infos.values())
        self._spaces, self._bare = spaces, {a: bare_space(s) for a, s in spaces.items()}
        discrete = {a: s for a, s in actions.items() if isinstance(s, gym.spaces.Discrete)}
        self._check_spaces(spaces, actions, infos)
        self._first_action = {a: int(s.start) for a, s in discrete.items()}
        self._counts = {a: int(s.n) for a, s in discrete.items()}
        self._most = max(self._counts.values(), default=0)
        if self.shared:  # surplus actions must be masked
            self.masked = self.masked or len(set(self._counts.values())) > 1
        self._flattens = {a: self.shared or not has_network(s, vectors=not self.masked) for a, s in self._bare.items()}
        self._flatten = {
            a: self._watch.checked(a, Flattener, s, "observation") for a, s in self._bare.items() if self._flattens[a]
        }
        self._sizes = {a: max(f.size, 1) for a, f in self._flatten.items()}
        self._width = max(self._sizes.values(), default=0)
        self.observation_spaces = {a: self._space(a) for a in self.possible_agents}
        self.action_spaces: dict[str, gym.Space] = {
            a: gym.spaces.Discrete(self._most if self.shared else self._counts[a]) if a in discrete else actions[a]
            for a in self.possible_agents
        }
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode and return observations and infos by agent.

        Raises:
            InputError: the environment raised an error, or returned data that do not fit its spaces.
        """
        self._watch.steps, self._done = 0, set()
        observations, infos = self._watch.reset(self.inner, seed)
        self.agents = list(observations)
        return self._observed(observations, infos, self.agents), dict(infos)

    def step(self, action_dict: dict[str, Any]) -> Any:
        """Take one step; every agent that is still in the episode acts.

        Raises:
            InputError: the environment raised an error, or returned data that do not fit its spaces.
        """
        self._watch.steps += 1
        taken = {
            a: action + first if (first := self._first_action.get(a)) else action for a, action in action_dict.items()
        }
        result = self._watch.step(self.inner, taken)
        ended, cut = dict(result.terminated), dict(result.truncated)
        ended.setdefault("__all__", all(ended.get(a, False) for a in action_dict))
        cut.setdefault("__all__", False)
        over = ended["__all__"] or cut["__all__"]
        done = {a for a in self.possible_agents if ended.get(a) or cut.get(a)}
        for agent in result.observations:
            if agent in self._done:
                raise self._watch.fault(
                    agent, "it acts again after its end in this episode, which RLlib cannot; choose a preset"
                )
        self._done |= done
        self.agents = [] if over else [a for a in result.observations if a not in done]
        observations = self._observed(result.observations, result.infos, self.agents)
        rewards = {a: self._watch.checked(a, as_reward, r) for a, r in result.rewards.items()}
        rewards = {**dict.fromkeys(action_dict, 0.0), **rewards}
        return observations, rewards, ended, cut, dict(result.infos)

    def render(self) -> Any:
        """Render the wrapped environment."""
        inner = getattr(self.inner, "par_env", self.inner)
        return inner.render()

    def close(self) -> None:
        """Close the wrapped environment."""
        self.inner.close()

    def _first_infos(self) -> Mapping[str, Any]:
        """Return the infos of a first episode, which say whether masks stand there and who starts."""
        observations, infos = self._watch.reset(self.inner)
        self.starts_complete = len(observations) == len(self.possible_agents)
        """Whether all agents observe at the start."""
        return infos

    def _check_spaces(self, spaces: Mapping[str, Any], actions: Mapping[str, Any], infos: Mapping[str, Any]) -> None:
        """Refuse masks under another name, and actions for which RLlib or the masks have no use."""
        for agent, space in actions.items():
            if isinstance(space, gym.spaces.Discrete):
                self._watch.checked(agent, check_mask_name, spaces[agent], int(space.n), "observations")
                self._watch.checked(agent, check_mask_name, infos.get(agent), int(space.n), "infos")
            elif self.shared or self.masked:
                raise InputError(
                    f"agent {agent!r} of {self._watch.name}: actions {str(space)[:80]}; masks and sharing need "
                    "Discrete actions"
                )
            elif not isinstance(space, (gym.spaces.Box, gym.spaces.MultiDiscrete, gym.spaces.Dict, gym.spaces.Tuple)):
                raise InputError(
                    f"agent {agent!r} of {self._watch.name}: RLlib has no actions {str(space)[:80]}; use Discrete, "
                    "MultiDiscrete or Box"
                )

    def _space(self, agent: str) -> gym.Space:
        space = self._bare[agent]
        if self._flattens[agent]:
            width = self._width + len(self.possible_agents) if self.shared else self._sizes[agent]
            space = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        if not self.masked:
            return space
        n = self._most if self.shared else self._counts[agent]
        return gym.spaces.Dict({"observation": space, MASK: gym.spaces.Box(0, 1, (n,), np.int8)})

    def _observed(self, observations: Mapping[str, Any], infos: Mapping[str, Any], acting: list[str]) -> dict[str, Any]:
        return {
            a: self._watch.checked(a, self._observation, a, o, infos.get(a), a in acting)
            for a, o in observations.items()
        }

    def _observation(self, agent: str, observation: Any, info: Any, acts: bool) -> Any:
        """Return an agent's observation as the algorithm sees it; ``acts`` says whether the agent acts next."""
        vector = bare(observation, self._spaces[agent])
        if self._flattens[agent]:
            flatten = self._flatten[agent]
            row = np.zeros(self._sizes[agent], flatten.dtype)
            flatten(vector, row[: flatten.size])
            vector = as_float(row)
        else:
            vector = as_box(vector, self._bare[agent])
        if not np.isfinite(vector).all():
            raise InputError(f"observation has {vector[~np.isfinite(vector)][0]} in it; return finite numbers")
        if self.shared:
            agent_id = np.array([a == agent for a in self.possible_agents], np.float32)
            vector = np.concatenate([vector, np.zeros(self._width - len(vector), np.float32), agent_id])
        if not self.masked:
            if isinstance(info, Mapping) and MASK in info:
                raise InputError(f"the first {MASK} stands in the infos of a step; return it from reset() too")
            return vector
        mask = stated_mask(observation, info, self._counts[agent])
        legal = np.ones(self._counts[agent], np.int8) if mask is None else mask.astype(np.int8)
        if acts and not legal.any() and may_act(info):
            raise InputError(NO_ACTION)
        if self.shared:
            legal = np.concatenate([legal, np.zeros(self._most - len(legal), np.int8)])
        return {"observation": vector, MASK: legal}


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
