"""Turn whatever a factory returns into an environment that a team can play.

| made | becomes |
|---|---|
| batched environment, PettingZoo ParallelEnv, RLlib MultiAgentEnv | itself |
| PettingZoo AECEnv | a cycle of all agents a step if it is parallelizable, else a turn a step |
| Gymnasium environment with a Tuple of action spaces | a ParallelEnv |
| Gymnasium environment with one Discrete action | a team of one |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from agents.rllib.envs.aec import adapt_aec, is_aec
from agents.rllib.envs.agent_data import has_mask
from agents.rllib.envs.gymnasium_team import GymnasiumTeam, agent_spaces
from agents.rllib.envs.renamed_agents import with_string_names
from agents.tasks.registry import Task
from marca_env.utils.errors import InputError


def adapt(
    made: Any, name: str, options: Mapping[str, Any], task: Task | None = None, *, teams_only: bool = True
) -> Any:
    """Return an environment that :class:`agents.rllib.envs.sequential_env.SequentialEnv` and RLlib's runner can step.

    Args:
        made: what the factory returned.
        name: of the environment, for messages.
        options: keyword arguments that built it.
        task: the public task, if it is one.
        teams_only: whether every Gymnasium environment with one agent becomes a team; otherwise only those with an
            action mask beside the observation, and the others are returned themselves.

    Returns:
        A batched environment, a PettingZoo ParallelEnv or an RLlib MultiAgentEnv, whose agents have strings for names.

    Raises:
        InputError: an environment of another kind.
    """
    if hasattr(made, "observation_sizes"):
        return made
    if isinstance(made, MultiAgentEnv):
        env: Any = _with_agents(made, name)
    elif is_aec(made):
        with_state = task is None or not task.state_is_observations
        env = adapt_aec(made, name, options, with_state=with_state)
    elif hasattr(made, "possible_agents"):
        env = made
    elif agent_spaces(made) is not None:
        env = GymnasiumTeam(made, name, options)
    elif isinstance(made, gym.Env) and not teams_only and not has_mask(made.observation_space):
        return made
    elif isinstance(made, gym.Env):
        env = GymnasiumTeam(made, name, options)
        _check_single(env, name)
    else:
        raise InputError(
            f"environment {name} is a {type(made).__name__}, without possible_agents; use a PettingZoo ParallelEnv or "
            "AECEnv, an RLlib MultiAgentEnv, a Gymnasium or a batched environment"
        )
    env = with_string_names(env, name)
    if task is not None and task.team_reward is not None:
        env.team_reward = task.team_reward
    return env


def _check_single(env: GymnasiumTeam, name: str) -> None:
    space = env.action_space("agent_0")
    if isinstance(space, gym.spaces.MultiDiscrete):
        raise InputError(
            f"environment {name}: one agent with actions {space}; give each of its choices an agent (a Tuple of "
            "Discrete spaces), or choose PPO"
        )
    if not isinstance(space, gym.spaces.Discrete):
        raise InputError(
            f"environment {name}: actions {str(space)[:80]}; the presets need Discrete actions: make them discrete, or "
            "choose PPO or SAC"
        )


def _with_agents(env: Any, name: str) -> Any:
    """Return an RLlib environment that lists its agents, as older ones do not."""
    if not env.possible_agents:
        tables = (env.observation_spaces, getattr(env.observation_space, "spaces", None), env.action_spaces)
        found = next((list(t) for t in (*tables, env.get_agent_ids(), env.agents) if t), [])
        if not found:
            raise InputError(f"environment {name}: no possible_agents; list all agents there")
        env.possible_agents = sorted(found, key=str)  # a set has another order in each process
    return env
