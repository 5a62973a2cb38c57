"""What a reported return is: the mean or the sum over all possible agents, or the one reward of a team."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agents.rllib.core.team_config import TeamConfig
from agents.rllib.envs.team_env import TeamEnv
from agents.rllib.envs.team_reward import check_team_reward

OPTION = "team_reward"
"""Option of the presets; for RLlib's algorithms it stands in the configuration of :class:`TeamEnv`."""


@dataclass(frozen=True)
class TeamReturn:
    """How the returns of agents become the return of their team."""

    kind: str | None = None
    """``mean`` or ``sum`` over all possible agents; ``None``: the environment has one reward, which counts once."""
    agents: int = 0
    """Number of possible agents; 0: unknown, the agents that reported a return."""
    pays_sum: bool = False
    """Whether the environment pays the sum to every agent already."""

    def combine(self, returns: Collection[float]) -> float:
        """Return the team's return from the agents' returns; an agent without one earned 0."""
        agents = self.agents or len(returns)
        mean = sum(returns) / agents
        if self.pays_sum:
            return mean / agents if self.kind == "mean" else mean
        return mean * agents if self.kind == "sum" else mean

    @property
    def label(self) -> str:
        """What a printed return is, such as ``mean of 2 agents``; empty for one agent."""
        if self.agents == 1:
            return ""
        return "of the team" if self.kind is None else f"{self.kind} of {self.agents or 'the'} agents"


def team_return(algorithm: Any) -> TeamReturn:
    """Return what the returns of a built algorithm are."""
    config = algorithm.config
    if isinstance(config, TeamConfig):
        if config.is_offline:
            return TeamReturn()
        runner = algorithm.env_runner
        if runner is not None and getattr(runner, "env", None) is not None:
            return return_of_env(runner.env)
        group = algorithm.env_runner_group
        return group.foreach_env_runner(lambda r: return_of_env(r.env), local_env_runner=False)[0]
    return return_of_config(config)


def return_of_env(env: Any) -> TeamReturn:
    """Return what the returns of a batched environment are."""
    kind = getattr(env, OPTION, None)
    if kind is None and hasattr(env, "env"):  # the view of a single controller
        return return_of_env(env.env)
    return TeamReturn(kind, len(env.agents) if kind else 0)


def return_of_config(config: Any) -> TeamReturn:
    """Return what the returns of RLlib's own algorithms are, by default the mean over all possible agents.

    Raises:
        InputError: an unknown ``team_reward``.
    """
    if config.env is not TeamEnv:
        return TeamReturn("mean") if config.is_multi_agent else TeamReturn(agents=1)
    options: Mapping[str, Any] = config.env_config
    env = TeamEnv(options)
    agents, inner = len(env.possible_agents), env.inner
    env.close()
    pays_sum = bool(getattr(inner, "_pays_sum", False))
    kind = options.get(OPTION) or ("sum" if pays_sum else "mean")
    check_team_reward(kind)
    return TeamReturn(kind, agents, pays_sum)
