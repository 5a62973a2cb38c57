"""Single-agent Gymnasium environments for RLlib's own algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.models.utils import get_filter_config

from agents.rllib.envs.make_env import build_env

SOURCE = "single_env"
"""Key of the configuration that names the environment; the other keys are its options."""


class SingleEnv(gym.Wrapper):
    """Gymnasium environment whose observations RLlib has a network for; others become float32 vectors.

    Checkpoints refer to this class, so that an environment given by its path needs no registration.

    Args:
        config: the name, class or function of the environment under :data:`SOURCE`, and its options.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        options = dict(config)
        made = build_env(options.pop(SOURCE), options, teams_only=False)
        super().__init__(made)
        self._flattens = not has_network(made.observation_space)
        if self._flattens:
            size = gym.spaces.flatdim(made.observation_space)
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observed(observation), info

    def step(self, action: Any) -> Any:
        """Take one step."""
        observation, *rest = self.env.step(action)
        return self._observed(observation), *rest

    def _observed(self, observation: Any) -> Any:
        if not self._flattens:
            return observation
        return np.asarray(gym.spaces.flatten(self.env.observation_space, observation), np.float32)


def has_network(space: gym.Space, *, vectors: bool = True) -> bool:
    """Return whether RLlib has a network for observations of a space as they are.

    Args:
        space: of an agent's observations.
        vectors: whether vectors count; otherwise only images do.
    """
    if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        return False
    if len(space.shape) == 1:
        return vectors and space.shape[0] > 0
    try:
        get_filter_config(space.shape)
    except ValueError:
        return False
    return len(space.shape) == 3
