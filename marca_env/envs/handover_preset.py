"""Preset ``handover-v0``: what the later stages see, the first one cannot, and the first one alone knows the user.

The scenario is generated from a stated law; nothing was measured. A request has a user, whom retrieval alone observes
(``value``, ``taste``), a topic, and hidden properties: how well the user's history fits, how hard the candidates are to
tell apart, and the errors of two readings. Retrieval chooses a source; its scores tell later stages how relevant the
list is (``best``) and how hard it is to rank (``spread``), each with an error. The score gap at the cut tells ranking
more. The population holds every combination with its probability, so that tables over it are exact. What a request
earns is stated in :func:`_outcomes`. Shapes: M requests, J joint actions, R results, G clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from marca_env.models.cost_map import CostMap, Curve, model_component
from marca_env.models.cost_model import CostModel
from marca_env.models.population import Population
from marca_env.models.recorded_outcomes import FILE, RecordedOutcomes
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage

NAME = "handover-v0"
SOURCES = {"popular": 1e-4, "personal": 4e-4, "both": 8e-4}
"""Source of candidates → core-seconds per request."""
RANKERS = {"off": 0.0, "small": 4e-4, "medium": 1e-3, "large": 2.4e-3}
"""Ranking model → core-seconds per request at the longest queue; in proportion to the queue."""
CUTS = (20, 60, 180, 540)
CANDIDATES = 600
"""Candidates that each source returns."""
PER_CANDIDATE = 6e-7
"""Core-seconds of a candidate that is handed to ranking, besides the model's."""
PRICE = 5.0
"""λ of both clusters, currency per core-second."""
PEAK_QPS = 1000.0
_LEVELS = {"value": 3, "taste": 3, "topic": 2, "fit": 3, "hardness": 3, "best_error": 3, "spread_error": 3}
_VALUE = np.array([0.002, 0.01, 0.05])
"""Currency that a perfectly served request earns, by the user's value."""
_ACCURACY = np.array([0.0, 0.5, 0.8, 1.0])
"""Accuracy of each ranking model."""
_POPULATION = 1_000_000
_LOG_ROWS = 20_000
"""Requests of the log that the models are fitted to."""


@dataclass(frozen=True)
class RecordedScenario:
    """A scenario whose outcomes are recorded, with its requests."""

    scenario: Scenario
    records: RecordedOutcomes
    population: Population
    cost_map: CostMap

    def write(self, package: Path) -> None:
        """Write the preset, its records and its fitted models to the places where the package holds them."""
        folder = package / "data" / self.scenario.name
        self.scenario.save(package / "scenario" / "presets" / f"{self.scenario.name}.yaml")
        self.population.save(folder / "population.parquet", self.scenario)
        self.records.save(folder / FILE)
        log = self.log(_LOG_ROWS, seed=1)
        CostModel.fit(self.scenario, log, self.cost_map).save(folder / "cost_model")
        RevenueModel.fit(self.scenario, log).save(folder / "revenue_model")

    def log(self, rows: int, seed: int) -> pd.DataFrame:
        """Return a log of requests that were served by options at random."""
        scenario, rng = self.scenario, np.random.default_rng(seed)
        chance = self.population.counts / self.population.counts.sum()
        states = self.population.states[rng.choice(len(chance), size=rows, p=chance)]
        joint = rng.integers(scenario.n_joint_actions, size=rows)
        outcomes = self.records.look_up(states, joint)
        columns = dict(zip(scenario.state_columns, states.T, strict=True))
        columns |= dict(zip(scenario.decision_names, scenario.joint_actions[joint].T, strict=True))
        columns |= dict(zip(scenario.result_columns, outcomes.T, strict=False))
        return pd.DataFrame(columns | {"revenue": outcomes[:, -1]})


def make_handover() -> RecordedScenario:
    """Make the preset; 3 × 4 × 4 = 48 joint actions."""
    levels = _latent_levels()
    n = len(levels["value"])
    scenario = Scenario(
        name=NAME,
        stages=(
            Stage(
                "retrieval",
                "retrieval",
                (Decision("source", "model", tuple(SOURCES)),),
                queue_limit=CANDIDATES,
                signals=("best", "spread"),
            ),
            Stage("pre_ranking", "retrieval", (Decision("truncation", "queue", CUTS),), signals=("gap",)),
            Stage("ranking", "ranking", (Decision("ranker", "model", tuple(RANKERS)),)),
        ),
        clusters=(Cluster("retrieval", cores=0.3, budget=0.2), Cluster("ranking", cores=0.33, budget=0.22)),
        features=(
            Feature("value", 3, seen_by=("retrieval",)),
            Feature("taste", 3, seen_by=("retrieval",)),
            Feature("topic", 2),
            Feature("request", n, hidden=True),
        ),
        peak_qps=PEAK_QPS,
        prices=(PRICE, PRICE),
    )
    cost_map = _cost_map(scenario)
    records = RecordedOutcomes(scenario, _outcomes(scenario, cost_map, levels))
    states = np.stack([levels["value"], levels["taste"], levels["topic"], np.arange(n)], axis=1)
    counts = np.maximum(np.round(_probability(levels) * _POPULATION), 1.0)
    return RecordedScenario(scenario, records, Population(states, counts), cost_map)


