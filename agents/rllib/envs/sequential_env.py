"""PettingZoo and RLlib environments behind the batched protocol, stepped one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from agents.rllib.envs.agent_data import (
    BARE_KEYS,
    MASK,
    Flattener,
    as_reward,
    bare,
    bare_key,
    bare_space,
    check_mask_name,
    is_mapping,
    may_act,
    stated_mask,
)
from agents.rllib.envs.spaces import agent_space
from agents.rllib.envs.team_reward import OpposedRewards, check_team_reward
from agents.team.images import as_float
from marca_env.envs.batched_env import BatchedStep
from marca_env.utils.errors import InputError, one_line

__all__ = ["BARE_KEYS", "MASK", "SequentialEnv", "SimulatorError", "bare_key", "env_name"]

_SHARED_KEYS = ("__all__", "__common__")
"""Keys of RLlib's dicts that are no agents."""


class SimulatorError(InputError):
    """An environment raised an error; the message names step, actions and environment, ``__cause__`` is the error."""


class _Result(NamedTuple):
    """What ``step`` of a sub-environment returns, by agent."""

    observations: Mapping[str, Any]
    rewards: Mapping[str, Any]
    terminated: Mapping[str, Any]
    truncated: Mapping[str, Any]
    infos: Mapping[str, Any]


