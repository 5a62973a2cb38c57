"""One controller in place of a team: it sees everything and takes every decision in sequence.

The single-agent algorithms run through these views as a team of one. They fit teams in which at each step exactly
one agent is on turn, as in a cascade of stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from marca_env.errors import InputError

CONTROLLER = "controller"


def merge_masks(masks: Mapping[str, np.ndarray], n_actions: int) -> np.ndarray:
    """Legal actions of the controller: those of the agent on turn, or ``wait`` (the last) if there is none.

    Args:
        masks: agent → (…, A) bool; an agent that may only take its last action is not on turn.
        n_actions: actions of the controller.

    Returns:
        (…, n_actions) bool.

    Raises:
        InputError: two agents are on turn in the same step.
    """
    turns = np.stack([m[..., :-1].any(-1) for m in masks.values()], -1)
    if (turns.sum(-1) > 1).any():
        raise InputError(
            "a joint controller takes one decision at a time, but two agents act in the same step; "
            "choose a multi-agent algorithm (VDN, QMIX, AWRQMixer) for this environment"
        )
    merged = np.zeros((*turns.shape[:-1], n_actions), dtype=bool)
    for mask in masks.values():
        merged[..., : mask.shape[-1] - 1] |= mask[..., :-1]
    merged[..., -1] = ~turns.any(-1)
    return merged


class JointEncoder:
    """An observation encoder whose only agent is the controller; same attributes and methods as the original."""

    agents = (CONTROLLER,)

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.scenario = encoder.scenario
        self.n_turns, self.state_size = encoder.n_turns, encoder.state_size
        self.sizes = {CONTROLLER: encoder.state_size}
        self.n_actions = {CONTROLLER: max(encoder.n_actions.values())}
        self.turn_agent = (CONTROLLER,) * encoder.n_turns

    def encode(self, *args: Any, **kwargs: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
        """As the encoder's; the controller observes the state."""
        _, masks, state = self.encoder.encode(*args, **kwargs)
        return {CONTROLLER: state}, {CONTROLLER: merge_masks(masks, self.n_actions[CONTROLLER])}, state

    def settled(self, turn: int) -> np.ndarray:
        """(S,) bool: stages whose results are visible at ``turn``."""
        return self.encoder.settled(turn)

    def episodes(
        self, states: np.ndarray, actions: np.ndarray, results: np.ndarray, prices: Any = None
    ) -> dict[str, Any]:
        """As the encoder's; the controller decides at every turn."""
        whole = self.encoder.episodes(states, actions, results, prices)
        return {
            "obs": {CONTROLLER: whole["state"]},
            "mask": {CONTROLLER: merge_masks(whole["mask"], self.n_actions[CONTROLLER])},
            "state": whole["state"],
            "actions": {CONTROLLER: np.asarray(actions, dtype=np.int64)},
        }


class JointView:
    """A batched environment seen by the controller."""

    agents = (CONTROLLER,)

    def __init__(self, env: Any) -> None:
        self.env = env
        self.num_envs, self.state_size, self.max_steps = env.num_envs, env.state_size, env.max_steps
        self.observation_sizes = {CONTROLLER: env.state_size}
        self.action_sizes = {CONTROLLER: max(env.action_sizes.values())}
        self._masks: dict[str, np.ndarray] = {}

    @property
    def scenario(self) -> Any:
        """The scenario of the environment, ``None`` if it has none."""
        return getattr(self.env, "scenario", None)

    def reset(self, seed: int | None = None) -> Any:
        return self._view(self.env.reset(seed=seed))

    def step(self, actions: Mapping[str, np.ndarray]) -> Any:
        """``{"controller": (B,) int}``: the decision of whoever is on turn."""
        chosen = np.asarray(actions[CONTROLLER])
        taken = {}
        for agent, mask in self._masks.items():
            on_turn = mask[:, :-1].any(-1)
            taken[agent] = np.where(on_turn, chosen, mask.shape[-1] - 1)
        return self._view(self.env.step(taken))

    def _view(self, step: Any) -> Any:
        self._masks = step.masks
        mask = merge_masks(step.masks, self.action_sizes[CONTROLLER])
        return type(step)(
            {CONTROLLER: step.state},
            {CONTROLLER: mask},
            step.state,
            step.reward,
            step.terminated,
            step.truncated,
            step.infos,
        )
