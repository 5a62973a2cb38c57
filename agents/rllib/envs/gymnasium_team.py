"""Gymnasium environments as teams: one space per agent in a Tuple, or a single agent."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv

from marca_env.utils.errors import InputError

LIMITS = ("max_episode_steps", "max_steps", "max_cycles", "episode_limit", "time_limit")
"""Names under which packages state the step limit of an episode."""
MASKS = ("action_mask", "avail_actions", "available_actions")
"""Keys of an info, and names of a method ``get_…``, that state the legal actions of all agents."""


def make_gymnasium(name: str, options: Mapping[str, Any]) -> gym.Env:
    """Build the environment of a registered Gymnasium id, ``name`` or ``module:name``.

    A step limit among the id's own keyword arguments, which packages report as termination, becomes Gymnasium's, which
    is a truncation: the value of the state at the limit then counts. Gymnasium's checks are off, because they refuse
    one reward per agent.
    """
    spec = copy.deepcopy(gym.spec(name.rpartition(":")[2]))
    limit = options.get("max_episode_steps", spec.kwargs.get("max_episode_steps"))
    if "max_episode_steps" not in spec.kwargs:
        return gym.make(spec, disable_env_checker=True, **options)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InputError(f"environment {name!r}: max_episode_steps is {limit!r}; use a whole number of at least 1")
    spec.kwargs = {**spec.kwargs, **options, "max_episode_steps": 2**31}
    spec.max_episode_steps = limit
    return gym.make(spec, disable_env_checker=True)


def step_limit(env: Any, options: Mapping[str, Any] | None = None) -> int | None:
    """Return the step limit that an environment, its spec or its options state; ``None`` if none does."""
    spec = getattr(env, "spec", None)
    inner = getattr(env, "unwrapped", None)
    sources = [getattr(spec, "max_episode_steps", None)]
    sources += [(options or {}).get(name) for name in LIMITS]
    for source in (env, inner, getattr(inner, "env", None)):
        sources += [getattr(source, name, None) for name in (*LIMITS, "_max_episode_steps") if source is not None]
    sources += [(getattr(spec, "kwargs", None) or {}).get(name) for name in LIMITS]
    return _first_whole(sources)


def _truncation_limit(env: Any) -> int | None:
    """Return the limit at which an ending is a truncation whatever the environment calls it; ``None`` if none is known.

    It is Gymnasium's ``max_episode_steps``, or a limit that the id's keyword arguments set.
    """
    spec = getattr(env, "spec", None)
    names = [getattr(spec, "max_episode_steps", None)]
    names += [(getattr(spec, "kwargs", None) or {}).get(name) for name in LIMITS]
    return _first_whole([*names, getattr(getattr(env, "unwrapped", env), "_max_episode_steps", None)])


def _first_whole(values: list[Any]) -> int | None:
    whole = (int(v) for v in values if isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v > 0)
    return next(whole, None)


def agent_spaces(env: Any) -> tuple[list[gym.Space], list[gym.Space]] | None:
    """Return the observation and action spaces of all agents of a multi-agent Gymnasium environment.

    ``None`` if its action space is not a Tuple or a list of spaces, one per agent.
    """
    spaces = [_listed(getattr(env, f"{kind}_space", None)) for kind in ("observation", "action")]
    return None if spaces[1] is None else (spaces[0] or [], spaces[1])


class GymnasiumTeam(ParallelEnv):
    """A Gymnasium environment as a PettingZoo ParallelEnv; its agents are ``agent_0``, ``agent_1`` and so on.

    - With Tuple spaces (level-based foraging, multi-robot warehouse), actions go in and observations come out as
      sequences. Rewards and endings are sequences too, or a number and a flag for all agents.
    - Any other environment is a team of one.
    - An ending at the step limit of its id is a truncation.

    Args:
        env: the environment.
        name: for messages.
        options: keyword arguments that built it; they may state the step limit.

    Raises:
        InputError: unequal numbers of observation and action spaces.
    """

    metadata = {"name": "gymnasium_team"}  # noqa: RUF012

    def __init__(self, env: Any, name: str, options: Mapping[str, Any] | None = None) -> None:
        self.env, self.name = env, name
        spaces = agent_spaces(env)
        self._is_team = spaces is not None
        observations, actions = spaces or ([env.observation_space], [env.action_space])
        if len(observations) != len(actions):
            raise InputError(
                f"environment {name}: {len(observations)} observation spaces and {len(actions)} action spaces; "
                "use a Tuple of one space per agent for both"
            )
        self.possible_agents = [f"agent_{k}" for k in range(len(actions))]
        self.agents: list[str] = []
        self.render_mode = getattr(env, "render_mode", None)
        self._observation_spaces = dict(zip(self.possible_agents, observations, strict=True))
        self._action_spaces = dict(zip(self.possible_agents, actions, strict=True))
        limit = step_limit(env, options)
        if limit is not None:
            self.max_steps = limit
        self._limit, self._steps = _truncation_limit(env), 0

    def observation_space(self, agent: str) -> gym.Space:
        """Return the observation space of an agent."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space:
        """Return the action space of an agent."""
        return self._action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode and return observations and infos by agent.

        Raises:
            InputError: not a pair, or not one observation per agent.
        """
        result = self.env.reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
            raise InputError(f"environment {self.name}: reset() must return (observations, info)")
        self.agents, self._steps = list(self.possible_agents), 0
        return self._by_agent(result[0], "observations"), self._infos(result[1])

    def step(self, actions: Mapping[str, Any]) -> Any:
        """Take one step; an agent that has left does action 0.

        Raises:
            InputError: not five results, or not one entry per agent.
        """
        joint = [actions.get(a, 0) for a in self.possible_agents]
        result = self.env.step(joint if self._is_team else joint[0])
        if not isinstance(result, tuple) or len(result) != 5:
            count = len(result) if isinstance(result, tuple) else 1
            raise InputError(
                f"environment {self.name}: step() returned {count} results; return five: observations, reward, "
                "terminated, truncated, info"
            )
        observations, rewards, terminated, truncated, info = result
        self._steps += 1
        ended = self._each(terminated, "terminated")
        cut = self._each(truncated, "truncated")
        if self._limit is not None and self._steps >= self._limit:
            # the game may be over by itself too, which shows only if Gymnasium's wrapper counts the steps
            cut = dict.fromkeys(self.possible_agents, True)
            if not self._counts_itself():
                ended = dict.fromkeys(self.possible_agents, False)
        acted, self.agents = self.agents, [a for a in self.agents if not (ended[a] or cut[a])]
        rewards = self._each(rewards, "rewards")
        views = (self._by_agent(observations, "observations"), rewards, ended, cut, self._infos(info))
        return tuple({a: view[a] for a in acted} for view in views)

    def render(self) -> Any:
        """Render the environment."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    @property
    def unwrapped(self) -> Any:
        """The environment itself, without wrappers."""
        return getattr(self.env, "unwrapped", self.env)

    def _counts_itself(self) -> bool:
        """Return whether Gymnasium's TimeLimit counts the steps, so that a termination is a real one."""
        spec = getattr(self.env, "spec", None)
        return getattr(spec, "max_episode_steps", None) == self._limit

    def _by_agent(self, values: Any, what: str) -> dict[str, Any]:
        if not self._is_team:
            return {self.possible_agents[0]: values}
        if not isinstance(values, (Sequence, np.ndarray)) or len(values) != len(self.possible_agents):
            count = len(values) if isinstance(values, (Sequence, np.ndarray)) else type(values).__name__
            raise InputError(
                f"environment {self.name}, step {self._steps}: {what} are {count}; "
                f"return one for each of the {len(self.possible_agents)} agents"
            )
        return dict(zip(self.possible_agents, values, strict=True))

    def _each(self, values: Any, what: str) -> dict[str, Any]:
        """Return values by agent; a number or a flag holds for all."""
        if self._is_team and (isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim)):
            return self._by_agent(values, what)
        return dict.fromkeys(self.possible_agents, values)

    def _infos(self, info: Any) -> dict[str, dict[str, Any]]:
        """Return the legal actions as ``action_mask`` by agent, from the info or a method."""
        infos: dict[str, dict[str, Any]] = {a: {} for a in self.possible_agents}
        masks = next((info[n] for n in MASKS if isinstance(info, Mapping) and n in info), None)
        if masks is None:
            getter = next((g for n in MASKS if callable(g := getattr(self.unwrapped, f"get_{n}", None))), None)
            masks = getter() if getter is not None else None
        if masks is not None:
            masks = [masks] if not self._is_team else masks
            for agent, mask in zip(self.possible_agents, masks, strict=True):
                infos[agent]["action_mask"] = np.asarray(mask)
        return infos


def _listed(space: Any) -> list[gym.Space] | None:
    if isinstance(space, gym.spaces.Tuple):
        return list(space.spaces)
    if isinstance(space, (list, tuple)) and space and all(isinstance(s, gym.Space) for s in space):
        return list(space)
    return None
