"""Tasks of the suite as the experiment plays them: the environment to learn in, and the judge of greedy policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from agents.rllib.envs.make_env import make_batched
from agents.tasks.registry import SUITE, available_suite
from benchmarks.experiments.marl.population_engine import PopulationEngine
from benchmarks.training.greedy_rollout import greedy_policy, play_episodes
from marca_env.models.engine import Engine, get_engine
from marca_env.models.population import Population
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, unknown_option

MOST_STATES = 5_000
"""Largest population that is judged whole; of a larger one a fixed draw of as many requests is."""
WINDOWS = 500
"""Windows in which a policy is judged."""
JUDGE_SEED = 1_000_000
"""Seed of the windows, and of the draw from a large population: the same for all methods."""
TUNING_JUDGE_SEED = 2_000_000
"""The same for the trials of a search, whose options must not be chosen by what is reported."""


def check_task(task: str) -> None:
    """Refuse a task that does not exist.

    Raises:
        InputError: an unknown name, or a task of the suite that this version does not have.
    """
    if task not in SUITE:
        raise InputError(unknown_option("task of the suite", task, SUITE))
    if task not in available_suite():
        raise InputError(f"task {task} is not in this version; leave it out")


@dataclass(frozen=True)
class TaskGame:
    """A task of the suite, and how much of it is judged."""

    task: str
    most: int | None = None
    """Most requests, or windows, that are judged; ``None``: :data:`MOST_STATES` or :data:`WINDOWS`."""
    of_trial: bool = False
    """Whether trials of a search are judged: in other windows, and never on held-out requests."""

    @cached_property
    def options(self) -> dict[str, Any]:
        """Options of the environment, with prices."""
        return {"prices": tuple(self.scenario.prices), **SUITE[self.task].options}

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario."""
        return Scenario.load(SUITE[self.task].options["scenario"])

    @property
    def is_window(self) -> bool:
        """Whether an episode is a window of several requests."""
        return self.scenario.window is not None

    @property
    def has_equal_agents(self) -> bool:
        """Whether all agents have the same spaces, so that they can share a network."""
        return self.scenario.agent_kind == "site"

    @property
    def is_heldout(self) -> bool:
        """Whether the judge has requests that no learner sees."""
        return not (self.is_window or self.of_trial) and self._engine.heldout is not None

    @property
    def judge_seed(self) -> int:
        """Seed of what is judged."""
        return TUNING_JUDGE_SEED if self.of_trial else JUDGE_SEED

    @property
    def requests(self) -> int:
        """Requests of an episode, by which returns are divided."""
        return 1 if self.scenario.window is None else self.scenario.window.requests

    @cached_property
    def _engine(self) -> Engine:
        return get_engine(self.options["scenario"])

    @cached_property
    def judge(self) -> PopulationEngine:
        """Engine that serves the requests on which policies of a single request are judged."""
        engine = self._engine
        population = engine.heldout if self.is_heldout else engine.population
        assert population is not None
        count = MOST_STATES if self.most is None else self.most
        if len(population.states) > count and self.most is None:
            shares = population.counts / population.counts.sum()
            rows = np.random.default_rng(self.judge_seed).choice(len(shares), count, p=shares)
            kept, counts = np.unique(rows, return_counts=True)
            population = Population(population.states[kept], counts.astype(float))
        return PopulationEngine.of_population(engine, population, count)

    def episode_steps(self, *, joint: bool = False) -> int:
        """Return the steps of an episode, for a team or for a joint controller (where it takes each decision alone)."""
        return int(make_batched(self.task, 1, self.options, joint=joint).max_steps)

    def judge_env(self, *, joint: bool = False) -> Any:
        """Return a batched environment that plays what is judged."""
        if self.is_window:
            return make_batched(self.task, self.most or WINDOWS, self.options, joint=joint)
        options = {**self.options, "engine": self.judge}
        return make_batched(self.task, len(self.judge.shares), options, joint=joint)

    def mean(self, returns: np.ndarray) -> float:
        """Return the mean return of a request from the returns of all judged episodes."""
        if self.is_window:  # all windows have as many requests
            return float(returns.mean() / self.requests)
        return float(self.judge.shares @ returns)

    def scorer(self, *, joint: bool) -> Any:
        """Return a function of an algorithm in training → greedy return, currency per request."""
        env = self.judge_env(joint=joint)
        sizes: Mapping[str, tuple[int, int]] = {a: (env.observation_sizes[a], env.action_sizes[a]) for a in env.agents}

        def score(algorithm: Any) -> float:
            policy = greedy_policy(algorithm, dict(sizes))
            return self.mean(play_episodes(env, policy, env.num_envs, seed=self.judge_seed))

        return score
