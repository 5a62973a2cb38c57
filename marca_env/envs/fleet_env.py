"""Fleets side by side in lockstep, as arrays: the sites of a scenario decide in the same step.

Shapes: B sub-environments, N sites, D decisions, S stages, R results, G clusters, W columns of a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from marca_env.envs.batched_step import (
    BatchedStep,
    IllegalActionError,
    checked_num_envs,
    checked_reward,
    checked_team,
    seeded_streams,
    task_prices,
)
from marca_env.envs.fleet_observations import FleetEncoder
from marca_env.envs.options import EnvOptions
from marca_env.envs.request_window import FleetClusters, as_window
from marca_env.envs.rewards import REWARDS, priced_computation
from marca_env.models.engine import RequestOutcome, get_engine
from marca_env.models.population import Population
from marca_env.scenario.request_window import RequestWindow
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.seeding import EpisodeStreams, UniformSource


class BatchedFleet:
    """Windows of a fleet of sites as B multi-agent episodes in lockstep.

    The environment of a scenario whose `agent_kind` is `site`. In every slice of a window each site has one request of
    its own, drawn from its part of the population. Step d makes decision d of all sites at once. After the last
    decision the slice is served: a shared cluster gets the sum of the loads of its sites, another the load of its own.
    Too much load degrades the next slices, leaves backlog, and drops requests of all sites that use the cluster.

    The team reward of a slice is the sum over the sites of the reward of their requests, net of drops; a site counts
    by its traffic over the mean traffic of a site (1 where all have the same). Every agent gets all of it.

    It has the interface of :class:`~marca_env.envs.batched_env.BatchedRecommender`; agents are the sites, all of them
    act in every step, and no action is ``wait``.

    Args:
        num_envs: B.
        options: options of the environment. Without a window an episode is one slice at the peak.

    Raises:
        InputError: an invalid option, a scenario without fitted models, or a site without requests.
    """

    agent_on_turn: str | None = None
    """Agent that makes the next decision: no single one, because all agents act in every step."""

    def __init__(self, num_envs: int, options: EnvOptions) -> None:
        self.num_envs = num_envs = checked_num_envs(num_envs)
        self.engine = get_engine(options.scenario, options.engine)
        self.scenario = scenario = self.engine.scenario
        given = scenario.window if options.window is None else as_window(options.window)
        self.window: RequestWindow = given or RequestWindow(requests=1)
        self.encoder = FleetEncoder(scenario)
        self.on_illegal = options.on_illegal
        self._requests = SiteRequests(scenario, self.engine.population)
        shares = self._requests.shares
        self.weights = shares * len(shares)
        """(N,) traffic of each site over the mean of all."""
        self.clusters = FleetClusters(scenario, self.window, num_envs, task_prices(scenario, options), shares)
        self._reward = REWARDS[options.reward] if isinstance(options.reward, str) else options.reward
        self.agents = self.encoder.agents
        self.observation_sizes, self.action_sizes = dict(self.encoder.sizes), dict(self.encoder.n_actions)
        self.state_size = self.encoder.state_size
        self.max_steps = self.encoder.n_turns * self.window.requests
        self.turn = self.encoder.n_turns  # no episode runs before the first reset
        number = np.int64 if scenario.is_categorical else np.float64
        self.states = np.zeros((num_envs, len(shares), len(scenario.state_columns)), dtype=number)
        self.actions = np.zeros((num_envs, len(shares), self.encoder.n_turns), dtype=np.int64)
        self.executed_actions = self.actions
        """(B,N,D) options that ran in the last finished slice, after degradation."""
        self._streams: EpisodeStreams | None = None

    @property
    def prices(self) -> np.ndarray:
        """(B,G) λ in force."""
        return self.clusters.prices

    def reset(self, seed: int | Sequence[int | None] | None = None) -> BatchedStep:
        """Start windows with idle clusters; without a seed the random streams continue.

        Args:
            seed: of one stream for all sub-environments; or B seeds, one stream each. A ``None`` among them continues
                its stream.

        Raises:
            InputError: the number of seeds is not B.
        """
        numbers = self.window.requests * len(self.agents)
        self._streams = seeded_streams(self._streams, seed, self.num_envs, numbers)
        self._streams.begin_episodes()
        self.clusters.reset()
        self._begin_slice()
        return self._observe(self._current_results())

    def step(self, actions: Mapping[str, np.ndarray]) -> BatchedStep:
        """Make the current decision at every site.

        Args:
            actions: agent → (B,) int.

        Raises:
            IllegalActionError: the decision has no such option and ``on_illegal`` is ``error``, or no decision has it.
            InputError: no episode is running, or an agent's actions are missing or malformed.
        """
        if self._streams is None or self.turn >= self.encoder.n_turns:
            raise InputError("no episode is running; call reset() first")
        taken = checked_team(actions, self.agents, self.num_envs)
        for k, agent in enumerate(self.agents):
            self.actions[:, k, self.turn] = self._legal_actions(agent, taken[agent])
        self.turn += 1
        if self.turn < self.encoder.n_turns:
            return self._observe(self._current_results())
        return self._finish_slice()

    def visible_results(self) -> np.ndarray:
        """Return (B,N,R) results of the stages whose results are settled; 0 for the others."""
        return np.where(self.encoder.settled(self.turn), self._current_results(), 0.0)

    # -- parts of a step -----------------------------------------------------------------------------------
    def _begin_slice(self) -> None:
        """Draw the next request of every site."""
        assert self._streams is not None
        self.turn = 0
        self.states = self._requests.draw(self._streams.states, self.num_envs)
        self.actions = np.zeros_like(self.actions)

    def _finish_slice(self) -> BatchedStep:
        """Serve the slice, reward it, and begin the next one unless the window is over."""
        outcome, site_terms, infos = self._serve()
        prices = np.repeat(self.prices, len(self.agents), axis=0)
        reward = self._by_site(checked_reward(self._reward(outcome, prices), len(prices))) @ self.weights
        self.clusters.update_prices()
        infos = {
            **{key: self._by_site(terms) @ self.weights for key, terms in site_terms.items()},
            "computation": self._by_site(priced_computation(outcome, prices)) @ self.weights,
            "cost": np.einsum("bng,n->bg", self._by_site(outcome.cost), self.weights),
            "results": self._by_site(outcome.results),
            "site_revenue": self._by_site(outcome.revenue),
            **({} if outcome.signals is None else {"signals": self._by_site(outcome.signals)}),
            **infos,
            "prices": self.prices,
        }
        over = self.clusters.is_over
        if not over:
            self._begin_slice()
        results = self._by_site(outcome.all_results) if over else self._current_results()
        return self._observe(results, reward.astype(np.float32), infos, over)

    def _serve(self) -> tuple[RequestOutcome, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the outcome of all requests (B·N rows) net of drops, its sums by term, and infos of the clusters."""
        assert self._streams is not None
        self.executed_actions = self.clusters.degrade_sites(self.actions)
        states, executed, asked = (
            x.reshape(-1, x.shape[-1]) for x in (self.states, self.executed_actions, self.actions)
        )
        outcome = self.engine.outcome(states, executed, _SiteNoise(self._streams.noise, len(self.agents)))
        undegraded = self.engine.served_costs(states, asked)
        degradation = self.clusters.state.degradation
        costs = (self._by_site(cost).astype(np.float64) for cost in (outcome.cost, undegraded))
        result = self.clusters.serve_sites(*costs)
        share = result.served_share.ravel().astype(np.float32)
        net = replace(outcome, revenue=outcome.revenue * share, expected_revenue=outcome.expected_revenue * share)
        return (
            net,
            {"revenue": net.revenue, "expected_revenue": net.expected_revenue},
            {
                "load": result.load,
                "degradation": degradation,
                "backlog": self.clusters.state.waiting_work / self.scenario.cores,
                "dropped": (1.0 - result.served_share) @ self.weights / len(self.agents),
            },
        )

    def _by_site(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (B·N, …) as (B,N, …)."""
        return rows.reshape(self.num_envs, len(self.agents), *rows.shape[1:])

    def _current_results(self) -> np.ndarray:
        """Return (B,N,R) results under the decisions so far; zeros before any stage is settled."""
        if self.encoder.has_settled_stage(self.turn):
            rows = (x.reshape(-1, x.shape[-1]) for x in (self.states, self.actions))
            return self._by_site(self.engine.served_results(*rows))  # open decisions count as option 0
        return np.zeros((self.num_envs, len(self.agents), len(self.scenario.result_columns)), dtype=np.float32)

    def _observe(
        self,
        results: np.ndarray,
        reward: np.ndarray | None = None,
        infos: dict[str, np.ndarray] | None = None,
        terminated: bool = False,
    ) -> BatchedStep:
        """Encode the current turn; without reward and infos for a step within a slice."""
        prices, clusters = self.encoder.scale_prices(self.prices), self.clusters.observe()
        encoded = self.encoder.encode(self.states, self.actions, results, self.turn, prices, clusters)
        if reward is None:
            reward = np.zeros(self.num_envs, dtype=np.float32)
        ends, never = (np.full(self.num_envs, end) for end in (terminated, False))
        return BatchedStep(*encoded, reward, ends, never, infos or {})

    def _legal_actions(self, agent: str, taken: np.ndarray) -> np.ndarray:
        """Return the agent's actions (B,) as legal ones, or raise an error."""
        nearest, options = self.on_illegal == "nearest", self.encoder.legal(self.turn)
        allowed = self.action_sizes[agent] if nearest else options
        wrong = (taken < 0) | (taken >= allowed)
        if wrong.any():
            first = int(np.argmax(wrong))
            raise IllegalActionError(
                f"agent {agent!r} took action {int(taken[first])} at turn {self.turn} of slice {first}: it decides "
                f"{self.scenario.decision_names[self.turn]!r}, legal are 0 to {options - 1}; choose an action that its "
                "mask allows"
            )
        return np.minimum(taken, options - 1)


class SiteRequests:
    """The population of a scenario, by site.

    Attributes:
        shares: (N,) share of the requests that each site serves.

    Raises:
        InputError: a site has no requests.
    """

    def __init__(self, scenario: Scenario, population: Population) -> None:
        self.shares = population.site_shares(scenario)
        site = np.asarray(scenario.site_of(population.states))
        if (empty := np.flatnonzero(self.shares == 0)).size:
            raise InputError(
                f"scenario {scenario.name!r}: no request of the population has site {scenario.site} = {empty[0]}; "
                "each agent needs requests of its own: add some, or set agent_kind to 'stage'"
            )
        rows = [np.flatnonzero(site == k) for k in range(scenario.n_sites)]
        self._states = [population.states[r] for r in rows]
        self._cumulative = [np.cumsum(population.counts[r] / population.counts[r].sum()) for r in rows]

    def draw(self, rng: UniformSource, n: int) -> np.ndarray:
        """Draw one request of every site for ``n`` slices, (n,N,W)."""
        drawn = []
        for states, cumulative in zip(self._states, self._cumulative, strict=True):
            row = np.searchsorted(cumulative, rng.random(n), side="right")
            drawn.append(states[np.minimum(row, len(cumulative) - 1)])
        return np.stack(drawn, axis=1)


class _SiteNoise:
    """Numbers for the requests of all sites of B slices, one draw of B numbers per site."""

    def __init__(self, rng: UniformSource, sites: int) -> None:
        self._rng, self._sites = rng, sites

    def random(self, size: int, /) -> np.ndarray:
        """Draw ``size`` = B·N numbers, those of a slice side by side."""
        return np.stack([self._rng.random(size // self._sites) for _ in range(self._sites)], axis=1).ravel()
