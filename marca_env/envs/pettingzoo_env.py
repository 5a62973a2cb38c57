"""PettingZoo environments of a cascade recommender: its stages are cooperative agents, an episode is one request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.conversions import parallel_to_aec
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from marca_env.envs.batched_env import BatchedRecommender, make_core
from marca_env.envs.episode_info import site_infos
from marca_env.envs.fleet_env import BatchedFleet
from marca_env.envs.options import TeamOptions, arguments_of
from marca_env.envs.rendering.screen import RENDER_MODES
from marca_env.envs.single_episode import SingleEpisode, as_int_action
from marca_env.utils.errors import InputError, UnknownAgentError, shown, unknown_option
from marca_env.utils.validation import as_seed

Observation = dict[str, np.ndarray] | np.ndarray

_METADATA: dict[str, Any] = {
    "name": "marca_recommender_v0",
    "render_modes": list(RENDER_MODES),
    "render_fps": 1,
}


class _TeamEpisode(SingleEpisode):
    """Shared part of the AEC and the Parallel environment: agents, spaces and observations."""

    def _set_up(self, options: TeamOptions) -> None:  # type: ignore[override]
        super()._set_up(options)
        encoder = self._core.encoder
        self.possible_agents = list(self._core.agents)
        self.agents: list[str] = []
        self._has_dicts = options.observations == "dict"
        dicts = {agent: encoder.observation_space(agent) for agent in self.possible_agents}
        self.observation_spaces: dict[str, spaces.Space] = {
            agent: space if self._has_dicts else space["observation"] for agent, space in dicts.items()
        }
        self.action_spaces = {agent: encoder.action_space(agent) for agent in self.possible_agents}
        self.state_space = encoder.state_space()

    def _make_core(self, options: TeamOptions) -> BatchedRecommender | BatchedFleet:  # type: ignore[override]
        """Return the batch of one; its agents are those of the scenario, stages or sites."""
        return make_core(1, options)

    def observation_space(self, agent: str) -> spaces.Space:
        """Return the Dict space of ``observation`` and ``action_mask``, or the Box; always the same object."""
        return self.observation_spaces[self._known(agent)]

    def action_space(self, agent: str) -> spaces.Space:
        """Return the Discrete space of the agent's actions; always the same object."""
        return self.action_spaces[self._known(agent)]

    def _known(self, agent: Any) -> str:
        """Return an agent's name, or raise an UnknownAgentError."""
        if not isinstance(agent, str) or agent not in self.action_spaces:
            raise UnknownAgentError(unknown_option("agent", agent, self.possible_agents))
        return agent

    def state(self) -> np.ndarray:
        """Return the state for centralised training, (state_size,) float32."""
        return self._latest.state[0]

    def is_on_turn(self, agent: str) -> bool:
        """Return whether the agent makes the next decision; another agent may only ``wait``."""
        return bool(self._latest.is_on_turn(self._known(agent))[0])

    def _observation(self, agent: str) -> Observation:
        """Return the agent's current observation, with its action mask in a Dict."""
        observation = self._latest.observations[agent][0]
        return {"observation": observation, "action_mask": self._mask(agent)} if self._has_dicts else observation

    def _mask(self, agent: str) -> np.ndarray:
        """Return the agent's legal actions, (A,) int8."""
        return self._latest.masks[agent][0].astype(np.int8)

    def _infos(self, agents: list[str]) -> dict[str, dict[str, Any]]:
        """Return the info of each agent: its action mask, and the terms of a request that has ended.

        TorchRL takes no other key from ``reset`` than the mask.
        """
        info = self._info()
        by_site = site_infos(self._core, self._latest) if isinstance(self._core, BatchedFleet) else {}
        return {agent: {**info, **by_site.get(agent, {}), "action_mask": self._mask(agent)} for agent in agents}