def _latent_levels() -> dict[str, np.ndarray]:
    """Return every combination of the levels of the user, the topic and the hidden properties; name → (M,)."""
    grid = np.indices(list(_LEVELS.values())).reshape(len(_LEVELS), -1)
    return dict(zip(_LEVELS, grid, strict=True))


def _probability(levels: dict[str, np.ndarray]) -> np.ndarray:
    """Return the probability of each combination, (M,): only topic and fit depend on each other."""
    error = np.array([0.2, 0.6, 0.2])
    fit = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])[levels["topic"], levels["fit"]]
    user = np.array([0.5, 0.35, 0.15])[levels["value"]] * np.array([0.4, 0.35, 0.25])[levels["taste"]]
    hardness = np.array([0.35, 0.35, 0.3])[levels["hardness"]]
    return 0.5 * fit * user * hardness * error[levels["best_error"]] * error[levels["spread_error"]]


def _outcomes(scenario: Scenario, cost_map: CostMap, levels: dict[str, np.ndarray]) -> np.ndarray:
    """Return results, costs and revenue of every joint action, (M, J, R+G+1) float32.

    With n candidates ranked, reach = 1 − exp(−n / 120), and difficulty d = 0.7 · hardness + 0.3 · taste, each in 0 … 1:
    revenue = value · relevance · (1 − 0.3 · (1 − reach) · (1 − d)) · (1 − 0.9 · d · (1 − accuracy · reach)).
    An accurate model pays where the request is difficult and the queue long; the longer the queue, the dearer it is.
    """
    source, cut, ranker = scenario.joint_actions.T  # (J,) each
    relevance = _relevance(levels)  # (M,3)
    hardness, taste = levels["hardness"] / 2.0, levels["taste"] / 2.0
    difficulty = (0.7 * hardness + 0.3 * taste)[:, None]
    reach = 1.0 - np.exp(-np.array(CUTS) / 120.0)[cut]
    found = relevance[:, source] * (1.0 - 0.3 * (1.0 - reach) * (1.0 - difficulty))
    ranked = 1.0 - 0.9 * difficulty * (1.0 - _ACCURACY[ranker] * reach)
    revenue = _VALUE[levels["value"]][:, None] * found * ranked
    counts = np.stack([np.full(len(cut), CANDIDATES), np.full(len(cut), CANDIDATES), np.array(CUTS)[cut]], axis=1)
    counts = np.broadcast_to(counts, (*revenue.shape, 3))
    costs = cost_map.cost(np.broadcast_to(scenario.joint_actions, counts.shape), counts)
    signals = np.stack(_signals(levels, relevance, source, cut), axis=2)
    return np.concatenate([counts, signals, costs, revenue[:, :, None]], axis=2).astype(np.float32)


def _relevance(levels: dict[str, np.ndarray]) -> np.ndarray:
    """Return how relevant the list of each source is, 0 … 1, (M,3)."""
    popular = np.array([0.9, 0.6, 0.3])[levels["taste"]]
    personal = np.array([0.35, 0.65, 0.95])[levels["fit"]]
    return np.stack([popular, np.maximum(0.6 * popular, personal), 1 - (1 - popular) * (1 - personal)], axis=1)


def _signals(
    levels: dict[str, np.ndarray], relevance: np.ndarray, source: np.ndarray, cut: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the signals best, spread and gap, (M,J) each: readings on a few levels, about standardised."""
    best = np.clip(np.round(4.0 * relevance[:, source]) + levels["best_error"][:, None] - 1, 0, 5)
    spread = np.clip(levels["hardness"] + levels["spread_error"] - 1, 0, 2)[:, None] + 0.0 * source
    gap = np.clip(2 - levels["hardness"][:, None] + np.array([-1, 0, 0, 1])[cut], 0, 3)
    return ((best - 2.95) / 1.29).round(3), ((spread - 0.96) / 0.81).round(3), ((gap - 1.12) / 0.95).round(3)


def _cost_map(scenario: Scenario) -> CostMap:
    """Return the stated costs: a source costs a constant, a ranked candidate the price of its model."""
    ends = np.array([0.0, CANDIDATES])
    nothing = Curve(ends, np.zeros(2))
    curves = {(stage.name, part): nothing for stage in scenario.stages for part in ("base", "queue")}
    curves["ranking", "queue"] = Curve(ends, ends * PER_CANDIDATE)
    for stage, prices in (("retrieval", SOURCES), ("ranking", RANKERS)):
        decision = next(s for s in scenario.stages if s.name == stage).decisions[0]
        for option, price in prices.items():
            if option != "off":
                slope = price / CUTS[-1] if stage == "ranking" else price / CANDIDATES
                curves[stage, model_component(decision, option)] = Curve(ends, ends * slope)
    return CostMap(scenario, curves)
