"""Many requests at once, in lockstep: the array view of an episode, and the core of every other view.

An episode is one request, or a window of several; step t makes decision t. All sub-environments start and end
together, so that whoever drives them calls ``reset()`` after the last step. B sub-environments, O observation,
A actions, G clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from marca_env.envs.observations import ObservationEncoder
from marca_env.envs.request_window import RequestWindow, WindowClusters, checked_window
from marca_env.models.engine import Engine, RequestOutcome, get_engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.seeding import RandomStreams
from marca_env.utils.validation import reject_unknown_options

RewardFunction = Callable[[RequestOutcome, np.ndarray], np.ndarray]
"""``(outcome, prices) → reward (B,)``; prices are (G,), or (B,G) in windows."""


class IllegalActionError(InputError):
    """An action that the mask forbids; the message names the agent, the turn and the legal actions."""


def _revenue(outcome: RequestOutcome, prices: np.ndarray) -> np.ndarray:
    return outcome.revenue


def _lagrangian(outcome: RequestOutcome, prices: np.ndarray) -> np.ndarray:
    """Revenue less what the computation costs at the prices, the objective of Eq. 6."""
    return outcome.revenue - _computation(outcome, prices)


def _computation(outcome: RequestOutcome, prices: np.ndarray) -> np.ndarray:
    """λ·C, (B,) currency."""
    return (outcome.cost * prices).sum(axis=1)


ON_ILLEGAL = ("error", "nearest")
REWARDS: dict[str, RewardFunction] = {"revenue": _revenue, "lagrangian": _lagrangian}


@dataclass(frozen=True)
class BatchedStep:
    """What a step of all sub-environments returns."""

    observations: dict[str, np.ndarray]
    """agent → (B,O) float32."""
    masks: dict[str, np.ndarray]
    """agent → (B,A) bool, the legal actions of the next step."""
    state: np.ndarray
    """(B,state_size) float32, for centralised training."""
    reward: np.ndarray
    """(B,) float32, the team's; to be given whole to every agent. Zero but where a request ends."""
    terminated: np.ndarray
    """(B,) bool, all alike."""
    truncated: np.ndarray
    """(B,) bool, always False: a request ends by itself."""
    infos: dict[str, np.ndarray] = field(default_factory=dict)
    """Where a request ends: revenue, expected_revenue, computation (λ·C), all (B,) currency; cost (B,G); results (B,S).
    In windows also load (B,G) core-seconds per second, degradation (B,G), backlog (B,G) seconds, dropped (B,), a share,
    and prices (B,G) for the next request."""


