"""Offline evaluation: the revenue simulation by hand, on held-out rows, and during a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents.offline.rows import load_rows
from agents.offline.splits import Split
from agents.rllib import CONFIGS
from agents.rllib.training.training import train
from benchmarks.evaluation.offline_evaluation import GroundTruth, OfflineEvaluation
from marca_env.models.cost_model import CostModel
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.paths import ROOT

SPLIT = Split("hash", validation=0.1, test=0.3)


@pytest.fixture(scope="module")
def home(tiny_artefacts: Path, tiny_scenario: Scenario) -> Path:
    """Fitted artefacts with their scenario beside them."""
    tiny_scenario.save(tiny_artefacts / "scenario.yaml")
    return tiny_artefacts


@pytest.fixture(scope="module")
def evaluation(home: Path) -> OfflineEvaluation:
    return OfflineEvaluation.from_log(
        home / "requests.parquet", str(home / "scenario.yaml"), split=SPLIT, requests=300, seed=1
    )


def test_four_steps_by_hand(tiny_scenario: Scenario) -> None:
    values = np.array([[1.0, 3.0], [2.0, 6.0], [0.0, 4.0]])
    truth = GroundTruth("model", np.zeros((3, 4), int), values, np.array([1, 2]))
    assert truth.best.tolist() == [1.0, 6.0, 4.0]
    scored = OfflineEvaluation(tiny_scenario, [truth]).score(lambda states: -values)
    # the worst pairs first: request 2 gets action 0, what is left are 1s
    assert scored["return_model"] == pytest.approx(100 * (3 + 6 + 0) / 11)
    assert scored["spearman_model"] == pytest.approx(-1.0)


def test_requests_and_quotas_are_those_of_held_out_rows(
    evaluation: OfflineEvaluation, home: Path, tiny_requests: pd.DataFrame
) -> None:
    scenario = evaluation.scenario
    test = tiny_requests[SPLIT.mask("test", 0, 0, 0, len(tiny_requests), len(tiny_requests))]
    (truth,) = evaluation.truths
    assert len(truth.states) == 300
    joint = np.ravel_multi_index(test[list(scenario.decision_names)].to_numpy().T, scenario.action_shape)
    share = np.bincount(joint, minlength=36) / len(joint)
    assert truth.quotas.sum() == 300
    assert np.abs(truth.quotas / 300 - share).max() <= 1 / 300
    logged = {tuple(s) for s in test[list(scenario.feature_names)].to_numpy().tolist()}
    assert {tuple(s) for s in truth.states.tolist()} <= logged
    model = RevenueModel.load(home / "revenue_model")
    assert np.array_equal(truth.values, model.table(truth.states))


def test_the_truth_is_best_and_noise_is_worse(evaluation: OfflineEvaluation) -> None:
    (truth,) = evaluation.truths
    assert evaluation.score(lambda states: truth.values) == {"spearman_model": pytest.approx(1), "return_model": 100}
    noise = np.random.default_rng(0).random(truth.values.shape)
    drawn = evaluation.score(lambda states: noise)
    assert abs(drawn["spearman_model"]) < 0.05
    assert drawn["return_model"] < 90
    nowhere = evaluation.score(lambda states: np.full(truth.values.shape, np.nan))
    assert np.isnan(list(nowhere.values())).all()


def test_slices_have_the_errors_of_their_groups(evaluation: OfflineEvaluation) -> None:
    (truth,) = evaluation.truths
    found = evaluation.slices(lambda states: 1.5 * truth.values)
    assert set(found) == {"all", "uv", "w×g", *evaluation.scenario.decision_names}
    for errors in found.values():
        assert errors["pe"] == pytest.approx(0.5, rel=1e-5)
        assert errors["abs_pe"] == pytest.approx(0.5, rel=1e-5)
        assert errors["spearman"] == pytest.approx(1.0)
    with pytest.raises(InputError, match="unknown truth 'cascade'"):
        evaluation.slices(lambda states: truth.values, "cascade")


def test_a_users_scenario_has_no_cascade(evaluation: OfflineEvaluation, home: Path) -> None:
    assert "not of scenario 'tiny'" in evaluation.skipped["cascade"]
    log, scenario = home / "requests.parquet", str(home / "scenario.yaml")
    with pytest.raises(InputError, match="no ground truth: cascade"):
        OfflineEvaluation.from_log(log, scenario, truths=["cascade"])
    with pytest.raises(InputError, match="did you mean 'model'"):
        OfflineEvaluation.from_log(log, scenario, truths=["models"])


@pytest.mark.slow
def test_the_cascade_judges_the_default_preset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With few requests of the real cascade: a value that only knows the truth reaches 100 %, the ensemble less."""
    monkeypatch.setenv("MARCA_CACHE", str(tmp_path))
    shipped = ROOT / "marca_env" / "data" / "default"
    found = OfflineEvaluation.from_log(shipped / "requests.parquet", split=SPLIT, truths=["cascade"], requests=40)
    (truth,) = found.truths
    assert truth.quotas.sum() == len(truth.states) == 40
    assert found.score(lambda states: truth.values)["return_cascade"] == 100
    model = RevenueModel.load(shipped / "revenue_model")
    scored = found.score(model.table)
    assert 0.5 < scored["spearman_cascade"] < 0.95
    assert scored["return_cascade"] < 100
    assert scored["return_cascade"] > found.score(lambda s: -model.table(s))["return_cascade"]


@pytest.mark.slow
def test_a_training_is_evaluated_while_it_runs(evaluation: OfflineEvaluation, home: Path) -> None:
    """r_s and Return% rise from the first iteration to the last and join its numbers; no test row was trained on."""
    config = CONFIGS["VDN"]().offline_data(input_=[str(home / "requests.parquet")]).debugging(seed=0)
    config.training(
        scenario=str(home / "scenario.yaml"),
        split="hash",
        validation_share=0.1,
        test_share=0.3,
        gru=16,
        hidden=[32],
        lr=5e-3,
        train_batch_size_per_learner=256,
        updates_per_iteration=30,
    )
    rows: list[dict[str, Any]] = []
    algorithm, numbers = train(
        config, stop={"training_iteration": 6}, report=rows.append, evaluate=evaluation, evaluate_freq=2
    )
    assert [("return_model" in row) for row in rows] == [False, True, False, True, False, True]
    assert numbers["spearman_model"] > 0.75
    assert numbers["return_model"] > 85
    assert numbers["td_error"] > 0
    assert numbers["grad_norm"] > 0
    scenario = evaluation.scenario
    everything = load_rows(home / "requests.parquet", scenario)
    kept = SPLIT.mask("train", 0, 0, 0, len(everything), len(everything))
    assert np.array_equal(algorithm.buffer.rows, everything[kept])
    assert evaluation.cost_model.scenario == CostModel.load(home / "cost_model").scenario
    algorithm.stop()
