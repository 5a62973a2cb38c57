"""Environments as other people write them, right and wrong; each is one small class or factory.

``BASE`` variants change one thing of :class:`Team`, a PettingZoo-like environment of two agents and four steps.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from pettingzoo import AECEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv

STEPS = 4
VECTOR = Box(-1.0, 1.0, (3,), np.float32)


class Team:
    """Two agents that see a random vector and earn 1 for action 1; every variant overrides one method."""

    possible_agents: ClassVar[list[Any]] = ["a", "b"]
    max_steps: Any = STEPS
    space: gym.Space = VECTOR
    actions: gym.Space = Discrete(3)

    def __init__(self) -> None:
        self.agents = list(self.possible_agents)
        self.rng, self.t = np.random.default_rng(0), 0

    def observation_space(self, agent: Any) -> gym.Space:
        return self.space

    def action_space(self, agent: Any) -> gym.Space:
        return self.actions

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        self.rng, self.t, self.agents = np.random.default_rng(seed), 0, list(self.possible_agents)
        return self.observations(), self.infos()

    def step(self, actions: dict[Any, Any]) -> Any:
        acted, self.t = list(self.agents), self.t + 1
        rewards, (ended, cut) = self.rewards(actions), self.endings(acted)
        self.agents = [a for a in self.agents if not (ended.get(a) or cut.get(a))]
        return self.observations(acted), rewards, ended, cut, self.infos(acted)

    def observations(self, agents: list[Any] | None = None) -> Any:
        return {a: self.observation(a) for a in (self.agents if agents is None else agents)}

    def observation(self, agent: Any) -> Any:
        space = self.observation_space(agent)
        return self.rng.uniform(-1, 1, 3).astype(np.float32) if space is VECTOR else space.sample()

    def infos(self, agents: list[Any] | None = None) -> Any:
        return {a: {} for a in (self.agents if agents is None else agents)}

    def rewards(self, actions: dict[Any, Any]) -> Any:
        return {a: self.reward(a, action) for a, action in actions.items()}

    def reward(self, agent: Any, action: Any) -> Any:
        return float(np.all(action == 1))

    def endings(self, acted: list[Any]) -> Any:
        return dict.fromkeys(acted, self.t == STEPS), dict.fromkeys(acted, False)

    def close(self) -> None:
        pass


# -- names of agents -------------------------------------------------------------------------------------------------
class IntegerIds(Team):
    possible_agents: ClassVar = [0, 1]


class TupleIds(Team):
    possible_agents: ClassVar = [("red", 0), ("red", 1)]


class IdsThatReadTheSame(Team):
    possible_agents: ClassVar = [1, "1"]


class LongNames(Team):
    possible_agents: ClassVar = ["a" * 150, "b" * 150]


class Slashes(Team):
    possible_agents: ClassVar = ["team/a", "team/b.c d"]


class SamePolicyNames(Team):
    possible_agents: ClassVar = ["a/b", "a_b"]


class OneAgent(Team):
    possible_agents: ClassVar = ["alone"]


class NoAgents(Team):
    possible_agents: ClassVar = []


class Renamed(Team):
    def observations(self, agents: Any = None) -> Any:
        return {(f"{a}x" if self.t == 2 else a): o for a, o in super().observations(agents).items()}


class OrderChanges(Team):
    def observations(self, agents: Any = None) -> Any:
        return dict(reversed(super().observations(agents).items()))


# -- observations ----------------------------------------------------------------------------------------------------
class Image(Team):
    space = Box(0, 255, (84, 84, 3), np.uint8)


class SmallImage(Team):
    space = Box(0, 255, (7, 5, 3), np.uint8)


class FloatImage(Team):
    space = Box(0, 1, (42, 42, 3), np.float32)


class DictObservations(Team):
    space = Dict({"place": Box(0, 1, (2,), np.float32), "kind": Discrete(3)})


class NestedDict(Team):
    space = Dict({"own": Dict({"place": Box(0, 1, (2,), np.float32)}), "others": Tuple((Discrete(2), MultiBinary(3)))})


class TupleObservations(Team):
    space = Tuple((Box(0, 1, (2,), np.float32), Discrete(3)))


class Bits(Team):
    space = MultiBinary(5)


class Choices(Team):
    space = MultiDiscrete([3, 4])


class DiscreteObservations(Team):
    space = Discrete(7)


class DiscreteObservationsFrom3(Team):
    space = Discrete(7, start=3)


class Float64(Team):
    space = Box(-1.0, 1.0, (3,), np.float64)


class WrongDtype(Team):
    def observation(self, agent: Any) -> Any:
        return super().observation(agent).astype(np.float64)


class Integers(Team):
    space = Box(0, 9, (4,), np.int64)


class Lists(Team):
    def observation(self, agent: Any) -> Any:
        return super().observation(agent).tolist()


class Scalars(Team):
    space = Box(0, 1, (), np.float32)


class Matrices(Team):
    space = Box(0, 1, (4, 5), np.float32)


class EmptyObservations(Team):
    space = Box(0, 1, (0,), np.float32)


class Outside(Team):
    def observation(self, agent: Any) -> Any:
        return np.full(3, 5.0, np.float32)


class WrongShape(Team):
    def observation(self, agent: Any) -> Any:
        return np.zeros(4 if self.t == 2 else 3, np.float32)


class NanObservation(Team):
    def observation(self, agent: Any) -> Any:
        return np.full(3, np.nan if self.t == 2 and agent == "b" else 0.5, np.float32)


class InfiniteObservation(Team):
    def observation(self, agent: Any) -> Any:
        return np.full(3, np.inf if self.t == 2 and agent == "b" else 0.5, np.float32)


class NoneObservation(Team):
    def observation(self, agent: Any) -> Any:
        return None if self.t == 2 else super().observation(agent)


class Texts(Team):
    space = gym.spaces.Text(5)


class UnequalSpaces(Team):
    def observation_space(self, agent: Any) -> gym.Space:
        return Box(0, 1, (2 if agent == "a" else 4,), np.float32)

    def action_space(self, agent: Any) -> gym.Space:
        return Discrete(2 if agent == "a" else 5)


class NoSpaces(Team):
    observation_space = None  # type: ignore[assignment]


# -- masks -----------------------------------------------------------------------------------------------------------
class MaskInObservation(Team):
    space = Dict({"observation": VECTOR, "action_mask": Box(0, 1, (3,), np.int8)})

    def observation(self, agent: Any) -> Any:
        return {"observation": self.rng.random(3).astype(np.float32), "action_mask": self.mask()}

    def mask(self) -> Any:
        return np.array([0, 1, self.t % 2], np.int8)

    def reward(self, agent: Any, action: Any) -> Any:
        if action == 0:
            raise AssertionError("an illegal action was taken")
        return float(action)


class MaskInInfos(Team):
    def infos(self, agents: Any = None) -> Any:
        return {a: {"action_mask": np.array([0, 1, 1], np.int8)} for a in super().infos(agents)}

    def reward(self, agent: Any, action: Any) -> Any:
        if action == 0:
            raise AssertionError("an illegal action was taken")
        return float(action)


class MisnamedMask(Team):
    space = Dict({"observation": VECTOR, "avail_actions": Box(0, 1, (3,), np.int8)})


class MisnamedObservation(Team):
    space = Dict({"features": VECTOR, "action_mask": Box(0, 1, (3,), np.int8)})

    def observation(self, agent: Any) -> Any:
        return {"features": np.zeros(3, np.float32), "action_mask": np.ones(3, np.int8)}


class ShortMask(MaskInObservation):
    def mask(self) -> Any:
        return np.ones(2, np.int8)


class EmptyMask(MaskInObservation):
    def mask(self) -> Any:
        return np.zeros(3, np.int8) if self.t == 2 else np.ones(3, np.int8)

    def reward(self, agent: Any, action: Any) -> Any:
        return float(action)


class LateMaskInInfos(Team):
    def infos(self, agents: Any = None) -> Any:
        return {a: {"action_mask": np.array([0, 1, 1], np.int8)} if self.t else {} for a in super().infos(agents)}


# -- rewards ---------------------------------------------------------------------------------------------------------
class ArrayRewards(Team):
    def reward(self, agent: Any, action: Any) -> Any:
        return np.array([1.0])


class VectorRewards(Team):
    def reward(self, agent: Any, action: Any) -> Any:
        return np.array([1.0, 2.0])


class NoneRewards(Team):
    def reward(self, agent: Any, action: Any) -> Any:
        return None


class NanReward(Team):
    def reward(self, agent: Any, action: Any) -> Any:
        return float("nan") if self.t == 3 else 1.0


class TextRewards(Team):
    def reward(self, agent: Any, action: Any) -> Any:
        return "good"


class OneRewardForAll(Team):
    def rewards(self, actions: Any) -> Any:
        return 1.0


class RewardOfOneAgent(Team):
    def rewards(self, actions: Any) -> Any:
        return {"a": 1.0}


class OpposedRewards(Team):
    def reward(self, agent: Any, action: Any) -> Any:
        return float(action) * (1.0 if agent == "a" else -1.0)


# -- reset, step and endings -----------------------------------------------------------------------------------------
class FourResults(Team):
    def step(self, actions: Any) -> Any:
        observations, rewards, ended, _, infos = super().step(actions)
        return observations, rewards, ended, infos


class NoResults(Team):
    def step(self, actions: Any) -> Any:
        super().step(actions)


class ResetWithoutInfos(Team):
    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        return super().reset(seed)[0]


class ResetWithoutSeed(Team):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class FlagForAll(Team):
    def step(self, actions: Any) -> Any:
        observations, rewards, ended, _, infos = super().step(actions)
        return observations, rewards, all(ended.values()), False, infos


class TruncatedOnly(Team):
    def endings(self, acted: Any) -> Any:
        return dict.fromkeys(acted, False), dict.fromkeys(acted, self.t == STEPS)


class MixedEndings(Team):
    def endings(self, acted: Any) -> Any:
        last = self.t == STEPS
        return {a: last and a == "a" for a in acted}, {a: last and a == "b" for a in acted}


class Endless(Team):
    def endings(self, acted: Any) -> Any:
        return dict.fromkeys(acted, False), dict.fromkeys(acted, False)


class NoLimit(Team):
    max_steps = None


class LateJoiner(Team):
    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed)
        self.agents = ["a"]
        return self.observations(), self.infos()

    def step(self, actions: Any) -> Any:
        result = super().step(actions)
        if self.t == 2:
            self.agents = ["a", "b"]
            result[0]["b"], result[4]["b"] = self.observation("b"), {}
        return result


class Leaver(Team):
    def endings(self, acted: Any) -> Any:
        return {a: self.t == STEPS or (a == "b" and self.t == 2) for a in acted}, dict.fromkeys(acted, False)


class SilentLeaver(Team):
    def step(self, actions: Any) -> Any:
        result = super().step(actions)
        if self.t == 2:
            self.agents = ["a"]
            for part in result:
                part.pop("b")
        return result


class Returner(Team):
    def step(self, actions: Any) -> Any:
        result = super().step(actions)
        if self.t == 2:
            result[2]["b"], self.agents = True, ["a"]
        if self.t == 3:
            self.agents = ["a", "b"]
            result[0]["b"], result[4]["b"] = self.observation("b"), {}
        return result


class Turns(Team):
    def infos(self, agents: Any = None) -> Any:
        return {a: {"on_turn": (self.t % 2 == 0) == (a == "a")} for a in super().infos(agents)}


# -- state -----------------------------------------------------------------------------------------------------------
class State(Team):
    state_space: gym.Space = Box(-1, 1, (6,), np.float32)

    def state(self) -> Any:
        return np.full(6, self.t / STEPS, np.float32)


class StateWithoutSpace(Team):
    def state(self) -> Any:
        return np.zeros(6, np.float32)


class RaisingState(State):
    def state(self) -> Any:
        raise NotImplementedError("state() of this environment is not implemented")


class DictState(State):
    state_space = Dict({"clock": Box(0, 1, (1,), np.float32), "kind": Discrete(3)})

    def state(self) -> Any:
        return {"clock": np.array([self.t / STEPS], np.float32), "kind": self.t % 3}


class ImageState(State):
    state_space = Box(0, 255, (6, 5, 3), np.uint8)

    def state(self) -> Any:
        return np.full((6, 5, 3), self.t, np.uint8)


class NanState(State):
    def state(self) -> Any:
        return np.full(6, np.nan if self.t == 2 else 0.0, np.float32)


class ShortState(State):
    def state(self) -> Any:
        return np.zeros(4, np.float32)


# -- simulators that raise -------------------------------------------------------------------------------------------
class RaisesInInit(Team):
    def __init__(self) -> None:
        raise OSError("the simulator's licence has expired")


class RaisesInReset(Team):
    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        raise ValueError("no map of this name")


class RaisesInStep(Team):
    def step(self, actions: Any) -> Any:
        if self.t == 2:
            raise ZeroDivisionError("division by zero")
        return super().step(actions)


class RaisesWithoutText(Team):
    def step(self, actions: Any) -> Any:
        assert self.t < 2
        return super().step(actions)


class RaisesInObserve(Team):
    def observation(self, agent: Any) -> Any:
        if self.t == 2:
            raise IndexError("list index out of range")
        return super().observation(agent)


# -- actions ---------------------------------------------------------------------------------------------------------
class Continuous(Team):
    actions = Box(-1, 1, (2,), np.float32)


class MultiDiscreteActions(Team):
    actions = MultiDiscrete([2, 3])


class BinaryActions(Team):
    actions = MultiBinary(2)


class ActionsFrom1(Team):
    actions = Discrete(3, start=1)

    def reward(self, agent: Any, action: Any) -> Any:
        assert 1 <= action <= 3
        return 1.0


class OneAction(Team):
    actions = Discrete(1)


# -- AEC -------------------------------------------------------------------------------------------------------------
class Aec(AECEnv):
    """Two agents that act one after the other, three times each."""

    metadata: ClassVar[dict[str, Any]] = {"name": "aec"}
    max_cycles = 3
    masked = False

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["a", "b"]
        self.render_mode = None

    def observation_space(self, agent: Any) -> gym.Space:
        if self.masked:
            return Dict({"observation": VECTOR, "action_mask": Box(0, 1, (3,), np.int8)})
        return VECTOR

    def action_space(self, agent: Any) -> gym.Space:
        return Discrete(3)

    def reset(self, seed: int | None = None, options: dict | None = None) -> None:
        self.agents, self.turn = list(self.possible_agents), 0
        self.agent_selection = "a"
        self.rewards, self._cumulative_rewards = dict.fromkeys(self.agents, 0.0), dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.infos = {a: {} for a in self.agents}

    def observe(self, agent: Any) -> Any:
        bare = np.full(3, self.turn / 6, np.float32)
        return {"observation": bare, "action_mask": np.array([0, 1, 1], np.int8)} if self.masked else bare

    def step(self, action: Any) -> None:
        if self.terminations[self.agent_selection] or self.truncations[self.agent_selection]:
            self._was_dead_step(action)
            return
        self.check(action)
        self._clear_rewards()
        self.turn += 1
        self.rewards = dict.fromkeys(self.agents, float(action == 1))
        self.agent_selection = "ab"[self.turn % 2]
        self.terminations = dict.fromkeys(self.agents, self.turn == 6)
        self._accumulate_rewards()

    def check(self, action: Any) -> None:
        """Accept every action."""


class ParallelizableAec(Aec):
    metadata: ClassVar = {"name": "cycles", "is_parallelizable": True}


class MaskedAec(Aec):
    masked = True

    def check(self, action: Any) -> None:
        assert action != 0, "an illegal action was taken"


class AecIllegalMoves(Aec):
    metadata: ClassVar = {"name": "AecIllegalMoves"}

    def check(self, action: Any) -> None:
        if action == 2:
            raise ValueError("illegal move 2")


class AecOutOfOrder(Aec):
    metadata: ClassVar = {"name": "out_of_order", "is_parallelizable": True}

    def step(self, action: Any) -> None:
        super().step(action)
        if self.agents:
            self.agent_selection = "a"


# -- Gymnasium -------------------------------------------------------------------------------------------------------
class TupleGym(gym.Env):
    """Gymnasium environment with one space per agent, as level-based foraging has."""

    max_steps = STEPS
    observation_space: Any = Tuple((VECTOR, VECTOR))
    action_space: Any = Tuple((Discrete(3), Discrete(3)))
    n_agents = 2

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def observe(self) -> Any:
        return tuple(self.np_random.random(3, np.float32) for _ in range(2))

    def step(self, actions: Any) -> Any:
        assert len(actions) == 2
        self.t += 1
        return self.observe(), self.paid(actions), self.ended(), False, {}

    def paid(self, actions: Any) -> Any:
        return [float(np.all(a == 1)) for a in actions]

    def ended(self) -> Any:
        return self.t == STEPS


class TupleGymOneReward(TupleGym):
    def paid(self, actions: Any) -> Any:
        return float(sum(actions))


class TupleGymArrays(TupleGym):
    def paid(self, actions: Any) -> Any:
        return np.array([1.0, 2.0])

    def ended(self) -> Any:
        return [self.t == STEPS] * 2


class TupleGymLists(TupleGym):
    observation_space: ClassVar = [VECTOR, VECTOR]
    action_space: ClassVar = [Discrete(3), Discrete(3)]


class TupleGymWithMasks(TupleGym):
    def get_avail_actions(self) -> Any:
        return [[0, 1, 1], [1, 1, 0]]

    def paid(self, actions: Any) -> Any:
        assert actions[0] != 0, "an illegal action was taken"
        assert actions[1] != 2, "an illegal action was taken"
        return 1.0


class TupleGymFourResults(TupleGym):
    def step(self, actions: Any) -> Any:
        return super().step(actions)[:4]


class TupleGymMissingReward(TupleGym):
    def paid(self, actions: Any) -> Any:
        return [1.0]


class TupleGymMissingObservation(TupleGym):
    def observe(self) -> Any:
        return super().observe()[:1]


class TupleGymUnequal(TupleGym):
    observation_space = Tuple((VECTOR,))


class TupleGymContinuous(TupleGym):
    action_space = Tuple((Box(-1, 1, (2,), np.float32),) * 2)


class TupleGymNoLimit(TupleGym):
    max_steps = None  # type: ignore[assignment]


class SingleMultiDiscrete(gym.Env):
    """One agent with two choices a step."""

    max_steps = STEPS
    observation_space = VECTOR
    action_space = MultiDiscrete([2, 3])

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(3, np.float32), 1.0, self.t == STEPS, False, {}


class Smac:
    """Environment with the interface of StarCraft's multi-agent challenge, which is none of those known."""

    n_agents = 2

    def get_env_info(self) -> dict:
        return {"n_agents": 2}


