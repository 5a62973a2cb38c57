"""Speed of the policy's decisions: large batches, traffic, and one request at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from agents.algorithms.presets import preset
from agents.offline.episodes import team_encoder
from agents.policy.allocation_policy import AllocationPolicy
from agents.team.team import Team, TeamSpec
from benchmarks.experiments.throughput.peak_share import share_of_peak
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import Engine, shipped_folder
from marca_env.scenario.scenario import Scenario

PRICE = 0.05
"""λ of every cluster, currency per core-second."""


def measure_decisions(
    seed: int, requests: int, singles: int, repeats: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure decisions of an untrained AWRQ-Mixer on the default scenario.

    Args:
        seed: of weights and requests.
        requests: M, requests of a batch.
        singles: number of decisions of one request each.
        repeats: measurements of each batch.

    Returns:
        Rows of the batches (distinct states, traffic, traffic that is in the policy's cache), and rows of single
        decisions with ``p50_ms`` and ``p99_ms``.
    """
    scenario = Scenario.load("default")
    rng = np.random.default_rng(seed)
    policy = _untrained_policy(scenario, seed)
    n_states = int(np.prod(scenario.feature_sizes))
    distinct = np.stack(np.unravel_index(rng.permutation(n_states)[:requests], tuple(scenario.feature_sizes)), 1)
    traffic = _traffic_states(scenario, requests, rng)
    prices = np.full(len(scenario.clusters), PRICE)

    def without_cache(states: np.ndarray) -> Callable[[], None]:
        def decide() -> None:
            policy.forget()
            policy.decide(states, prices)

        return decide

    rows = [
        share_of_peak(f"decide, {len(distinct)} distinct states", without_cache(distinct), len(distinct), repeats),
        share_of_peak(f"decide, {requests} requests of traffic", without_cache(traffic), requests, repeats),
    ]
    policy.decide(traffic, prices)
    cached = share_of_peak(
        f"decide, {requests} requests, states seen", lambda: policy.decide(traffic, prices), requests, repeats
    )
    return [*rows, cached], _single_decisions(policy, traffic, prices, singles)


def device_decisions(seed: int, device: str, requests: int, repeats: int) -> dict[str, Any]:
    """Return the rate of decisions for distinct states that the policy has not seen, on a device."""
    scenario = Scenario.load("default")
    policy = _untrained_policy(scenario, seed, device)
    n_states = int(np.prod(scenario.feature_sizes))
    picked = np.random.default_rng(seed).permutation(n_states)[:requests]
    states = np.stack(np.unravel_index(picked, tuple(scenario.feature_sizes)), 1)
    prices, seconds = np.full(len(scenario.clusters), PRICE), []
    for _ in range(repeats + 1):
        policy.forget()
        began = time.perf_counter()
        policy.decide(states, prices)  # its answer is an array, so that a GPU has finished
        seconds.append(time.perf_counter() - began)
    return {"what": f"decide, {len(states)} distinct states", "per_second": len(states) / float(np.median(seconds[1:]))}


def _single_decisions(
    policy: AllocationPolicy, states: np.ndarray, prices: np.ndarray, singles: int
) -> list[dict[str, Any]]:
    rows = []
    for what, forget in (("state not seen before", True), ("state seen before", False)):
        milliseconds = []
        policy.decide(states, prices)
        for k in range(singles):
            if forget:
                policy.forget()
            began = time.perf_counter()
            policy.decide(states[k % len(states)][None], prices)
            milliseconds.append(1e3 * (time.perf_counter() - began))
        p50, p99 = (float(np.percentile(milliseconds, share)) for share in (50, 99))
        rows.append({"what": what, "p50_ms": p50, "p99_ms": p99})
    return rows


def _untrained_policy(scenario: Scenario, seed: int, device: str = "cpu") -> AllocationPolicy:
    """Return an untrained team of the paper's size: the time of a decision does not depend on the weights."""
    torch.manual_seed(seed)
    team = Team(TeamSpec.from_source(team_encoder(scenario)), preset("AWRQMixer"))
    costs = CostModel.load(shipped_folder(scenario.name) / "cost_model", device=device)
    return AllocationPolicy(team, scenario, costs, device=device)


def _traffic_states(scenario: Scenario, requests: int, rng: np.random.Generator) -> np.ndarray:
    """Draw states (M, F) of requests from the population of the scenario."""
    population = Engine.load(scenario).population
    return population.states[
        rng.choice(len(population.states), requests, p=population.counts / population.counts.sum())
    ]
