"""Training of a learner of the leaderboard, with greedy evaluations on the whole population."""

from __future__ import annotations

from typing import Any

from agents.rllib.envs.make_env import make_batched
from benchmarks.experiments.marl.configuration import environment_options, kind_of, leaderboard_config
from benchmarks.experiments.marl.population_engine import PopulationEngine
from benchmarks.suite.api import Case
from benchmarks.training.greedy_rollout import greedy_policy, play_episodes, train_with_evaluations
from benchmarks.training.trials import DEFAULT_ENV


def train_learner(case: Case, judge: PopulationEngine) -> dict[str, Any]:
    """Train a case's method.

    Args:
        case: names the method, its settings and its budget.
        judge: serves the states on which the greedy policy is evaluated.

    Returns:
        ``curve``: return (currency per request), environment steps and seconds of each evaluation; ``gradient_steps``.
    """
    config = leaderboard_config(case)
    joint = kind_of(config) == "team" and config.preset().joint
    env = make_batched(DEFAULT_ENV, len(judge.shares), environment_options(case) | {"engine": judge}, joint=joint)
    sizes = {a: (env.observation_sizes[a], env.action_sizes[a]) for a in env.agents}

    def score(algorithm: Any) -> float:
        return float(judge.shares @ play_episodes(env, greedy_policy(algorithm, sizes), env.num_envs, seed=0))

    steps, evaluations = int(case.budget["env_steps"]), int(case.budget["evaluations"])
    curve, numbers = train_with_evaluations(config, steps, score, max(1, int(case.config["iterations"]) // evaluations))
    return {"curve": curve, "gradient_steps": numbers.get("gradient_steps")}
