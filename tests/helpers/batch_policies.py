"""Policies with random weights that decide differently for different requests, and requests for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from agents.algorithms.presets import preset
from agents.offline.episodes import team_encoder
from agents.policy.allocation_policy import AllocationPolicy
from agents.team.team import Team, TeamSpec
from marca_env.models.cost_model import CostModel
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage
from tests.helpers.factories import ExactLaw, make_cost_log, make_requests


def make_varied_policy(scenario: Scenario, cost_model: Any, seed: int = 3) -> AllocationPolicy:
    """Return a small QMIX team with large random weights."""
    torch.manual_seed(seed)
    team = Team(TeamSpec.from_source(team_encoder(scenario)), preset("QMIX", gru=8, hidden=(8,)))
    for parameter in team.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return AllocationPolicy(team, scenario, cost_model, reward_scale=0.1)


def write_policy_and_logs(home: Path, scenario: Scenario, files: int, rows: int, digits: int = 1) -> Path:
    """Write a policy to ``home/policy`` and files of requests to ``home/logs``; return ``home``."""
    costs = CostModel.fit(scenario, make_requests(scenario, 400), make_cost_log(scenario), epochs=1)
    make_varied_policy(scenario, costs).save(home / "policy")
    (home / "logs").mkdir()
    for k in range(files):
        pq.write_table(make_requests_table(scenario, rows, seed=k), home / "logs" / f"{k:0{digits}}.parquet")
    return home


def make_numeric_scenario() -> Scenario:
    """2 × 3 joint actions on one cluster; a vector of two numbers and a code."""
    return Scenario(
        name="numbers",
        stages=(
            Stage("first", "api", (Decision("model", "model", ("a", "b")),)),
            Stage("second", "api", (Decision("depth", "queue", (10, 20, 30)),)),
        ),
        clusters=(Cluster("api", cores=20.0, budget=10.0),),
        features=(Feature("taste", 2, kind="number"), Feature("segment", 3)),
        peak_qps=10.0,
    )


class TinyCosts(ExactLaw):
    """The law of the tiny scenario in the place of a cost model."""

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the expected cost of actions, (B, 2)."""
        return self.cost(actions, self.results(states, actions))


class NumericLaw:
    """Results and costs of :func:`make_numeric_scenario`, in the place of a cost model."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario, self.cost_map = scenario, self

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the candidates of both stages, (B, 2)."""
        return np.stack([10.0 + actions[:, 0], 5.0 + actions[:, 1]], axis=1).astype(np.float32)

    def cost(self, actions: np.ndarray, results: np.ndarray, site: None = None) -> np.ndarray:
        """Return the cost of actions, (B, 1)."""
        return (0.1 * results[..., 0] + 0.05 * actions[..., 1] * results[..., 1])[..., None]

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the expected cost of actions, (B, 1)."""
        return self.cost(actions, self.results(states, actions))


def make_requests_table(scenario: Scenario, n: int, seed: int = 0) -> pa.Table:
    """Return coded requests with a key ``id``."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {"id": pa.array([f"r{k}" for k in range(n)])}
    for feature in scenario.features:
        for name in feature.columns:
            is_code = feature.kind == "category"
            columns[name] = pa.array(rng.integers(feature.size, size=n) if is_code else rng.normal(size=n))
    return pa.table(columns)