class RecommenderAEC(_TeamEpisode, AECEnv):
    """A request in a cascade of stages, as an AEC environment: the stages decide one at a time.

    ## Description
    A request passes a cascade of stages. Each stage with decisions is an agent that sets its elastic knobs (retrieval
    channels, recall lengths, models, truncation) in pipeline order. Together the agents earn revenue and save
    computation. One request is one episode; with `window` an episode has several requests, whose computation loads the
    clusters and affects the later requests.

    ## Action Space
    `Discrete(A)` per agent, where A − 1 is the largest number of options of its decisions. Action k takes option k of
    the current decision; options are ordered by cost. The last action, `wait`, is legal only for an agent that is not
    on turn. In the default scenario:

    | agent | decisions (number of options) |
    |---|---|
    | `retrieval` | channels (4), two_tower_length (5), item_to_item_length (5), rescoring (2) |
    | `pre_ranking` | truncation (5) |

    ## Observation Space
    `Dict(observation=Box, action_mask=Box)` per agent; with `observations="box"` the Box of `observation` alone.
    `action_mask` (A,) int8 is 1 for legal actions; `infos` hold it, too. `observation` (O,) float32 holds, in this
    order:

    | part | range |
    |---|---|
    | one-hots of the request's features that the agent sees | 0, 1 |
    | one-hot of the turn | 0, 1 |
    | one-hots of the agent's own decisions so far | 0, 1 |
    | results (candidates) of earlier stages over their queue limit; 0 until settled | 0 … 4 |
    | with a latency limit: mean service time of earlier stages over the limit; 0 until settled | 0 … 4 |
    | with `window`: load over budget, degradation and backlog of each cluster, and the share of the window passed | 0 … 4, then 0 … 1 |
    | prices of the clusters, log(1 + λ · budget / peak rate) | 0 … 8 |

    `state()` holds the same parts for all features, decisions and stages, for centralised training.

    ## Rewards
    0 until the last decision of a request; then one team reward. Every agent gets all of it; it is not divided by
    their number. It is `revenue` of the request in currency, `lagrangian` = revenue − Σ_g λ_g · cost_g, or a callable
    of your own. `infos` of that step hold its terms, and those of every step the mask:

    | key | content |
    |---|---|
    | `action_mask` | (A,) int8, the agent's legal actions; also after `reset` |
    | `revenue`, `expected_revenue` | currency |
    | `computation` | Σ_g λ_g · cost_g, currency |
    | `cost` | by cluster, core-seconds |
    | `results` | by stage, candidates |
    | `latency`, `late` | with a latency limit: mean seconds, probability |
    | `load`, `degradation`, `backlog`, `prices` | with `window`: by cluster, core-seconds per second, level, seconds, λ of the next request |
    | `dropped` | with `window`: share of the requests that was dropped |

    ## Starting State
    A request drawn from the empirical population of the scenario; with `window` also idle clusters.

    ## Episode End
    Terminates for every agent after the last decision (of the last request of a window). Never truncated.

    ## Arguments
    | name | default | content |
    |---|---|---|
    | `scenario` | `"default"` | preset name, YAML file, folder of `marca fit`, or `Scenario` |
    | `reward` | `"revenue"` | `revenue`, `lagrangian`, or a callable `(outcome, prices) → (B,)` |
    | `prices` | `None` | (G,) λ, currency per core-second; `None`: zeros |
    | `engine` | `None` | engine to run instead of the scenario's fitted models |
    | `on_illegal` | `"nearest"` | for an action that the mask forbids: `nearest` takes the nearest legal one, `error` raises `IllegalActionError` |
    | `window` | `None` | episode of several requests: a `RequestWindow`, a dict of its fields, or a number of requests |
    | `render_mode` | `None` | `ansi`, `rgb_array` or `human` |
    | `observations` | `"dict"` | `dict`: with the action mask; `box`: the observation alone, for libraries without Dict spaces |

    ## Version History
    - v0: initial release
    """  # noqa: E501

    metadata = _METADATA

    def __init__(self, options: TeamOptions) -> None:
        super().__init__()
        self._set_up(options)

    def reset(self, seed: int | None = None, options: dict | None = None) -> None:
        """Draw a request; without a seed the random stream continues."""
        self._step = self._core.reset(as_seed(seed))
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = self._infos(self.agents)
        self.agent_selection = str(self._core.agent_on_turn)
        self._render_if_human()

    def observe(self, agent: str) -> Observation:
        """Return the agent's current observation, with its action mask in a Dict."""
        return self._observation(agent)

    def step(self, action: int | None) -> None:
        """Make the selected agent's decision.

        Raises:
            IllegalActionError: the mask forbids the action and ``on_illegal`` is ``error``.
        """
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        step = self._decide(as_int_action(agent, action))
        terminated = bool(step.terminated[0])
        for name in self.agents:
            self.rewards[name] = float(step.reward[0])
            self.terminations[name] = terminated
        self.infos = self._infos(self.agents)
        self.agent_selection = self.agents[0] if terminated else str(self._core.agent_on_turn)
        self._accumulate_rewards()
        self._render_if_human()


