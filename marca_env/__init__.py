"""A cascade recommender whose computation is measured, as environments for learning to allocate it.

The public names are imported when they are first used, so that ``import marca_env`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

if TYPE_CHECKING:
    from marca_env.coding import FeatureCoder as FeatureCoder
    from marca_env.cost_model import CostModel as CostModel
    from marca_env.engine import Engine as Engine
    from marca_env.errors import InputError as InputError
    from marca_env.logs import read_cost_log as read_cost_log
    from marca_env.logs import read_request_log as read_request_log
    from marca_env.logs import read_system_log as read_system_log
    from marca_env.recommender import batched_env as batched_env
    from marca_env.recommender import env as env
    from marca_env.recommender import parallel_env as parallel_env
    from marca_env.revenue_model import RevenueModel as RevenueModel
    from marca_env.scenario import Scenario as Scenario
    from marca_env.testbench import TestBench as TestBench
    from marca_env.uniform import UniformAgents as UniformAgents
    from marca_env.workload import read_trace as read_trace

__version__ = "0.1.0"

_HOMES = {
    "CostModel": "cost_model",
    "Engine": "engine",
    "FeatureCoder": "coding",
    "InputError": "errors",
    "RevenueModel": "revenue_model",
    "Scenario": "scenario",
    "TestBench": "testbench",
    "UniformAgents": "uniform",
    "batched_env": "recommender",
    "env": "recommender",
    "parallel_env": "recommender",
    "read_cost_log": "logs",
    "read_request_log": "logs",
    "read_system_log": "logs",
    "read_trace": "workload",
}
"""Public name → the module that defines it."""

__all__ = sorted(_HOMES)

STAGES = range(2, 11)

ENVIRONMENTS = {
    "marca_env/Balancing-v0": "marca_env.balancing:BalancingEnv",
    "marca_env/Recommender-v0": "marca_env.single:RecommenderEnv",
    "marca_env/Bursty-v0": "marca_env.zoo:BurstyEnv",
    "marca_env/DataCentres-v0": "marca_env.zoo:DataCentresEnv",
    "marca_env/RankingModel-v0": "marca_env.zoo:RankingModelEnv",
    **{f"marca_env/Stages{n}-v0": "marca_env.zoo:StagesEnv" for n in STAGES},
}
"""Gymnasium id → entry point."""

_ARGUMENTS = {f"marca_env/Stages{n}-v0": {"stages": n} for n in STAGES}
for _id, _entry_point in ENVIRONMENTS.items():
    if _id not in registry:
        register(id=_id, entry_point=_entry_point, kwargs=_ARGUMENTS.get(_id, {}))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'marca_env' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"marca_env.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
