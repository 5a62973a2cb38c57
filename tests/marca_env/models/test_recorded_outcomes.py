"""Recorded outcomes: what is served is what was recorded, the row stays hidden, and later stages see the signals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import marca_env
from marca_env.models.engine import Engine
from marca_env.models.population import Population
from marca_env.models.recorded_outcomes import RecordedOutcomes
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, ScenarioError, Stage
from marca_env.utils.errors import InputError

ROWS = 5


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario(
        name="recorded",
        stages=(
            Stage("first", "api", (Decision("model", "model", ("small", "large")),), signals=("confidence",)),
            Stage("second", "api", (Decision("again", "model", ("off", "small", "large")),)),
        ),
        clusters=(Cluster("api", cores=2.0, budget=1.0),),
        features=(
            Feature("text", 3, kind="number", seen_by=("first",)),
            Feature("topic", 4),
            Feature("request", ROWS, hidden=True),
        ),
        peak_qps=10.0,
        prices=(2.0,),
    )


@pytest.fixture(scope="module")
def records(scenario: Scenario) -> RecordedOutcomes:
    rng = np.random.default_rng(0)
    return RecordedOutcomes(scenario, rng.random((ROWS, 6, 5)).astype(np.float32))


@pytest.fixture(scope="module")
def engine(scenario: Scenario, records: RecordedOutcomes) -> Engine:
    rng = np.random.default_rng(1)
    numbers = rng.normal(size=(ROWS, 3))
    states = np.column_stack([numbers, rng.integers(4, size=ROWS), np.arange(ROWS)])
    return Engine(scenario, None, None, Population(states, np.ones(ROWS)), records=records)  # type: ignore[arg-type]


def test_the_environment_serves_the_records(scenario, records, engine):
    env = marca_env.batched_env(7, engine=engine, reward="lagrangian")
    env.reset(seed=3)
    rng = np.random.default_rng(2)
    for decision, agent in enumerate(env.agents):
        options = len(scenario.decisions[decision].options)
        actions = {a: np.full(7, env.action_sizes[a] - 1) for a in env.agents}
        step = env.step(actions | {agent: rng.integers(options, size=7)})
    rows = records.table[env.states[:, -1].astype(int), scenario.joint_index(env.actions)]
    np.testing.assert_array_equal(step.infos["revenue"], rows[:, 4])
    np.testing.assert_array_equal(step.infos["signals"][:, 0], rows[:, 2])
    np.testing.assert_allclose(step.reward, rows[:, 4] - 2.0 * rows[:, 3], rtol=1e-6)


def test_agents_observe_numbers_and_signals_and_never_the_row(scenario, engine):
    env = marca_env.batched_env(4, engine=engine)
    sizes = {"first": 3 + 4 + 3 + 2 + 1, "second": 4 + 3 + 3 + 1 + 1 + 1}  # numbers, topic, turn, own, results, price
    assert env.observation_sizes == sizes
    assert env.state_size == 3 + 4 + 3 + 5 + 2 + 1 + 1  # all decisions, both counts, the signal
    before = env.reset(seed=0)
    np.testing.assert_allclose(before.observations["first"][:, :3], env.states[:, :3], rtol=1e-6)
    after = env.step({"first": np.ones(4, int), "second": np.full(4, 3)})
    recorded = engine.evaluate(env.states, env.actions)[0]
    np.testing.assert_allclose(after.observations["second"][:, -2], recorded[:, 2], rtol=1e-6)
    other = env.states.copy()
    other[:, -1] = (other[:, -1] + 1) % ROWS
    seen = env.encoder.encode(other, env.actions, recorded, 1)
    np.testing.assert_array_equal(seen[0]["second"], after.observations["second"])
    np.testing.assert_array_equal(seen[2], after.state)


def test_tables_come_back_from_a_file(tmp_path, scenario, records, engine):
    records.save(tmp_path / "outcomes.parquet")
    loaded = RecordedOutcomes.load(tmp_path / "outcomes.parquet", scenario)
    np.testing.assert_array_equal(loaded.table, records.table)
    pool = engine.pool(50, seed=1)
    rows = pool.states[:, -1].astype(int)
    np.testing.assert_array_equal(pool.outcomes["revenue"], records.table[rows, :, 4])
    np.testing.assert_array_equal(pool.costs, records.table[rows, :, 3:4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.iloc[:-1], r"request 4 with .* occurs 0 times"),
        (lambda f: pd.concat([f, f.iloc[:1]]), r"request 0 with .* occurs 2 times"),
        (lambda f: f.drop(columns="cost_api"), "column 'cost_api' is missing"),
        (lambda f: f.assign(signal_first_confidence=np.nan), "column 'signal_first_confidence'.*is empty"),
    ],
)
def test_incomplete_tables_are_refused(tmp_path, scenario, records, change, message):
    path = tmp_path / "outcomes.csv"
    records.save(path)
    with pytest.raises(InputError, match=message):
        RecordedOutcomes.from_table(change(pd.read_csv(path)), scenario, path)


def test_records_need_the_hidden_row(scenario, records):
    visible = scenario.replace(features=(*scenario.features[:2], Feature("request", ROWS)))
    with pytest.raises(InputError, match="hidden category 'request'"):
        RecordedOutcomes(visible, records.table)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (np.full((2, 5), np.nan), "state 0: text_0 is nan"),
        (np.zeros((2, 4)), "one column per name: text_0, text_1, text_2, topic, request"),
        (np.array([[0, 0, 0, 1.5, 0]]), "state 0: topic is 1.5; it must be a whole number in 0 to 3"),
        (np.array([[0, 0, 0, 1, 5.0]]), "state 0: request is 5"),
    ],
)
def test_states_with_numbers_are_checked(scenario, states, message):
    with pytest.raises(InputError, match=message):
        scenario.check_states(states)


def test_new_fields_are_written_only_where_they_differ(tmp_path, scenario):
    scenario.save(tmp_path / "s.yaml")
    assert Scenario.load(tmp_path / "s.yaml") == scenario.replace(source=tmp_path / "s.yaml")
    plain = Scenario.load("default").to_dict()
    assert not {"window", "prices"} & set(plain)
    assert set(plain["features"][0]) == {"name", "size", "seen_by"}


def test_columns_of_a_log_must_differ(scenario):
    with pytest.raises(ScenarioError, match="two columns of its log are named 'text_0'"):
        scenario.replace(features=(*scenario.features, Feature("text_0", 2)))