class BatchedRecommender:
    """Requests of a cascade recommender as a lockstep batch of multi-agent episodes.

    Args:
        num_envs: B, requests that run side by side.
        scenario: preset, YAML file or Scenario; the engine's own if an engine is given.
        reward: ``revenue``; ``lagrangian`` (revenue − Σ λ_g C_g); or a callable ``(outcome, prices) → (B,)``.
        prices: (G,) λ, currency per core-second; shown to the agents and used by the reward. ``None``: zeros.
        engine: the engine to run; ``None``: the one of the scenario's fitted artefacts.
        on_illegal: what a masked action does. ``error`` (the default) raises; ``nearest`` takes the dearest option
            of the decision on turn, and ``wait`` elsewhere, for algorithms that know no masks.
        window: episodes of several requests whose computation is felt by the next ones: a
            :class:`~marca_env.envs.request_window.RequestWindow`, its fields as a dict, or a number of requests. Revenue is then net of
            what is dropped, and costs are those of the degraded options that ran. ``None``: one request.

    Attributes:
        agents: stages that decide, in pipeline order.
        observation_sizes, action_sizes: agent → O and agent → A (the last action is ``wait``).
        state_size, max_steps: length of the state; decisions of an episode.

    Raises:
        InputError: no artefacts, an unknown option, prices that do not fit, or ``lagrangian`` without prices.
    """

    @reject_unknown_options
    def __init__(
        self,
        num_envs: int,
        scenario: str | Path | Scenario = "default",
        reward: str | RewardFunction = "revenue",
        prices: Sequence[float] | np.ndarray | None = None,
        engine: Engine | None = None,
        on_illegal: str = "error",
        window: RequestWindow | int | dict | None = None,
    ) -> None:
        if not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
            raise InputError(f"num_envs is {num_envs}; run a whole number of at least one")
        if on_illegal not in ON_ILLEGAL:
            raise InputError(unknown_option("on_illegal", on_illegal, ON_ILLEGAL))
        if isinstance(reward, str) and reward not in REWARDS:
            raise InputError(unknown_option("reward", reward, REWARDS) + ", or give a callable (outcome, prices)")
        if not isinstance(reward, str) and not callable(reward):
            raise InputError(f"reward is {reward!r}; give one of {', '.join(REWARDS)}, or a callable (outcome, prices)")
        if reward == "lagrangian" and prices is None:
            raise InputError("reward 'lagrangian' needs prices; give one per cluster, in currency per core-second")
        self.engine = get_engine(scenario, engine)
        self.scenario = self.engine.scenario
        self.window = checked_window(window)
        self.encoder = ObservationEncoder(self.scenario, window=self.window is not None)
        self.num_envs = num_envs
        self.on_illegal = on_illegal
        self.prices = _checked_prices(self.scenario, prices)  # (G,)
        self.clusters: WindowClusters | None = None
        if self.window is not None:
            shares = self.engine.population.site_shares(self.scenario)
            self.clusters = WindowClusters(self.scenario, self.window, num_envs, self.prices, shares)
            self.prices = self.clusters.prices  # (B,G)
        self._reward = REWARDS[reward] if isinstance(reward, str) else reward
        self.agents = self.encoder.agents
        self.observation_sizes = dict(self.encoder.sizes)
        self.action_sizes = dict(self.encoder.n_actions)
        self.state_size = self.encoder.state_size
        self.max_steps = self.encoder.n_turns * (1 if self.window is None else self.window.requests)
        self.turn = self.encoder.n_turns  # nothing runs before the first reset
        self.states = np.zeros((num_envs, len(self.scenario.features)), dtype=np.int64)
        self.actions = np.zeros((num_envs, self.encoder.n_turns), dtype=np.int64)
        self.served = self.actions
        """(B,D) the options that ran for the last request that ended."""
        self._streams: RandomStreams | None = None
        self._priced: tuple[np.ndarray | None, np.ndarray | None] = None, None

    @property
    def agent_on_turn(self) -> str | None:
        """Whose decision is next; ``None`` at the end of the episode."""
        return self.encoder.turn_agent[self.turn] if self.turn < self.encoder.n_turns else None

    def reset(self, seed: int | None = None) -> BatchedStep:
        """Draw new requests. Without a seed the stream goes on; request (or window) k of B is the k-th of a single
        environment."""
        if seed is not None or self._streams is None:
            self._streams = RandomStreams(seed, 1 if self.window is None else self.window.requests)
        self._streams.begin_episodes()
        if self.clusters is not None:
            self.clusters.reset()
            self.prices = self.clusters.prices
        self._begin()
        return self._observe(self._results_so_far())

    def _begin(self) -> None:
        """The next request of every sub-environment."""
        assert self._streams is not None
        self.turn = 0
        self.states = self.engine.sample_states(self._streams.states, self.num_envs)
        self.actions = np.zeros_like(self.actions)

    def step(self, actions: Mapping[str, np.ndarray]) -> BatchedStep:
        """Make the decision on turn in every sub-environment.

        Args:
            actions: agent → (B,) int; agents that are not on turn must ``wait`` (their last action).

        Raises:
            IllegalActionError: a masked action.
            InputError: the episode is over, or an agent's actions are missing.
        """
        if self._streams is None or self.turn >= self.encoder.n_turns:
            raise InputError("no episode is running; call reset() first")
        taken = {agent: self._checked(agent, actions) for agent in self.agents}
        self.actions[:, self.turn] = taken[self.encoder.turn_agent[self.turn]]
        self.turn += 1
        if self.turn == self.encoder.n_turns:
            return self._finish()
        return self._observe(self._results_so_far())

    def shown_results(self) -> np.ndarray:
        """(B,S) candidates of the stages that are settled; 0 where they are not."""
        results = self._results_so_far()
        return np.where(self.encoder.settled(self.turn), results, 0.0)

    # -- parts ---------------------------------------------------------------------------------------------
    def _results_so_far(self) -> np.ndarray:
        if self.encoder.shows_results(self.turn):
            return self.engine.evaluate(self.states, self.actions)[0]  # decisions to come are option 0
        return np.zeros((self.num_envs, len(self.scenario.stages)), dtype=np.float32)

    def _observe(self, results: np.ndarray) -> BatchedStep:
        running = np.zeros(self.num_envs, dtype=bool)
        return self._packed(results, np.zeros(self.num_envs, dtype=np.float32), running, {})

    def _finish(self) -> BatchedStep:
        assert self._streams is not None
        self.served = self.actions
        if self.clusters is not None:
            self.served = self.clusters.degraded(self.actions, self.scenario.site_of(self.states))
        outcome = self.engine.outcome(self.states, self.served, self._streams.noise)
        felt: dict[str, np.ndarray] = {}
        if self.clusters is not None:
            outcome, felt = self._felt(outcome, self.clusters)
        reward = np.asarray(self._reward(outcome, self.prices), dtype=np.float32)
        if reward.shape != (self.num_envs,):
            raise InputError(f"the reward callable returned shape {reward.shape}; expected {(self.num_envs,)}")
        if not np.all(np.isfinite(reward)):
            first = int(np.argmin(np.isfinite(reward)))
            raise InputError(f"the reward of request {first} is {reward[first]}; it must be finite: mend the callable")
        infos = {
            "revenue": outcome.revenue,
            "expected_revenue": outcome.expected_revenue,
            "computation": _computation(outcome, self.prices),
            "cost": outcome.cost,
            "results": outcome.results,
            **felt,
        }
        over = self.clusters is None or self.clusters.over
        if self.clusters is not None:
            self.prices = self.clusters.prices
        if not over:
            self._begin()
        results = outcome.results if over else self._results_so_far()
        return self._packed(results, reward, np.full(self.num_envs, over), infos)

    def _felt(self, outcome: RequestOutcome, clusters: WindowClusters) -> tuple[RequestOutcome, dict[str, np.ndarray]]:
        """The outcome net of what the clusters dropped, and what they say."""
        chosen = self.engine.evaluate(self.states, self.actions)[1]
        in_force = clusters.state.degradation
        site = self.scenario.site_of(self.states)
        part = clusters.serve(outcome.cost.astype(np.float64), chosen.astype(np.float64), site)
        kept = part.kept.astype(np.float32)
        net = replace(outcome, revenue=outcome.revenue * kept, expected_revenue=outcome.expected_revenue * kept)
        return net, {
            "load": part.load,
            "degradation": in_force,
            "backlog": clusters.state.waiting_work / self.scenario.cores,
            "dropped": 1.0 - part.kept,
            "prices": clusters.prices,
        }

    def _packed(
        self, results: np.ndarray, reward: np.ndarray, terminated: np.ndarray, infos: dict[str, np.ndarray]
    ) -> BatchedStep:
        shown = None if self.clusters is None else self.clusters.shown()
        if self.prices is not self._priced[0]:
            self._priced = self.prices, self.encoder.shown_prices(self.prices)
        seen = self.encoder.encode_known(self.states, self.actions, results, self.turn, self._priced[1], shown)
        return BatchedStep(*seen, reward, terminated, np.zeros_like(terminated), infos)

    def _checked(self, agent: str, actions: Mapping[str, np.ndarray]) -> np.ndarray:
        """The agent's actions (B,), legal."""
        if agent not in actions:
            raise InputError(f"no action of agent {agent!r}; give one of every agent: {', '.join(self.agents)}")
        taken = np.asarray(actions[agent])
        if taken.shape != (self.num_envs,) or taken.dtype.kind not in "iu":
            raise InputError(
                f"actions of agent {agent!r} are {taken.dtype} of shape {taken.shape}; "
                f"expected whole numbers of shape {(self.num_envs,)}"
            )
        legal = self.encoder.legal(agent, self.turn)  # contiguous: 0 … n − 1, or wait alone
        nearest = self.on_illegal == "nearest"
        low, high = (0, self.action_sizes[agent] - 1) if nearest else (legal[0], legal[-1])
        if taken.min() < low or taken.max() > high:
            first = int(np.argmax((taken < low) | (taken > high)))
            self._refuse(agent, int(taken[first]), legal, first)
        return taken.clip(legal[0], legal[-1]) if nearest else taken

    def _refuse(self, agent: str, action: int, legal: np.ndarray, request: int) -> None:
        wait = self.action_sizes[agent] - 1
        decision = self.scenario.decision_names[self.turn]
        if agent == self.agent_on_turn:
            allowed = f"it decides {decision!r}, legal are {legal[0]} to {legal[-1]}"
        else:
            allowed = f"{self.agent_on_turn!r} decides {decision!r}, legal is only {wait} (wait)"
        raise IllegalActionError(
            f"agent {agent!r} took action {action} at turn {self.turn} of request {request}: {allowed}; "
            "choose among the actions of its mask"
        )


def _checked_prices(scenario: Scenario, prices: Sequence[float] | np.ndarray | None) -> np.ndarray:
    n = len(scenario.clusters)
    try:
        checked = np.zeros(n) if prices is None else np.asarray(prices, dtype=np.float64)
    except (TypeError, ValueError):
        checked = np.full(1, np.nan)
    if checked.shape != (n,) or not np.all(np.isfinite(checked)) or np.any(checked < 0):
        raise InputError(
            f"prices are {prices}; give one finite, non-negative number of currency per core-second for "
            f"each cluster: {', '.join(scenario.cluster_names)}"
        )
    return checked
