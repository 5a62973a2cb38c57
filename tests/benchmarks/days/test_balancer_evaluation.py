"""Balancers evaluated on the same day: the score, the clairvoyant, every method by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.days.balancer_evaluation import BalancerEvaluation, score
from benchmarks.days.balancers import METHODS
from benchmarks.days.calibration import Calibration
from marca_env.models.engine import Engine
from marca_env.traffic.days import DayScenario
from marca_env.traffic.simulated_system import SystemChanges
from marca_env.traffic.workload import Traffic


@pytest.fixture(scope="module")
def calibration(exact_engine: Engine) -> Calibration:
    return Calibration(exact_engine, requests=40, days=1, epochs=3, tuning=5)


@pytest.fixture(scope="module")
def evaluation(calibration: Calibration) -> BalancerEvaluation:
    rates = np.concatenate([np.full(15, 5.0), np.linspace(10.0, 90.0, 25)])
    day = DayScenario("ramp", Traffic("ramp", rates, first_minute=700), SystemChanges.none(40, 2))
    return BalancerEvaluation(calibration, day, calibration.engine.pool(60, seed=9), seed=3)


def test_the_score_by_hand() -> None:
    minutes = pd.DataFrame(
        {
            "requests": [10, 30], "revenue": [1.0, 2.0],
            "load_a": [1.0, 3.0], "budget_a": [2.0, 2.0], "price_a": [0.0, 4.0], "degradation_a": [0, 0],
            "load_b": [8.0, 6.0], "budget_b": [8.0, 4.0], "price_b": [1.0, 1.0], "degradation_b": [0, 2],
            "dropped_a": [0.0, 0.1], "dropped_b": [0.0, 0.0],
        }
    )  # fmt: skip
    priced = np.array([[False, True], [True, True]])
    scores = score(minutes, ("a", "b"), priced)
    assert scores["mu"] == pytest.approx({"a": 0.75, "b": 1.0, "all": (1 + 2 + 8 + 4) / 16})
    assert scores["nu"] == pytest.approx({"a": 0.25, "b": 0.25, "all": 3 / 16})
    assert scores["priced_mu"] == pytest.approx({"a": 1.0, "b": 1.0, "all": 1.0})
    assert scores["priced_nu"] == pytest.approx({"a": 0.5, "b": 0.25, "all": 3 / 14})
    assert scores["priced_share"] == pytest.approx({"a": 0.5, "b": 1.0, "all": 0.75})
    assert scores["travel"] == pytest.approx((4 / 2 + 0) / 2)
    assert scores["degraded"] == 0.5
    assert scores["lost"] == pytest.approx(0.1 * 30 / 40)
    never = score(minutes, ("a", "b"), np.zeros((2, 2), dtype=bool))
    assert np.isnan(never["priced_mu"]["all"])


def test_the_clairvoyant_is_never_over_the_budget_and_fills_it(evaluation: BalancerEvaluation) -> None:
    minutes, scores = evaluation.run("clairvoyant")
    load, budget = (minutes[[f"{k}_retrieval", f"{k}_ranking"]].to_numpy() for k in ("load", "budget"))
    assert np.all(load <= budget * (1 + 1e-6))
    assert scores["bound_share"] <= 1 + 1e-6
    assert 0 < evaluation.priced.mean() < 1
    assert not evaluation.priced[:10].any()  # a tenth of the peak does not fill the budget
    free, _ = evaluation.run("static")
    for g, name in enumerate(("retrieval", "ranking")):
        assert scores["priced_mu"][name] > 0.9
        idle = ~evaluation.priced[:, g]
        assert np.all(minutes[f"load_{name}"][idle] >= free[f"load_{name}"][idle] - 1e-9)


def test_the_clairvoyant_knows_losses_and_drift(calibration: Calibration) -> None:
    changes = SystemChanges(np.full((30, 2), 0.8), np.full((30, 2), 1.2))
    day = DayScenario("poor", Traffic("flat", np.full(30, 40.0), first_minute=700), changes)
    poor = BalancerEvaluation(calibration, day, calibration.engine.pool(60, seed=9), seed=3)
    minutes, scores = poor.run("clairvoyant")
    assert np.allclose(minutes["budget_ranking"], 0.8 * calibration.scenario.budgets[1])
    assert scores["nu"]["all"] == pytest.approx(0.0, abs=1e-3)
    assert scores["bound_share"] <= 1 + 1e-6
    rich = BalancerEvaluation(
        calibration, DayScenario("rich", day.traffic, SystemChanges.none(30, 2)), poor.pool, seed=3
    )
    assert rich.bound > poor.bound


@pytest.fixture(scope="module")
def short(evaluation: BalancerEvaluation) -> BalancerEvaluation:
    day = DayScenario("short", Traffic("short", np.full(6, 80.0), first_minute=700), SystemChanges.none(6, 2))
    return BalancerEvaluation(evaluation.calibration, day, evaluation.pool, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [m for m in METHODS if m != "clairvoyant"])
def test_every_method_runs_and_repeats_itself(short: BalancerEvaluation, name: str) -> None:
    minutes, scores = short.run(name)
    again, _ = short.run(name)
    pd.testing.assert_frame_equal(minutes, again)
    assert np.isfinite(minutes.to_numpy()).all()
    assert 0 < scores["mu"]["all"] <= 1
    assert set(scores["events"]) <= {"range"}
