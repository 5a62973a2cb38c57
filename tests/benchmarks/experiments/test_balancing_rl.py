"""Experiment ``balancing_rl``: the adapted environment, days judged alike for all, a run of PPO from end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from benchmarks.experiments.balancing_rl import experiment as balancing_rl
from benchmarks.experiments.balancing_rl.judged_days import judge_day
from benchmarks.experiments.balancing_rl.priced_day import REACH, PricedDay
from benchmarks.experiments.balancing_rl.tuned_balancers import BALANCERS, tune
from benchmarks.suite.api import Row
from marca_env.utils.errors import InputError
from mpc import StaticBalancer
from tests.helpers.small_system import make_pool


@pytest.fixture(scope="module")
def day():
    return PricedDay({"pool": make_pool(per_window=10), "minutes": 30})


def test_the_day_passes_the_checks_of_environments(day):
    check_env(day, skip_render_check=True)


def test_actions_move_log_prices_and_zero_leaves_them(day):
    day.reset(seed=1)
    paid = [day.step(move)[4]["prices"] for move in ([1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [-9.0, 1.0])]
    logs = np.log1p(np.array(paid) / (1e-3 * day.base.price_max))
    steps = np.diff(np.vstack([np.zeros(2), logs]), axis=0)
    assert steps == pytest.approx(REACH * np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [-1.0, 1.0]]), abs=1e-5)
    assert day.step([-1.0, -1.0])[4]["prices"] == pytest.approx(0.0, abs=1e-9)  # 0.5 up, 0.5 down; never negative


def test_observations_are_of_size_one_and_hold_the_load(day):
    observation, _ = day.reset(seed=1)
    assert observation[:2] == pytest.approx(0.0)  # a system on its budget
    assert observation[6:8] == pytest.approx(-1.0)  # free computation
    for _ in range(20):
        observation, *_, info = day.step(day.action_space.sample())
        assert day.observation_space.contains(observation)
        off = np.clip((info["load"] / day.base.scenario.budgets - 1) / 0.2, -5, 5)
        assert observation[:2] == pytest.approx(off, abs=1e-5)


def test_a_balancer_and_a_policy_meet_the_same_day(day):
    free = judge_day(day, 7, StaticBalancer([0.0, 0.0]))
    idle = judge_day(day, 7, lambda observation: np.zeros(2))
    assert free == idle
    assert judge_day(day, 8, StaticBalancer([0.0, 0.0]))["return"] != free["return"]
    expensive = judge_day(day, 7, StaticBalancer(day.base.price_max))
    assert np.all(np.array(expensive["utilisation"]) < free["utilisation"])
    assert expensive["revenue"] < free["revenue"]


def test_seeds_of_judged_days_are_refused_for_training():
    with pytest.raises(InputError, match="seed of a test day"):
        balancing_rl.cases(quick=False, seeds=(balancing_rl.DAYS[0],))


def test_balancers_are_tuned_on_another_day_than_those_judged():
    for quick in (False, True):
        cases = {case.method: case for case in balancing_rl.cases(quick=quick, seeds=(0,))}
        tuned = {name: case.config.get("tuned") for name, case in cases.items()}
        assert [name for name in cases if tuned[name]] == ["feedback", "MPC"]
        for name in BALANCERS:
            assert tuned[name]["day"] not in cases[name].config["days"]
            assert all(len(candidate) == len(tuned[name]["settings"]) for candidate in tuned[name]["grid"])
            assert len(tuned[name]["grid"]) > 1


def test_tuning_chooses_the_settings_with_the_highest_return(day):
    prices = {margin: StaticBalancer(margin * day.base.price_max) for margin in (0.0, 0.02, 0.1, 1.0)}
    returns = {margin: judge_day(day, 7, balancer)["return"] for margin, balancer in prices.items()}
    found = tune(lambda margin: prices[margin], day, 7, ["margin"], [[margin] for margin in prices])
    assert found == ({"margin": max(returns, key=returns.get)}, max(returns.values()))
    assert len(set(returns.values())) == len(prices)


def test_ppo_trains_and_is_judged(day, monkeypatch):
    pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")
    from benchmarks.experiments.balancing_rl import rl_price_control

    small = {
        **rl_price_control.SETTINGS["PPO"],
        "train_batch_size_per_learner": 60,
        "minibatch_size": 30,
        "num_epochs": 1,
    }
    monkeypatch.setitem(rl_price_control.SETTINGS, "PPO", small)
    found = rl_price_control.train_price_control(
        "PPO",
        0,
        60,
        judge=lambda act: judge_day(day, 7, act)["return"],
        pool=make_pool(per_window=10),
        minutes=30,
    )
    assert found["curve"][-1]["env_steps"] == 60
    assert np.isfinite(found["curve"][-1]["return"])
    assert np.isfinite(found["days"])
    assert found["cpu_seconds"] > 0


@pytest.mark.slow
def test_quick_run_judges_all_methods_on_the_same_days(tmp_path):
    pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")
    cases = {case.method: case for case in balancing_rl.cases(quick=True, seeds=(0,))}
    rows = [Row(case, json.loads(json.dumps(balancing_rl.measure(case, tmp_path))), 1.0) for case in cases.values()]
    assert list(cases) == ["feedback", "MPC", "PPO", "SAC"]
    assert all([day["seed"] for day in row.numbers["days"]] == [balancing_rl.DAYS[0]] for row in rows)
    for row in rows[:2]:
        assert list(row.numbers["tuned"].values()) in row.case.config["tuned"]["grid"]
    (table,) = balancing_rl.tables(rows)
    assert "feedback and MPC tuned" in table.title
    assert list(table.columns[0].cells) == list(cases)
    assert list(table.columns[1].cells) == ["", "", "240", "240"]
    assert all(path.stat().st_size > 5_000 for path in balancing_rl.figures(rows, tmp_path).values())
    assert balancing_rl.figures(rows[:2], tmp_path) == {}
    assert not list(balancing_rl.tables([]))
