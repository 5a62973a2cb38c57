"""Experiment ``marl``: statistics by hand, greedy play of RLlib's modules, an algorithm of a user's, a quick run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments.marl import experiment as marl
from benchmarks.experiments.marl.leaderboard import Leaderboard
from benchmarks.experiments.marl.population_engine import PopulationEngine
from benchmarks.suite.api import Case, Row
from marca_env.envs.batched_env import batched_env
from marca_env.models.engine import Engine
from marca_env.utils.errors import InputError

pytest.importorskip("ray")

from benchmarks.experiments.marl.configuration import leaderboard_config

MINE = """
from torch import nn
from agents.rllib import QMIXConfig


class Attention(nn.Module):
    def __init__(self, n_agents, condition_size):
        super().__init__()
        self.score = nn.Linear(condition_size, n_agents)

    def forward(self, utilities, condition):
        return (self.score(condition).softmax(-1) * utilities).sum(-1)


class MyQMIX(QMIXConfig):
    defaults = {"mixer": Attention, "lr": 5e-4, "gru": None}
"""


def row(method: str, seed: int, returns: list[float]) -> Row:
    curve = [{"env_steps": 100 * (k + 1), "return": r, "seconds": float(k)} for k, r in enumerate(returns)]
    return Row(Case(method, seed), {"curve": curve}, 1.0)


def test_statistics_of_the_leaderboard_equal_values_by_hand() -> None:
    rows = [row("random", 0, [1.0]), row("optimum", 0, [3.0])]
    rows += [row("QMIX", 0, [1.0, 1.5, 2.0]), row("QMIX", 1, [1.0, 1.5, 2.0])]
    rows += [row("VDN", 0, [1.0, 2.0, 2.0]), row("VDN", 1, [1.0, 2.5, 2.5])]
    board = Leaderboard(rows, marl.REFERENCES)
    assert board.learners == ["QMIX", "VDN"]
    assert board.score(board.finals("VDN")).tolist() == [0.5, 0.75]
    assert board.improvement("VDN") == 0.75  # one run ties with both of QMIX, the other beats both
    assert board.improvement("QMIX") == 0.5
    assert board.area("QMIX") == pytest.approx(0.25)
    assert board.arrival("VDN") == (200.0, 1.0)
    assert board.arrival("QMIX") == (300.0, 2.0)


def test_scores_need_references() -> None:
    (table,) = marl.tables([row("VDN", 0, [1.0, 2.0, 2.0]), row("VDN", 1, [1.0, 2.5, 2.5])])
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells == ["VDN", "2250.00", "[2000.00, 2500.00]", *["–"] * 6, "2.0"]


def test_references_are_in_order_and_the_optimum_is_exact() -> None:
    cases = {c.method: c for c in marl.cases(quick=True, seeds=(0,), methods=())}
    found = {name: marl.measure(case, Path())["curve"][0]["return"] for name, case in cases.items()}
    assert found["random"] < found["best single action"] < found["optimum"]
    judge = PopulationEngine.from_engine(Engine.load(), cases["optimum"].budget["states"])
    env = batched_env(len(judge.shares), engine=judge, reward="lagrangian", prices=marl.PRICES, on_illegal="error")
    joint = env.scenario.joint_actions
    best = np.full(env.num_envs, -np.inf)
    for action in joint[:: len(joint) // 50]:  # played, not looked up
        step = env.reset(seed=0)
        for turn, option in enumerate(action):
            owner = env.agent_on_turn
            wait = {a: np.full(env.num_envs, env.action_sizes[a] - 1) for a in env.agents}
            legal = np.flatnonzero(step.masks[owner][0])
            step = env.step(wait | {owner: np.full(env.num_envs, legal[option])})
            assert turn < env.max_steps
        best = np.maximum(best, step.reward)
    assert found["random"] < judge.shares @ best <= found["optimum"] + 1e-6


def test_every_state_is_served_once_and_weighted_by_its_requests() -> None:
    judge = PopulationEngine.from_engine(Engine.load(), 50)
    rng = np.random.default_rng(0)
    assert (judge.sample_states(rng, 50) == Engine.load().population.states[:50]).all()
    assert judge.shares.sum() == pytest.approx(1.0)
    assert judge.shares[3] / judge.shares[4] == judge.population.counts[3] / judge.population.counts[4]
    with pytest.raises(InputError, match="50 states"):
        judge.sample_states(rng, 49)


@pytest.mark.slow
def test_quick_run_with_an_algorithm_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_module.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    methods = ("VDN", "JointDQN", "PPO shared", "PPO independent", "DQN independent", "their_module.MyQMIX")
    cases = marl.cases(quick=True, seeds=(0,), methods=methods)
    assert len({case.key for case in cases}) == len(cases) == 9
    rows = [Row(case, json.loads(json.dumps(marl.measure(case, tmp_path))), 0.0) for case in cases]
    for measured in rows[3:]:
        curve = measured.numbers["curve"]
        assert [point["env_steps"] for point in curve] == [100, 200]
        assert all(point["return"] <= rows[2].numbers["curve"][0]["return"] for point in curve)
    (table,) = marl.tables(rows)
    assert "their_module.MyQMIX" in list(table.columns[0].cells)
    figures = marl.figures(rows, tmp_path / "figures")
    assert [path.name for path in figures.values() if path.is_file()] == ["curves.png", "profiles.png"]
    assert len(marl.figures(rows[1:], tmp_path / "figures")) == 1  # no score without a random policy
    assert not list(marl.tables([]))
    assert marl.figures([], tmp_path) == {}


def test_a_users_algorithm_keeps_its_options_and_shares_the_budget() -> None:
    own, qmix = marl.cases(quick=True, seeds=(0,), methods=("agents.rllib.AWRQMixerConfig", "QMIX"))[3:]
    mine, theirs = leaderboard_config(own), leaderboard_config(qmix)
    assert mine.preset().network.gru == 256  # an algorithm of one's own keeps its sizes
    assert theirs.preset().network.gru == 64
    assert mine.updates_per_iteration == theirs.updates_per_iteration
    with pytest.raises(InputError, match="SAC"):
        leaderboard_config(marl.cases(quick=True, seeds=(0,), methods=("SAC",))[3])


@pytest.mark.slow
def test_greedy_play_of_rllib_equals_that_of_its_checkpoint(tmp_path: Path) -> None:
    """The requests are the same: one after the other in RLlib's runner, side by side here."""
    from agents.rllib.training.evaluation import CheckpointPlayer
    from agents.rllib.training.training import train
    from benchmarks.training.greedy_rollout import greedy_policy, play_episodes

    for case in marl.cases(quick=True, seeds=(0,), methods=("PPO shared", "PPO independent"))[3:]:
        folder = tmp_path / case.method
        algorithm, _ = train(leaderboard_config(case), stop={"env_steps": 100}, out=folder)
        env = batched_env(20, reward="lagrangian", prices=marl.PRICES, on_illegal="error")
        sizes = {a: (env.observation_sizes[a], env.action_sizes[a]) for a in env.agents}
        returns = play_episodes(env, greedy_policy(algorithm, sizes), 20, seed=5)
        algorithm.stop()
        found = CheckpointPlayer(folder, seed=5).play(20).returns * marl.REWARD_SCALE  # it learns from scaled rewards
        assert sorted(found) == pytest.approx(sorted(returns), abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["PPO independent", "PPO shared", "DQN independent"])
def test_rllibs_algorithms_take_as_many_gradient_steps_as_the_presets(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.rllib.core.learner.torch.torch_learner import TorchLearner

    steps, taken = TorchLearner.apply_gradients, []

    def counted(self, *args, **kwargs):
        taken.append(1)
        return steps(self, *args, **kwargs)

    monkeypatch.setattr(TorchLearner, "apply_gradients", counted)
    (case,) = marl.cases(quick=False, seeds=(0,), methods=(method,))[3:]
    small = {"env_steps": 1000, "updates": 50, "evaluations": 1, "states": 50}
    curve = marl.measure(dataclasses.replace(case, budget=small, config=case.config | {"iterations": 2}), tmp_path)
    assert len(taken) == 50
    assert curve["curve"][-1]["env_steps"] == 1000