# -- RLlib -----------------------------------------------------------------------------------------------------------
class RllibTeam(MultiAgentEnv):
    """RLlib environment as its documentation asks for."""

    max_steps = STEPS
    ids: ClassVar[list[Any]] = ["a", "b"]

    def __init__(self, config: dict | None = None) -> None:
        super().__init__()
        self.agents = self.possible_agents = list(self.ids)
        self.observation_spaces = dict.fromkeys(self.ids, VECTOR)
        self.action_spaces = dict.fromkeys(self.ids, Discrete(3))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return {a: np.zeros(3, np.float32) for a in self.ids}, {}

    def step(self, action_dict: Any) -> Any:
        self.t += 1
        over = self.t == STEPS
        seen = {a: np.full(3, self.t / STEPS, np.float32) for a in self.ids}
        rewards = {a: float(x == 1) for a, x in action_dict.items()}
        return seen, rewards, {"__all__": over}, {"__all__": False}, {}


class RllibIntegers(RllibTeam):
    ids: ClassVar = [0, 1]


class RllibOldStyle(RllibTeam):
    """As written for RLlib 2.3: a set of agents and one space for all."""

    def __init__(self, config: Any) -> None:
        self._agent_ids = {"a", "b"}
        MultiAgentEnv.__init__(self)
        self.observation_space, self.action_space = VECTOR, Discrete(3)
        self.worker = config.worker_index


