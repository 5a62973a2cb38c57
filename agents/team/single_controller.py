"""One controller in place of a team: it sees everything and takes every decision in sequence.

The single-agent algorithms run through these views as a team of one. Where agents take turns, as in a cascade of
stages, a step of the environment is one decision; where they act at once, it decides for one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from marca_env.utils.errors import InputError

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
            "a joint controller takes one decision at a time, but two agents act in the same step, though not in the "
            "first; choose a multi-agent algorithm (VDN, QMIX, AWRQMixer) for this environment"
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

    def close(self) -> None:
        if hasattr(self.env, "close"):
            self.env.close()

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


class SequentialView:
    """A batched environment whose agents act at once, seen by a controller that decides for one after the other.

    A step of the environment is N steps here, N the number of agents: the k-th decides for the k-th agent, the last
    one moves the environment, and the reward comes with it. The controller observes the state, whose turn it is, and
    what it has decided in this step so far; ``wait`` is an action beyond those of the agents. Discounting counts
    decisions.
    """

    agents = (CONTROLLER,)

    def __init__(self, env: Any) -> None:
        self.env, self.num_envs = env, env.num_envs
        self.names = tuple(env.agents)
        self.widest = max(env.action_sizes.values())
        self.max_steps = env.max_steps * len(self.names)
        self.state_size = env.state_size + len(self.names) * (1 + self.widest)
        self.observation_sizes = {CONTROLLER: self.state_size}
        self.action_sizes = {CONTROLLER: self.widest + 1}
        self._decided: list[np.ndarray] = []

    def reset(self, seed: int | None = None) -> Any:
        return self._begin(self.env.reset(seed=seed))

    def step(self, actions: Mapping[str, np.ndarray]) -> Any:
        """``{"controller": (B,) int}``: the decision for the next agent; ``wait`` becomes its own last action."""
        last = self.env.action_sizes[self.names[len(self._decided)]] - 1
        self._decided.append(np.minimum(np.asarray(actions[CONTROLLER]), last))
        if len(self._decided) == len(self.names):
            return self._begin(self.env.step(dict(zip(self.names, self._decided, strict=True))))
        still = np.zeros(self.num_envs, dtype=bool)
        return self._view(np.zeros(self.num_envs, np.float32), still, still, {})

    def close(self) -> None:
        if hasattr(self.env, "close"):
            self.env.close()

    def _begin(self, step: Any) -> Any:
        self._step, self._decided = step, []
        return self._view(step.reward, step.terminated, step.truncated, step.infos)

    def _view(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, infos: Any) -> Any:
        turn = len(self._decided)
        told = np.zeros((self.num_envs, len(self.names), 1 + self.widest), np.float32)
        told[:, turn, 0] = 1.0
        for k, action in enumerate(self._decided):
            told[np.arange(self.num_envs), k, 1 + action] = 1.0
        state = np.concatenate([self._step.state, told.reshape(self.num_envs, -1)], 1)
        theirs = self._step.masks[self.names[turn]]
        mask = np.zeros((self.num_envs, self.widest + 1), dtype=bool)
        mask[:, : theirs.shape[1]] = theirs
        waits = ~theirs[:, :-1].any(-1)
        mask[waits] = np.arange(self.widest + 1) == self.widest
        return type(self._step)({CONTROLLER: state}, {CONTROLLER: mask}, state, reward, terminated, truncated, infos)


def joint_view(env: Any) -> JointView | SequentialView:
    """The view that fits: by whether two agents of the first sub-environment are on turn after a seeded reset."""
    masks = env.reset(seed=0).masks
    turns = sum(bool(masks[a][0, :-1].any()) for a in env.agents)
    return SequentialView(env) if turns > 1 else JointView(env)