class SequentialEnv:
    """B cooperative environments behind the batched protocol, stepped one after the other.

    - It takes PettingZoo ParallelEnvs and RLlib MultiAgentEnvs whose agents have strings for names
      (:mod:`agents.rllib.envs.adapters`).
    - An agent is on turn while it is in the episode: in a ParallelEnv the agents in ``env.agents``, in a MultiAgentEnv
      those that have just received an observation, as RLlib specifies. ``infos[agent]["on_turn"] = False``, or a method
      ``is_on_turn(agent)`` of the environment, says that an agent in the episode may only wait.
    - Episodes may differ in length. A sub-environment that has ended stays as it is until the next ``reset``, which
      resets all. The mask of an agent without an observation allows its last action, which has no effect.
    - The team's reward is the mean of the step's rewards, or their sum, over all possible agents. An agent that
      receives none, for instance because it has left, counts as 0. The mean of a shared reward is this reward. Agents
      whose rewards are opposed are named in a warning.
    - An episode counts as terminated (no value after it) if every agent in it terminated. If any agent was truncated
      instead, the last observation is valued, with the actions that were legal there.
    - Observations of any space are flattened, to float32 or, for images, to uint8 (:class:`Flattener`). An
      ``action_mask`` beside the observation or in the info is respected. The state is ``env.state()``, flattened, if
      the environment has a ``state_space``; otherwise it is the concatenated observations.

    Args:
        envs: sub-environments of the same kind.
        max_steps: longest episode; ``None``: the environment's own (``max_steps`` or ``max_cycles``). A longer
            episode is truncated there.
        team_reward: ``mean`` or ``sum``.

    Raises:
        InputError: no ``possible_agents``, spaces that do not fit, or no maximum length. Later, data that do not fit
            the spaces; the message names agent, step and environment.
        SimulatorError: a sub-environment raised an error.
    """

    def __init__(self, envs: list[Any], max_steps: int | None = None, team_reward: str = "mean") -> None:
        check_team_reward(team_reward)
        self.envs, self.num_envs, self.team_reward = envs, len(envs), team_reward
        first = envs[0]
        self.name = env_name(first)
        self.agents = tuple(getattr(first, "possible_agents", None) or ())
        if not self.agents:
            raise InputError(f"{self.name}: no possible_agents; use a PettingZoo ParallelEnv or a batched environment")
        self._known = {*self.agents, *_SHARED_KEYS}
        self.max_steps = max_steps or _stated_length(first)
        self._spaces = {a: agent_space(first, "observation", a) for a in self.agents}
        self.action_sizes = {a: _discrete(first, a) for a in self.agents}
        self._flatten: dict[str, Flattener] = {}
        for agent, space in self._spaces.items():
            try:
                check_mask_name(space, self.action_sizes[agent], "observations")
                self._flatten[agent] = Flattener(bare_space(space), "observation")
            except InputError as error:
                raise InputError(f"{self.name}: agent {agent!r}: {error}") from None
        self.observation_sizes = {a: f.size for a, f in self._flatten.items()}
        self._flatten_state = self._state_flattener(first)
        self.state_is_observations = self._flatten_state is None
        """Whether the state is the concatenated observations."""
        self.state_size = sum(self.observation_sizes.values()) if not self._flatten_state else self._flatten_state.size
        # RLlib wraps a ParallelEnv as par_env
        self._declares = [getattr(getattr(env, "par_env", env), "is_on_turn", None) for env in envs]
        self._takes_seed = "seed" in inspect.signature(first.reset).parameters or _takes_any(first.reset)
        self._is_multi_agent_env = hasattr(first, "get_observation_space")  # an RLlib MultiAgentEnv
        self._agents_to_act: list[Collection[str]] = [self.agents] * self.num_envs
        self._over = np.zeros(self.num_envs, dtype=bool)
        self._opposed = OpposedRewards(self.agents, self.name, team_reward)
        self._steps = 0
        self._observations = {a: np.zeros((self.num_envs, f.size), f.dtype) for a, f in self._flatten.items()}
        self._legal = {a: np.zeros((self.num_envs, n), bool) for a, n in self.action_sizes.items()}
        self._on_turn = {a: np.zeros(self.num_envs, bool) for a in self.agents}
        state_dtype = np.float32 if self._flatten_state is None else self._flatten_state.dtype
        self._state = np.zeros((self.num_envs, self.state_size), state_dtype)

    def reset(self, seed: int | None = None) -> BatchedStep:
        """Reset every sub-environment; with ``seed`` each gets a separate seed drawn from it."""
        seeds: list[Any] = [None] * self.num_envs
        if seed is not None:
            seeds = np.random.default_rng(seed).integers(2**31, size=self.num_envs).tolist()
        self._opposed.check()
        self._over[:] = False
        self._steps = 0
        for rows in self._observations.values():  # clear the last episode for agents that get no observation yet
            rows[:] = 0
        for k, env in enumerate(self.envs):
            options = {"seed": seeds[k]} if self._takes_seed else {}
            try:
                result = env.reset(**options)
            except Exception as error:
                raise self._failed(f"reset() of {self.name}", error) from error
            if not _is_tuple_of_mappings(result, 2):
                raise InputError(f"{self.name}: reset() must return (observations, infos), both by agent")
            observations, infos = result
            self._check_agents(observations, "observations")
            for agent, n_actions in self.action_sizes.items():
                try:
                    check_mask_name(infos.get(agent), n_actions, "infos")
                except InputError as error:
                    raise self._fault(agent, error) from None
            self._store(k, observations, infos, over=False)
            self._store_state(k, terminated=False)
        zeros = np.zeros(self.num_envs)
        return self._batched_step(zeros, zeros.astype(bool), zeros.astype(bool))

    def step(self, actions: Mapping[str, np.ndarray]) -> BatchedStep:
        """Step the sub-environments that still run; ``actions`` agent → (B,) int."""
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        action_lists = {a: np.asarray(agent_actions).tolist() for a, agent_actions in actions.items()}
        self._steps += 1
        for k in np.flatnonzero(~self._over).tolist():
            acting = self._agents_to_act[k]
            result = self._step_one(k, {a: action_lists[a][k] for a in acting})
            reward[k] = self._reward(result.rewards)
            ended, cut = result.terminated, result.truncated
            all_ended = bool(ended.get("__all__", all(ended.get(a, False) for a in acting)))
            over = all_ended or bool(cut.get("__all__", False))
            if not self._is_multi_agent_env:
                over = over or not getattr(self.envs[k], "agents", True)
                over = over or all(ended.get(a, False) or cut.get(a, False) for a in acting)
            terminated[k], truncated[k] = all_ended, over and not all_ended
            self._over[k] = over
            gone = [a for a in self.agents if ended.get(a, False) or (cut.get(a, False) and not over)]
            self._store(k, result.observations, result.infos, over, self.agents if all_ended else gone)
            self._store_state(k, terminated=all_ended)
        return self._batched_step(reward, terminated, truncated)

    def close(self) -> None:
        """Close all sub-environments."""
        for env in self.envs:
            env.close()

    # -- parts of a step -----------------------------------------------------------------------------------
    def _step_one(self, k: int, actions: dict[str, int]) -> _Result:
        """Step sub-environment ``k`` and check the form of the result."""
        try:
            result = self.envs[k].step(actions)
        except Exception as error:
            raise self._failed(f"step {self._steps} of {self.name} with actions {actions}", error) from error
        if isinstance(result, tuple) and len(result) == 4:
            raise InputError(
                f"{self.name}: step() returned four values, as in old versions of gym; return (observations, rewards, "
                "terminations, truncations, infos)"
            )
        if not _is_tuple_of_mappings(result, 5):
            raise InputError(
                f"{self.name}: step() must return (observations, rewards, terminations, truncations, infos), all by "
                f"agent; it returned {_form(result)}"
            )
        checked = _Result(*result)
        for name, part in zip(_Result._fields[:4], checked, strict=False):
            self._check_agents(part, name)
        return checked

    def _reward(self, rewards: Mapping[str, Any]) -> float:
        """Return the team's reward of a step."""
        by_agent = dict.fromkeys(self.agents, 0.0)
        for agent, value in rewards.items():
            if agent in by_agent:
                try:
                    by_agent[agent] = as_reward(value)
                except InputError as error:
                    raise self._fault(agent, error) from None
        if not self._opposed.is_over:
            self._opposed.add(np.array(list(by_agent.values())))
        total = sum(by_agent.values())
        return total / len(by_agent) if self.team_reward == "mean" else total

    def _store(
        self,
        k: int,
        observations: Mapping[str, Any],
        infos: Mapping[str, Any],
        over: bool,
        gone: Collection[str] = (),
    ) -> None:
        """Store the observations and masks of sub-environment ``k``, and which agents act next.

        Args:
            k: index of the sub-environment.
            observations: of its agents, by name.
            infos: of its agents, by name.
            over: whether its episode is over; a truncated agent is then on turn, so that its last observation is
                valued.
            gone: agents that act no more.
        """
        present = self._present(k, observations)
        for agent in self.agents:
            observation, on_turn = observations.get(agent), False
            takes_part = observation is not None and agent not in gone and (over or agent in present)
            try:
                if observation is not None:
                    bare_observation = bare(observation, self._spaces[agent])
                    self._flatten[agent](bare_observation, self._observations[agent][k])
                if takes_part:
                    on_turn = self._store_mask(k, agent, observation, infos.get(agent), over)
            except SimulatorError:
                raise
            except InputError as error:
                raise self._fault(agent, error) from error.__cause__
            if not takes_part:
                legal = self._legal[agent][k]
                legal[:], legal[-1] = False, True
            self._on_turn[agent][k] = on_turn
        self._agents_to_act[k] = tuple(a for a in self.agents if a in present)

    def _present(self, k: int, observations: Mapping[str, Any]) -> Collection[str]:
        """Return the agents that have to act next."""
        if self._is_multi_agent_env:
            return observations
        present = getattr(self.envs[k], "agents", None)
        if present is None:
            return self._known
        self._check_agents(present, "agents")
        return present

    def _store_mask(self, k: int, agent: str, observation: Any, info: Any, over: bool) -> bool:
        """Store the mask of an agent that takes part, and return whether it is on turn."""
        legal, declares = self._legal[agent][k], self._declares[k]
        on_turn = bool(declares(agent)) if callable(declares) else may_act(info)
        mask = stated_mask(observation, info, len(legal))
        if mask is None:
            legal[:] = True
        elif mask.any():
            legal[:] = mask
        elif on_turn and not over:
            raise InputError(f"{MASK} allows no action: allow one, or set infos[agent]['on_turn'] to False")
        else:
            on_turn, legal[:], legal[-1] = False, False, True
        return on_turn

    def _store_state(self, k: int, *, terminated: bool) -> None:
        """Store the state of sub-environment ``k``; a state that fails after the end is not needed."""
        if self._flatten_state is None:
            return
        try:
            self._flatten_state(self._read_state(k), self._state[k])
        except InputError as error:
            if terminated:
                return
            if isinstance(error, SimulatorError):
                raise
            raise InputError(
                f"step {self._steps} of {self.name}: {error}; fix state(), or remove state_space to learn from the "
                "concatenated observations"
            ) from error

    def _read_state(self, k: int) -> Any:
        try:
            return self.envs[k].state()
        except Exception as error:
            raise self._failed(f"state() of {self.name} at step {self._steps}", error) from error

    def _batched_step(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> BatchedStep:
        observations = {a: v.copy() for a, v in self._observations.items()}
        legal = {a: v.copy() for a, v in self._legal.items()}
        on_turn = {a: v.copy() for a, v in self._on_turn.items()}
        state = self._state.copy() if self._flatten_state is not None else self._joined(list(observations.values()))
        reward = reward.astype(np.float32)
        return BatchedStep(observations, legal, state, reward, terminated, truncated, on_turn=on_turn)

    @staticmethod
    def _joined(parts: list[np.ndarray]) -> np.ndarray:
        """Return the concatenated observations; images stay so if all are images."""
        only_images = all(part.dtype == np.uint8 for part in parts)
        return np.concatenate(parts if only_images else [as_float(part) for part in parts], axis=1)

    # -- state and faults ----------------------------------------------------------------------------------
    def _state_flattener(self, env: Any) -> Flattener | None:
        """Return the flattener of the states; ``None`` if the environment has none."""
        space = getattr(env, "state_space", None)
        if not callable(getattr(env, "state", None)) or space is None:
            return None
        try:
            return Flattener(space, "state")
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None

    @staticmethod
    def _failed(where: str, error: Exception) -> InputError:
        """Return the one line about an error of a sub-environment; an InputError says all itself."""
        if isinstance(error, InputError):
            return error
        fault = f"{type(error).__name__}: {one_line(error)}".rstrip(": ")
        return SimulatorError(f"{where} failed: {fault}; fix the environment")

    def _check_agents(self, names: Collection[str], what: str) -> None:
        """Refuse agents that are not among the possible ones, for instance because they were renamed."""
        if self._known.issuperset(names):
            return
        unknown = next(n for n in names if n not in self._known)
        raise InputError(
            f"step {self._steps} of {self.name}: unknown agent {unknown!r} in {what}; possible_agents are "
            f"{', '.join(map(repr, self.agents))} and must stay so"
        )

    def _fault(self, agent: str, fault: InputError) -> InputError:
        """Return a fault of :mod:`agents.rllib.envs.agent_data` with agent, step and environment."""
        return InputError(f"agent {agent!r} at step {self._steps} of {self.name}: {fault}; fix the environment")


def env_name(env: Any) -> str:
    """Return the name that an environment states in its metadata, or its class."""
    inner = getattr(env, "unwrapped", env)
    stated = (getattr(inner, "metadata", None) or {}).get("name")
    return stated if isinstance(stated, str) else type(inner).__name__


def _discrete(env: Any, agent: str) -> int:
    space = agent_space(env, "action", agent)
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        raise InputError(f"agent {agent!r}: action space {space}; the algorithms need Discrete(n) with start 0")
    return int(space.n)


def _is_tuple_of_mappings(result: Any, length: int) -> bool:
    return isinstance(result, tuple) and len(result) == length and all(map(is_mapping, result))


def _form(result: Any) -> str:
    if not isinstance(result, tuple):
        return f"a {type(result).__name__}"
    return f"({', '.join(type(part).__name__ for part in result)})"


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _stated_length(env: Any) -> int:
    for source in (env, getattr(env, "unwrapped", env)):
        for name in ("max_steps", "max_cycles", "_max_episode_steps"):
            value = getattr(source, name, None)
            if isinstance(value, (int, np.integer)) and value > 0:
                return int(value)
    raise InputError(f"{type(env).__name__}: no maximum length of an episode; set max_episode_steps")
