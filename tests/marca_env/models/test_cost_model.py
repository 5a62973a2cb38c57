from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from marca_env.models.cost_model import CostModel
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import ExactLaw, make_cost_log, make_requests


@pytest.fixture(scope="module")
def model(tiny_scenario: Scenario) -> CostModel:
    return CostModel.fit(tiny_scenario, make_requests(tiny_scenario, 8000), make_cost_log(tiny_scenario), epochs=20)


def unseen(scenario: Scenario, n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(99)
    return rng.integers(0, scenario.feature_sizes, (n, 4)), rng.integers(0, scenario.action_shape, (n, 4))


@pytest.mark.slow
def test_fit_learns_the_candidates_of_each_stage(
    model: CostModel, tiny_scenario: Scenario, exact_law: ExactLaw
) -> None:
    states, actions = unseen(tiny_scenario)
    true, predicted = exact_law.results(states, actions), model.results(states, actions)
    constant = np.abs(true - true.mean(axis=0)).mean(axis=0)
    assert predicted.shape == (1000, 3)
    assert predicted.dtype == np.float32
    assert (np.abs(predicted - true).mean(axis=0) < 0.1 * constant).all()


def test_cost_is_the_cost_map_of_the_results(model: CostModel, tiny_scenario: Scenario, exact_law: ExactLaw) -> None:
    states, actions = unseen(tiny_scenario)
    cost = model.predict(states, actions)
    np.testing.assert_array_equal(cost, model.cost_map.cost(actions, model.results(states, actions)))
    np.testing.assert_allclose(cost, exact_law.cost(actions, exact_law.results(states, actions)), rtol=0.15)


def test_table_holds_every_joint_action(model: CostModel, tiny_scenario: Scenario) -> None:
    states, joint = unseen(tiny_scenario, 3)[0], tiny_scenario.joint_actions
    results, cost = model.table(states)
    assert results.shape == (3, 36, 3)
    for k in range(3):
        repeated = np.repeat(states[k : k + 1], 36, axis=0)
        np.testing.assert_allclose(results[k], model.results(repeated, joint), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(cost[k], model.predict(repeated, joint), rtol=1e-4)


def test_recall_length_of_a_channel_that_is_off_has_no_effect(model: CostModel, tiny_scenario: Scenario) -> None:
    states = unseen(tiny_scenario, 1)[0]
    off = [model.results(states, np.array([[0, length, 1, 1]])) for length in range(3)]
    on = [model.results(states, np.array([[1, length, 1, 1]])) for length in range(3)]
    assert (off[0] == off[1]).all()
    assert (off[0] == off[2]).all()
    assert not (on[0] == on[2]).all()


def test_gate_of_a_stage_does_not_see_later_decisions(tiny_scenario: Scenario) -> None:
    """The gate of retrieval sees the first three decisions, the others all four."""
    from marca_env.models.cost_model import _network

    retrieval, pre_ranking, ranking = (len(c) for c in _network(InputEncoder(tiny_scenario), 0).gate_inputs)
    assert retrieval == 2 + (3 + 1) + 2
    assert pre_ranking == ranking == retrieval + 3


def test_loaded_model_equals_the_saved_one(model: CostModel, tiny_scenario: Scenario, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    again = CostModel.load(tmp_path / "m")
    states, actions = unseen(tiny_scenario)
    assert again.scenario == tiny_scenario
    np.testing.assert_array_equal(again.predict(states, actions), model.predict(states, actions))
    np.testing.assert_array_equal(again.degradation(np.array([1, 2])), model.degradation(np.array([1, 2])))


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_truncated_file_is_named_in_the_error(name: str, model: CostModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name):
        CostModel.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="no such file"):
        CostModel.load(tmp_path)


def test_file_of_another_model_raises(tiny_artefacts: Path) -> None:
    with pytest.raises(InputError, match="RevenueModel"):
        CostModel.load(tiny_artefacts / "revenue_model")


def test_mixed_files_of_two_models_raise(model: CostModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace('"size": 3', '"size": 5'))
    with pytest.raises(InputError, match="do not belong together"):
        CostModel.load(tmp_path)


def test_seed_decides_and_global_random_state_is_unchanged(
    tiny_scenario: Scenario, tiny_requests: pd.DataFrame
) -> None:
    states, actions = unseen(tiny_scenario, 50)
    before = torch.get_rng_state()
    fits = [
        CostModel.fit(tiny_scenario, tiny_requests, make_cost_log(tiny_scenario), epochs=2, seed=s) for s in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    first, same, other = (m.results(states, actions) for m in fits)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_log_without_results_raises(tiny_scenario: Scenario, tiny_requests: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="'result_ranking' is missing"):
        CostModel.fit(tiny_scenario, tiny_requests.drop(columns="result_ranking"), make_cost_log(tiny_scenario))
