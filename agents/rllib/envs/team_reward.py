"""The team's reward from the rewards of its agents, and a warning if agents gain what others lose."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from marca_env.utils.errors import InputError, unknown_option

logger = logging.getLogger(__name__)

TEAM_REWARDS = ("mean", "sum")
"""How the rewards of all agents become the team's; an agent that has left earns 0."""
WATCHED_STEPS = 2_500
"""Steps after which :class:`OpposedRewards` stops watching."""
_OPPOSITE_STEPS, _CORRELATION = 5, -0.15
_named: set[str] = set()


def check_team_reward(kind: object) -> None:
    """Refuse a ``team_reward`` that does not exist.

    Raises:
        InputError: an unknown name; the message names the nearest valid one.
    """
    if kind not in TEAM_REWARDS:
        raise InputError(unknown_option("team_reward", kind, TEAM_REWARDS))


class OpposedRewards:
    """Watch of the first steps for agents whose rewards are opposed; they are named once per environment.

    Two agents are opposed if their rewards are negatively correlated and have opposite signs in several steps.

    Args:
        agents: names, in the order of the rewards.
        env_name: name of the environment.
        kind: ``mean`` or ``sum``, what the algorithms maximise.
    """

    def __init__(self, agents: Sequence[str], env_name: str, kind: str) -> None:
        self.agents, self.env_name, self.kind = tuple(agents), env_name, kind
        self.is_over = len(self.agents) < 2 or env_name in _named
        self.notice: str | None = None
        """The warning, once it was given; the logs of remote runners are not shown, so that they return it."""
        self._steps: list[np.ndarray] = []

    def add(self, rewards: np.ndarray) -> None:
        """Add the rewards of a step, (N,)."""
        if not self.is_over:
            self._steps.append(rewards)

    def check(self) -> None:
        """Warn if agents are opposed in the steps so far; call it between episodes."""
        if self.is_over or not self._steps:
            return
        pairs = opposed_agents(np.array(self._steps))
        if pairs and self.env_name not in _named:
            _named.add(self.env_name)
            first, second = pairs[0]
            ours = [self.agents[i] for i, j in pairs if j == second]
            theirs = [self.agents[j] for i, j in pairs if i == first]
            self.notice = (
                f"agents {', '.join(ours)} and {', '.join(theirs)} have opposed rewards in {self.env_name}; "
                f"the algorithms maximise their {self.kind}"
            )
            logger.warning(self.notice)
        self.is_over = bool(pairs) or len(self._steps) >= WATCHED_STEPS
        if self.is_over:
            self._steps = []


def opposed_agents(rewards: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of agents with opposed rewards; ``rewards`` (steps, N)."""
    signs, spread = np.sign(rewards), rewards.std(0)
    opposite = ((signs[:, :, None] * signs[:, None]) < 0).sum(0)  # N N
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = (rewards - rewards.mean(0)) / spread
    correlation = np.nan_to_num(centred.T @ centred / len(rewards))
    opposed = (opposite >= _OPPOSITE_STEPS) & (correlation < _CORRELATION)
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(opposed))]
