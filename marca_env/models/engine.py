"""Revenue and cost of requests under joint actions: arrays in, arrays out, without an environment.

The engine combines the fitted models with the empirical requests. Where all features are categories, a scenario has
finitely many pairs of state and joint action; each pair is predicted once and cached. Where features are numbers,
predictions are made in batches. Where the outcomes of requests were recorded, the records are served.
Shapes: B batch, W columns of a state, D decisions, S stages, N signals, R = S + N results, G clusters, J joint actions,
U distinct states.
"""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from marca_env.logs.log_files import read_request_log
from marca_env.models.cost_map import CostMap
from marca_env.models.cost_model import CostModel
from marca_env.models.latency import Duration
from marca_env.models.latency_map import FILE as LATENCY_FILE
from marca_env.models.latency_map import LatencyMap
from marca_env.models.lateness import CHEAPEST, mean_latency, net_of_lateness
from marca_env.models.population import Population, Sparsity
from marca_env.models.prediction_cache import DirectPredictions, PredictionCache
from marca_env.models.recorded_outcomes import RecordedOutcomes
from marca_env.models.request_pool import RequestPool
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Scenario, presets
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.seeding import UniformSource
from marca_env.utils.validation import as_seed, as_whole_number, check_codes

MAX_REQUESTS = 100_000_000
"""Most requests of one draw."""

Noise = Literal["none", "gamma"]
NOISES = ("none", "gamma")


class CostPredictor(Protocol):
    """Interface of a cost model, such as :class:`marca_env.CostModel`."""

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict the candidates of each stage, then the signals: (B,W), (B,D) → (B,R)."""

    @property
    def cost_map(self) -> CostFunction:
        """Map from candidates to core-seconds."""


class CostFunction(Protocol):
    """Interface of a cost map, such as :class:`marca_env.models.cost_map.CostMap`."""

    def cost(self, actions: np.ndarray, results: np.ndarray, site: np.ndarray | None = None) -> np.ndarray:
        """Return core-seconds on each cluster: actions (B,D), results (B,R), sites (B,) or None → (B,G)."""


class RevenuePredictor(Protocol):
    """Interface of a revenue model, such as :class:`marca_env.RevenueModel`."""

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict expected revenue, currency per request: (B,W), (B,D) → (B,)."""


@dataclass(frozen=True)
class RequestOutcome:
    """Candidates, cost and revenue of a batch of requests."""

    results: np.ndarray
    """(B,S) candidates processed by each stage."""
    cost: np.ndarray
    """(B,G) core-seconds per request."""
    revenue: np.ndarray
    """(B,) currency; drawn if the engine has noise, else the expectation."""
    expected_revenue: np.ndarray
    """(B,) mean of the revenue model, currency; with a latency limit net of lateness."""
    signals: np.ndarray | None = None
    """(B,N) signals of the stages; ``None`` if none reports any."""
    latency: np.ndarray | None = None
    """(B,) mean seconds until the request is answered; ``None`` without a latency limit."""
    late: np.ndarray | None = None
    """(B,) probability that the request is late; ``None`` without a latency limit."""

    @property
    def all_results(self) -> np.ndarray:
        """(B,R) candidates, then signals."""
        return self.results if self.signals is None else np.concatenate([self.results, self.signals], axis=1)


