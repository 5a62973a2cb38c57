"""Result of a step of environments side by side, and the checks that all batched environments share.

Shapes: B sub-environments, O observation, A actions, S stages, N signals, G clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from marca_env.envs.options import EnvOptions
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, UnknownAgentError, shown, unknown_option
from marca_env.utils.seeding import EpisodeStreams, RandomStreams, SeparateStreams
from marca_env.utils.validation import as_array, as_real_array, as_seed, as_whole_number, prices_by_cluster

MAX_ENVS = 10_000_000
"""Most sub-environments side by side; a reset of so many takes some gigabytes."""


class IllegalActionError(InputError):
    """An action that the mask forbids; the message names the agent, the turn and the legal actions."""


@dataclass(frozen=True)
class BatchedStep:
    """Result of a reset or a step of all sub-environments."""

    observations: dict[str, np.ndarray]
    """Agent → (B,O) float32."""
    masks: dict[str, np.ndarray]
    """Agent → (B,A) bool, the legal actions of the next step."""
    state: np.ndarray
    """(B,state_size) float32, for centralised training."""
    reward: np.ndarray
    """(B,) float32, the team reward: every agent gets all of it, it is not divided. Zero except at the end of a
    request."""
    terminated: np.ndarray
    """(B,) bool, equal for all sub-environments."""
    truncated: np.ndarray
    """(B,) bool, always False: an episode has a fixed number of steps."""
    infos: dict[str, np.ndarray] = field(default_factory=dict)
    """Empty except at the end of a request. Then ``revenue``, ``expected_revenue`` and ``computation`` (Σ_g λ_g C_g),
    (B,) currency; ``cost`` (B,G) core-seconds; ``results`` (B,S) candidates, and ``signals`` (B,N) if stages report
    any. With a latency limit also ``latency`` (B,) mean seconds and ``late`` (B,) probability. In windows also ``load``
    (B,G) core-seconds per second, ``degradation`` (B,G) levels, ``backlog`` (B,G) seconds, ``dropped`` (B,) share, and
    ``prices`` (B,G), λ of the next request."""
    on_turn: dict[str, np.ndarray] | None = None
    """Agent → (B,) bool, the agents that act in the next step; the others may only wait. ``None``: every agent acts in
    every step."""

    def is_on_turn(self, agent: str) -> np.ndarray:
        """Return where the agent acts in the next step, (B,) bool."""
        return np.ones(len(self.reward), dtype=bool) if self.on_turn is None else self.on_turn[agent]


def checked_num_envs(num_envs: Any) -> int:
    """Return the number of sub-environments, or raise an InputError."""
    return as_whole_number("num_envs", num_envs, 1, MAX_ENVS)


def checked_team(actions: Any, agents: Sequence[str], num_envs: int) -> dict[str, np.ndarray]:
    """Return the actions of a team as arrays (B,) of integers, one of every agent.

    Raises:
        InputError: not a mapping, an unknown agent, or actions that are missing or malformed.
    """
    if not isinstance(actions, Mapping):
        raise InputError(f"actions are {shown(actions)}; pass a dict of one action per agent")
    if len(actions) > len(agents):
        unknown = next(agent for agent in actions if agent not in agents)
        raise UnknownAgentError(unknown_option("agent", unknown, agents))
    return {agent: _agent_actions(agent, actions, agents, num_envs) for agent in agents}


def _agent_actions(agent: str, actions: Mapping[str, Any], agents: Sequence[str], num_envs: int) -> np.ndarray:
    if agent not in actions:
        raise InputError(f"no action of agent {agent!r}; pass one action of every agent: {', '.join(agents)}")
    taken = as_array(actions[agent])
    if taken.shape != (num_envs,) or taken.dtype.kind not in "iu":
        raise InputError(
            f"actions of agent {agent!r} are {taken.dtype} of shape {taken.shape}; pass integers of shape {(num_envs,)}"
        )
    return taken


def task_prices(scenario: Scenario, options: EnvOptions) -> np.ndarray:
    """Return the prices (G,) of an environment: the given ones, with the reward ``lagrangian`` else the scenario's.

    Raises:
        InputError: the reward needs prices and neither has any, or they do not fit the clusters.
    """
    prices = options.prices
    if prices is None and options.reward == "lagrangian":
        prices = scenario.prices
        if not prices:
            raise InputError("reward 'lagrangian' needs prices; pass one per cluster, in currency per core-second")
    return np.zeros(len(scenario.clusters)) if prices is None else prices_by_cluster(prices, scenario.cluster_names)


def seeded_streams(
    streams: EpisodeStreams | None, seed: int | Sequence[int | None] | None, num_envs: int, numbers: int
) -> EpisodeStreams:
    """Return the random streams of the next episodes.

    Args:
        streams: those of the last episodes; ``None`` before the first reset.
        seed: of one stream for all sub-environments, or B seeds; ``None`` continues the streams.
        num_envs: B.
        numbers: numbers that each stream draws in an episode.

    Raises:
        InputError: the number of seeds is not B.
    """
    if isinstance(seed, (Sequence, np.ndarray)) and not isinstance(seed, (str, bytes)):
        if np.ndim(as_array(seed)) == 0 or len(seed) != num_envs:
            raise InputError(f"seed is {shown(seed)} for {num_envs} environments; pass one seed for each")
        seed = [as_seed(one) for one in seed]
        if not isinstance(streams, SeparateStreams):
            return SeparateStreams(seed, numbers)
        streams.reseed(seed)
        return streams
    if seed is not None or streams is None:
        return RandomStreams(as_seed(seed), numbers)
    return streams


def checked_reward(returned: Any, requests: int) -> np.ndarray:
    """Return what a reward function returned as (B,) float32, B = ``requests``.

    Raises:
        InputError: the reward function is wrong; the message says how to fix it.
    """
    shape = (requests,)
    reward = as_real_array("the reward", returned, f"fix the callable to return {shape}, one number per request")
    reward = reward.astype(np.float32)
    if reward.shape != shape:
        raise InputError(
            f"the reward callable returned shape {reward.shape}; fix it to return {shape}, one number per request"
        )
    if not np.all(np.isfinite(reward)):
        first = int(np.argmin(np.isfinite(reward)))
        raise InputError(
            f"the reward of request {first} is {reward[first]}; fix the reward callable to return finite numbers"
        )
    return reward