class RecommenderParallel(_TeamEpisode, ParallelEnv):
    """A request in a cascade of stages, as a Parallel environment: all agents act in every step.

    ## Description
    The same request as in `RecommenderAEC`: at step t the agent of decision t decides and the others `wait`. The same
    seed and the same decisions give the same episode.

    Where the scenario's `agent_kind` is `site`, the agents are its data centres, `site_0` to `site_{N−1}`: each decides
    for a request of its own, all of them in every step, and none waits; see the page of `marca_env/Fleet-v0`.

    ## Action Space
    As in `RecommenderAEC`. An agent that is not on turn has one legal action, `wait`, its last. With the default
    `on_illegal="nearest"` every action of such an agent counts as `wait`, so that samplers without masks run,
    PettingZoo's own tests included.

    ## Observation Space
    As in `RecommenderAEC`.

    ## Rewards
    As in `RecommenderAEC`: 0 until the last decision of a request, then one team reward. Every agent gets all of it; it
    is not divided by their number. `is_on_turn(agent)` says whether the agent decides next or may only `wait`.

    ## Starting State
    A request drawn from the empirical population of the scenario; with `window` also idle clusters.

    ## Episode End
    Terminates for every agent after the last decision (five steps in the default scenario). Never truncated.

    ## Arguments
    As in `RecommenderAEC`.

    ## Version History
    - v0: initial release
    """

    metadata = _METADATA

    def __init__(self, options: TeamOptions) -> None:
        self._set_up(options)

    def reset(
        self, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Draw a request; without a seed the random stream continues."""
        self._step = self._core.reset(as_seed(seed))
        self.agents = list(self.possible_agents)
        self._render_if_human()
        return {agent: self._observation(agent) for agent in self.agents}, self._infos(self.agents)

    def step(
        self, actions: dict[str, int]
    ) -> tuple[dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Let every agent act.

        Raises:
            IllegalActionError: a mask forbids an action and ``on_illegal`` is ``error``.
        """
        if not self.agents:
            raise InputError("the episode is over; call reset() first")
        if not isinstance(actions, Mapping):
            raise InputError(f"actions are {shown(actions)}; pass a dict of one action per agent")
        self._step = self._core.step({agent: np.array([as_int_action(agent, a)]) for agent, a in actions.items()})
        agents, terminated = self.agents, bool(self._step.terminated[0])
        if terminated:
            self.agents = []
        self._render_if_human()
        return (
            {agent: self._observation(agent) for agent in agents},
            {agent: float(self._step.reward[0]) for agent in agents},
            dict.fromkeys(agents, terminated),
            dict.fromkeys(agents, False),
            self._infos(agents),
        )


@arguments_of(TeamOptions)
def env(options: TeamOptions) -> AECEnv:
    """Return the turn-based PettingZoo environment (:class:`RecommenderAEC`), which also enforces the order of calls.

    Pass the fields of :class:`~marca_env.envs.options.TeamOptions` as arguments.
    """
    return OrderEnforcingWrapper(_turn_based(options))


@arguments_of(TeamOptions)
def raw_env(options: TeamOptions) -> AECEnv:
    """Return :func:`env` without its wrapper.

    Pass the fields of :class:`~marca_env.envs.options.TeamOptions` as arguments.
    """
    return _turn_based(options)


def _turn_based(options: TeamOptions) -> AECEnv:
    """Return the AEC environment; sites, which decide together, act one after the other within a step."""
    parallel = RecommenderParallel(options)
    return parallel_to_aec(parallel) if isinstance(parallel._core, BatchedFleet) else RecommenderAEC(options)


@arguments_of(TeamOptions)
def parallel_env(options: TeamOptions) -> RecommenderParallel:
    """Return the PettingZoo environment in which all agents step together (:class:`RecommenderParallel`).

    Pass the fields of :class:`~marca_env.envs.options.TeamOptions` as arguments.
    """
    return RecommenderParallel(options)
