"""The example of language models: its tables are what its constants and its docstrings state."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from marca_env.logs.log_files import read_cost_log
from marca_env.logs.schema import check_table, request_columns
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import get_engine
from marca_env.models.recorded_outcomes import RecordedOutcomes
from marca_env.scenario.scenario import Scenario
from tests.helpers.paths import EXAMPLES

WORDS = ["sum", "the", "numbers", "how", "many", "apples", "buy", "prove", "that", "graph", "edges", "capital", "of"]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("llm_build", EXAMPLES / "llm_cascade" / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["llm_build"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def questions(build: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    models = {"dear": {"input_price": 0.9, "output_price": 0.9}, "cheap": {"input_price": 0.1, "output_price": 0.1}}
    rows = [
        {"question": " ".join(rng.choice(WORDS, size=rng.integers(5, 40))), "scores": {"dear": 1.0, "cheap": k % 2}}
        for k in range(90)
    ]
    for name, part in (("train", rows[:80]), ("test", rows[70:])):  # ten questions are in both
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(part).encode()))
    (folder / "models.json").write_text(json.dumps(models))
    return build.read(folder)


def test_questions_are_set_apart_and_models_ordered_by_price(questions) -> None:
    assert questions.models == ["cheap", "dear"]
    assert (questions.n_train, len(questions.texts)) == (70, 90)
    assert not set(questions.texts[:70]) & set(questions.texts[70:])
    np.testing.assert_allclose(questions.prices, [1e-7, 9e-7])


def test_the_judge_is_as_good_as_stated(build) -> None:
    scores = np.tile([0.0, 1.0], (4000, 1))
    many = build.Questions([""] * 4000, scores, ["a", "b"], np.ones(2), 4000)
    readings = build.judge_readings(many, 0)
    threshold = readings.mean()
    right = ((readings[:, 1] > threshold).mean() + (readings[:, 0] < threshold).mean()) / 2
    assert right == pytest.approx(0.80, abs=0.015)


def test_outcomes_prices_and_logs_agree(build, questions, tmp_path: Path) -> None:
    scenario = build.make_scenario(questions)
    outcomes = build.outcome_table(scenario, questions, build.judge_readings(questions, 0))
    records = RecordedOutcomes.from_table(outcomes, scenario)
    build.price_list(scenario, questions).to_csv(tmp_path / "costs.csv", index=False)
    cost_map = CostMap.from_log(scenario, read_cost_log(tmp_path / "costs.csv"))
    actions = np.broadcast_to(scenario.joint_actions, (90, 6, 2))
    costs = cost_map.cost(actions, records.table[:, :, :2])
    np.testing.assert_allclose(records.table[:, :, 4:5], costs, rtol=1e-5)
    first_only = scenario.joint_index(np.array([[0, 0]]))[0]
    tokens = questions.tokens
    np.testing.assert_allclose(
        records.table[:, first_only, 4], 1e-7 * tokens + 1e-7 * (tokens + build.JUDGE_TOKENS), rtol=1e-5
    )
    second = scenario.joint_index(np.array([[0, 2]]))[0]
    np.testing.assert_allclose(records.table[:, second, 5], build.WORTH, rtol=1e-6)  # the second answer counts
    states = build.pd.DataFrame(np.zeros((90, 25)), columns=list(scenario.state_columns[:-1])).assign(request=range(90))
    log = build.request_log(questions, states, outcomes, 1)
    check_table(log, request_columns(scenario), "log")
    assert log["request"].max() < questions.n_train


def test_the_shipped_preset_is_of_this_kind(build) -> None:
    scenario = Scenario.load("llm-cascade-v0")
    engine = get_engine("llm-cascade-v0")
    assert scenario.clusters[0].budget == pytest.approx(build.BUDGET_PER_MINUTE / 60, abs=1e-6)
    assert len(engine.population.states) == 5489
    assert len(engine.heldout.states) == 500
    revenue = engine.records.table[:, :, -1]
    assert revenue.max() == pytest.approx(build.WORTH)
    best_single = revenue[: len(engine.population.states), ::10].mean(axis=0).max() / build.WORTH
    assert best_single == pytest.approx(0.625, abs=0.001)
    numbers = engine.population.states[:, :-1]
    np.testing.assert_allclose(numbers.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(numbers.std(axis=0), 1, atol=1e-3)
