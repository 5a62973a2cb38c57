"""Kinds of environments that others write, and what training on each says: ``works`` or a part of the error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WORKS = "works"


@dataclass(frozen=True)
class Kind:
    """A kind of environment."""

    what: str
    env: str
    """A class of :mod:`tests.helpers.foreign_envs`, or a name as ``--env`` takes it."""
    qmix: str = WORKS
    """Part of the error of QMIX."""
    ppo: str | None = None
    """Part of the error of PPO; ``None``: the same as of QMIX."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the algorithm."""
    env_config: Mapping[str, Any] = field(default_factory=dict)
    needs: str | None = None
    """Package without which it is skipped."""

    @property
    def path(self) -> str:
        """Name as ``--env`` takes it."""
        return f"tests.helpers.foreign_envs.{self.env}" if self.env.isidentifier() else self.env

    def expected(self, algo: str) -> str:
        """Return what the algorithm says."""
        return self.qmix if algo == "QMIX" or self.ppo is None else self.ppo


_FORM = "step() must return (observations, rewards, terminations, truncations, infos), all by agent"
_FOUR = "step() returned four values"
KINDS = (
    # names of agents
    Kind("two agents, vectors, three actions", "Team"),
    Kind("integer agent ids", "IntegerIds"),
    Kind("tuple agent ids", "TupleIds"),
    Kind("ids that read the same", "IdsThatReadTheSame", "names that read the same"),
    Kind("names of 150 characters", "LongNames"),
    Kind("slashes and blanks in names", "Slashes"),
    Kind("names that differ by a slash only", "SamePolicyNames", WORKS, "policies of the same name"),
    Kind("one agent", "OneAgent"),
    Kind("no agents", "NoAgents", "no possible_agents"),
    Kind("agents renamed in an episode", "Renamed", "step 2 of Renamed: unknown agent 'ax'"),
    Kind("order of the agents changes", "OrderChanges"),
    # observations
    Kind("images of 84 × 84 × 3, uint8", "Image"),
    Kind("images of 7 × 5 × 3, uint8", "SmallImage"),
    Kind("images of floats", "FloatImage"),
    Kind("Dict observations", "DictObservations"),
    Kind("nested Dict and Tuple observations", "NestedDict"),
    Kind("Tuple observations", "TupleObservations"),
    Kind("MultiBinary observations", "Bits"),
    Kind("MultiDiscrete observations", "Choices"),
    Kind("Discrete observations", "DiscreteObservations"),
    Kind("Discrete observations from 3 on", "DiscreteObservationsFrom3"),
    Kind("Text observations", "Texts"),
    Kind("float64 observations", "Float64"),
    Kind("float64 where the space says float32", "WrongDtype"),
    Kind("integer observations", "Integers"),
    Kind("lists as observations", "Lists"),
    Kind("a number as observation", "Scalars"),
    Kind("matrices as observations", "Matrices"),
    Kind("empty observations", "EmptyObservations"),
    Kind("observations outside their space", "Outside"),
    Kind("observation of another shape", "WrongShape", "agent 'a' at step 2 of WrongShape: observation has shape (4,)"),
    Kind("NaN in an observation", "NanObservation", "agent 'b' at step 2 of NanObservation"),
    Kind("∞ in an observation", "InfiniteObservation", "agent 'b' at step 2 of InfiniteObservation"),
    Kind("None instead of an observation", "NoneObservation"),
    Kind("unequal spaces of the agents", "UnequalSpaces"),
    Kind("no observation spaces", "NoSpaces", "no observation space of agent 'a'"),
    # masks
    Kind("mask beside the observation", "MaskInObservation"),
    Kind("mask in the infos", "MaskInInfos"),
    Kind("mask in the infos after reset only", "LateMaskInInfos", WORKS, "return it from reset() too"),
    Kind("mask under another name", "MisnamedMask", "rename it to 'action_mask'"),
    Kind("mask beside 'features'", "MisnamedObservation"),
    Kind("mask of the wrong length", "ShortMask", "agent 'a' at step 0 of ShortMask: action_mask has 2 entries"),
    Kind("mask without a legal action", "EmptyMask", "agent 'a' at step 2 of EmptyMask: action_mask allows no action"),
    # rewards
    Kind("rewards as arrays of one number", "ArrayRewards"),
    Kind("rewards as arrays of two numbers", "VectorRewards", "of VectorRewards: reward is array([1., 2.])"),
    Kind("None as reward", "NoneRewards", "of NoneRewards: reward is None"),
    Kind("NaN as reward", "NanReward", "at step 3 of NanReward: reward is nan"),
    Kind("text as reward", "TextRewards", "of TextRewards: reward is 'good'"),
    Kind("one reward instead of one per agent", "OneRewardForAll", f"OneRewardForAll: {_FORM}"),
    Kind("reward of one agent only", "RewardOfOneAgent"),
    Kind("opposed rewards", "OpposedRewards"),
    # reset, step and endings
    Kind("step() with four results", "FourResults", f"FourResults: {_FOUR}"),
    Kind("step() without a result", "NoResults", f"NoResults: {_FORM}; it returned a NoneType"),
    Kind("reset() without infos", "ResetWithoutInfos", "ResetWithoutInfos: reset() must return (observations, infos)"),
    Kind("reset() without a seed", "ResetWithoutSeed"),
    Kind("one flag for all agents", "FlagForAll", f"FlagForAll: {_FORM}"),
    Kind("truncation only", "TruncatedOnly"),
    Kind("one agent terminates, one is truncated", "MixedEndings"),
    Kind("no end, with a step limit", "Endless"),
    Kind("no step limit", "NoLimit", "NoLimit: no maximum length of an episode; set max_episode_steps", WORKS),
    Kind("no step limit, but max_episode_steps", "NoLimit", WORKS, WORKS, {"max_episode_steps": 4}),
    Kind("agent that joins late", "LateJoiner"),
    Kind("agent that leaves", "Leaver"),
    Kind("agent that leaves without an ending", "SilentLeaver"),
    Kind("agent that leaves and comes back", "Returner", WORKS, "agent 'b' at step 3 of Returner: it acts again"),
    Kind("agents that take turns, by infos", "Turns"),
    # state
    Kind("state()", "State"),
    Kind("state() without a space", "StateWithoutSpace"),
    Kind("state() that raises", "RaisingState", "state() of RaisingState at step 0 failed: NotImplementedError", WORKS),
    Kind("state as a dict", "DictState"),
    Kind("state as an image", "ImageState"),
    Kind("NaN in the state", "NanState", "state at step 2 of NanState", WORKS),
    Kind("state of another shape", "ShortState", "step 0 of ShortState: state has shape (4,)", WORKS),
    # simulators that raise
    Kind("__init__ raises", "RaisesInInit", "building it raised OSError: the simulator's licence has expired"),
    Kind("reset() raises", "RaisesInReset", "reset() of RaisesInReset failed: ValueError: no map of this name"),
    Kind("step() raises", "RaisesInStep", "step 3 of RaisesInStep with actions {'a': "),
    Kind("step() raises without a text", "RaisesWithoutText", "failed: AssertionError; fix the environment"),
    Kind("observing raises", "RaisesInObserve", "step 2 of RaisesInObserve"),
    # actions
    Kind("continuous actions", "Continuous", "agent 'a' of Continuous: actions Box(-1.0, 1.0, (2,), float32)", WORKS),
    Kind("MultiDiscrete actions", "MultiDiscreteActions", "actions MultiDiscrete([2 3]); the presets need", WORKS),
    Kind("MultiBinary actions", "BinaryActions", "actions MultiBinary(2)", "no actions MultiBinary(2)"),
    Kind("Discrete actions from 1 on", "ActionsFrom1"),
    Kind("one action", "OneAction"),
    # AEC
    Kind("AEC, turn by turn", "Aec"),
    Kind("AEC, parallelizable", "ParallelizableAec"),
    Kind("AEC with masks", "MaskedAec"),
    Kind("AEC with illegal moves and no mask", "AecIllegalMoves", "failed: ValueError: illegal move 2"),
    Kind("AEC that is not parallelizable as it says", "AecOutOfOrder", "set is_parallelizable to False"),
    # Gymnasium
    Kind("Gymnasium, Tuple spaces", "TupleGym"),
    Kind("Gymnasium, Tuple spaces, one reward", "TupleGymOneReward"),
    Kind("Gymnasium, Tuple spaces, lists of endings", "TupleGymArrays"),
    Kind("Gymnasium, lists of spaces", "TupleGymLists"),
    Kind("Gymnasium, Tuple spaces, get_avail_actions", "TupleGymWithMasks"),
    Kind("Gymnasium, Tuple spaces, four results", "TupleGymFourResults", "step() returned 4 results; return five"),
    Kind("Gymnasium, a reward too few", "TupleGymMissingReward", "rewards are 1; return one for each of the 2 agents"),
    Kind("Gymnasium, an observation too few", "TupleGymMissingObservation", "observations are 1; return one for each"),
    Kind("Gymnasium, a space too few", "TupleGymUnequal", "1 observation spaces and 2 action spaces"),
    Kind("Gymnasium, Tuple of continuous actions", "TupleGymContinuous", "of TupleGymContinuous: actions Box", WORKS),
    Kind("Gymnasium, no step limit", "TupleGymNoLimit", "TupleGymNoLimit: no maximum length of an episode", WORKS),
    Kind("Gymnasium, one agent", "CartPole-v1"),
    Kind("Gymnasium, one agent, Discrete observations", "FrozenLake-v1"),
    Kind("Gymnasium, one agent, Dict observations", "SingleDict"),
    Kind("Gymnasium, one agent, mask", "SingleMasked"),
    Kind("Gymnasium, one agent, MultiDiscrete", "SingleMultiDiscrete", "give each of its choices an agent", WORKS),
    Kind("Gymnasium, one agent, continuous actions", "Pendulum-v1", "environment 'Pendulum-v1': actions Box", WORKS),
    # RLlib
    Kind("RLlib MultiAgentEnv", "RllibTeam"),
    Kind("RLlib, integer ids", "RllibIntegers"),
    Kind("RLlib of 2023: a set of agents, one space", "RllibOldStyle"),
    Kind("RLlib, no list of agents", "RllibWithoutAgents", "no possible_agents; list all agents there"),
    Kind("RLlib, no '__all__'", "RllibWithoutAll"),
    Kind("RLlib, turn by turn", "RllibTurns"),
    # other interfaces and names
    Kind("SMAC's own interface", "Smac", "is a Smac, without possible_agents; use a PettingZoo ParallelEnv"),
    Kind("batched environment", "benchmarks.experiments.games.matrix_games.TwoStepGame"),
    Kind("climbing game", "games/climbing-v0"),
    Kind("penalty game", "games/penalty-v0", env_config={"penalty": -50}),
    Kind("recommender, batched", "marca_env/parallel-v0"),
    Kind("recommender, AEC", "marca_env:env"),
    Kind("recommender, Gymnasium", "marca_env/Recommender-v0"),
    Kind("mpe2, simple_spread", "mpe2.simple_spread_v3", needs="mpe2"),
    Kind("mpe2, speaker and listener", "mpe2.simple_speaker_listener_v4", needs="mpe2"),
    Kind("mpe2, simple_reference", "mpe2.simple_reference_v3", needs="mpe2"),
    Kind("mpe2, simple_tag (opposed)", "mpe2.simple_tag_v3", needs="mpe2"),
    Kind("level-based foraging", "lbforaging:Foraging-5x5-2p-1f-v3", needs="lbforaging"),
    Kind("level-based foraging, partly seen", "Foraging-2s-8x8-3p-2f-v3", needs="lbforaging"),
    Kind("foraging on a grid, whose space is wrong", "Foraging-grid-5x5-2p-1f-v3", "raised", needs="lbforaging"),
    Kind("PettingZoo, parallel game", "pettingzoo.classic.rps_v2", needs="pygame"),
    Kind("PettingZoo, registered id", "classic/rps-v2", needs="pygame"),
    Kind(
        "PettingZoo, a game", "pettingzoo.classic.tictactoe_v3", WORKS, WORKS, {"max_episode_steps": 9}, needs="pygame"
    ),
    Kind(
        "PettingZoo, connect four",
        "pettingzoo.classic.connect_four_v3",
        WORKS,
        WORKS,
        {"max_episode_steps": 42},
        needs="pygame",
    ),
    Kind(
        "PettingZoo, pursuit",
        "pettingzoo.sisl.pursuit_v5",
        env_config={"max_cycles": 5, "n_pursuers": 2, "n_evaders": 2},
        needs="pygame",
    ),
    Kind(
        "PettingZoo, knights and zombies",
        "pettingzoo.butterfly.knights_archers_zombies_v11",
        env_config={"max_cycles": 5},
        needs="pygame",
    ),
    Kind("PettingZoo, a version that is gone", "pettingzoo.butterfly.pistonball_v5", "pistonball_v6"),
    Kind("PettingZoo, mpe, which has moved", "pettingzoo.mpe.simple_spread_v3", "Install with `pip install mpe2`"),
    Kind("package that is not installed", "rware:rware-tiny-2ag-v2", "needs the package 'rware': pip install rware"),
    Kind("unknown module", "my_modul.Thing", "no module 'my_modul'; check the name"),
    Kind("unknown id", "games/climbin-v0", "did you mean 'games/climbing-v0'?"),
    Kind("unknown option", "mpe2.simple_spread_v3", "takes no option 'agents'", env_config={"agents": 3}, needs="mpe2"),
)
OTHER_KINDS = ("LateJoiner", "Leaver", "DictObservations", "MaskInInfos", "Aec", "TupleGym")
"""Environments on which RLlib's other algorithms are tried."""
