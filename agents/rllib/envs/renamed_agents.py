"""Environments whose agents have names of another type, such as integers, with strings for names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from agents.rllib.envs.spaces import agent_space
from marca_env.utils.errors import InputError


def with_string_names(env: Any, name: str) -> Any:
    """Return the environment, behind a view in which every agent's name is a string.

    Raises:
        InputError: two agents with the same text for a name, such as 1 and "1".
    """
    agents = list(getattr(env, "possible_agents", None) or ())
    if all(isinstance(a, str) for a in agents):
        return env
    if len({str(a) for a in agents}) < len(agents):
        raise InputError(f"environment {name}: agents {agents} have names that read the same; use different ones")
    return _RenamedMultiAgentEnv(env) if isinstance(env, MultiAgentEnv) else _RenamedParallel(env)


class _Renamed:
    """View of an environment in which agents are called ``str(agent)``."""

    def __init__(self, env: Any) -> None:
        self.inner = env
        self._agents = {str(a): a for a in env.possible_agents}
        self._names = {a: n for n, a in self._agents.items()}
        self.metadata = getattr(env, "metadata", {})
        self.render_mode = getattr(env, "render_mode", None)
        self.possible_agents = list(self._agents)
        self.observation_spaces = {n: agent_space(env, "observation", a) for n, a in self._agents.items()}
        self.action_spaces = {n: agent_space(env, "action", a) for n, a in self._agents.items()}

    def __getattr__(self, attribute: str) -> Any:
        if attribute in ("inner", "_agents", "_names"):  # not set yet, as while unpickling
            raise AttributeError(attribute)
        return getattr(self.inner, attribute)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode."""
        result = self.inner.reset(seed=seed, options=options)
        self._follow()
        return tuple(self._renamed(r) for r in result) if isinstance(result, tuple) else self._renamed(result)

    def step(self, actions: Mapping[str, Any]) -> Any:
        """Take one step."""
        result = self.inner.step({self._agents[n]: action for n, action in actions.items()})
        self._follow()
        return tuple(self._renamed(r) for r in result)

    def render(self) -> Any:
        """Render the environment."""
        return self.inner.render()

    def close(self) -> None:
        """Close the environment."""
        self.inner.close()

    def _renamed(self, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {self._names.get(a, a): value for a, value in values.items()}

    def _follow(self) -> None:
        """Take over which agents are in the episode."""
        self.agents = [self._names.get(a, a) for a in getattr(self.inner, "agents", self._names)]


class _RenamedParallel(_Renamed):
    """View of a PettingZoo ParallelEnv."""

    def observation_space(self, name: str) -> gym.Space:
        """Return the observation space of an agent."""
        return self.observation_spaces[name]

    def action_space(self, name: str) -> gym.Space:
        """Return the action space of an agent."""
        return self.action_spaces[name]

    @property
    def unwrapped(self) -> Any:
        """The environment inside."""
        return getattr(self.inner, "unwrapped", self.inner)


class _RenamedMultiAgentEnv(_Renamed, MultiAgentEnv):
    """View of an RLlib MultiAgentEnv."""

    def __init__(self, env: Any) -> None:
        MultiAgentEnv.__init__(self)
        _Renamed.__init__(self, env)
        self.agents = list(self.possible_agents)
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)

    @property
    def unwrapped(self) -> Any:
        """This view: RLlib reads the agents and spaces here."""
        return self
