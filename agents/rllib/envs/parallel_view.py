"""PettingZoo's ParallelEnvs as RLlib environments, with agents that join late or leave early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from agents.rllib.envs.agent_data import as_reward
from agents.rllib.envs.env_watch import EnvWatch
from agents.rllib.envs.spaces import agent_space


class ParallelView(MultiAgentEnv):
    """PettingZoo ParallelEnv as RLlib's MultiAgentEnv.

    RLlib's own wrapper takes the spaces of the agents that the first episode starts with, in the order of a set, and
    never ends an episode in which some agents terminate and others are truncated. Here:

    - The agents are ``possible_agents``, in their order. An agent takes part from its first observation on.
    - An episode is over when no agent is left. It is terminated if all agents of the last step terminated, and
      truncated otherwise.
    - An agent without an observation keeps its last one. An agent without a reward gets 0.
    - An agent that acted and is not in ``agents`` has left. If it leaves without an ending it has terminated,
      or is truncated if all leave with it.

    - Agents receive their own rewards; in a public task that is reported with the sum (``team_reward``), the sum.

    Args:
        env: the environment; agents have strings for names.
    """

    def __init__(self, env: Any) -> None:
        super().__init__()
        self.par_env = env
        self.metadata = getattr(env, "metadata", {})
        self.render_mode = getattr(env, "render_mode", None)
        self.possible_agents = list(env.possible_agents)
        self.agents = list(self.possible_agents)
        self.observation_spaces = {a: agent_space(env, "observation", a) for a in self.possible_agents}
        self.action_spaces = {a: agent_space(env, "action", a) for a in self.possible_agents}
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)
        self._pays_sum = getattr(env, "team_reward", None) == "sum"
        self._watch = EnvWatch(env, self.possible_agents)
        self._last: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode and return observations and infos by agent."""
        self._watch.steps = 0
        observations, infos = self._watch.reset(self.par_env, seed)
        self._last = _observed(observations)
        self.agents = list(self._last)
        return dict(self._last), _of(infos, self._last)

    def step(self, action_dict: Mapping[str, Any]) -> Any:
        """Let all agents act that are in the episode."""
        self._watch.steps += 1
        acted = list(action_dict)
        result = self._watch.step(self.par_env, dict(action_dict))
        observations = _observed(result.observations)
        ended = {a: bool(result.terminated.get(a, False)) for a in (*acted, *observations)}
        cut = {a: bool(result.truncated.get(a, False)) for a in ended}
        left = getattr(self.par_env, "agents", None)
        for agent in acted:
            if left is not None and agent not in left and not (ended[agent] or cut[agent]):  # gone without a word
                (ended if left else cut)[agent] = True
            observations.setdefault(agent, self._last[agent])
        self._last.update(observations)
        over = (left is not None and not left) or all(ended[a] or cut[a] for a in ended)
        all_ended = over and not any(cut.values())
        self.agents = [] if over else [a for a in ended if not (ended[a] or cut[a])]
        ended["__all__"], cut["__all__"] = all_ended, over and not all_ended
        return observations, self._rewards(result.rewards, acted), ended, cut, _of(result.infos, observations)

    def _rewards(self, rewards: Mapping[str, Any], acted: list[str]) -> dict[str, Any]:
        known = {a: rewards.get(a, 0.0) for a in acted}
        if not self._pays_sum:
            return known
        total = sum(self._watch.checked(a, as_reward, r) for a, r in known.items())
        return dict.fromkeys(known, total)

    def render(self) -> Any:
        """Render the environment."""
        return self.par_env.render()

    def close(self) -> None:
        """Close the environment."""
        self.par_env.close()


def _observed(observations: Mapping[str, Any]) -> dict[str, Any]:
    return {a: o for a, o in observations.items() if o is not None}


def _of(infos: Any, observations: Mapping[str, Any]) -> dict[str, Any]:
    """Return the infos of agents with an observation: RLlib takes no others."""
    return {a: i for a, i in infos.items() if a in observations} if isinstance(infos, Mapping) else {}
