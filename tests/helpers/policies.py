"""Policies that tests save and load."""

from __future__ import annotations

from pathlib import Path

from agents.algorithms.presets import preset
from agents.offline.episodes import team_encoder
from agents.policy.allocation_policy import AllocationPolicy
from agents.team.team import Team, TeamSpec
from marca_env.models.engine import get_engine


def save_untrained_policy(folder: Path) -> None:
    """Save a small AWRQ-Mixer with random weights on the default scenario as a policy folder."""
    engine = get_engine("default")
    small = preset("AWRQMixer", heads=2, gru=8, hidden=(8,))
    team = Team(TeamSpec.from_source(team_encoder(engine.scenario)), small)
    AllocationPolicy(team, engine.scenario, engine.cost_model).save(folder)  # type: ignore[arg-type]
