"""Request logs as episodes of a team, column by column."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.offline.rows import encode_rows, row_states
from agents.team.single_controller import JointEncoder, episode_turns
from agents.team.team import action_key, mask_key, obs_key, turn_key
from marca_env.envs.observations import ObservationEncoder
from marca_env.models.latency_map import LatencyMap
from marca_env.scenario.scenario import Scenario

Columns = dict[str, np.ndarray]


def team_encoder(scenario: Any, *, joint: bool = False, latency_map: LatencyMap | None = None) -> Any:
    """Return the encoder of a scenario's observations, for its agents or (``joint``) for a single controller.

    Args:
        scenario: preset, YAML file or Scenario.
        joint: whether a single controller takes all decisions.
        latency_map: service times, in a scenario with a latency limit; ``None``: those of the scenario's artefacts.
    """
    encoder = ObservationEncoder(Scenario.load(scenario), latency_map=latency_map)
    return JointEncoder(encoder) if joint else encoder


class EpisodeEncoder:
    """Encoder of log rows (:func:`agents.offline.rows.row_type`) as episodes.

    Args:
        scenario: preset, YAML file or Scenario.
        joint: whether a single controller takes all decisions.
    """

    def __init__(self, scenario: Any, *, joint: bool = False) -> None:
        self.encoder = team_encoder(scenario, joint=joint)

    def __call__(self, rows: np.ndarray) -> Columns:
        """Encode rows (B,) as columns (B, T or T + 1, …); the reward, in currency, is that of the last decision."""
        states, actions = row_states(rows, self.encoder.scenario), rows["actions"].astype(np.int64)
        encoded = self.encoder.episodes(states, actions, rows["results"])
        n, steps = actions.shape
        turns = episode_turns(self.encoder.turn_agent, self.encoder.agents, n)
        columns: Columns = {"state": encoded["state"]}
        for agent in self.encoder.agents:
            columns[obs_key(agent)] = encoded["obs"][agent]
            columns[mask_key(agent)] = encoded["mask"][agent]
            columns[turn_key(agent)] = turns[agent]
            columns[action_key(agent)] = encoded["actions"][agent]
        columns["reward"] = np.zeros((n, steps), np.float32)
        columns["reward"][:, -1] = rows["reward"]
        columns["terminated"] = np.zeros((n, steps), bool)
        columns["terminated"][:, -1] = True
        columns["filled"] = np.ones((n, steps), bool)
        return columns


def log_episodes(log: Any, scenario: Any, *, joint: bool = False, reward: str = "revenue") -> Columns:
    """Encode a request log as columns of episodes (B, T or T + 1, …).

    The reward, in currency, is that of the last decision.

    Args:
        log: checked request log as a DataFrame.
        scenario: preset, YAML file or Scenario.
        joint: whether a single controller takes all decisions.
        reward: column of the log to be maximised.
    """
    scenario = Scenario.load(scenario)
    return EpisodeEncoder(scenario, joint=joint)(encode_rows(log, scenario, reward=reward))
