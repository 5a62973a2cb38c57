"""What a request earns and costs under a joint action: arrays in, arrays out, no environment.

The engine puts the fitted models and the empirical requests together. Requests are categorical, so that a scenario
has finitely many (state, joint action) pairs; each is put to the models once and remembered.
Shapes: B batch, F features, D decisions, S stages, G clusters, J joint actions, U distinct states.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from marca_env.logs.log_files import read_request_log
from marca_env.models.cost_model import CostModel
from marca_env.models.population import Population, Sparsity
from marca_env.models.prediction_cache import Memory
from marca_env.models.request_pool import RequestPool
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.seeding import Uniform
from marca_env.utils.validation import check_codes

Noise = Literal["none", "gamma"]
NOISES = ("none", "gamma")


class CostPredictor(Protocol):
    """What the engine asks of a cost model (:class:`marca_env.CostModel`)."""

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray: ...

    @property
    def cost_map(self) -> CostFunction: ...


class CostFunction(Protocol):
    """Candidates to computation at each request's site: (B,D), (B,S), (B,) or None → (B,G) core-seconds."""

    def cost(self, actions: np.ndarray, results: np.ndarray, site: np.ndarray | None = None) -> np.ndarray: ...


class RevenuePredictor(Protocol):
    """What the engine asks of a revenue model (:class:`marca_env.RevenueModel`)."""

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Outcome:
    """What a batch of requests did."""

    results: np.ndarray
    """(B,S) candidates processed by each stage."""
    cost: np.ndarray
    """(B,G) core-seconds per request."""
    revenue: np.ndarray
    """(B,) currency; sampled if the engine has noise."""
    expected_revenue: np.ndarray
    """(B,) the revenue model's mean, currency."""


