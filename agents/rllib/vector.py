"""Environments for the runner: natively batched ones as they are, PettingZoo and RLlib ones looped over.

The runner drives the batched protocol of :class:`marca_env.batched.BatchedRecommender`: ``num_envs``, ``agents``,
``observation_sizes``, ``action_sizes``, ``state_size``, ``max_steps``, ``reset(seed)`` and ``step(actions)``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from agents.joint import JointView
from marca_env.batched import BatchedStep
from marca_env.errors import InputError, unknown_option

ENVS = {"marca_env/parallel-v0": "marca_env.batched:BatchedRecommender"}
"""Ids that :func:`agents.rllib.register` makes known to RLlib, and the batched environment behind each."""


def make_batched(
    env: Any,
    num_envs: int,
    env_config: Mapping[str, Any] | None = None,
    *,
    joint: bool = False,
    max_steps: int | None = None,
) -> Any:
    """Build B sub-environments behind the batched protocol.

    Args:
        env: an id of :data:`ENVS`, a name registered with RLlib, a dotted path (``package.module.Name``), or a
            callable. A callable with a ``num_envs`` parameter makes a batched environment; any other makes one
            PettingZoo ParallelEnv or RLlib MultiAgentEnv, of which ``num_envs`` are looped over.
        num_envs: B.
        env_config: keyword arguments of the environment.
        joint: merge the agents into one controller.
        max_steps: longest episode, for environments that do not say.

    Raises:
        InputError: an unknown name, or an environment that is not cooperative with discrete actions.
    """
    options = dict(env_config or {})
    maker = _maker(env)
    made = _call(maker, num_envs, options)
    if not hasattr(made, "observation_sizes"):
        made = LoopedEnv([made, *(_call(maker, num_envs, options) for _ in range(num_envs - 1))], max_steps)
    return JointView(made) if joint else made


def _maker(env: Any) -> Callable[..., Any]:
    if not isinstance(env, str):
        if not callable(env):
            raise InputError(f"environment {env!r}: give an id, a dotted path or a callable")
        return env
    if env in ENVS:
        module, name = ENVS[env].split(":")
        return getattr(importlib.import_module(module), name)
    from ray.tune.registry import ENV_CREATOR, _global_registry

    if _global_registry.contains(ENV_CREATOR, env):
        return _global_registry.get(ENV_CREATOR, env)
    module, _, name = env.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        hint = unknown_option("environment", env, ENVS)
        raise InputError(
            f"{hint}; or a name registered with RLlib, or the path of a class or function: {error}"
        ) from None


def _call(maker: Callable[..., Any], num_envs: int, options: dict[str, Any]) -> Any:
    parameters = inspect.signature(maker).parameters
    if "num_envs" in parameters:
        return maker(num_envs=num_envs, **options)
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_config = (
        len(positional) == 1
        and positional[0].name not in options
        and (positional[0].default is inspect.Parameter.empty or positional[0].name in ("config", "env_config", "cfg"))
    )
    return maker(options) if takes_config else maker(**options)


class LoopedEnv:
    """B cooperative environments stepped one after the other, for the batched protocol.

    Episodes may differ in length: a sub-environment that has ended is left alone until the next ``reset``. An
    agent that has left may only ``wait`` (its last action). The team's reward is the mean of the agents' rewards,
    which is the shared reward where all receive the same. Observations are flattened; an ``action_mask`` in the
    observation or in the info is respected; the state is ``env.state()``, or the observations side by side.

    Args:
        envs: PettingZoo ParallelEnvs or RLlib MultiAgentEnvs, alike.
        max_steps: longest episode; ``None``: what the environment says (``max_steps`` or ``max_cycles``).
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
        self._spaces = {a: _observed(_space(first, "observation", a)) for a in self.agents}
        self.observation_sizes = {a: gym.spaces.flatdim(s) for a, s in self._spaces.items()}
        self.action_sizes = {a: _discrete(first, a) for a in self.agents}
        self._has_state = callable(getattr(first, "state", None)) and getattr(first, "state_space", None) is not None
        whole = int(np.prod(first.state_space.shape)) if self._has_state else sum(self.observation_sizes.values())
        self.state_size = whole
        self._over = np.zeros(self.num_envs, dtype=bool)
        self._seen = {a: np.zeros((self.num_envs, n), np.float32) for a, n in self.observation_sizes.items()}
        self._legal = {a: np.zeros((self.num_envs, n), bool) for a, n in self.action_sizes.items()}
        self._state = np.zeros((self.num_envs, self.state_size), np.float32)

    def reset(self, seed: int | None = None) -> BatchedStep:
        """Start every sub-environment again; ``seed`` seeds the k-th with seed + k."""
        self._over[:] = False
        for k, env in enumerate(self.envs):
            observations, infos = env.reset(seed=None if seed is None else seed + k)
            self._note(k, observations, infos)
        zeros = np.zeros(self.num_envs)
        return self._packed(zeros, zeros.astype(bool), zeros.astype(bool))

    def step(self, actions: Mapping[str, np.ndarray]) -> BatchedStep:
        """Step those that still run; ``actions`` agent → (B,) int."""
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for k in np.flatnonzero(~self._over).tolist():
            env = self.envs[k]
            alive = list(getattr(env, "agents", None) or self.agents)
            seen, rewards, ended, cut, infos = env.step({a: int(actions[a][k]) for a in alive})
            reward[k] = np.mean([rewards.get(a, 0.0) for a in alive])
            everyone_ended = ended.get("__all__", all(ended.get(a, False) for a in alive))
            over = everyone_ended or cut.get("__all__", False) or not getattr(env, "agents", True)
            over = over or all(ended.get(a, False) or cut.get(a, False) for a in alive)
            terminated[k], truncated[k] = everyone_ended, over and not everyone_ended
            self._over[k] = over
            left = self.agents if everyone_ended else [a for a in self.agents if ended.get(a, False)]
            self._note(k, seen, infos, left)
        return self._packed(reward, terminated, truncated)

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _note(
        self, k: int, observations: Mapping[str, Any], infos: Mapping[str, Any], left: Sequence[str] = ()
    ) -> None:
        for agent in self.agents:
            seen, legal = observations.get(agent), self._legal[agent][k]
            if seen is not None:
                bare = seen["observation"] if isinstance(seen, Mapping) and "observation" in seen else seen
                self._seen[agent][k] = np.asarray(gym.spaces.flatten(self._spaces[agent], bare))
            if seen is None or agent in left:
                legal[:] = False
                legal[-1] = True
            else:
                legal[:] = _stated_mask(seen, infos.get(agent))
        if self._has_state:
            self._state[k] = np.ravel(self.envs[k].state())
        else:
            self._state[k] = np.concatenate([self._seen[a][k] for a in self.agents])

    def _packed(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> BatchedStep:
        seen = {a: v.copy() for a, v in self._seen.items()}
        legal = {a: v.copy() for a, v in self._legal.items()}
        return BatchedStep(seen, legal, self._state.copy(), reward.astype(np.float32), terminated, truncated)


def _stated_mask(observation: Any, info: Any) -> np.ndarray | bool:
    for source in (observation, info):
        if isinstance(source, Mapping) and "action_mask" in source:
            return np.asarray(source["action_mask"], dtype=bool)
    return True


def _space(env: Any, kind: str, agent: str) -> gym.Space:
    table = getattr(env, f"{kind}_spaces", None)
    if isinstance(table, Mapping) and agent in table:
        return table[agent]
    getter = getattr(env, f"get_{kind}_space", None) or getattr(env, f"{kind}_space", None)
    if callable(getter):
        return getter(agent)
    raise InputError(f"{type(env).__name__}: no {kind} space of agent {agent!r}; define {kind}_spaces")


def _observed(space: gym.Space) -> gym.Space:
    inner = isinstance(space, gym.spaces.Dict) and "observation" in space.spaces
    return space["observation"] if inner else space  # type: ignore[index]


def _discrete(env: Any, agent: str) -> int:
    space = _space(env, "action", agent)
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        raise InputError(f"agent {agent!r}: action space {space}; the algorithms need Discrete(n) from 0")
    return int(space.n)


def _stated_length(env: Any) -> int:
    for source in (env, getattr(env, "unwrapped", env)):
        for name in ("max_steps", "max_cycles", "_max_episode_steps"):
            value = getattr(source, name, None)
            if isinstance(value, (int, np.integer)) and value > 0:
                return int(value)
    raise InputError(f"{type(env).__name__} does not say how long an episode may last; set max_episode_steps")
