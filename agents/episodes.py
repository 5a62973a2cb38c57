"""A request log as the episodes of a team."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.joint import JointEncoder
from agents.team import action_key, mask_key, obs_key
from marca_env.observations import ObservationEncoder
from marca_env.scenario import Scenario

Columns = dict[str, np.ndarray]


def team_encoder(scenario: Any, *, joint: bool = False) -> Any:
    """The encoder of a scenario's observations, for its agents or for one controller."""
    encoder = ObservationEncoder(Scenario.load(scenario))
    return JointEncoder(encoder) if joint else encoder


def log_episodes(log: Any, scenario: Any, *, joint: bool = False, reward: str = "revenue") -> Columns:
    """Episodes of a request log as columns (B, T or T + 1, …); the reward, in currency, comes with the last decision.

    Args:
        log: request log as a DataFrame.
        scenario: preset, YAML file or Scenario.
        joint: as seen by a single controller.
        reward: column of the log to be maximised.
    """
    scenario = Scenario.load(scenario)
    encoder = team_encoder(scenario, joint=joint)
    states = log[list(scenario.feature_names)].to_numpy(np.int64)
    actions = log[list(scenario.decision_names)].to_numpy(np.int64, copy=True)
    results = log[[f"result_{name}" for name in scenario.stage_names]].to_numpy(np.float32)
    whole = encoder.episodes(states, actions, results)
    n, steps = actions.shape
    columns: Columns = {"state": whole["state"]}
    for agent in encoder.agents:
        columns[obs_key(agent)] = whole["obs"][agent]
        columns[mask_key(agent)] = whole["mask"][agent]
        columns[action_key(agent)] = whole["actions"][agent]
    columns["reward"] = np.zeros((n, steps), np.float32)
    columns["reward"][:, -1] = log[reward].to_numpy(np.float32)
    columns["terminated"] = np.zeros((n, steps), bool)
    columns["terminated"][:, -1] = True
    columns["filled"] = np.ones((n, steps), bool)
    return columns