class Engine:
    """Batched transition of a whole request. What it says of a request does not depend on those beside it.

    Args:
        scenario: the recommender.
        cost_model: predicts results; its ``cost_map`` turns them into core-seconds.
        revenue_model: predicts expected revenue.
        population: the requests that come.
        noise: ``none`` (the default): the revenue of a request is its expectation, the clean signal that offline
            evaluation uses. ``gamma``: sparse revenue with the same mean, as a log shows it (:class:`Sparsity`).
        sparsity: needed for ``gamma``.

    Raises:
        InputError: an unknown noise, or ``gamma`` without a sparsity.
    """

    def __init__(
        self,
        scenario: Scenario,
        cost_model: CostPredictor,
        revenue_model: RevenuePredictor,
        population: Population,
        *,
        noise: Noise = "none",
        sparsity: Sparsity | None = None,
    ) -> None:
        if noise not in NOISES:
            raise InputError(unknown_option("noise", noise, NOISES))
        if noise == "gamma" and sparsity is None:
            raise InputError("noise 'gamma' needs a sparsity; build one with Sparsity.from_log(request_log)")
        if population.states.shape[1] != len(scenario.features):
            raise InputError(
                f"population has {population.states.shape[1]} features but scenario {scenario.name!r} has "
                f"{len(scenario.features)}; fit the artefacts for this scenario"
            )
        self.scenario = scenario
        self.cost_model = cost_model
        self.revenue_model = revenue_model
        self.population = population
        self.noise = noise
        self.sparsity = sparsity
        self._cumulative = np.cumsum(population.counts / population.counts.sum())
        self._memory = Memory(scenario, self._ask)

    @classmethod
    def load(
        cls,
        scenario: str | Path | Scenario = "default",
        folder: str | Path | None = None,
        *,
        noise: Noise = "none",
        device: str = "cpu",
    ) -> Engine:
        """The engine of a scenario from its fitted artefacts.

        Args:
            scenario: preset, YAML file, folder of `marca fit`, or Scenario.
            folder: where ``cost_model/``, ``revenue_model/`` and ``population.parquet`` lie (and, for ``gamma``
                noise, ``requests.parquet``); ``None``: see :func:`artefact_folder`.
            noise: see :class:`Engine`.
            device: torch device of the models.

        Raises:
            InputError: an artefact is missing or another system's; the message says which command makes it.
        """

        scenario = Scenario.load(scenario)
        home = Path(folder) if folder is not None else artefact_folder(scenario)
        needed = ["cost_model", "revenue_model", "population.parquet"]
        needed += ["requests.parquet"] if noise == "gamma" else []
        for name in needed:
            if not (home / name).exists():
                raise InputError(
                    f"{home / name}: no such artefact for scenario {scenario.name!r}; make it with "
                    f"`marca fit --scenario {scenario.name} --out DIR` and pass folder=DIR"
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
                    f"({', '.join(differing)} differ); make its own with `marca fit --scenario FILE --out DIR` "
                    "and pass folder=DIR"
                )
        return cls(
            scenario,
            cost_model,
            revenue_model,
            Population.load(home / "population.parquet", scenario),
            noise=noise,
            sparsity=sparsity,
        )

    # -- transition ----------------------------------------------------------------------------------------
    def sample_states(self, rng: Uniform, n: int) -> np.ndarray:
        """``n`` requests from the population; (n,F) int64. Draw k of n is the k-th of single draws."""
        row = np.searchsorted(self._cumulative, rng.random(n), side="right")
        return self.population.states[np.minimum(row, len(self._cumulative) - 1)]

    def outcome(self, states: np.ndarray, actions: np.ndarray, rng: Uniform) -> Outcome:
        """Serve a batch of requests.

        Args:
            states: (B,F) int.
            actions: (B,D) option indices.
            rng: only drawn from where the engine has noise, one number per request.
        """
        results, cost, expected = self.evaluate(states, actions)
        revenue = expected
        if self.noise == "gamma" and self.sparsity is not None:
            revenue = self.sparsity.sample(expected.astype(np.float64), rng.random(len(expected))).astype(np.float32)
        return Outcome(results, cost, revenue, expected)

    def results(self, states: np.ndarray, actions: np.ndarray, turn: int) -> np.ndarray:
        """(B,S) results as far as the decisions before ``turn`` settle them; the later ones count as option 0."""
        made = np.where(np.arange(actions.shape[1]) < turn, actions, 0)
        return self.evaluate(states, made)[0]

    def evaluate(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Results (B,S), cost (B,G) and expected revenue (B,), float32, each pair put to the models once."""
        states = check_codes("state", states, self.scenario.feature_names, self.scenario.feature_sizes)
        rows = self._memory.look_up(states, self.scenario.joint_index(actions))
        n_stages = len(self.scenario.stages)
        return rows[:, :n_stages], rows[:, n_stages:-1], rows[:, -1]

    def stage_costs(self, actions: np.ndarray, results: np.ndarray) -> np.ndarray | None:
        """Core-seconds of each stage: (B,D), (B,S) → (B,S); ``None`` where the cost model only tells clusters apart."""
        one = getattr(self.cost_model.cost_map, "stage_cost", None)
        if one is None:
            return None
        return np.stack([one(k, actions, results[:, k]) for k in range(results.shape[1])], axis=1)

    def table(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected revenue (B,J) and cost (B,J,G) of every joint action, float32."""
        states = check_codes("state", states, self.scenario.feature_names, self.scenario.feature_sizes)
        distinct, distinct_of = self._memory.distinct, self._memory.distinct_of
        rows = self._memory.look_up(np.repeat(states, len(distinct), axis=0), np.tile(distinct, len(states)))
        rows = rows.reshape(len(states), len(distinct), rows.shape[-1])
        n_stages = len(self.scenario.stages)
        return rows[:, distinct_of, -1], rows[:, distinct_of, n_stages:-1]

    def warm(self, chunk: int = 200) -> None:
        """Put every action of every state of the population to the models now, for full speed from then on."""
        for start in range(0, len(self.population.states), chunk):
            self.table(self.population.states[start : start + chunk])

    def pool(self, size: int, seed: int = 0) -> RequestPool:
        """``size`` requests drawn from the population, with their whole tables: what a day is simulated with."""
        drawn = self.sample_states(np.random.default_rng(seed), size)
        states, counts = np.unique(drawn, axis=0, return_counts=True)
        values, costs = self.table(states)
        return RequestPool(self.scenario, states, {"revenue": values}, costs, counts.astype(np.float64))

    def _ask(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Results, cost and expected revenue side by side, float32 (B, S+G+1), straight from the models."""
        results = self.cost_model.results(states, actions)
        cost = self.cost_model.cost_map.cost(actions, results, self.scenario.site_of(states))
        revenue = np.maximum(self.revenue_model.predict(states, actions), 0.0)
        return np.concatenate([results, cost, revenue[:, None]], axis=1).astype(np.float32)


def shipped_folder(name: str) -> Path:
    """Folder of the artefacts that come with the package for the scenario ``name``."""
    return Path(str(resources.files("marca_env"))) / "data" / name


def artefact_folder(scenario: Scenario) -> Path:
    """Folder of a scenario's fitted artefacts: the one it was read from, else what is shipped for its name."""
    return scenario.home if scenario.home is not None else shipped_folder(scenario.name)


@functools.lru_cache(maxsize=4)
def _loaded(scenario: str, home: Path | None, _written: int) -> Engine:
    return Engine.load(Scenario.from_dict(json.loads(scenario)).replace(home=home))


def resolve(scenario: str | Path | Scenario = "default", engine: Engine | None = None) -> Engine:
    """The engine to use: the one given, or that of the scenario, loaded once however often the scenario is named."""
    if engine is not None:
        return engine
    scenario = Scenario.load(scenario)
    described = artefact_folder(scenario) / "revenue_model" / "model.json"  # written anew by every fit
    written = described.stat().st_mtime_ns if described.is_file() else 0
    return _loaded(json.dumps(scenario.to_dict()), scenario.home, written)
