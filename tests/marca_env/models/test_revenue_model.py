from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import ExactLaw, make_requests


@pytest.fixture(scope="module")
def model(tiny_scenario: Scenario) -> RevenueModel:
    return RevenueModel.fit(tiny_scenario, make_requests(tiny_scenario, 20_000), members=3, seed=3)


def every_pair(scenario: Scenario) -> tuple[np.ndarray, np.ndarray]:
    states = np.indices(scenario.feature_sizes).reshape(4, -1).T
    return np.repeat(states, 36, axis=0), np.tile(scenario.joint_actions, (len(states), 1))


def test_fit_finds_the_mean_behind_sparse_revenue(
    model: RevenueModel, tiny_scenario: Scenario, exact_law: ExactLaw
) -> None:
    """Most rows of the log have no revenue; the fit must still order all pairs as the law does."""
    states, actions = every_pair(tiny_scenario)
    true, predicted = exact_law.predict(states, actions), model.predict(states, actions)
    assert spearmanr(true, predicted).statistic > 0.93
    assert abs(predicted.mean() / true.mean() - 1) < 0.1
    assert np.abs(predicted - true).mean() < 0.35 * np.abs(true - true.mean()).mean()


def test_fit_works_without_clicks(tiny_scenario: Scenario, exact_law: ExactLaw) -> None:
    log = make_requests(tiny_scenario, 10_000).drop(columns=["clicks", "impressions", "gmv"])
    states, actions = every_pair(tiny_scenario)
    predicted = RevenueModel.fit(tiny_scenario, log, members=2).predict(states, actions)
    assert spearmanr(exact_law.predict(states, actions), predicted).statistic > 0.85


def test_prediction_is_the_mean_of_different_members(model: RevenueModel, tiny_scenario: Scenario) -> None:
    states, actions = every_pair(tiny_scenario)
    members = model.predict_members(states, actions)
    assert members.shape == (3, len(states))
    assert (members > 0).all()
    assert (members.std(axis=0) > 0).all()
    np.testing.assert_allclose(model.predict(states, actions), members.mean(axis=0), rtol=1e-6)


def test_table_holds_every_joint_action(model: RevenueModel, tiny_scenario: Scenario) -> None:
    states, actions = every_pair(tiny_scenario)
    table = model.table(states[::36])
    assert table.shape == (48, 36)
    np.testing.assert_allclose(table.ravel(), model.predict(states, actions), rtol=1e-3)


def test_loaded_model_equals_the_saved_one(model: RevenueModel, tiny_scenario: Scenario, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = RevenueModel.load(tmp_path)
    assert again.members == 3
    states, actions = every_pair(tiny_scenario)
    np.testing.assert_array_equal(again.predict(states, actions), model.predict(states, actions))


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_truncated_file_is_named_in_the_error(name: str, model: RevenueModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name):
        RevenueModel.load(tmp_path)


def test_seed_decides(tiny_scenario: Scenario, tiny_requests: pd.DataFrame) -> None:
    states, actions = every_pair(tiny_scenario)
    fits = [RevenueModel.fit(tiny_scenario, tiny_requests, members=2, epochs=2, seed=s) for s in (1, 1, 2)]
    first, same, other = (m.predict(states, actions) for m in fits)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_progress_is_reported(tiny_scenario: Scenario, tiny_requests: pd.DataFrame) -> None:
    reports: list[tuple[int, int]] = []
    RevenueModel.fit(tiny_scenario, tiny_requests, members=1, epochs=3, progress=lambda *x: reports.append(x))
    assert reports[-1] == (len(reports), len(reports))


def test_log_without_revenue_raises(tiny_scenario: Scenario, tiny_requests: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="'revenue' is zero"):
        RevenueModel.fit(tiny_scenario, tiny_requests.assign(revenue=0.0))
    with pytest.raises(InputError, match="'revenue' is missing"):
        RevenueModel.fit(tiny_scenario, tiny_requests.drop(columns="revenue"))


def test_ensemble_without_members_raises(tiny_scenario: Scenario, tiny_requests: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="members is 0"):
        RevenueModel.fit(tiny_scenario, tiny_requests, members=0)
