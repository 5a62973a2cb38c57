"""PettingZoo and RLlib environments behind the batched protocol, stepped one after the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from agents.rllib.envs.agent_data import (
    BARE_KEYS,
    MASK,
    NO_ACTION,
    Flattener,
    as_reward,
    bare,
    bare_key,
    bare_space,
    check_mask_name,
    may_act,
    stated_mask,
)
from agents.rllib.envs.env_watch import EnvWatch, SimulatorError, env_name
from agents.rllib.envs.spaces import agent_space
from agents.rllib.envs.team_reward import OpposedRewards, check_team_reward
from agents.team.images import as_float
from marca_env.envs.batched_env import BatchedStep
from marca_env.utils.errors import InputError

__all__ = ["BARE_KEYS", "MASK", "SequentialEnv", "SimulatorError", "bare_key", "env_name"]


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
        self.max_steps = max_steps or _stated_length(first)
        self._spaces = {a: agent_space(first, "observation", a) for a in self.agents}
        actions = {a: _discrete(first, a, self.name) for a in self.agents}
        self.action_sizes = {a: int(space.n) for a, space in actions.items()}
        self._first_actions = {a: int(space.start) for a, space in actions.items()}
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
        self._is_multi_agent_env = hasattr(first, "get_observation_space")  # an RLlib MultiAgentEnv
        self._agents_to_act: list[Collection[str]] = [self.agents] * self.num_envs
        self._over = np.zeros(self.num_envs, dtype=bool)
        self._opposed = OpposedRewards(self.agents, self.name, team_reward)
        self._watch = EnvWatch(first, self.agents)
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
        self._watch.steps = 0
        for rows in self._observations.values():  # clear the last episode for agents that get no observation yet
            rows[:] = 0
        for k, env in enumerate(self.envs):
            observations, infos = self._watch.reset(env, seeds[k])
            for agent, n_actions in self.action_sizes.items():
                self._watch.checked(agent, check_mask_name, infos.get(agent), n_actions, "infos")
            self._store(k, observations, infos, over=False)
            self._store_state(k, terminated=False)
        zeros = np.zeros(self.num_envs)
        return self._batched_step(zeros, zeros.astype(bool), zeros.astype(bool))

    def step(self, actions: Mapping[str, np.ndarray]) -> BatchedStep:
        """Step the sub-environments that still run; ``actions`` agent → (B,) int."""
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        action_lists = {a: np.asarray(agent_actions).tolist() for a, agent_actions in actions.items()}
        self._watch.steps += 1
        for k in np.flatnonzero(~self._over).tolist():
            acting = self._agents_to_act[k]
            result = self._watch.step(self.envs[k], {a: self._first_actions[a] + action_lists[a][k] for a in acting})
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

    @property
    def notice(self) -> str | None:
        """The warning that was given, ``None`` so far."""
        return self._opposed.notice

    def close(self) -> None:
        """Close all sub-environments."""
        for env in self.envs:
            env.close()

    # -- parts of a step -----------------------------------------------------------------------------------
    def _reward(self, rewards: Mapping[str, Any]) -> float:
        """Return the team's reward of a step."""
        by_agent = dict.fromkeys(self.agents, 0.0)
        for agent, value in rewards.items():
            if agent in by_agent:
                by_agent[agent] = self._watch.checked(agent, as_reward, value)
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
                raise self._watch.fault(agent, error) from error.__cause__
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
            return self.agents
        self._watch.check_agents(present, "agents")
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
            raise InputError(NO_ACTION)
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
                f"step {self._watch.steps} of {self.name}: {error}; fix state(), or remove state_space to learn from "
                "the concatenated observations"
            ) from error

    def _read_state(self, k: int) -> Any:
        try:
            return self.envs[k].state()
        except InputError:
            raise
        except Exception as error:
            raise self._watch.failed(f"state() of {self.name} at step {self._watch.steps}", error) from error

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


def _discrete(env: Any, agent: str, name: str) -> gym.spaces.Discrete:
    space = agent_space(env, "action", agent)
    if not isinstance(space, gym.spaces.Discrete):
        raise InputError(
            f"agent {agent!r} of {name}: actions {str(space)[:80]}; the presets need Discrete(n): make them discrete, "
            "or choose PPO"
        )
    return space


def _stated_length(env: Any) -> int:
    for source in (env, getattr(env, "unwrapped", env)):
        for name in ("max_steps", "max_cycles", "_max_episode_steps"):
            value = getattr(source, name, None)
            if isinstance(value, (int, np.integer)) and value > 0:
                return int(value)
    raise InputError(f"{env_name(env)}: no maximum length of an episode; set max_episode_steps")
