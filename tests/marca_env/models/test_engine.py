"""Tests of the engine: exact outcomes, sparse revenue with noise, clear errors for missing artefacts."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marca_env.models.engine import Engine, get_engine
from marca_env.models.population import Population, Sparsity
from marca_env.scenario.parts import Feature
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError


def draw(engine, n, seed=0):
    rng = np.random.default_rng(seed)
    scenario = engine.scenario
    return engine.sample_states(rng, n), rng.integers(0, scenario.action_shape, (n, len(scenario.decisions)))


def test_outcome_equals_that_of_the_models(exact_engine, exact_law):
    states, actions = draw(exact_engine, 500)
    outcome = exact_engine.outcome(states, actions, np.random.default_rng(0))
    # recall lengths of a channel that is off do nothing, and share their entry
    np.testing.assert_allclose(outcome.results, exact_law.results(states, actions))
    np.testing.assert_allclose(outcome.cost, exact_law.cost(actions, exact_law.results(states, actions)))
    np.testing.assert_allclose(outcome.revenue, exact_law.predict(states, actions), rtol=1e-6)
    np.testing.assert_array_equal(outcome.revenue, outcome.expected_revenue)


def test_request_k_of_a_batch_equals_request_k_alone(tiny_engine, tiny_artefacts, tiny_scenario):
    states, actions = draw(tiny_engine, 1000)
    together = tiny_engine.outcome(states, actions, np.random.default_rng(0))
    fresh = Engine.load(tiny_scenario, tiny_artefacts)
    for k in (0, 1, 500, 999):
        alone = fresh.outcome(states[k : k + 1], actions[k : k + 1], np.random.default_rng(1))
        for name in ("results", "cost", "revenue"):
            np.testing.assert_allclose(getattr(alone, name)[0], getattr(together, name)[k], rtol=1e-5)


def test_draw_k_of_a_batch_equals_the_kth_single_draw(exact_engine):
    together = exact_engine.sample_states(np.random.default_rng(3), 20)
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(together, np.concatenate([exact_engine.sample_states(rng, 1) for _ in range(20)]))


def test_states_are_as_frequent_as_in_the_log(tiny_scenario, exact_law):
    states = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 3, 1, 0]])
    engine = Engine(tiny_scenario, exact_law, exact_law, Population(states, np.array([1.0, 2.0, 7.0])))
    drawn = engine.sample_states(np.random.default_rng(0), 20_000)
    np.testing.assert_allclose([(drawn[:, 0] == k).mean() for k in range(3)], [0.1, 0.2, 0.7], atol=0.01)


def test_results_at_a_turn_ignore_later_decisions(tiny_engine):
    states, actions = draw(tiny_engine, 100)
    later = actions.copy()
    later[:, 3] = 0
    np.testing.assert_array_equal(tiny_engine.results(states, actions, 3), tiny_engine.results(states, later, 3))
    np.testing.assert_array_equal(tiny_engine.results(states, actions, 4), tiny_engine.evaluate(states, actions)[0])


@pytest.mark.parametrize("limits", [{"_LARGEST_TABLE": 10}, {"_LARGEST_TABLE": 10, "_SLOTS": 4}])
def test_pairs_that_share_a_row_of_the_cache_do_not_mix(exact_engine, exact_law, tiny_scenario, monkeypatch, limits):
    for name, value in limits.items():
        monkeypatch.setattr(f"marca_env.models.prediction_cache.{name}", value)
    forgetful = Engine(tiny_scenario, exact_law, exact_law, exact_engine.population)
    assert len(forgetful._predictions.table) == limits.get("_SLOTS", 2**20)
    for seed in (0, 0, 1):
        states, actions = draw(exact_engine, 300, seed)
        for a, b in zip(exact_engine.evaluate(states, actions), forgetful.evaluate(states, actions), strict=True):
            np.testing.assert_array_equal(a, b)


def test_scenario_with_too_many_pairs_to_number_gives_the_same(tiny_scenario, exact_law, exact_engine):
    engine = Engine(tiny_scenario, exact_law, exact_law, exact_engine.population)
    engine._predictions._numbered = False
    states, actions = draw(exact_engine, 300)
    for a, b in zip(exact_engine.evaluate(states, actions), engine.evaluate(states, actions), strict=True):
        np.testing.assert_array_equal(a, b)


def test_table_holds_every_joint_action(exact_engine):
    states = exact_engine.population.states[:7]
    values, costs = exact_engine.table(states)
    joint = exact_engine.scenario.joint_actions
    for j in (0, 11, 35):
        _, cost, revenue = exact_engine.evaluate(states, np.tile(joint[j], (7, 1)))
        np.testing.assert_array_equal(values[:, j], revenue)
        np.testing.assert_array_equal(costs[:, j], cost)


def test_warm_fills_the_cache(tiny_scenario, exact_law, exact_engine):
    asked = []

    class Counting(type(exact_law)):
        def predict(self, states, actions):
            asked.append(len(states))
            return super().predict(states, actions)

    engine = Engine(tiny_scenario, exact_law, Counting(tiny_scenario), exact_engine.population)
    engine.warm(chunk=10)
    before = len(asked)
    engine.outcome(*draw(engine, 1000), np.random.default_rng(0))
    assert before > 0
    assert len(asked) == before


def test_gamma_noise_keeps_the_mean_and_the_share_of_zeros(exact_engine, exact_law, tiny_requests, tiny_scenario):
    sparsity = Sparsity.from_log(tiny_requests)
    engine = Engine(tiny_scenario, exact_law, exact_law, exact_engine.population, noise="gamma", sparsity=sparsity)
    states, actions = draw(engine, 100_000)
    outcome = engine.outcome(states, actions, np.random.default_rng(1))
    assert outcome.revenue.mean() == pytest.approx(outcome.expected_revenue.mean(), rel=0.02)
    assert (outcome.revenue == 0).mean() == pytest.approx((tiny_requests["revenue"] == 0).mean(), abs=0.03)
    one = engine.outcome(states[:1].repeat(50_000, 0), actions[:1].repeat(50_000, 0), np.random.default_rng(1))
    assert one.revenue.mean() == pytest.approx(one.expected_revenue[0], rel=0.05)
    sold = outcome.revenue[outcome.revenue > 0]
    assert sold.var() == pytest.approx(sold.mean() ** 2 / sparsity.shape, rel=0.3)


def test_noise_draws_one_number_per_request(exact_law, exact_engine, tiny_scenario):
    engine = Engine(
        tiny_scenario, exact_law, exact_law, exact_engine.population, noise="gamma", sparsity=Sparsity(0.5, 1.0)
    )
    states, actions = draw(engine, 50)
    together = engine.outcome(states, actions, np.random.default_rng(5)).revenue
    rng = np.random.default_rng(5)
    alone = [engine.outcome(states[k : k + 1], actions[k : k + 1], rng).revenue[0] for k in range(50)]
    np.testing.assert_array_equal(together, alone)


def test_wrong_options_are_named_in_the_error(tiny_scenario, exact_law, exact_engine):
    population = exact_engine.population
    with pytest.raises(InputError, match="did you mean 'gamma'"):
        Engine(tiny_scenario, exact_law, exact_law, population, noise="gama")
    with pytest.raises(InputError, match="needs `sparsity`; use Engine"):
        Engine(tiny_scenario, exact_law, exact_law, population, noise="gamma")
    with pytest.raises(InputError, match="has 4 features"):
        Engine(Scenario.load("default"), exact_law, exact_law, population)
    with pytest.raises(InputError, match="no positive value"):
        Sparsity.from_log(pd.DataFrame({"revenue": [0.0, 0.0]}))
    with pytest.raises(InputError, match="population: 0 states and 0 counts"):
        Population(population.states[:0], population.counts[:0])
    with pytest.raises(InputError, match="population: 2 states and 3 counts"):
        Population(population.states[:2], np.ones(3))
    with pytest.raises(InputError, match=r"population: count 0\.0 of state 1"):
        Population(population.states[:2], np.array([1.0, 0.0]))


def test_missing_artefact_error_names_the_command(tiny_scenario, tmp_path):
    with pytest.raises(InputError, match=r"marca fit --scenario FILE\.yaml --out DIR`, then use the folder DIR"):
        Engine.load(tiny_scenario, tmp_path)


def test_loaded_artefacts_equal_the_saved_ones(tiny_scenario, tiny_artefacts, tiny_requests):
    engine = Engine.load(tiny_scenario, tiny_artefacts, noise="gamma")
    assert engine.population.counts.sum() == len(tiny_requests)
    np.testing.assert_array_equal(engine.population.states, Population.from_log(tiny_scenario, tiny_requests).states)
    assert engine.sparsity.mean_sale == pytest.approx(0.5, rel=0.1)


def test_fitted_models_are_near_the_exact_ones(tiny_engine, exact_engine):
    states, actions = draw(tiny_engine, 2000)
    fitted, exact = (e.outcome(states, actions, np.random.default_rng(0)) for e in (tiny_engine, exact_engine))
    assert np.corrcoef(fitted.revenue, exact.revenue)[0, 1] > 0.8
    np.testing.assert_allclose(fitted.cost.mean(axis=0), exact.cost.mean(axis=0), rtol=0.1)


def test_artefacts_of_another_system_raise(tiny_scenario: Scenario, tiny_artefacts: Path) -> None:
    """A changed option would get the old cost; a changed budget would not."""
    dearer = dataclasses.replace(tiny_scenario.stages[1].decisions[0], options=(5, 10, 30))
    stages = (tiny_scenario.stages[0], dataclasses.replace(tiny_scenario.stages[1], decisions=(dearer,)))
    with pytest.raises(InputError, match=r"cost_model: fitted to another system .* \(stages differ\)"):
        Engine.load(tiny_scenario.replace(stages=(*stages, tiny_scenario.stages[2])), tiny_artefacts)
    richer = tuple(dataclasses.replace(c, cores=9.0, budget=9.0) for c in tiny_scenario.clusters)
    assert Engine.load(tiny_scenario.replace(clusters=richer), tiny_artefacts).scenario.budgets.tolist() == [9.0, 9.0]


def test_changed_scenario_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    scenario = Scenario.load("default")
    scenario.save(file)
    first = get_engine(file)
    assert get_engine(str(file)) is first
    scenario.replace(peak_qps=7.0).save(file)
    assert get_engine(file).scenario.peak_qps == 7.0


def test_table_of_no_requests_is_empty(tiny_engine: Engine) -> None:
    values, costs = tiny_engine.table(np.zeros((0, 4), dtype=int))
    assert values.shape == (0, 36)
    assert costs.shape == (0, 36, 2)


def test_a_renamed_scenario_needs_no_fit(tmp_path: Path) -> None:
    """Name, budgets and traffic do not matter to the models: they are those of the preset."""
    mine = Scenario.load("default").replace(name="mine", peak_qps=1500.0)
    mine.save(tmp_path / "mine.yaml")
    assert Engine.load(tmp_path / "mine.yaml").scenario.name == "mine"
    other = mine.replace(features=(*mine.features, Feature("more", 2)))
    other.save(tmp_path / "other.yaml")
    with pytest.raises(InputError) as caught:
        Engine.load(tmp_path / "other.yaml")
    assert f"marca fit --scenario {tmp_path / 'other.yaml'} --out DIR" in str(caught.value)
