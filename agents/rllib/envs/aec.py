"""PettingZoo's AEC environments: a cycle of all agents as one step, or one turn as one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.conversions import aec_to_parallel_wrapper, parallel_to_aec_wrapper
from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, OrderEnforcingWrapper
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from agents.rllib.envs.gymnasium_team import step_limit
from marca_env.utils.errors import InputError


def is_aec(env: Any) -> bool:
    """Return whether an environment has PettingZoo's AEC interface, or is PettingZoo's parallel wrapper of one."""
    return isinstance(env, (AECEnv, aec_to_parallel_wrapper)) or (
        hasattr(env, "agent_iter") and hasattr(env, "last") and hasattr(env, "observe")
    )


def adapt_aec(env: Any, name: str, options: Mapping[str, Any], *, with_state: bool = True) -> Any:
    """Return an AEC environment in a form that a team can play: :class:`AecCycle` or :class:`AecTurns`.

    A ParallelEnv inside PettingZoo's AEC wrapper is returned itself.

    Args:
        env: an AECEnv, or PettingZoo's parallel wrapper of one.
        name: for messages.
        options: keyword arguments that built it; they may state the step limit.
        with_state: whether to ask it for its state; otherwise the state is the concatenated observations.
    """
    env = env.aec_env if isinstance(env, aec_to_parallel_wrapper) else env
    bare = env
    while isinstance(bare, (OrderEnforcingWrapper, AssertOutOfBoundsWrapper)):  # their checks cost a third of a step
        bare = bare.env
    if isinstance(bare, parallel_to_aec_wrapper):
        return bare.env
    env = bare if isinstance(bare, AECEnv) else env
    if env.metadata.get("is_parallelizable", False):
        return AecCycle(env, name, options, with_state=with_state)
    return AecTurns(env, name, options)


class _AecView:
    """What both views pass on to the environment inside, ``env``."""

    env: Any

    def state(self) -> Any:
        """Return the environment's state."""
        return self.env.state()

    def render(self) -> Any:
        """Render the environment."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


class AecCycle(_AecView, ParallelEnv):
    """AEC environment whose agents act simultaneously; a step is a cycle of all agents.

    Rewards, endings and observations are those of PettingZoo's ``aec_to_parallel``, which observes every agent twice;
    here each is observed once.
    """

    def __init__(self, env: Any, name: str, options: Mapping[str, Any], *, with_state: bool = True) -> None:
        self.env, self.name = env, name
        self.metadata = env.metadata
        self.render_mode = getattr(env, "render_mode", None)
        self.possible_agents = list(getattr(env, "possible_agents", ()))
        self.agents: list[Any] = []
        limit = step_limit(env, options)
        if limit is not None:
            self.max_steps = limit
        if with_state and getattr(env, "state_space", None) is not None:
            self.state_space = env.state_space

    def observation_space(self, agent: Any) -> gym.Space:
        """Return the observation space of an agent."""
        return self.env.observation_space(agent)

    def action_space(self, agent: Any) -> gym.Space:
        """Return the action space of an agent."""
        return self.env.action_space(agent)

    @property
    def unwrapped(self) -> Any:
        """The environment without wrappers."""
        return self.env.unwrapped

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode and return observations and infos by agent."""
        self.env.reset(seed=seed, options=options)
        self.agents = list(self.env.agents)
        return {a: self.env.observe(a) for a in self.agents if not self._is_done(a)}, dict(self.env.infos)

    def step(self, actions: Mapping[Any, Any]) -> Any:
        """Let all agents act, one after the other.

        Raises:
            InputError: the environment lets an agent act out of order.
        """
        env = self.env
        rewards: dict[Any, float] = {}
        for agent in list(env.agents):
            if agent != env.agent_selection:
                raise InputError(
                    f"environment {self.name}: agent {env.agent_selection!r} acts before agent {agent!r}; "
                    "set is_parallelizable to False in its metadata"
                )
            env.step(actions[agent])
            for other in env.agents:
                rewards[other] = rewards.get(other, 0) + env.rewards[other]
        ended, cut, infos = dict(env.terminations), dict(env.truncations), dict(env.infos)
        observations = {a: env.observe(a) for a in env.agents}
        _leave(env)
        self.agents = list(env.agents)
        return observations, rewards, ended, cut, infos

    def _is_done(self, agent: Any) -> bool:
        return bool(self.env.terminations[agent] or self.env.truncations[agent])


class AecTurns(_AecView, MultiAgentEnv):
    """AEC environment whose agents take turns; a step is the turn of one agent, which alone has an observation.

    A reward counts when the environment pays it, also to agents that are not on turn. An agent that has ended observes
    once more and leaves.
    """

    def __init__(self, env: Any, name: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.env, self.name = env, name
        self.metadata = env.metadata
        self.render_mode = getattr(env, "render_mode", None)
        self.possible_agents = list(getattr(env, "possible_agents", ()))
        if not self.possible_agents:
            raise InputError(f"environment {name}: no possible_agents; list all agents there")
        self.agents = list(self.possible_agents)
        self.observation_spaces = {a: env.observation_space(a) for a in self.possible_agents}
        self.action_spaces = {a: env.action_space(a) for a in self.possible_agents}
        limit = step_limit(env, options)
        if limit is not None:  # cycles of all agents, unless the environment states its steps
            turns = getattr(env, "max_steps", None) or getattr(env.unwrapped, "max_steps", None)
            self.max_steps = int(turns) if turns else limit * len(self.possible_agents)
        if getattr(env, "state_space", None) is not None:
            self.state_space = env.state_space

    @property
    def unwrapped(self) -> Any:
        """This environment: RLlib reads the agents and spaces here."""
        return self

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode and return the observation and the info of the agent on turn."""
        self.env.reset(seed=seed, options=options)
        self.agents = list(self.env.agents)
        on_turn = self.env.agent_selection
        return {on_turn: self.env.observe(on_turn)}, {on_turn: self.env.infos.get(on_turn, {})}

    def step(self, action_dict: Mapping[Any, Any]) -> Any:
        """Let the agent on turn act; return its successor's observation, and the last one of every agent that ends."""
        env = self.env
        env.step(action_dict[env.agent_selection])
        rewards = dict(env.rewards)
        ended, cut = dict(env.terminations), dict(env.truncations)
        seen = [a for a in env.agents if ended.get(a) or cut.get(a)]
        observations = {a: env.observe(a) for a in seen}
        infos = {a: env.infos.get(a, {}) for a in seen}
        _leave(env)
        self.agents = list(env.agents)
        if env.agents:
            on_turn = env.agent_selection
            observations[on_turn], infos[on_turn] = env.observe(on_turn), env.infos.get(on_turn, {})
        over = not env.agents
        ended["__all__"] = over and not any(cut.values())
        cut["__all__"] = over and any(cut.values())
        return observations, rewards, ended, cut, infos


def _leave(env: Any) -> None:
    """Let the agents leave whose episode has ended."""
    while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
        env.step(None)
