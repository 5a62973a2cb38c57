"""Many requests side by side as tensors: episodes that never leave a device, for scenarios whose features are codes.

Every pair of an empirical request and a distinct joint action is predicted once, into one table; an episode is then a
few look-ups in it. Shapes: B sub-environments, D decisions, P distinct requests, J' distinct joint actions, R results,
G clusters, O observation, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from marca_env.envs.batched_env import BatchedRecommender
from marca_env.envs.batched_step import IllegalActionError, checked_num_envs, task_prices
from marca_env.envs.observation_tensors import STATE, ObservationTensors
from marca_env.envs.observations import ObservationEncoder
from marca_env.envs.options import EnvOptions, arguments_of
from marca_env.envs.rewards import REWARDS
from marca_env.models.engine import Engine, get_engine
from marca_env.scenario.encoding import InputEncoder
from marca_env.utils.errors import InputError
from marca_env.utils.model_files import check_device
from marca_env.utils.validation import as_seed

MAX_PAIRS = 2**25
"""Most pairs of request and joint action in a table."""
_CHUNK_PAIRS = 65_536
_TABLES: WeakKeyDictionary[Engine, dict[str, OutcomeTable]] = WeakKeyDictionary()
"""Tables by engine and device: environments of one engine share a table."""


class OutcomeTable:
    """What every distinct request earns and costs under every distinct joint action, on a device.

    Args:
        engine: the engine; its features are categories, it has no noise and no latency limit.
        device: torch device.

    Attributes:
        states: (P, W) int64, the distinct requests.
        share: (P,) float64, cumulative share of the requests.

    Raises:
        InputError: the engine has no such table, or it would be too large.
    """

    def __init__(self, engine: Engine, device: str | torch.device) -> None:
        _check_engine(engine)
        scenario, population = engine.scenario, engine.population
        encoder = InputEncoder(scenario)
        distinct = scenario.joint_actions[encoder.distinct_actions]
        pairs = len(population.states) * len(distinct)
        if pairs > MAX_PAIRS:
            raise InputError(
                f"scenario {scenario.name!r} has {pairs:,} pairs of request and joint action, more than {MAX_PAIRS:,}; "
                "use the batched environment"
            )
        self.n_results, self.device = len(scenario.result_columns), torch.device(device)
        self.states = torch.from_numpy(population.states.astype(np.int64)).to(device)
        self.share = torch.from_numpy(np.cumsum(population.counts / population.counts.sum())).to(device)
        self._distinct_of = torch.from_numpy(encoder.distinct_of.astype(np.int64)).to(device)
        self._width, self._rows = len(distinct), torch.from_numpy(_outcomes(engine, distinct)).to(device)

    @classmethod
    def of(cls, engine: Engine, device: str | torch.device) -> OutcomeTable:
        """Return the table of an engine, which is made once for each device."""
        tables = _TABLES.setdefault(engine, {})
        if str(device) not in tables:
            tables[str(device)] = cls(engine, device)
        return tables[str(device)]

    def draw(self, uniform: Tensor) -> Tensor:
        """Return the request of each uniform number in [0, 1): (B,) float64 → (B,) int64."""
        row = torch.searchsorted(self.share, uniform, right=True)
        return row.clamp_(max=len(self.share) - 1)

    def look_up(self, requests: Tensor, joint: Tensor) -> Tensor:
        """Return results, cost and revenue, (B, R + G + 1) float32.

        Args:
            requests: (B,) rows of :attr:`states`.
            joint: (B,) indices of joint actions.
        """
        return self._rows[requests * self._width + self._distinct_of[joint]]


def _outcomes(engine: Engine, distinct: np.ndarray) -> np.ndarray:
    """Return the outcomes of all pairs, (P·J', R + G + 1) float32."""
    states, parts = engine.population.states, []
    step = max(1, _CHUNK_PAIRS // len(distinct))
    for start in range(0, len(states), step):
        some = states[start : start + step]
        results, cost, revenue = engine.evaluate(
            np.repeat(some, len(distinct), axis=0), np.tile(distinct, (len(some), 1))
        )
        parts.append(np.concatenate([results, cost, revenue[:, None]], axis=1))
    return np.concatenate(parts)


def _check_engine(engine: Engine) -> None:
    """Refuse an engine whose outcomes are no table."""
    scenario, fault = engine.scenario, ""
    if not scenario.is_categorical:
        fault = "its features are numbers"
    elif scenario.latency is not None:
        fault = "it has a latency limit"
    elif scenario.agent_kind == "site":
        fault = "its agents are sites"
    elif engine.noise != "none":
        fault = f"its revenue has {engine.noise} noise"
    if fault:
        raise InputError(f"scenario {scenario.name!r} has no tensors, because {fault}; use the batched environment")


@dataclass(frozen=True)
class TensorStep:
    """Result of a reset or a step of all sub-environments; see :class:`marca_env.envs.batched_step.BatchedStep`."""

    observations: dict[str, Tensor]
    """Agent → (B, O) float32."""
    masks: dict[str, Tensor]
    """Agent → (A,) bool, the legal actions of the next step, the same in all sub-environments."""
    state: Tensor
    """(B, state_size) float32."""
    reward: Tensor
    """(B,) float32, the team reward; zero except at the end of the request."""
    terminated: bool
    """Whether the episodes have ended; all end together."""
    infos: dict[str, Tensor] = field(default_factory=dict)
    """Empty except at the end of a request: ``revenue`` (B,), ``cost`` (B, G), ``results`` (B, R)."""


class TensorRecommender:
    """Requests of a cascade recommender as B multi-agent episodes in lockstep, on one device.

    The episodes are those of :class:`~marca_env.envs.batched_env.BatchedRecommender`, to the last bit for the same
    requests and actions. Requests are drawn by a generator of the device, so that a seed gives other requests than
    there. Nothing waits for the device, with ``on_illegal="nearest"``.

    Args:
        num_envs: B.
        options: options of the environment; the reward is ``revenue`` or ``lagrangian``, there is no window.
        device: torch device.

    Raises:
        InputError: an option that has no tensors, or the device cannot be used.
    """

    def __init__(self, num_envs: int, options: EnvOptions, device: str = "cpu") -> None:
        self.num_envs, self.device = checked_num_envs(num_envs), torch.device(check_device(device))
        engine = get_engine(options.scenario, options.engine)
        self.scenario = engine.scenario
        if options.window is not None or self.scenario.window is not None:
            raise InputError("windows of requests have no tensors; use the batched environment")
        if not isinstance(options.reward, str):
            raise InputError("a callable reward has no tensors; use 'revenue', 'lagrangian' or the batched environment")
        self.table = OutcomeTable.of(engine, self.device)
        self.prices, self._reward, self.on_illegal = (
            task_prices(self.scenario, options),
            options.reward,
            options.on_illegal,
        )
        self.encoder = ObservationEncoder(self.scenario)
        self._tensors = ObservationTensors(self.encoder, self.device, self.prices)
        self._prices = torch.from_numpy(self.prices).to(self.device)
        self.agents, self.state_size = self.encoder.agents, self.encoder.state_size
        self.observation_sizes, self.action_sizes = dict(self.encoder.sizes), dict(self.encoder.n_actions)
        self.max_steps = self.encoder.n_turns
        self.options = [int(n) for n in self.scenario.action_shape]
        """Number of options of each decision."""
        self._strides = [math.prod(self.options[t + 1 :]) for t in range(self.max_steps)]
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(int(np.random.default_rng().integers(2**62)))
        self.turn = self.max_steps  # no episode runs before the first reset

    @classmethod
    def of(cls, env: BatchedRecommender, device: str = "cpu") -> TensorRecommender:
        """Return the tensors of a batched environment: the same engine, prices and reward, illegal actions corrected.

        Raises:
            InputError: the environment has no tensors.
        """
        named = next((name for name, function in REWARDS.items() if function is env.reward_function), None)
        options = EnvOptions(
            engine=env.engine,
            reward=named or env.reward_function,
            prices=env.prices if env.window is None else None,
            window=env.window,
        )
        return cls(env.num_envs, options, device)

    @property
    def agent_on_turn(self) -> str | None:
        """Agent that makes the next decision; ``None`` at the end of the episode."""
        return self.encoder.turn_agent[self.turn] if self.turn < self.max_steps else None

    def reset(self, seed: int | None = None, requests: Tensor | None = None) -> TensorStep:
        """Start an episode with new requests.

        Args:
            seed: of the requests; ``None`` continues the stream.
            requests: (B,) int64 rows of the table's states, in place of drawn ones.
        """
        if seed is not None:
            self._generator.manual_seed(as_seed(seed) or 0)
        if requests is None:
            drawn = torch.rand(self.num_envs, dtype=torch.float64, device=self.device, generator=self._generator)
            requests = self.table.draw(drawn)
        self.turn, self.requests, self.states = 0, requests, self.table.states[requests]
        self.actions = torch.zeros(self.num_envs, self.max_steps, dtype=torch.int64, device=self.device)
        self._joint = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        return self._observe(None, torch.zeros(self.num_envs, device=self.device), {})

    def step(self, actions: Mapping[str, Tensor]) -> TensorStep:
        """Take the decision of the agent on turn.

        Args:
            actions: agent → (B,) int64; those of agents that are not on turn have no effect and may be left out.

        Raises:
            InputError: no episode is running, or the action of the agent on turn is missing or has another shape.
            IllegalActionError: an illegal action, with ``on_illegal="error"``.
        """
        agent = self.agent_on_turn
        if agent is None:
            raise InputError("no episode is running; call reset() first")
        taken = actions.get(agent)
        if taken is None or taken.shape != (self.num_envs,):
            found = "missing" if taken is None else f"of shape {tuple(taken.shape)}"
            raise InputError(f"actions of agent {agent!r} are {found}; pass a tensor of shape {(self.num_envs,)}")
        chosen = self._legal(agent, taken.to(torch.int64))
        self.actions[:, self.turn] = chosen
        self._joint += chosen * self._strides[self.turn]
        self.turn += 1
        outcome = None
        if self.turn == self.max_steps or self.encoder.has_settled_stage(self.turn):
            outcome = self.table.look_up(self.requests, self._joint)  # open decisions count as option 0
        if self.turn < self.max_steps or outcome is None:
            return self._observe(outcome, torch.zeros(self.num_envs, device=self.device), {})
        results, cost, revenue = outcome.split([self.table.n_results, len(self.prices), 1], dim=1)
        reward = revenue = revenue[:, 0]
        if self._reward == "lagrangian":
            reward = (revenue - (cost * self._prices).sum(1)).float()
        return self._observe(outcome, reward, {"revenue": revenue, "cost": cost, "results": results})

    def _legal(self, agent: str, taken: Tensor) -> Tensor:
        """Return the actions as options of the current decision, or raise an error."""
        last = self.options[self.turn] - 1
        legal = taken.clamp(0, last)
        if self.on_illegal == "error" and not torch.equal(legal, taken):
            first = int((legal != taken).nonzero()[0, 0])
            raise IllegalActionError(
                f"agent {agent!r} took action {int(taken[first])} at turn {self.turn} of request {first}: it decides "
                f"{self.scenario.decision_names[self.turn]!r}, legal are 0 to {last}; choose one that its mask allows"
            )
        return legal

    def _observe(self, outcome: Tensor | None, reward: Tensor, infos: dict[str, Tensor]) -> TensorStep:
        results = None if outcome is None else outcome[:, : self.table.n_results]
        names = (*self.agents, STATE)
        *observed, state = self._tensors.encode(names, self.states, self.actions, results, self.turn)
        observations = dict(zip(self.agents, observed, strict=True))
        masks = {agent: self._tensors.mask(agent, self.turn) for agent in self.agents}
        return TensorStep(observations, masks, state, reward, self.turn == self.max_steps, infos)


@arguments_of(EnvOptions)
def tensor_env(num_envs: int, device: str, options: EnvOptions) -> TensorRecommender:
    """Return ``num_envs`` requests side by side in lockstep as tensors on a device (:class:`TensorRecommender`).

    Pass the fields of :class:`~marca_env.envs.options.EnvOptions` as arguments after ``num_envs`` and ``device``.
    """
    return TensorRecommender(num_envs, options, device)
