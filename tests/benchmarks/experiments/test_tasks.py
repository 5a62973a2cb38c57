"""Experiment ``tasks``: cases, references, scores and tables by hand, the search's points, and a quick run."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.tasks.registry import SUITE, available_suite, find_task
from benchmarks.experiments.tasks import experiment as tasks
from benchmarks.experiments.tasks.references import reference_return, reward_table
from benchmarks.experiments.tasks.scores import TaskScores
from benchmarks.experiments.tasks.settings import METHODS, REFERENCES
from benchmarks.experiments.tasks.task_games import TaskGame
from benchmarks.suite import records, runner
from benchmarks.suite.api import Case, Row
from marca_env.utils.errors import InputError
from marca_env.utils.files import write_json

pytest.importorskip("ray")

from benchmarks.experiments.tasks.configuration import Budget, learner_config, random_scale
from benchmarks.experiments.tasks.search import points, tuned_options

MINE = """
from agents.rllib import QMIXConfig


class Mine(QMIXConfig):
    defaults = {"lr": 5e-4, "gru": None}
"""


def row(method: str, seed: int, final: float, task: str = "one", **numbers: Any) -> Row:
    curve = [{"env_steps": 100, "return": final / 2, "seconds": 1.0}, {"env_steps": 200, "return": final, "seconds": 2}]
    found = {"curve": curve, "tuned": {"lr": 1e-3}, "trials": [{"cpu_seconds": 3.0}], **numbers}
    return Row(Case(method, seed, task=task), found, 1.0)


def by_hand() -> list[Row]:
    """Return two tasks with references and two methods; the static action is at 1, the joint bound at 3."""
    rows = []
    for task in ("one", "two"):
        rows += [row("random", 0, 0.0, task), row("static", 0, 1.0, task), row("joint", 0, 3.0, task)]
        for seed, (vdn, qmix) in enumerate([(1.0, 2.0), (1.5, 2.5), (2.0, 3.0)]):
            rows += [row("VDN", seed, vdn, task), row("QMIX", seed, qmix, task)]
    return rows


def cells(table: Any) -> dict[str, list[str]]:
    """Return the rows of a table by their first cell."""
    return {name: list(rest) for name, *rest in zip(*(column.cells for column in table.columns), strict=True)}


def test_the_suite_is_found_by_its_ids() -> None:
    assert set(available_suite()) <= set(SUITE)
    assert "default-v0" in available_suite()
    for name in available_suite():
        assert find_task(name) is SUITE[name]
    with pytest.raises(InputError, match="did you mean 'deadline-v0'"):
        tasks.cases(quick=True, seeds=(0,), tasks=("deadline",))


def test_cases_have_keys_of_their_own_and_share_the_budget() -> None:
    cases = tasks.cases(quick=False, seeds=(0, 1), tasks=("default-v0",))
    assert len({case.key for case in cases}) == len(cases) == len(REFERENCES) + 2 * len(METHODS)
    assert len({json.dumps(case.budget) for case in cases if case.method not in REFERENCES}) == 1


def test_searches_are_not_judged_on_what_is_reported() -> None:
    judged, searched = TaskGame("llm-cascade-v0"), TaskGame("llm-cascade-v0", of_trial=True)
    rows = [set(game.judge.population.states[:, -1].tolist()) for game in (judged, searched)]
    assert len(rows[0]) == 500
    assert not rows[0] & rows[1]
    assert TaskGame("congestion-v0").judge_seed != TaskGame("congestion-v0", of_trial=True).judge_seed


def test_scores_and_tables_equal_values_by_hand() -> None:
    found = TaskScores(by_hand())
    assert found.scores("one", "VDN").tolist() == [0.0, 0.25, 0.5]
    assert found.table("QMIX").tolist() == [[0.5, 0.5], [0.75, 0.75], [1.0, 1.0]]
    by_task, aggregate, separation, returns, searches = tasks.tables(by_hand())
    assert list(cells(by_task)) == ["QMIX", "VDN", "(random)"]
    assert cells(by_task)["(random)"] == ["-0.500", "-0.500"]
    assert cells(aggregate)["QMIX"][0] == "0.750"
    assert cells(aggregate)["VDN"][4].startswith("0.06")  # of nine pairs one is a tie
    assert cells(separation)["one"][:3] == ["QMIX 0.750", "VDN 0.250", "no"]
    assert cells(separation)["one"][3].startswith("0.94")
    assert cells(returns)["QMIX"] == ["2500.00", "2500.00"]
    assert cells(searches)["VDN"] == ["lr=0.001 (3 s)"] * 2


def test_a_task_without_a_bound_is_named_and_scored_by_the_best_method() -> None:
    rows = [r for r in by_hand() if not (r.case.method == "joint" and r.case.task == "two")]
    rows.append(Row(Case("joint", 0, task="two"), {"curve": [{"return": None}], "how": "no card"}, 1.0))
    found = TaskScores(rows)
    assert found.without_bound == ["two"]
    assert found.scores("two", "QMIX").mean() == pytest.approx(1.0)
    table = next(iter(tasks.tables(rows)))
    assert "1 is the best method: two" in str(table.caption)


def test_methods_that_are_all_below_the_static_action_keep_their_order() -> None:
    rows = [row("random", 0, 0.0), row("static", 0, 5.0), row("VDN", 0, 1.0), row("QMIX", 0, 2.0)]
    found = TaskScores(rows)
    assert found.scores("one", "VDN")[0] < found.scores("one", "QMIX")[0] < 0


def test_a_run_that_has_diverged_counts_as_the_random_policy() -> None:
    found = TaskScores([*by_hand(), row("IQL", 0, float("nan"))])
    assert found.scores("one", "IQL").tolist() == [-0.5]
    assert found.complete() == ["VDN", "QMIX"]


def test_figures_are_drawn(tmp_path: Path) -> None:
    drawn = tasks.figures(by_hand(), tmp_path)
    assert [path.name for path in drawn.values() if path.is_file()] == ["curves.png", "profiles.png"]
    assert tasks.figures([], tmp_path) == {}
    assert not list(tasks.tables([]))


def test_references_are_in_order_and_play_agrees_with_the_table() -> None:
    """A static action that is played in the environment earns what the table says."""
    game = TaskGame("default-v0", most=20)
    found = {name: reference_return(game, name).value for name in REFERENCES}
    assert found["random"] < found["static"] < found["joint"]
    rewards, env = reward_table(game), game.judge_env()
    rng, actions = np.random.default_rng(0), game.scenario.joint_actions
    for row_of_action in rng.integers(len(actions), size=3):
        step = env.reset(seed=0)
        for option in actions[row_of_action]:
            wait = {a: np.full(env.num_envs, env.action_sizes[a] - 1) for a in env.agents}
            step = env.step(wait | {env.agent_on_turn: np.full(env.num_envs, option)})
        np.testing.assert_allclose(step.reward, rewards[:, row_of_action], atol=1e-6)


def test_where_something_is_hidden_the_bound_is_that_of_the_card() -> None:
    """A request's own best action would be hindsight: no learner observes the request."""
    game = TaskGame("handover-v0")
    static, joint = (reference_return(game, name) for name in ("static", "joint"))
    assert joint.how.startswith("card")
    assert static.value < joint.value < game.judge.shares @ reward_table(game).max(axis=1)


