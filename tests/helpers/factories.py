"""Make a small scenario, logs drawn from a known law, and the law itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from marca_env.models.engine import Engine
from marca_env.models.latency_map import LatencyMap
from marca_env.models.population import Population
from marca_env.scenario.scenario import (
    Audience,
    Catalogue,
    Cluster,
    Decision,
    Display,
    Feature,
    Latency,
    Scenario,
    Stage,
)

OWN_MAPPING: dict[str, Any] = {
    "name": "own",
    "requests": {"revenue": "euros"},
    "system": {"qps": "rps"},
    "features": [{"name": "city", "size": 4}, {"name": "spend", "size": 3, "coding": "quantile"}],
    "stages": [
        {
            "name": "search",
            "cluster": "pool",
            "result": "seen",
            "decisions": [{"name": "depth", "kind": "queue", "options": [10, 20, 40]}],
        }
    ],
    "clusters": [{"name": "pool", "cost": "ms", "cost_scale": 0.001, "load": "busy"}],
}
"""A mapping of a user's logs: two features, one stage with one decision, one cluster."""


def make_tiny_scenario() -> Scenario:
    """2 × 3 × 2 × 3 = 36 joint actions, 48 states, two clusters, a catalogue of 400 items."""
    channels = Decision("channels", "channel", (("popularity",), ("popularity", "two_tower")))
    length = Decision("two_tower_length", "queue", (10, 20, 40), channel="two_tower")
    rescoring = Decision("rescoring", "model", ("off", "personalised"))
    truncation = Decision("truncation", "queue", (5, 10, 20))
    return Scenario(
        name="tiny",
        stages=(
            Stage("retrieval", "retrieval", (channels, length, rescoring), queue_limit=60),
            Stage("pre_ranking", "ranking", (truncation,)),
            Stage("ranking", "ranking"),
        ),
        clusters=(Cluster("retrieval", cores=1.0, budget=0.6), Cluster("ranking", cores=1.2, budget=0.8)),
        features=(
            Feature("uv", 3),
            Feature("w", 4),
            Feature("g", 2),
            Feature("history", 2, seen_by=("retrieval",)),
        ),
        peak_qps=50.0,
        catalogue=Catalogue(items=400, dim=8, categories=8, max_history=4),
        audience=Audience(),
        display=Display(slots=(2, 4)),
    )


class ExactLaw:
    """The law that the synthetic logs are drawn from, with the methods of both fitted models."""

    cost_map: ExactLaw

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.cost_map = self

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        on, length, _rescoring, truncation = actions.T
        merged = 20 + on * np.array([10, 20, 40])[length] - 2 * states[:, 3]
        ranked = np.minimum(merged, np.array([5, 10, 20])[truncation])
        return np.stack([merged, merged, ranked], axis=1).astype(np.float32)

    def cost(self, actions: np.ndarray, results: np.ndarray, site: None = None) -> np.ndarray:
        on, length, rescoring, _truncation = np.moveaxis(np.asarray(actions), -1, 0)
        retrieval = 3e-3 + on * 5e-5 * np.array([10, 20, 40])[length] + rescoring * 1e-4 * results[..., 0]
        ranking = 2e-3 + 5e-5 * results[..., 1] + 6e-4 * results[..., 2]
        return np.stack([retrieval, ranking], axis=-1).astype(np.float32)

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        found = self.results(states, actions)
        seen = np.log1p(found[:, 2]) * (1 + 0.3 * actions[:, 2] * (states[:, 3] + 1)) * np.log1p(found[:, 0])
        return (0.005 * (1 + states[:, 0]) * (1 + 0.5 * states[:, 2]) * seen).astype(np.float32)


def make_requests(scenario: Scenario, n: int, seed: int = 0) -> pd.DataFrame:
    """A request log with uniform behaviour, whose sampled revenue has the law's mean and is mostly zero."""
    rng = np.random.default_rng(seed)
    law = ExactLaw(scenario)
    states = rng.integers(0, scenario.feature_sizes, (n, len(scenario.features)))
    actions = rng.integers(0, scenario.action_shape, (n, len(scenario.decisions)))
    mean, sale = law.predict(states, actions).astype(float), 0.5
    sold = rng.random(n) < mean / sale
    frame = pd.DataFrame(np.hstack([states, actions]), columns=[*scenario.feature_names, *scenario.decision_names])
    for k, name in enumerate(scenario.stage_names):
        frame[f"result_{name}"] = law.results(states, actions)[:, k]
    return frame.assign(impressions=2.0, clicks=sold * 1.0, revenue=sold * rng.exponential(sale, n), gmv=sold * 10.0)


def make_cost_log(scenario: Scenario) -> pd.DataFrame:
    """What a TestBench would measure of the law, without noise."""
    lengths = (0, 5, 10, 20, 40, 60)
    rows = [("retrieval", "retrieval", "base", 0, 2e-3), ("retrieval", "retrieval", "channel:popularity", 0, 1e-3)]
    rows += [("retrieval", "retrieval", "channel:two_tower", n, 5e-5 * n) for n in (10, 20, 40)]
    rows += [("retrieval", "retrieval", "model:rescoring=personalised", n, 1e-4 * n) for n in lengths]
    for stage, slope in (("pre_ranking", 5e-5), ("ranking", 6e-4)):
        rows += [(stage, "ranking", "base", 0, 1e-3)] + [(stage, "ranking", "queue", n, slope * n) for n in lengths]
    for cluster, slope in (("retrieval", 1e-3), ("ranking", 2e-3)):
        levels = range(1, len(scenario.protection.levels) + 1)
        rows += [(cluster, cluster, "degradation", level, slope * level) for level in levels]
    frame = pd.DataFrame(rows, columns=["stage", "cluster", "component", "queue_length", "cost"])
    return frame.assign(value_bucket=0, qps=10.0, machines=1, cores=1, repeat=0, utilisation=10.0 * frame["cost"])


def make_timed_engine(scenario: Scenario, law: ExactLaw, limit: float, *, hard: bool = False, **options: Any) -> Engine:
    """An engine of the exact law with a latency limit, whose service times follow from the cost log."""
    limited = scenario.replace(latency=Latency(limit, hard=hard))
    population = Population(np.array(list(np.ndindex(3, 4, 2, 2))), np.ones(48))
    latency_map = LatencyMap.from_log(limited, make_cost_log(scenario))
    return Engine(limited, law, law, population, latency_map=latency_map, **options)
