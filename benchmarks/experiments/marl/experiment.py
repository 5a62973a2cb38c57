"""The environment's own leaderboard: nine presets and RLlib's PPO and DQN, greedy return against steps and seconds.

The reward is revenue less computation at fixed prices (Eq. 6, arXiv 2512.24325), λ of a mean minute: by revenue alone
the best is to spend everything. It is the fitted models' expectation, without the noise of single requests. All methods
get the same environment steps, gradient steps and sizes; beside them stand a random policy, the best single joint
action, and the exact optimum of every request. What judges is the whole population, each state by its share of the
requests: returns are exact, and intervals over seeds are those of training.

``cases(methods=...)`` takes any names, also the dotted path of an algorithm of your own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.algorithms.presets import PRESETS as KNOWN
from benchmarks.evaluation.population_engine import EveryState
from benchmarks.offline.offline_runs import METHODS as PRESETS
from benchmarks.suite.api import Case, Row
from benchmarks.suite.user_methods import check_method_name, user_options
from benchmarks.training.greedy_rollout import greedy_policy, play_episodes, train_with_evaluations
from benchmarks.training.trials import DEFAULT_ENV, Trial
from marca_env.envs.rewards import REWARDS
from marca_env.models.engine import get_engine
from marca_env.utils.errors import InputError

if TYPE_CHECKING:
    from benchmarks.evaluation.population_engine import EveryState

SEEDS = (0, 1, 2, 3, 4)
RLLIB = {"PPO independent": ("PPO", False), "PPO shared": ("PPO", True), "DQN independent": ("DQN", False)}
"""Name → algorithm, and whether the agents share one network."""
METHODS = (*PRESETS, *RLLIB)
REFERENCES = ("random", "best single action", "optimum")
PRICES = (9.07, 2.03)
"""λ of the two clusters, currency per core-second: they fit the budgets at the mean traffic of a generated day."""
BUDGET: dict[str, Any] = {"env_steps": 20_000, "updates": 1_000, "evaluations": 10, "states": None}
QUICK: dict[str, Any] = {"env_steps": 200, "updates": 20, "evaluations": 2, "states": 50}
"""``states``: of the population, from the first on, that judge; ``None``: all."""
ITERATIONS = 40
"""Of a full run: ``env_steps / ITERATIONS`` steps and ``updates / ITERATIONS`` gradient steps each."""
DECISIONS = 5
"""Environment steps of an episode."""
REWARD_SCALE = 0.05
"""What rewards are divided by in training, for all alike: about what a good action earns."""
EXPLORED = 0.5
"""Share of the steps over which ε falls from 1 to 0.05 (PPO explores by its own)."""
SETTINGS: dict[str, dict[str, Any]] = {
    "sizes": {
        "recurrent": {"gru": 64, "hidden": [64]},
        "feed-forward": {"gru": None, "hidden": [64, 64]},
        "ensemble": {"heads": 5},
        "dropout": {"dropout": 0.0, "weighting_level": "batch"},
    },
    "team": {
        "gamma": 1.0,
        "lr": 2e-3,
        "train_batch_size_per_learner": 128,  # episodes, of five steps
        "tau": 0.02,
        "learning_starts": 100,
        "buffer_capacity": 4_000,
    },
    "PPO": {
        "gamma": 1.0,
        "lr": 2e-3,
        "lambda_": 1.0,
        "num_epochs": 5,
        "num_envs_per_env_runner": 20,
        "model_config": {"fcnet_hiddens": [64, 64]},
    },
    "DQN": {
        "gamma": 1.0,
        "lr": 2e-3,
        "train_batch_size_per_learner": 128,  # steps: its buffer takes time for every one of them
        "tau": 0.02,
        "target_network_update_freq": 1,
        "num_steps_sampled_before_learning_starts": 100,
        "num_envs_per_env_runner": 20,
        "rollout_fragment_length": 5,
        "replay_buffer_config": {"type": "MultiAgentEpisodeReplayBuffer", "capacity": 20_000},
        "model_config": {"fcnet_hiddens": [64, 64], "head_fcnet_hiddens": []},
    },
}
"""What is no budget, by kind of algorithm, and the sizes of the presets by what they are made of: two layers of 64
everywhere. Episodes are five steps with the reward at the end, which needs no discount. The presets' are a first guess;
PPO's and DQN's are as near to them as RLlib allows, and were looked at on a seed that is not reported."""


def cases(*, quick: bool, seeds: Sequence[int], methods: Sequence[str] | None = None) -> list[Case]:
    """The references, then every method, seed by seed; ``methods``: names of :data:`METHODS` or dotted paths."""
    chosen = tuple(methods) if methods is not None else ("VDN", "PPO shared") if quick else METHODS
    budget = QUICK if quick else BUDGET
    config = {"prices": list(PRICES), "iterations": 2 if quick else ITERATIONS, "reward_scale": REWARD_SCALE}
    known = [(method, 0) for method in REFERENCES] + [(method, seed) for seed in seeds for method in chosen]
    return [
        Case(method, seed, task="lagrangian", budget=budget, config=config | {"settings": _settings(method)})
        for method, seed in known
    ]


def _settings(method: str) -> dict[str, Any]:
    """The part of :data:`SETTINGS` that may matter to a method, and what one of one's own sets itself: where these
    change, its cases are other ones.
    """
    if method in REFERENCES:
        return {}
    kinds = ("team", "sizes") if method in PRESETS else RLLIB[method][:1] if method in RLLIB else ("team", "PPO", "DQN")
    own = {"own": user_options(method)} if "." in method else {}
    return {kind: SETTINGS[kind] for kind in kinds} | own


# -- a case ---------------------------------------------------------------------------------------------------------
def check(case: Case) -> None:
    """Whether the method learns here.

    Raises:
        InputError: it does not, or there is none of that name.
    """
    if case.method in REFERENCES:
        return
    check_method_name(case.method, "leaderboard", (*METHODS, *KNOWN, "PPO", "DQN"), "an algorithm")
    configuration(case)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """``curve``: greedy return (currency per request), environment steps and seconds of training of each evaluation."""
    if case.method in REFERENCES:
        return {"curve": [{"env_steps": 0, "return": _reference(case), "seconds": 0.0}], "constant": True}
    return _trained(case)


def _environment(case: Case) -> dict[str, Any]:
    return {"scenario": case.scenario, "reward": "lagrangian", "prices": case.config["prices"]}


def _judge(case: Case) -> EveryState:
    """The states that judge."""

    return EveryState.of(get_engine(case.scenario), case.budget["states"])


def _reference(case: Case) -> float:
    judge = _judge(case)
    revenue, costs = judge.table(judge.population.states)
    worth = revenue - costs @ np.asarray(case.config["prices"], np.float32)  # (U, J)
    found = {
        "random": judge.shares @ worth.mean(axis=1),
        "best single action": (judge.shares @ worth).max(),
        "optimum": judge.shares @ worth.max(axis=1),
    }
    return float(found[case.method])


def _trained(case: Case) -> dict[str, Any]:
    from agents.rllib.envs.make_env import make_batched

    config, judge = configuration(case), _judge(case)
    joint = _kind(config) == "team" and config.preset().joint
    env = make_batched(DEFAULT_ENV, len(judge.shares), _environment(case) | {"engine": judge}, joint=joint)
    sizes = {a: (env.observation_sizes[a], env.action_sizes[a]) for a in env.agents}

    def score(algorithm: Any) -> float:
        return float(judge.shares @ play_episodes(env, greedy_policy(algorithm, sizes), env.num_envs, seed=0))

    steps, evaluations = int(case.budget["env_steps"]), int(case.budget["evaluations"])
    curve, numbers = train_with_evaluations(config, steps, score, max(1, int(case.config["iterations"]) // evaluations))
    return {"curve": curve, "gradient_steps": numbers.get("gradient_steps")}


def tables(rows: Sequence[Row]) -> Iterable[Any]:
    """Final returns, and how fast they were reached."""
    from benchmarks.plotting.leaderboard import tables

    return tables(rows, REFERENCES)


def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """Curves against steps and against seconds."""
    from benchmarks.plotting.leaderboard import figures

    return figures(rows, REFERENCES, folder)


# -- settings -------------------------------------------------------------------------------------------------------
def configuration(case: Case) -> Any:
    """The checked configuration of a case's method.

    Raises:
        InputError: an unknown method, or an option that it does not have.
    """
    run, shared = RLLIB.get(case.method, (case.method, False))
    chosen = options(run, case)
    if shared and "minibatch_size" in chosen:  # its one network sees the steps of both agents
        chosen["minibatch_size"] = min(2 * chosen["minibatch_size"], chosen["train_batch_size_per_learner"])
    chosen |= {"share_parameters": True} if shared else {}
    environment = _environment(case)
    if "reward_scale" not in chosen:  # RLlib's have no such option
        environment["reward"] = scaled
    return Trial(run=run, config={**chosen, "env_config": environment}, seed=case.seed).build()


def scaled(outcome: Any, prices: np.ndarray) -> np.ndarray:
    """The Lagrangian reward, in units of :data:`REWARD_SCALE`."""
    return REWARDS["lagrangian"](outcome, prices) / np.float32(REWARD_SCALE)


def options(run: str, case: Case) -> dict[str, Any]:
    """Options of an algorithm: those of its kind, and what follows from the budget.

    An algorithm of one's own keeps its own sizes and whatever else it sets itself, the budget apart.
    """
    from agents.rllib.training.any_algorithm import algorithm_config

    kind = _kind(algorithm_config(run))
    iterations = int(case.config["iterations"])
    steps, updates = (int(case.budget[name]) // iterations for name in ("env_steps", "updates"))
    found = dict(case.config["settings"][kind])
    if kind == "team":
        found |= {"reward_scale": REWARD_SCALE}
        found |= {
            "num_envs_per_env_runner": steps // DECISIONS,
            "updates_per_iteration": updates,
            "epsilon": _epsilon(case),
        }
        if run in KNOWN:
            found |= _sizes(run, case.config["settings"].get("sizes", SETTINGS["sizes"]))
        else:
            own = case.config["settings"]["own"]
            found = {name: value for name, value in found.items() if name not in own}
    elif kind == "PPO":
        rows = steps * (DECISIONS + 1) // DECISIONS  # RLlib adds one to each episode, for the value at its end
        minibatch = max(1, rows * found["num_epochs"] // updates)
        found |= {"train_batch_size_per_learner": steps, "minibatch_size": min(minibatch, steps)}
    elif kind == "DQN":
        intensity = found["train_batch_size_per_learner"] * updates / steps  # steps replayed for each one taken
        found |= {"training_intensity": intensity, "min_sample_timesteps_per_iteration": steps}
        found |= {"epsilon": _epsilon(case)}
    return found


def _kind(config: Any) -> str:
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.algorithms.ppo import PPOConfig

    from agents.rllib.core.team_config import TeamConfig

    for kind, cls in (("team", TeamConfig), ("PPO", PPOConfig), ("DQN", DQNConfig)):
        if isinstance(config, cls):
            return kind
    raise InputError(f"{type(config).__name__}: the leaderboard takes presets, PPO, DQN, and what derives from them")


def _epsilon(case: Case) -> list[list[float]]:
    return [[0, 1.0], [int(EXPLORED * case.budget["env_steps"]), 0.05]]


def _sizes(preset: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    network = KNOWN[preset].network
    found = dict(sizes["recurrent" if network.gru else "feed-forward"])
    found |= sizes["ensemble"] if network.heads > 1 else {}
    return found | (sizes["dropout"] if network.dropout else {})
