"""Many requests side by side in lockstep, as arrays: the core of every other environment of requests.

An episode is one request, or a window of several; step t makes decision t of the current request. All sub-environments
start and end together: call ``reset()`` after the last step. Shapes: B sub-environments, O observation, A actions,
D decisions, S stages, G clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from marca_env.envs.batched_step import (
    MAX_ENVS,
    BatchedStep,
    IllegalActionError,
    checked_num_envs,
    checked_reward,
    checked_team,
    seeded_streams,
    task_prices,
)
from marca_env.envs.fleet_env import BatchedFleet
from marca_env.envs.observations import ObservationEncoder
from marca_env.envs.options import EnvOptions, arguments_of
from marca_env.envs.request_window import WindowClusters, as_window
from marca_env.envs.rewards import REWARDS, priced_computation
from marca_env.models.engine import RequestOutcome, get_engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.seeding import EpisodeStreams

__all__ = ["MAX_ENVS", "BatchedRecommender", "BatchedStep", "IllegalActionError", "batched_env"]


class BatchedRecommender:
    """Requests of a cascade recommender as B multi-agent episodes in lockstep.

    ## Description
    B requests (or windows of requests) run side by side. Step t makes decision t of all of them, so that a step is a
    few array operations. The PettingZoo and Gymnasium environments are views of a batch of one, and sub-environment k
    of B gives the same numbers as the k-th episode of a single environment.

    | attribute | content |
    |---|---|
    | `agents` | stages that decide, in pipeline order |
    | `observation_sizes`, `action_sizes` | by agent, O and A |
    | `state_size` | length of the state |
    | `max_steps` | decisions of an episode |
    | `agent_on_turn` | agent that makes the next decision |

    ## Action Space
    A dict of one array (B,) of integers per agent. An agent has A actions, where A − 1 is the largest number of options
    of its decisions. Action k takes option k of the current decision; the last action, A − 1, is `wait`, the only legal
    one of the agents that are not on turn.

    ## Observation Space
    `BatchedStep` holds per agent `observations` (B,O), `masks` (B,A) of legal actions and `on_turn` (B,), whether the
    agent decides next, and the `state` (B,state_size) for centralised training. See `RecommenderAEC` for the content
    of an observation.

    ## Rewards
    `BatchedStep.reward` (B,): 0 until the last decision of a request, then its team reward (`revenue`, `lagrangian` or
    a callable). Every agent gets all of it; it is not divided by their number.

    ## Starting State
    B requests drawn from the empirical population of the scenario; with `window` also idle clusters.

    ## Episode End
    All sub-environments terminate together after `max_steps` decisions. They are never truncated.

    ## Arguments
    `marca_env.batched_env(num_envs, ...)` takes B and these options:

    | name | default | content |
    |---|---|---|
    | `scenario` | `"default"` | preset name, YAML file, folder of `marca fit`, or `Scenario` |
    | `reward` | `"revenue"` | `revenue`, `lagrangian`, or a callable `(outcome, prices) → (B,)` |
    | `prices` | `None` | (G,) λ, currency per core-second; `None`: zeros |
    | `engine` | `None` | engine to run instead of the scenario's fitted models |
    | `on_illegal` | `"nearest"` | for an action that the mask forbids: `nearest` takes the nearest legal one, `error` raises |
    | `window` | `None` | episode of several requests: a `RequestWindow`, a dict of its fields, or a number of requests |

    The class itself takes `num_envs` and an `EnvOptions`. An invalid option, or a scenario without fitted models,
    raises an `InputError`.

    ## Version History
    - v0: initial release
    """  # noqa: E501

    def __init__(self, num_envs: int, options: EnvOptions) -> None:
        num_envs = checked_num_envs(num_envs)
        self.engine = get_engine(options.scenario, options.engine)
        self.scenario = self.engine.scenario
        self.window = self.scenario.window if options.window is None else as_window(options.window)
        self.encoder = ObservationEncoder(
            self.scenario, window=self.window is not None, latency_map=self.engine.latency_map
        )
        self.num_envs = num_envs
        self.on_illegal = options.on_illegal
        self.prices = task_prices(self.scenario, options)  # (G,)
        self.clusters: WindowClusters | None = None
        if self.window is not None:
            site_shares = self.engine.population.site_shares(self.scenario)
            self.clusters = WindowClusters(self.scenario, self.window, num_envs, self.prices, site_shares)
            self.prices = self.clusters.prices  # (B,G)
        self.reward_function = REWARDS[options.reward] if isinstance(options.reward, str) else options.reward
        self.agents = self.encoder.agents
        self.observation_sizes = dict(self.encoder.sizes)
        self.action_sizes = dict(self.encoder.n_actions)
        self.state_size = self.encoder.state_size
        self.max_steps = self.encoder.n_turns * (1 if self.window is None else self.window.requests)
        self.turn = self.encoder.n_turns  # no episode runs before the first reset
        number = np.int64 if self.scenario.is_categorical else np.float64
        self.states = np.zeros((num_envs, len(self.scenario.state_columns)), dtype=number)
        self.actions = np.zeros((num_envs, self.encoder.n_turns), dtype=np.int64)
        self.executed_actions = self.actions
        """(B,D) options that ran for the last finished request, after degradation."""
        self._streams: EpisodeStreams | None = None
        self._scaled_from: np.ndarray | None = None
        self._scaled_prices: np.ndarray | None = None

    @property
    def agent_on_turn(self) -> str | None:
        """Agent that makes the next decision; ``None`` at the end of the episode."""
        return self.encoder.turn_agent[self.turn] if self.turn < self.encoder.n_turns else None

    def reset(self, seed: int | Sequence[int | None] | None = None) -> BatchedStep:
        """Start an episode with new requests; without a seed the random streams continue.

        Args:
            seed: of one stream for all sub-environments; or B seeds, one stream each, so that sub-environment k has the
                episodes of a single environment with the k-th seed. A ``None`` among them continues its stream.

        Raises:
            InputError: the number of seeds is not B.
        """
        self._seed(seed)
        assert self._streams is not None
        self._streams.begin_episodes()
        if self.clusters is not None:
            self.clusters.reset()
            self.prices = self.clusters.prices
        self._begin_request()
        return self._observe(self._current_results())

    def step(self, actions: Mapping[str, np.ndarray]) -> BatchedStep:
        """Make the current decision in every sub-environment.

        Args:
            actions: agent → (B,) int; agents that are not on turn must ``wait`` (their last action).

        Raises:
            IllegalActionError: the mask forbids an action and ``on_illegal`` is ``error``, or no mask allows it.
            InputError: no episode is running, or an agent's actions are missing or malformed.
        """
        if self._streams is None or self.turn >= self.encoder.n_turns:
            raise InputError("no episode is running; call reset() first")
        taken = checked_team(actions, self.agents, self.num_envs)
        legal = {agent: self._legal_actions(agent, taken[agent]) for agent in self.agents}
        self.actions[:, self.turn] = legal[self.encoder.turn_agent[self.turn]]
        self.turn += 1
        if self.turn < self.encoder.n_turns:
            return self._observe(self._current_results())
        return self._finish_request()

    def visible_results(self) -> np.ndarray:
        """Return (B,R) results of the stages whose results are settled; 0 for the others."""
        results = self._current_results()
        return np.where(self.encoder.settled(self.turn), results, 0.0)

    # -- parts of a step -----------------------------------------------------------------------------------
    def _seed(self, seed: int | Sequence[int | None] | None) -> None:
        """Make the random streams, or seed them again."""
        requests = 1 if self.window is None else self.window.requests
        self._streams = seeded_streams(self._streams, seed, self.num_envs, requests)

    def _begin_request(self) -> None:
        """Draw the next request of every sub-environment."""
        assert self._streams is not None
        self.turn = 0
        self.states = self.engine.sample_states(self._streams.states, self.num_envs)
        self.actions = np.zeros_like(self.actions)

    def _finish_request(self) -> BatchedStep:
        """Serve the request, reward it, and begin the next one unless the episode is over."""
        outcome, cluster_infos = self._serve()
        reward = checked_reward(self.reward_function(outcome, self.prices), self.num_envs)
        infos = {
            "revenue": outcome.revenue,
            "expected_revenue": outcome.expected_revenue,
            "computation": priced_computation(outcome, self.prices),
            "cost": outcome.cost,
            "results": outcome.results,
            **({} if outcome.signals is None else {"signals": outcome.signals}),
            **({} if outcome.latency is None else {"latency": outcome.latency, "late": outcome.late}),
            **cluster_infos,
        }
        terminated = self.clusters is None or self.clusters.is_over
        if self.clusters is not None:
            self.prices = self.clusters.prices
        if not terminated:
            self._begin_request()
        results = outcome.all_results if terminated else self._current_results()
        return self._observe(results, reward, np.full(self.num_envs, terminated), infos)

    def _serve(self) -> tuple[RequestOutcome, dict[str, np.ndarray]]:
        """Return the outcome of the request, in windows net of dropped requests, and the infos of the clusters."""
        assert self._streams is not None
        if self.clusters is None:
            self.executed_actions = self.actions
            return self.engine.outcome(self.states, self.actions, self._streams.noise), {}
        site = self.scenario.site_of(self.states)
        self.executed_actions = self.clusters.degrade(self.actions, site)
        outcome = None
        if self.scenario.latency is None:  # no outcome depends on the load, and none is predicted twice
            outcome = self.engine.outcome(self.states, self.executed_actions, self._streams.noise)
        cost = self.engine.served_costs(self.states, self.executed_actions) if outcome is None else outcome.cost
        undegraded_cost = self.engine.served_costs(self.states, self.actions)
        degradation = self.clusters.state.degradation
        result = self.clusters.serve(cost.astype(np.float64), undegraded_cost.astype(np.float64), site)
        if outcome is None:
            outcome = self.engine.outcome(self.states, self.executed_actions, self._streams.noise, result.waiting)
        share = result.served_share.astype(np.float32)
        net = replace(outcome, revenue=outcome.revenue * share, expected_revenue=outcome.expected_revenue * share)
        return net, {
            "load": result.load,
            "degradation": degradation,
            "backlog": self.clusters.state.waiting_work / self.scenario.cores,
            "dropped": 1.0 - result.served_share,
            "prices": self.clusters.prices,
        }

    def _current_results(self) -> np.ndarray:
        """Return (B,R) results under the decisions so far; zeros before any stage is settled."""
        if self.encoder.has_settled_stage(self.turn):
            return self.engine.served_results(self.states, self.actions)  # open decisions count as option 0
        return np.zeros((self.num_envs, len(self.scenario.result_columns)), dtype=np.float32)

    def _observe(
        self,
        results: np.ndarray,
        reward: np.ndarray | None = None,
        terminated: np.ndarray | None = None,
        infos: dict[str, np.ndarray] | None = None,
    ) -> BatchedStep:
        """Encode the current turn; without reward and infos for a step within a request."""
        clusters = None if self.clusters is None else self.clusters.observe()
        if self.prices is not self._scaled_from:
            self._scaled_from, self._scaled_prices = self.prices, self.encoder.scale_prices(self.prices)
        encoded = self.encoder.encode_unchecked(
            self.states, self.actions, results, self.turn, self._scaled_prices, clusters
        )
        if reward is None:
            reward = np.zeros(self.num_envs, dtype=np.float32)
        if terminated is None:
            terminated = np.zeros(self.num_envs, dtype=bool)
        on_turn = {agent: np.full(self.num_envs, agent == self.agent_on_turn) for agent in self.agents}
        infos = {} if infos is None else infos
        return BatchedStep(*encoded, reward, terminated, np.zeros_like(terminated), infos, on_turn)

    # -- actions -------------------------------------------------------------------------------------------
    def _legal_actions(self, agent: str, taken: np.ndarray) -> np.ndarray:
        """Return the agent's actions (B,) as legal ones, or raise an error."""
        legal = self.encoder.legal(agent, self.turn)  # contiguous: 0 … n − 1, or wait alone
        nearest = self.on_illegal == "nearest"
        low, high = (0, self.action_sizes[agent] - 1) if nearest else (legal[0], legal[-1])
        if taken.min() < low or taken.max() > high:
            first = int(np.argmax((taken < low) | (taken > high)))
            raise self._illegal_action(agent, int(taken[first]), legal, first)
        return taken.clip(legal[0], legal[-1]) if nearest else taken

    def _illegal_action(self, agent: str, action: int, legal: np.ndarray, request: int) -> IllegalActionError:
        """Return the error for an illegal action of one sub-environment."""
        wait = self.action_sizes[agent] - 1
        decision = self.scenario.decision_names[self.turn]
        if agent == self.agent_on_turn:
            allowed = f"it decides {decision!r}, legal are {legal[0]} to {legal[-1]}"
        else:
            allowed = f"{self.agent_on_turn!r} decides {decision!r}, legal is only {wait} (wait)"
        return IllegalActionError(
            f"agent {agent!r} took action {action} at turn {self.turn} of request {request}: {allowed}; "
            "choose an action that its mask allows"
        )


def make_core(num_envs: int, options: EnvOptions) -> BatchedRecommender | BatchedFleet:
    """Return the batched environment whose agents are those of the scenario, stages or sites."""
    scenario = Scenario.load(options.scenario) if options.engine is None else options.engine.scenario
    return (BatchedFleet if scenario.agent_kind == "site" else BatchedRecommender)(num_envs, options)


@arguments_of(EnvOptions)
def batched_env(num_envs: int, options: EnvOptions) -> BatchedRecommender | BatchedFleet:
    """Return ``num_envs`` requests side by side in lockstep, as arrays (:class:`BatchedRecommender`).

    Where the scenario's agents are its sites: ``num_envs`` fleets (:class:`~marca_env.envs.fleet_env.BatchedFleet`).
    Pass the fields of :class:`~marca_env.envs.options.EnvOptions` as arguments after ``num_envs``.
    """
    return make_core(num_envs, options)
