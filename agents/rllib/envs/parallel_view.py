"""PettingZoo's ParallelEnvs as RLlib environments, with agents that join late or leave early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from agents.rllib.envs.spaces import agent_space


class ParallelView(MultiAgentEnv):
    """PettingZoo ParallelEnv as RLlib's MultiAgentEnv.

    RLlib's own wrapper takes the spaces of the agents that the first episode starts with, in the order of a set, and
    never ends an episode in which some agents terminate and others are truncated. Here:

    - The agents are ``possible_agents``, in their order. An agent takes part from its first observation on.
    - An episode is over when no agent is left. It is terminated if all agents of the last step terminated, and
      truncated otherwise.
    - An agent that leaves without an observation keeps its last one. If it leaves without an ending it has terminated,
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
        self._last: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode and return observations and infos by agent."""
        observations, infos = self.par_env.reset(seed=seed, options=options)
        self._last = dict(observations)
        self.agents = list(observations)
        return dict(observations), _of(infos, observations)

    def step(self, action_dict: Mapping[str, Any]) -> Any:
        """Let all agents act that are in the episode."""
        acted = list(action_dict)
        observations, rewards, terminated, truncated, infos = self.par_env.step(dict(action_dict))
        observations = {a: o for a, o in observations.items() if a in self.possible_agents}
        ended = {a: bool(terminated.get(a, False)) for a in observations}
        cut = {a: bool(truncated.get(a, False)) for a in observations}
        left = getattr(self.par_env, "agents", None)
        for agent in acted:
            ended.setdefault(agent, bool(terminated.get(agent, False)))
            cut.setdefault(agent, bool(truncated.get(agent, False)))
            if left is not None and agent not in left and not (ended[agent] or cut[agent]):  # gone without a word
                (ended if left else cut)[agent] = True
            if ended[agent] or cut[agent]:
                observations.setdefault(agent, self._last[agent])
        over = left is not None and not left
        over = over or all(ended[a] or cut[a] for a in ended)
        all_ended = over and not any(cut.values())
        self._last.update(observations)
        self.agents = [] if over else [a for a in ended if not (ended[a] or cut[a])]
        rewards = {a: rewards[a] for a in self.possible_agents if a in rewards and (a in observations or a in acted)}
        if self._pays_sum:
            rewards = dict.fromkeys(rewards, sum(rewards.values()))
        ended["__all__"], cut["__all__"] = all_ended, over and not all_ended
        return observations, rewards, ended, cut, _of(infos, observations)

    def render(self) -> Any:
        """Render the environment."""
        return self.par_env.render()

    def close(self) -> None:
        """Close the environment."""
        self.par_env.close()


def _of(infos: Any, observations: Mapping[str, Any]) -> dict[str, Any]:
    """Return the infos of agents with an observation: RLlib takes no others."""
    return {a: i for a, i in infos.items() if a in observations} if isinstance(infos, Mapping) else {}