def test_the_first_trial_has_the_settings_and_the_others_lie_in_the_space() -> None:
    space: Mapping[str, Any] = {"lr": {"loguniform": [1e-4, 1e-2]}, "gamma": {"choice": [0.9, 1.0]}}
    drawn = points(space, {"lr": 2e-3, "gamma": 1.0, "tau": 0.02}, 4)
    assert drawn[0] == {"lr": 2e-3, "gamma": 1.0}
    assert drawn == points(space, {"lr": 2e-3, "gamma": 1.0}, 4)
    assert len({json.dumps(p) for p in drawn}) == 4
    assert all(1e-4 <= p["lr"] <= 1e-2 and p["gamma"] in (0.9, 1.0) for p in drawn)


def test_every_kind_has_the_budget_of_its_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_tasks.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    methods = ("QMIX", "JointDQN", "MAPPO", "PPO", "DQN", "their_tasks.Mine")
    cases = {c.method: c for c in tasks.cases(quick=False, seeds=(0,), methods=methods, tasks=("default-v0",))}
    game = TaskGame("default-v0")
    made = {m: learner_config(cases[m], game, Budget.from_case(cases[m]), {"lr": 1e-3}, 0) for m in methods}
    for name in ("QMIX", "JointDQN", "their_tasks.Mine"):
        assert made[name].num_envs_per_env_runner == 200
        assert made[name].updates_per_iteration == 25
    assert made["QMIX"].lr == 1e-3
    assert made["their_tasks.Mine"].lr == 5e-4  # it sets this itself
    updates = made["MAPPO"].num_epochs * made["MAPPO"].num_envs_per_env_runner
    assert updates / made["MAPPO"].train_batch_size_per_learner == 25
    assert made["PPO"].minibatch_size == 240
    assert made["DQN"].training_intensity == 128 * 1000 / 40_000
    assert random_scale(game) > 0
    with pytest.raises(InputError, match="method of the leaderboard"):
        tasks.check(tasks.cases(quick=True, seeds=(0,), methods=("QMX",), tasks=("default-v0",))[-1])
    with pytest.raises(InputError, match="tasks takes presets"):
        tasks.check(tasks.cases(quick=True, seeds=(0,), methods=("ray.rllib.algorithms.sac.SAC",))[-1])


