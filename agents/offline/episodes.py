"""A request log as the episodes of a team."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.offline.rows import rows_of
from agents.team.single_controller import JointEncoder
from agents.team.team import action_key, mask_key, obs_key
from marca_env.envs.observations import ObservationEncoder
from marca_env.scenario.scenario import Scenario

Columns = dict[str, np.ndarray]


def team_encoder(scenario: Any, *, joint: bool = False) -> Any:
    """The encoder of a scenario's observations, for its agents or for one controller."""
    encoder = ObservationEncoder(Scenario.load(scenario))
    return JointEncoder(encoder) if joint else encoder


class EpisodeEncoder:
    """Turns rows of a log (:func:`agents.offline.rows.row_type`) into episodes.

    Args:
        scenario: preset, YAML file or Scenario.
        joint: as seen by a single controller.
    """

    def __init__(self, scenario: Any, *, joint: bool = False) -> None:
        self.encoder = team_encoder(scenario, joint=joint)

    def __call__(self, rows: np.ndarray) -> Columns:
        """Rows (B,) → columns (B, T or T + 1, …); the reward, in currency, comes with the last decision."""
        states, actions = rows["states"].astype(np.int64), rows["actions"].astype(np.int64)
        whole = self.encoder.episodes(states, actions, rows["results"])
        n, steps = actions.shape
        columns: Columns = {"state": whole["state"]}
        for agent in self.encoder.agents:
            columns[obs_key(agent)] = whole["obs"][agent]
            columns[mask_key(agent)] = whole["mask"][agent]
            columns[action_key(agent)] = whole["actions"][agent]
        columns["reward"] = np.zeros((n, steps), np.float32)
        columns["reward"][:, -1] = rows["reward"]
        columns["terminated"] = np.zeros((n, steps), bool)
        columns["terminated"][:, -1] = True
        columns["filled"] = np.ones((n, steps), bool)
        return columns


def log_episodes(log: Any, scenario: Any, *, joint: bool = False, reward: str = "revenue") -> Columns:
    """Episodes of a request log as columns (B, T or T + 1, …); the reward, in currency, comes with the last decision.

    Args:
        log: checked request log as a DataFrame.
        scenario: preset, YAML file or Scenario.
        joint: as seen by a single controller.
        reward: column of the log to be maximised.
    """
    scenario = Scenario.load(scenario)
    return EpisodeEncoder(scenario, joint=joint)(rows_of(log, scenario, reward=reward))
