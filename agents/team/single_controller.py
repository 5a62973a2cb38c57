"""One controller in place of a team: it observes the whole state and takes every decision in sequence.

The single-agent algorithms run through these views as a team of one. Where agents take turns, as in a cascade of
stages, a step of the environment is one decision. Where agents act simultaneously, the controller decides for one
agent after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from agents.team.images import as_float
from marca_env.envs.batched_env import BatchedStep
from marca_env.utils.errors import InputError

CONTROLLER = "controller"


def merge_masks(masks: Mapping[str, np.ndarray], on_turn: Mapping[str, np.ndarray], n_actions: int) -> np.ndarray:
    """Return the legal actions of the controller: those of the agent on turn, or ``wait`` (the last) if none is.

    Args:
        masks: agent → (…, A) bool.
        on_turn: agent → (…) bool, where the agent decides.
        n_actions: number of actions of the controller.

    Returns:
        (…, n_actions) bool.

    Raises:
        InputError: two agents are on turn in the same step.
    """
    turns = np.stack([on_turn[agent] for agent in masks], -1)
    if (turns.sum(-1) > 1).any():
        raise InputError(
            "a joint controller takes one decision at a time, but two agents act in the same step (after the first "
            "step); choose a multi-agent algorithm (VDN, QMIX, AWRQMixer) for this environment"
        )
    merged = np.zeros((*turns.shape[:-1], n_actions), dtype=bool)
    for agent, mask in masks.items():
        merged[..., : mask.shape[-1]] |= mask & on_turn[agent][..., None]
    merged[..., -1] |= ~turns.any(-1)
    return merged


def episode_turns(turn_agent: Sequence[str], agents: Iterable[str], n: int) -> dict[str, np.ndarray]:
    """Return where each agent is on turn in ``n`` episodes, agent → (n, T + 1) bool.

    Args:
        turn_agent: agent of each of the T turns; nobody is on turn at the end.
        agents: names of the agents.
        n: number of episodes.
    """
    acting = np.array([*turn_agent, ""])
    return {agent: np.tile(acting == agent, (n, 1)) for agent in agents}


class JointEncoder:
    """Observation encoder whose only agent is the controller; it has the attributes and methods of the original."""

    agents = (CONTROLLER,)

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.scenario = encoder.scenario
        self.n_turns, self.state_size = encoder.n_turns, encoder.state_size
        self.sizes = {CONTROLLER: encoder.state_size}
        self.n_actions = {CONTROLLER: max(encoder.n_actions.values())}
        self.turn_agent = (CONTROLLER,) * encoder.n_turns

    def encode(
        self, states: np.ndarray, actions: np.ndarray, results: np.ndarray, turn: int, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
        """Encode observations, masks and state; the controller observes the state."""
        _, masks, state = self.encoder.encode(states, actions, results, turn, *args, **kwargs)
        acting = self.encoder.turn_agent[turn] if turn < self.n_turns else None
        on_turn = {agent: np.full(len(state), agent == acting) for agent in masks}
        return {CONTROLLER: state}, {CONTROLLER: merge_masks(masks, on_turn, self.n_actions[CONTROLLER])}, state

    def settled(self, turn: int) -> np.ndarray:
        """Return the stages whose results are visible at ``turn``, (S,) bool."""
        return self.encoder.settled(turn)

    def episodes(
        self, states: np.ndarray, actions: np.ndarray, results: np.ndarray, prices: Any = None
    ) -> dict[str, Any]:
        """Encode whole episodes; the controller decides at every turn."""
        encoded = self.encoder.episodes(states, actions, results, prices)
        on_turn = episode_turns(self.encoder.turn_agent, encoded["mask"], len(states))
        return {
            "obs": {CONTROLLER: encoded["state"]},
            "mask": {CONTROLLER: merge_masks(encoded["mask"], on_turn, self.n_actions[CONTROLLER])},
            "state": encoded["state"],
            "actions": {CONTROLLER: np.asarray(actions, dtype=np.int64)},
        }


class TurnBasedView:
    """View of a batched environment in which agents take turns, as the controller sees it."""

    agents = (CONTROLLER,)
    state_is_observations = True

    def __init__(self, env: Any) -> None:
        self.env = env
        self.num_envs, self.state_size, self.max_steps = env.num_envs, env.state_size, env.max_steps
        self.observation_sizes = {CONTROLLER: env.state_size}
        self.action_sizes = {CONTROLLER: max(env.action_sizes.values())}
        self._step: Any = None

    @property
    def scenario(self) -> Any:
        """The scenario of the environment, ``None`` if it has none."""
        return getattr(self.env, "scenario", None)

    def reset(self, seed: int | None = None) -> Any:
        """Start new episodes in all sub-environments."""
        return self._view(self.env.reset(seed=seed))

    def step(self, actions: Mapping[str, np.ndarray]) -> Any:
        """Take one step; ``actions`` is ``{"controller": (B,) int}``, the decision for the agent on turn."""
        decision = np.asarray(actions[CONTROLLER])
        agent_actions = {}
        for agent, mask in self._step.masks.items():
            agent_actions[agent] = np.where(self._step.is_on_turn(agent), decision, mask.argmax(-1))
        return self._view(self.env.step(agent_actions))

    def close(self) -> None:
        """Close the environment."""
        if hasattr(self.env, "close"):
            self.env.close()

    def _view(self, step: Any) -> Any:
        self._step = step
        on_turn = {agent: step.is_on_turn(agent) for agent in step.masks}
        mask = merge_masks(step.masks, on_turn, self.action_sizes[CONTROLLER])
        return BatchedStep(
            {CONTROLLER: step.state},
            {CONTROLLER: mask},
            step.state,
            step.reward,
            step.terminated,
            step.truncated,
            step.infos,
            {CONTROLLER: np.any(list(on_turn.values()), axis=0)},
        )


class SimultaneousView:
    """View of a batched environment whose agents act simultaneously; the controller decides for one after the other.

    One step of the environment is N steps here, N the number of agents. The k-th step decides for the k-th agent. The
    last one steps the environment and brings the reward. The controller observes the state, the agent on turn and its
    own decisions in this step so far. ``wait`` is an extra action after those of the agents. Discounting counts
    decisions.
    """

    agents = (CONTROLLER,)
    state_is_observations = True

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
        """Start new episodes in all sub-environments."""
        return self._begin(self.env.reset(seed=seed))

    def step(self, actions: Mapping[str, np.ndarray]) -> Any:
        """Decide for the next agent; ``actions`` is ``{"controller": (B,) int}``.

        An agent that is not on turn takes its first legal action.
        """
        agent = self.names[len(self._decided)]
        waiting = self._step.masks[agent].argmax(-1)
        self._decided.append(np.where(self._step.is_on_turn(agent), actions[CONTROLLER], waiting))
        if len(self._decided) == len(self.names):
            return self._begin(self.env.step(dict(zip(self.names, self._decided, strict=True))))
        not_over = np.zeros(self.num_envs, dtype=bool)
        return self._view(np.zeros(self.num_envs, np.float32), not_over, not_over, {})

    def close(self) -> None:
        """Close the environment."""
        if hasattr(self.env, "close"):
            self.env.close()

    def _begin(self, step: Any) -> Any:
        self._step, self._decided = step, []
        return self._view(step.reward, step.terminated, step.truncated, step.infos)

    def _view(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, infos: Any) -> Any:
        turn = len(self._decided)
        progress = np.zeros((self.num_envs, len(self.names), 1 + self.widest), np.float32)
        progress[:, turn, 0] = 1.0
        for k, action in enumerate(self._decided):
            progress[np.arange(self.num_envs), k, 1 + action] = 1.0
        state = np.concatenate([as_float(self._step.state), progress.reshape(self.num_envs, -1)], 1)
        agent_mask, on_turn = self._step.masks[self.names[turn]], self._step.is_on_turn(self.names[turn])
        mask = np.zeros((self.num_envs, self.widest + 1), dtype=bool)
        mask[:, : agent_mask.shape[1]] = agent_mask
        mask[~on_turn] = np.arange(self.widest + 1) == self.widest
        masks, turns = {CONTROLLER: mask}, {CONTROLLER: on_turn}
        return BatchedStep({CONTROLLER: state}, masks, state, reward, terminated, truncated, infos, turns)


def controller_view(env: Any) -> TurnBasedView | SimultaneousView:
    """Return the view that fits the environment.

    The choice depends on whether two agents of the first sub-environment are on turn after a seeded reset.
    """
    step = env.reset(seed=0)
    turns = sum(bool(step.is_on_turn(a)[0]) for a in env.agents)
    return SimultaneousView(env) if turns > 1 else TurnBasedView(env)