class RllibWithoutAgents(RllibTeam):
    def __init__(self, config: Any) -> None:
        MultiAgentEnv.__init__(self)
        self.observation_space, self.action_space = VECTOR, Discrete(3)


class RllibWithoutAll(RllibTeam):
    def step(self, action_dict: Any) -> Any:
        seen, rewards, ended, _, infos = super().step(action_dict)
        return seen, rewards, dict.fromkeys(self.ids, ended["__all__"]), dict.fromkeys(self.ids, False), infos


class RllibTurns(RllibTeam):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return {"a": super().reset()[0]["a"]}, {}

    def step(self, action_dict: Any) -> Any:
        seen, rewards, ended, cut, infos = super().step(action_dict)
        on_turn = "ab"[self.t % 2]
        return {on_turn: seen[on_turn]}, rewards, ended, cut, infos


class SingleDict(SingleMultiDiscrete):
    observation_space = Dict({"place": VECTOR, "kind": Discrete(3)})  # type: ignore[assignment]
    action_space = Discrete(3)  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        return {"place": super().reset(seed=seed)[0], "kind": 0}, {}

    def step(self, action: Any) -> Any:
        place, *rest = super().step(action)
        return {"place": place, "kind": self.t % 3}, *rest


class SingleMasked(SingleMultiDiscrete):
    observation_space = Dict({"observation": VECTOR, "action_mask": Box(0, 1, (3,), np.int8)})  # type: ignore[assignment]
    action_space = Discrete(3)  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        return {"observation": super().reset(seed=seed)[0], "action_mask": np.array([0, 1, 1], np.int8)}, {}

    def step(self, action: Any) -> Any:
        assert action != 0, "an illegal action was taken"
        place, *rest = super().step(action)
        return {"observation": place, "action_mask": np.array([0, 1, 1], np.int8)}, *rest