def test_a_search_that_was_made_is_not_made_again(tmp_path: Path) -> None:
    case = tasks.cases(quick=True, seeds=(0, 1), methods=("VDN",), tasks=("default-v0",))[-1]
    (tmp_path / "tuning").mkdir()
    other = next(c for c in tasks.cases(quick=True, seeds=(100,), methods=("VDN",), tasks=("default-v0",))[3:])
    write_json(tmp_path / "tuning" / f"{other.key}.json", {"tuned": {"lr": 1e-3}, "trials": []})
    assert tuned_options(case, tmp_path) == {"tuned": {"lr": 1e-3}, "trials": [], "is_new": False}


def test_two_processes_measure_each_case_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = runner.plan_run("tasks", tmp_path, quick=True, seeds=(0,), methods=("VDN",), tasks=("default-v0",))
    assert plan.side_by_side
    counts: dict[str, int] = {}

    def count(_name: str, case: Case, _folder: Path, quick: bool) -> Row:
        counts[case.key] = counts.get(case.key, 0) + 1
        return records.new_row(case, {"curve": []}, 0.0, 0.0, quick=quick)

    monkeypatch.setattr(runner, "measure_case", count)
    others = [threading.Thread(target=runner.run_here, args=(plan,)) for _ in range(2)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert counts == {case.key: 1 for case in plan.cases}
    assert len(records.read(plan.folder)) == len(plan.cases)


@pytest.mark.slow
def test_quick_run(tmp_path: Path) -> None:
    plan = runner.plan_run("tasks", tmp_path, quick=True, seeds=(0,), methods=("MAPPO",), tasks=("default-v0",))
    assert runner.run_here(plan) == []
    rows = records.read(plan.folder)
    (measured,) = rows[len(REFERENCES) :]
    assert [point["env_steps"] for point in measured.numbers["curve"]] == [200, 400]
    assert len(measured.numbers["trials"]) == 2
    assert len(list(tasks.tables(rows))) == 4  # an aggregate needs two methods
