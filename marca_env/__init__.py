"""Environments of a cascade recommender whose computation is measured, for learning to allocate computation.

Start with :func:`marca_env.parallel_env`. The public names are listed in ``__init__.pyi`` and imported on first use, so
that ``import marca_env`` stays fast. Importing the package registers the ids of :data:`ENVIRONMENTS` with Gymnasium.
"""

from __future__ import annotations

import sys
import warnings

import lazy_loader
from gymnasium.envs.registration import register, registry

from marca_env.utils.foreign_agents import foreign_agents

__version__ = "0.1.0"
__getattr__, _list_names, __all__ = lazy_loader.attach_stub(__name__, __file__)

STAGES = range(2, 11)
"""Numbers of stages of the generated chains."""

ENVIRONMENTS = {
    "marca_env/Balancing-v0": "marca_env.envs.price_env:BalancingEnv",
    "marca_env/Recommender-v0": "marca_env.envs.gym_env:RecommenderEnv",
    "marca_env/Bursty-v0": "marca_env.envs.preset_envs:BurstyEnv",
    "marca_env/Congestion-v0": "marca_env.envs.preset_envs:CongestionEnv",
    "marca_env/DataCentres-v0": "marca_env.envs.preset_envs:DataCentresEnv",
    "marca_env/Deadline-v0": "marca_env.envs.preset_envs:DeadlineEnv",
    "marca_env/Fleet-v0": "marca_env.envs.fleet_gym_env:FleetEnv",
    "marca_env/Handover-v0": "marca_env.envs.preset_envs:HandoverEnv",
    "marca_env/LlmCascade-v0": "marca_env.envs.preset_envs:LlmCascadeEnv",
    "marca_env/RankingModel-v0": "marca_env.envs.preset_envs:RankingModelEnv",
    **{f"marca_env/Stages{n}-v0": "marca_env.envs.preset_envs:StagesEnv" for n in STAGES},
}
"""Gymnasium id → entry point."""

_VECTORS = {
    "marca_env/Recommender-v0": "RecommenderVectorEnv",
    "marca_env/Bursty-v0": "bursty",
    "marca_env/Congestion-v0": "congestion",
    "marca_env/DataCentres-v0": "data_centres",
    "marca_env/Deadline-v0": "deadline",
    "marca_env/Handover-v0": "handover",
    "marca_env/LlmCascade-v0": "llm_cascade",
    "marca_env/RankingModel-v0": "ranking_model",
    **{f"marca_env/Stages{n}-v0": "stages_chain" for n in STAGES},
}
"""Gymnasium id → name in :mod:`marca_env.envs.vector_env`. A day of ``Balancing-v0`` has no batched form; that of
``Fleet-v0`` is :func:`marca_env.batched_env`."""
_ARGUMENTS = {f"marca_env/Stages{n}-v0": {"stages": n} for n in STAGES}
for _id, _entry_point in ENVIRONMENTS.items():
    if _id not in registry:
        _vector = f"marca_env.envs.vector_env:{_VECTORS[_id]}" if _id in _VECTORS else None
        register(id=_id, entry_point=_entry_point, vector_entry_point=_vector, kwargs=_ARGUMENTS.get(_id, {}))

if "benchmarks.cli" not in sys.modules and (_problem := foreign_agents()) is not None:  # the command says it itself
    warnings.warn(_problem, stacklevel=2)


def __dir__() -> list[str]:
    """Return the public names, also those that are not imported yet."""
    return sorted({*_list_names(), "ENVIRONMENTS", "STAGES", "__version__"})
