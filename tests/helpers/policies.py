"""Policies that tests save and load."""

from __future__ import annotations

from pathlib import Path

from agents.algorithms.presets import preset
from agents.offline.episodes import team_encoder
from agents.policy.allocation_policy import AllocationPolicy
from agents.team.team import Team, TeamSpec
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import get_engine
from marca_env.scenario.scenario import Scenario


def save_untrained_policy(folder: Path) -> None:
    """Save a small AWRQ-Mixer with random weights on the default scenario as a policy folder."""
    engine = get_engine("default")
    save_team_policy(folder, engine.scenario, engine.cost_model)  # type: ignore[arg-type]


def save_team_policy(folder: Path, scenario: Scenario, cost_model: CostModel) -> None:
    """Save a small AWRQ-Mixer with random weights on a scenario as a policy folder."""
    small = preset("AWRQMixer", heads=2, gru=8, hidden=(8,))
    team = Team(TeamSpec.from_source(team_encoder(scenario)), small)
    AllocationPolicy(team, scenario, cost_model).save(folder)
