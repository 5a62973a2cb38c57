"""Other people's environments, one after the other, behind the batched protocol."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from marca_env.envs.batched_env import BatchedStep
from marca_env.utils.errors import InputError

MASK = "action_mask"
BARE = ("observation", "observations", "obs")
"""Names under which environments with masks put what the networks see."""


class LoopedEnv:
    """B cooperative environments stepped one after the other, for the batched protocol.

    - PettingZoo ParallelEnvs and RLlib MultiAgentEnvs. Of a MultiAgentEnv only those agents act that it has just
      shown an observation, as RLlib has it.
    - Episodes may differ in length: a sub-environment that has ended is left alone until the next ``reset``, which
      resets all. An agent that has left, or is not asked, may only ``wait`` (its last action).
    - The team's reward is the mean of the rewards of the step, over the agents that receive one: the shared reward
      where all receive the same. Agents with rewards of their own so learn for their average.
    - An episode counts as terminated (no value after it) if every agent in it terminated; if any was truncated
      instead, its last observation is valued, with the actions that were legal there.
    - Observations of any kind are flattened to float32. An ``action_mask`` beside the observation, or in the info, is
      respected. The state is ``env.state()``, or the observations side by side.

    Args:
        envs: alike.
        max_steps: longest episode; ``None``: what the environment says (``max_steps`` or ``max_cycles``). A longer
            one is cut there, as a truncation.

    Raises:
        InputError: agents that are not known beforehand, actions that are not ``Discrete(n)``, or no length.
    """

    def __init__(self, envs: list[Any], max_steps: int | None = None) -> None:
        self.envs, self.num_envs = envs, len(envs)
        first = envs[0]
        self.agents = tuple(getattr(first, "possible_agents", None) or ())
        if not self.agents:
            raise InputError(
                f"{type(first).__name__}: no possible_agents; give a PettingZoo ParallelEnv or a batched one"
            )
        self.max_steps = max_steps or _stated_length(first)
        spaces = {a: _observed(_space(first, "observation", a)) for a in self.agents}
        self._flat = {a: _flattener(s) for a, s in spaces.items()}
        self.observation_sizes = {a: gym.spaces.flatdim(s) for a, s in spaces.items()}
        self.action_sizes = {a: _discrete(first, a) for a in self.agents}
        self._has_state = callable(getattr(first, "state", None)) and getattr(first, "state_space", None) is not None
        whole = gym.spaces.flatdim(first.state_space) if self._has_state else sum(self.observation_sizes.values())
        self.state_size = whole
        self._seeds = "seed" in inspect.signature(first.reset).parameters or _takes_any(first.reset)
        self._asks = hasattr(first, "get_observation_space")  # an RLlib MultiAgentEnv
        self._asked: list[Collection[str]] = [self.agents] * self.num_envs
        self._over = np.zeros(self.num_envs, dtype=bool)
        self._seen = {a: np.zeros((self.num_envs, n), np.float32) for a, n in self.observation_sizes.items()}
        self._legal = {a: np.zeros((self.num_envs, n), bool) for a, n in self.action_sizes.items()}
        self._state = np.zeros((self.num_envs, self.state_size), np.float32)

    def reset(self, seed: int | None = None) -> BatchedStep:
        """Start every sub-environment again; with ``seed`` each with a seed of its own drawn from it."""
        seeds: list[Any] = [None] * self.num_envs
        if seed is not None:
            seeds = np.random.default_rng(seed).integers(2**31, size=self.num_envs).tolist()
        self._over[:] = False
        for rows in self._seen.values():  # an agent that is shown nothing yet must not see the last episode
            rows[:] = 0.0
        for k, env in enumerate(self.envs):
            found = env.reset(seed=seeds[k]) if self._seeds else env.reset()
            if not isinstance(found, tuple) or len(found) != 2:
                raise InputError(f"{type(env).__name__}: reset() must return (observations, infos)")
            self._note(k, *found)
        zeros = np.zeros(self.num_envs)
        return self._packed(zeros, zeros.astype(bool), zeros.astype(bool))

    def step(self, actions: Mapping[str, np.ndarray]) -> BatchedStep:
        """Step those that still run; ``actions`` agent → (B,) int."""
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        chosen = {a: np.asarray(taken).tolist() for a, taken in actions.items()}
        for k in np.flatnonzero(~self._over).tolist():
            env, asked = self.envs[k], self._asked[k]
            seen, rewards, ended, cut, infos = env.step({a: chosen[a][k] for a in asked})
            paid = [float(rewards[a]) for a in self.agents if a in rewards]
            reward[k] = sum(paid) / len(paid) if paid else 0.0
            everyone_ended = ended.get("__all__", all(ended.get(a, False) for a in asked))
            over = everyone_ended or cut.get("__all__", False) or not (self._asks or getattr(env, "agents", True))
            over = over or (not self._asks and all(ended.get(a, False) or cut.get(a, False) for a in asked))
            terminated[k], truncated[k] = everyone_ended, over and not everyone_ended
            self._over[k] = over
            gone = [a for a in self.agents if ended.get(a, False) or (cut.get(a, False) and not over)]
            self._note(k, seen, infos, self.agents if everyone_ended else gone)
        return self._packed(reward, terminated, truncated)

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _note(
        self, k: int, observations: Mapping[str, Any], infos: Mapping[str, Any], gone: Collection[str] = ()
    ) -> None:
        """Keep what sub-environment ``k`` shows, and who acts next."""
        env = self.envs[k]
        for agent in self.agents:
            seen, legal = observations.get(agent), self._legal[agent][k]
            if seen is not None:
                self._flat[agent](_bare(seen), self._seen[agent][k])
            stated = False if seen is None or agent in gone else _stated_mask(seen, infos.get(agent))
            legal[:] = stated
            if not legal.any():
                legal[-1] = True
        present = observations if self._asks else getattr(env, "agents", self.agents)
        self._asked[k] = tuple(a for a in self.agents if a in present)
        if self._has_state:
            self._state[k] = np.ravel(env.state())
        else:
            np.concatenate([self._seen[a][k] for a in self.agents], out=self._state[k])

    def _packed(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> BatchedStep:
        seen = {a: v.copy() for a, v in self._seen.items()}
        legal = {a: v.copy() for a, v in self._legal.items()}
        return BatchedStep(seen, legal, self._state.copy(), reward.astype(np.float32), terminated, truncated)


def _bare(seen: Any) -> Any:
    """An observation without its mask."""
    if not isinstance(seen, Mapping):
        return seen
    name = next((n for n in BARE if n in seen), None)
    return seen[name] if name is not None else {k: v for k, v in seen.items() if k != MASK}


def _observed(space: gym.Space) -> gym.Space:
    """The space of :func:`_bare` observations."""
    if not isinstance(space, gym.spaces.Dict):
        return space
    name = next((n for n in BARE if n in space.spaces), None)
    if name is not None:
        return space[name]
    return gym.spaces.Dict({k: v for k, v in space.spaces.items() if k != MASK}) if MASK in space.spaces else space


def _flattener(space: gym.Space) -> Callable[[Any, np.ndarray], None]:
    """``(observation, row) → None`` that writes the flat observation; a Box needs no walk through its space."""

    def box(seen: Any, row: np.ndarray) -> None:
        row[:] = seen.reshape(-1) if isinstance(seen, np.ndarray) else np.ravel(seen)

    def other(seen: Any, row: np.ndarray) -> None:
        row[:] = np.ravel(np.asarray(gym.spaces.flatten(space, seen)))

    return box if isinstance(space, gym.spaces.Box) else other


def _stated_mask(observation: Any, info: Any) -> np.ndarray | bool:
    for source in (observation, info):
        if isinstance(source, Mapping) and MASK in source:
            return np.asarray(source[MASK], dtype=bool)
    return True


def _space(env: Any, kind: str, agent: str) -> gym.Space:
    table = getattr(env, f"{kind}_spaces", None)
    if isinstance(table, Mapping) and agent in table:
        return table[agent]
    getter = getattr(env, f"get_{kind}_space", None) or getattr(env, f"{kind}_space", None)
    if callable(getter):
        return getter(agent)
    raise InputError(f"{type(env).__name__}: no {kind} space of agent {agent!r}; define {kind}_spaces")


def _discrete(env: Any, agent: str) -> int:
    space = _space(env, "action", agent)
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        raise InputError(f"agent {agent!r}: action space {space}; the algorithms need Discrete(n) from 0")
    return int(space.n)


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _stated_length(env: Any) -> int:
    for source in (env, getattr(env, "unwrapped", env)):
        for name in ("max_steps", "max_cycles", "_max_episode_steps"):
            value = getattr(source, name, None)
            if isinstance(value, (int, np.integer)) and value > 0:
                return int(value)
    raise InputError(f"{type(env).__name__} does not say how long an episode may last; set max_episode_steps")


def bare_key(space: Any) -> str | None:
    """The key of the bare observation in a masked observation space; ``None`` if the space has no mask.

    Raises:
        InputError: a mask beside no observation of a known name.
    """
    if not isinstance(space, gym.spaces.Dict) or MASK not in space.spaces:
        return None
    found = next((key for key in BARE if key in space.spaces), None)
    if found is None:
        raise InputError(f"observations are {space}; name what stands beside {MASK!r} 'observation'")
    return found
