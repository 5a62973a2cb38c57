"""Memory of an episode, and the cost of episodes and choices as scenarios grow."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.experiments.environment.rates import Work, measure_rates
from benchmarks.experiments.environment.workloads import batched_steps
from marca_env.envs import generated_presets
from marca_env.models.cost_model import AnalyticCostModel
from marca_env.models.engine import Engine, get_engine
from marca_env.models.revenue_model import AnalyticRevenueModel
from marca_env.traffic.allocation import allocate


def peak_memory(batch: int, seed: int, scenario: str = "ranking-model-v0") -> dict[str, int]:
    """Measure the peak bytes of an episode of a batch: with the environment itself, without models and their cache."""
    engine = get_engine(scenario)
    batched_steps(engine, batch, seed)()
    tracemalloc.start()
    try:
        batched_steps(engine, batch, seed, episodes=1)()
        return {"batch": batch, "peak": tracemalloc.get_traced_memory()[1]}
    finally:
        tracemalloc.stop()


def cost_by_size(
    engines: Mapping[str, Engine], rounds: int, seconds: float, seed: int, batch: int = 64
) -> list[dict[str, Any]]:
    """Measure microseconds of an episode, and of an argmax over all joint actions, with each engine."""
    work: dict[tuple[str, str], Work] = {}
    for name, engine in engines.items():
        work[name, "episode"] = batched_steps(engine, batch, seed)
        work[name, "argmax"] = _argmax(engine, 2)
    rates = {row["what"]: row["per_second"][0] for row in measure_rates(work, rounds, seconds)}
    rows = []
    for name, engine in engines.items():
        decisions = len(engine.scenario.decisions)
        per_decision = 1e6 / rates[name, "episode"]
        rows.append(
            {
                "what": name,
                "joint_actions": engine.scenario.n_joint_actions,
                "decisions": decisions,
                "episode_us": per_decision * decisions,
                "decision_us": per_decision,
                "argmax_us": 1e6 / rates[name, "argmax"],
            }
        )
    return rows


def _argmax(engine: Engine, requests: int) -> Work:
    """Return work that computes a* = argmax Q − Σ λ_g C_g over every joint action.

    It has an engine of its own: in a large scenario its pairs would displace those of the episodes from the cache.
    """
    engine = Engine(engine.scenario, engine.cost_model, engine.revenue_model, engine.population)
    states, prices = engine.population.states[:requests], np.ones(len(engine.scenario.clusters))

    def run_once() -> int:
        values, costs = engine.table(states)
        allocate(values, costs, prices)
        return requests

    return run_once


def with_options(options: int) -> Engine:
    """Return the engine of the five-stage chain with ``options`` options a decision: ``options``⁵ joint actions."""
    preset = generated_presets.make_stages(5)
    models = {f"model_{k}": float(price) for k, price in enumerate(np.geomspace(0.4, 3.0, options))}
    stages = []
    for stage in preset.scenario.stages:
        (decision,) = stage.decisions
        values: tuple[Any, ...] = tuple(models)
        if decision.kind == "queue":
            longest = max(decision.options)
            values = tuple(np.linspace(longest // 9, longest, options).astype(int).tolist())
        stages.append(replace(stage, decisions=(replace(decision, options=values),)))
    scenario = preset.scenario.replace(stages=tuple(stages), name=f"chain-{options}")
    law = replace(preset.law, models=models)
    return Engine(scenario, AnalyticCostModel(scenario, law), AnalyticRevenueModel(scenario, law), preset.population)