class Engine:
    """Transition of complete requests in batches. The outcome of a request does not depend on the rest of its batch.

    Args:
        scenario: the recommender.
        cost_model: predicts candidates; its ``cost_map`` turns them into core-seconds.
        revenue_model: predicts expected revenue.
        population: requests to sample from.
        noise: ``none`` (the default): the revenue of a request is its expectation, as in offline evaluation.
            ``gamma``: sparse revenue with the same mean, as in a log (:class:`Sparsity`).
        sparsity: distribution of the revenue; required for ``gamma``.
        records: what each request really earns and costs under each joint action; ``None``: what the models predict.
        heldout: requests of the records that no learner has seen; ``None``: there are none.
        latency_map: service times, in a scenario with a latency limit; ``None``: those that follow from the cost map
            (:meth:`LatencyMap.from_cost_map`).

    Raises:
        InputError: the noise is unknown, ``gamma`` has no sparsity, the population has other features than the
            scenario, or a scenario with a latency limit has no service times.
    """

    @checked_arguments
    def __init__(
        self,
        scenario: Scenario,
        cost_model: CostPredictor,
        revenue_model: RevenuePredictor,
        population: Population,
        *,
        noise: Noise = "none",
        sparsity: Sparsity | None = None,
        records: RecordedOutcomes | None = None,
        heldout: Population | None = None,
        latency_map: LatencyMap | None = None,
    ) -> None:
        if noise not in NOISES:
            raise InputError(unknown_option("noise", noise, NOISES))
        if noise == "gamma" and sparsity is None:
            raise InputError(
                "noise 'gamma' needs `sparsity`; use Engine.load(scenario, noise='gamma'), which takes it from the "
                "request log"
            )
        if population.states.shape[1] != len(scenario.state_columns):
            raise InputError(
                f"population has {population.states.shape[1]} features but scenario {scenario.name!r} has "
                f"{len(scenario.state_columns)}; fit the artefacts for this scenario"
            )
        self.scenario = scenario
        self.cost_model = cost_model
        self.revenue_model = revenue_model
        self.population = population
        self.noise = noise
        self.sparsity = sparsity
        self._cumulative = np.cumsum(population.counts / population.counts.sum())
        self.records, self.heldout = records, heldout
        self.latency_map: LatencyMap | None = None
        if scenario.latency is not None:
            self.latency_map = latency_map or _map_by_rule(scenario, cost_model.cost_map)
        """Service times; ``None`` without a latency limit."""
        self._n_results = len(scenario.result_columns)
        predictions = PredictionCache if scenario.is_categorical else DirectPredictions
        self._predictions = predictions(scenario, self._predict)

    @classmethod
    @checked_arguments
    def load(
        cls,
        scenario: str | Path | Scenario = "default",
        folder: str | Path | None = None,
        *,
        noise: Noise = "none",
        device: str = "cpu",
    ) -> Engine:
        """Load the engine of a scenario from its fitted artefacts.

        Args:
            scenario: preset, YAML file, folder of `marca fit`, or Scenario.
            folder: folder of ``cost_model/``, ``revenue_model/`` and ``population.parquet`` (and, for ``gamma`` noise,
                ``requests.parquet``); ``None``: see :func:`artefact_folder`.
            noise: see :class:`Engine`.
            device: torch device of the models.

        Raises:
            InputError: an artefact is missing or belongs to another system; the message names the command to run.
        """
        scenario = Scenario.load(scenario)
        home = Path(folder) if folder is not None else artefact_folder(scenario)
        needed = ["cost_model", "revenue_model", "population.parquet"]
        needed += ["requests.parquet"] if noise == "gamma" else []
        for name in needed:
            if not (home / name).exists():
                raise InputError(
                    f"{home / name}: no such artefact for scenario {scenario.name!r}; {fit_remedy(scenario)}"
                )
        sparsity = None
        if noise == "gamma":
            sparsity = Sparsity.from_log(read_request_log(home / "requests.parquet", scenario))
        cost_model = CostModel.load(home / "cost_model", device=device)
        revenue_model = RevenueModel.load(home / "revenue_model", device=device)
        for model, name in ((cost_model, "cost_model"), (revenue_model, "revenue_model")):
            differing = scenario.differs_from(model.scenario)
            if differing:
                raise InputError(
                    f"{home / name}: fitted to another system than scenario {scenario.name!r} "
                    f"({', '.join(differing)} differ); {fit_remedy(scenario)}"
                )
        records, heldout = home / "outcomes.parquet", home / "heldout.parquet"
        return cls(
            scenario,
            cost_model,
            revenue_model,
            Population.load(home / "population.parquet", scenario),
            noise=noise,
            sparsity=sparsity,
            records=RecordedOutcomes.load(records, scenario) if records.exists() else None,
            heldout=Population.load(heldout, scenario) if heldout.exists() else None,
            latency_map=None if scenario.latency is None else load_latency_map(scenario, cost_model.cost_map, home),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        """Share models, population and cache with the copy: nothing that serves requests changes them."""
        return copy.copy(self)

    # -- transition ----------------------------------------------------------------------------------------
    def sample_states(self, rng: UniformSource, n: int) -> np.ndarray:
        """Draw ``n`` requests from the population, (n,W); the k-th is also the k-th of n single draws."""
        n = as_whole_number("n", n, 0, MAX_REQUESTS)
        row = np.searchsorted(self._cumulative, rng.random(n), side="right")
        return self.population.states[np.minimum(row, len(self._cumulative) - 1)]

    def outcome(
        self, states: np.ndarray, actions: np.ndarray, rng: UniformSource, waiting: Duration | None = None
    ) -> RequestOutcome:
        """Serve a batch of requests.

        Args:
            states: (B,W).
            actions: (B,D) option indices.
            rng: source of one number per request if the engine has noise; unused otherwise.
            waiting: (B,) how long each request waits at loaded clusters, which matters if there is a latency limit;
                ``None``: nothing waits.
        """
        if self.scenario.latency is not None:
            return self._timed_outcome(states, actions, rng, waiting)
        results, cost, expected = self.evaluate(states, actions)
        revenue = expected
        if self.noise == "gamma" and self.sparsity is not None:
            revenue = self.sparsity.sample(expected.astype(np.float64), rng.random(len(expected))).astype(np.float32)
        n_stages = len(self.scenario.stages)
        signals = results[:, n_stages:] if self._n_results > n_stages else None
        return RequestOutcome(results[:, :n_stages], cost, revenue, expected, signals)

    def _timed_outcome(
        self, states: np.ndarray, actions: np.ndarray, rng: UniformSource, waiting: Duration | None
    ) -> RequestOutcome:
        """Serve a batch of requests that have to be answered within a limit."""
        latency, n_stages = self.scenario.latency, len(self.scenario.stages)
        assert latency is not None
        results, cost, on_time = self._served(states, actions)
        cheapest = self._cheapest_revenue(states)
        time = self.service_time(actions, results)
        if waiting is not None:
            time = time + waiting
        late = time.share_above(latency.limit)
        revenue = expected = net_of_lateness(latency, on_time, cheapest, late).astype(np.float32)
        if self.noise == "gamma" and self.sparsity is not None:
            # given whether the request is late, its number is uniform again: one number serves both draws
            number = rng.random(len(expected))
            is_late = number < late
            chance = np.where(is_late, late, 1.0 - late)
            rest = np.clip((number - np.where(is_late, 0.0, late)) / chance, 0.0, 1.0)
            mean = np.where(is_late, latency.fallback * cheapest, on_time).astype(np.float64)
            revenue = self.sparsity.sample(mean, rest).astype(np.float32)
        signals = results[:, n_stages:] if self._n_results > n_stages else None
        seconds = mean_latency(latency, time)
        return RequestOutcome(results[:, :n_stages], cost, revenue, expected, signals, seconds, late)

    def service_time(self, actions: np.ndarray, results: np.ndarray) -> Duration:
        """Return how long requests take without waiting: ``actions`` (…,D), ``results`` (…,R) → (…).

        Raises:
            InputError: the scenario has no latency limit.
        """
        if self.latency_map is None:
            raise InputError(f"scenario {self.scenario.name!r} has no latency limit; set `latency`")
        return self.latency_map.total(actions, results)

    def results(self, states: np.ndarray, actions: np.ndarray, turn: int) -> np.ndarray:
        """Return (B,R) results with the decisions before ``turn``; later decisions count as option 0."""
        as_whole_number("turn", turn, 0, len(self.scenario.decisions))
        actions = check_codes("action", actions, self.scenario.decision_names, self.scenario.action_shape)
        known_actions = np.where(np.arange(actions.shape[1]) < turn, actions, 0)
        return self.served_results(states, known_actions)

    def evaluate(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return results (B,R), cost (B,G) and expected revenue (B,), float32; recorded ones if there are any.

        With a latency limit the revenue is net of lateness where nothing waits.
        """
        results, cost, revenue = self._served(states, actions)
        if (latency := self.scenario.latency) is not None:
            late = self.service_time(actions, results).share_above(latency.limit)
            revenue = net_of_lateness(latency, revenue, self._cheapest_revenue(states), late).astype(np.float32)
        return results, cost, revenue

    def served_results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the results (B,R) of :meth:`evaluate` alone."""
        return self._served(states, actions)[0]

    def served_costs(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the cost (B,G) of :meth:`evaluate` alone."""
        return self._served(states, actions)[1]

    def _served(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return results (B,R), cost (B,G) and the revenue (B,) of requests that are on time, float32."""
        source = self._predictions if self.records is None else self.records
        rows = source.look_up(self.scenario.check_states(states), self.scenario.joint_index(actions))
        return rows[:, : self._n_results], rows[:, self._n_results : -1], rows[:, -1]

    def _cheapest_revenue(self, states: np.ndarray) -> np.ndarray:
        """Return the revenue (B,) of requests that are on time under the cheapest joint action."""
        cheapest = self.scenario.joint_actions[CHEAPEST]
        return self._served(states, np.broadcast_to(cheapest, (len(states), len(cheapest))))[2]

    def stage_costs(self, actions: np.ndarray, results: np.ndarray) -> np.ndarray | None:
        """Return core-seconds of each stage, (B,D), (B,R) → (B,S); ``None`` if the cost map has no costs by stage."""
        stage_cost = getattr(self.cost_model.cost_map, "stage_cost", None)
        if stage_cost is None:
            return None
        return np.stack([stage_cost(k, actions, results[:, k]) for k in range(len(self.scenario.stages))], axis=1)

    def table(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the revenue (B,J) and cost (B,J,G) that the models expect of every joint action, float32."""
        return self._table(self._predictions, states)

    def true_table(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the revenue (B,J) and cost (B,J,G) of every joint action as :meth:`evaluate` serves them, float32."""
        return self._table(self._predictions if self.records is None else self.records, states)

    def warm(self, chunk: int = 200) -> None:
        """Fill the cache with every action of every state of the population, ``chunk`` states at a time."""
        if self.scenario.is_categorical:
            for start in range(0, len(self.population.states), chunk):
                self.table(self.population.states[start : start + chunk])

    @checked_arguments
    def pool(self, size: int, seed: int = 0) -> RequestPool:
        """Draw ``size`` requests from the population, with their complete tables, to simulate days with."""
        as_whole_number("size", size, 1, MAX_REQUESTS)
        return self._pool(self.sample_states(np.random.default_rng(as_seed(seed)), size))

    @checked_arguments
    def heldout_pool(self) -> RequestPool:
        """Return the held-out requests with their complete tables, to judge what was learnt from the population.

        Raises:
            InputError: the scenario has no held-out requests.
        """
        if self.heldout is None:
            raise InputError(f"scenario {self.scenario.name!r} has no held-out requests; use pool()")
        return self._pool(np.repeat(self.heldout.states, self.heldout.counts.astype(np.int64), axis=0))

    def on_heldout(self) -> Engine:
        """Return the engine whose requests are the held-out ones, to play a trained policy on them in an environment.

        Raises:
            InputError: the scenario has no held-out requests.
        """
        if self.heldout is None:
            raise InputError(f"scenario {self.scenario.name!r} has no held-out requests; play on its population")
        engine = copy.copy(self)
        engine.population = self.heldout
        engine._cumulative = np.cumsum(self.heldout.counts / self.heldout.counts.sum())
        return engine

    def _pool(self, drawn: np.ndarray) -> RequestPool:
        states, counts = np.unique(drawn, axis=0, return_counts=True)
        weights = counts.astype(np.float64)
        if self.scenario.latency is None:
            values, costs = self.true_table(states)
            return RequestPool(self.scenario, states, {"revenue": values}, costs, weights)
        source = self._predictions if self.records is None else self.records
        results, costs, revenue = self._tables(source, states)
        service = self.service_time(self.scenario.joint_actions, results)
        single = Duration(service.mean.astype(np.float32), service.variance.astype(np.float32))
        return RequestPool.with_limit(self.scenario, states, {"revenue": revenue}, costs, single, weights)

    def _table(
        self, source: PredictionCache | DirectPredictions | RecordedOutcomes, states: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return revenue (B,J) and cost (B,J,G) of every joint action from one of the sources of outcomes."""
        results, costs, revenue = self._tables(source, states)
        if (latency := self.scenario.latency) is not None:
            late = self.service_time(self.scenario.joint_actions, results).share_above(latency.limit)
            revenue = net_of_lateness(latency, revenue, revenue[:, CHEAPEST, None], late).astype(np.float32)
        return revenue, costs

    def _tables(
        self, source: PredictionCache | DirectPredictions | RecordedOutcomes, states: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return results (B,J,R), cost (B,J,G) and the revenue (B,J) of requests that are on time."""
        states = self.scenario.check_states(states)
        distinct, distinct_of = source.distinct, source.distinct_of
        rows = source.look_up(np.repeat(states, len(distinct), axis=0), np.tile(distinct, len(states)))
        rows = rows.reshape(len(states), len(distinct), rows.shape[-1])
        n = self._n_results
        results = rows[:, distinct_of, :n] if self.scenario.latency is not None else rows[:, :0, :n]
        return results, rows[:, distinct_of, n:-1], rows[:, distinct_of, -1]

    def _predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Predict candidates, cost and expected revenue without the cache; float32 (B, R+G+1)."""
        results = self.cost_model.results(states, actions)
        cost = self.cost_model.cost_map.cost(actions, results, self.scenario.site_of(states))
        revenue = np.maximum(self.revenue_model.predict(states, actions), 0.0)
        return np.concatenate([results, cost, revenue[:, None]], axis=1).astype(np.float32)


def shipped_folder(name: str) -> Path:
    """Return the folder of the artefacts that the package ships for the scenario ``name``."""
    return Path(str(resources.files("marca_env"))) / "data" / name


def artefact_folder(scenario: Scenario) -> Path:
    """Return the folder of a scenario's fitted artefacts.

    It is where the scenario was read from, else the shipped one of its name. A scenario of another name, and a preset
    without a folder of its own, has the artefacts of the preset that it differs from in nothing that matters to them.
    """
    if scenario.home is not None:
        return scenario.home
    own = shipped_folder(scenario.name)
    if scenario.name in presets() and own.is_dir():
        return own
    others = (p for p in presets() if shipped_folder(p).is_dir() and not scenario.differs_from(_preset(p)))
    return shipped_folder(next(others, scenario.name))


def load_latency_map(
    scenario: Scenario, cost_map: CostFunction | None = None, folder: Path | None = None
) -> LatencyMap:
    """Return the service times of a scenario: its ``latency.json``, or what follows from its cost map.

    Args:
        scenario: the system.
        cost_map: used where no latency was measured; ``None``: that of the fitted cost model.
        folder: folder of the artefacts; ``None``: see :func:`artefact_folder`.

    Raises:
        InputError: a file is missing or damaged, or the cost map has no curves.
    """
    home = artefact_folder(scenario) if folder is None else folder
    if (home / LATENCY_FILE).is_file():
        return LatencyMap.load(home, scenario)
    return _map_by_rule(scenario, CostModel.load(home / "cost_model").cost_map if cost_map is None else cost_map)


def _map_by_rule(scenario: Scenario, cost_map: CostFunction) -> LatencyMap:
    """Return the service times that follow from a cost map."""
    if not isinstance(cost_map, CostMap):
        raise InputError(
            f"scenario {scenario.name!r} has a latency limit, but its costs are a {type(cost_map).__name__}, not a "
            "CostMap; pass latency_map"
        )
    return LatencyMap.from_cost_map(cost_map)


@functools.cache
def _preset(name: str) -> Scenario:
    return Scenario.load(name)


def fit_remedy(scenario: Scenario) -> str:
    """Return how to fit the artefacts that a scenario lacks, for messages."""
    is_known = scenario.source is not None or scenario.name in presets()
    source = scenario.source or scenario.name if is_known else "FILE.yaml"
    return f"fit it with `marca fit --scenario {source} --out DIR`, then use the folder DIR as the scenario"


@functools.lru_cache(maxsize=4)
def _cached_engine(scenario: str, home: Path | None, _written: int) -> Engine:
    """Load an engine once per scenario (JSON), folder and time of the last fit."""
    return Engine.load(Scenario.from_dict(json.loads(scenario)).replace(home=home))


@checked_arguments
def get_engine(scenario: str | Path | Scenario = "default", engine: Engine | None = None) -> Engine:
    """Return ``engine`` if it is given, else the engine of the scenario, which is loaded once and cached."""
    if engine is not None:
        return engine
    scenario = Scenario.load(scenario)
    description = artefact_folder(scenario) / "revenue_model" / "model.json"  # every fit rewrites it
    written = description.stat().st_mtime_ns if description.is_file() else 0
    return _cached_engine(json.dumps(scenario.to_dict()), scenario.home, written)
