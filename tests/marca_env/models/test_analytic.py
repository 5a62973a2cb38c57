"""Tests of generated scenarios: the formulas match the docstring, the shipped files match the generator."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test

import marca_env
from marca_env.envs import generated_presets
from marca_env.envs.request_window import RequestWindow, WindowClusters
from marca_env.models.analytic import Law, StageLaw
from marca_env.models.cost_model import AnalyticCostModel, CostModel
from marca_env.models.engine import Engine, get_engine, shipped_folder
from marca_env.models.population import Population
from marca_env.models.revenue_model import AnalyticRevenueModel, RevenueModel
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage, presets
from marca_env.traffic.dual_bound import dual_bound
from marca_env.traffic.workload import daily_traffic
from marca_env.utils.errors import InputError

SMALL = tuple(name for name in generated_presets.GENERATED if name not in {f"stages-{n}-v0" for n in (7, 8, 9, 10)})


def two_stages() -> tuple[Scenario, Law]:
    """Worked out by hand below."""
    scenario = Scenario(
        name="by-hand",
        stages=(
            Stage("a", "x", (Decision("depth", "queue", (10, 40)),)),
            Stage("b", "y", (Decision("model", "model", ("small", "large")),)),
        ),
        clusters=(Cluster("x", 1.0, 1.0), Cluster("y", 1.0, 1.0)),
        features=(Feature("v", 3), Feature("few", 2)),
        peak_qps=1.0,
    )
    law = Law(
        stages=(StageLaw(0.5, 20.0, 0.1, 0.01), StageLaw(0.8, 10.0, 0.2, 0.02)),
        models={"large": 4.0},
        value={"v": 2.0},
        supply={"few": -2 * np.log(2.0)},
        revenue=1.0,
    )
    return scenario, law


def test_formulas_match_a_case_by_hand() -> None:
    scenario, law = two_stages()
    states, actions = np.array([[1, 0], [2, 0], [1, 1]]), np.array([[1, 0], [0, 1], [1, 1]])
    cost, revenue = AnalyticCostModel(scenario, law), AnalyticRevenueModel(scenario, law)
    # supply with few = 1 halves the 40 candidates that there are; with few = 0 there are more than enough
    assert cost.results(states, actions).tolist() == [[40, 40], [10, 10], [20, 20]]
    np.testing.assert_allclose(
        cost.predict(states, actions),
        [[0.1 + 0.4, 0.2 + 0.8], [0.1 + 0.1, 0.2 + 0.8], [0.1 + 0.2, 0.2 + 1.6]],
        rtol=1e-6,
    )
    expected = [
        (1 - 0.5 * np.exp(-2.0)) * (1 - 0.8 * np.exp(-4.0)),
        np.e * (1 - 0.5 * np.exp(-0.5)) * (1 - 0.8 * np.exp(-2.0)),
        (1 - 0.5 * np.exp(-1.0)) * (1 - 0.8 * np.exp(-4.0)),
    ]
    np.testing.assert_allclose(revenue.predict(states, actions), expected, rtol=1e-6)
    np.testing.assert_allclose(revenue.table(states)[:, 3], revenue.predict(states, np.ones((3, 2), int)))


def test_saved_laws_are_loaded_by_both_models(tmp_path: Path) -> None:
    scenario, law = two_stages()
    AnalyticCostModel(scenario, law).save(tmp_path / "c")
    AnalyticRevenueModel(scenario, law).save(tmp_path / "r")
    cost, revenue = CostModel.load(tmp_path / "c"), RevenueModel.load(tmp_path / "r")
    assert isinstance(cost, AnalyticCostModel)
    assert isinstance(revenue, AnalyticRevenueModel)
    states, actions = np.array([[2, 1]]), np.array([[1, 1]])
    np.testing.assert_array_equal(
        cost.predict(states, actions), AnalyticCostModel(scenario, law).predict(states, actions)
    )
    np.testing.assert_array_equal(
        revenue.predict(states, actions), AnalyticRevenueModel(scenario, law).predict(states, actions)
    )
    (tmp_path / "c" / "model.json").write_text('{"kind": "Law", "law": {}}')
    with pytest.raises(InputError, match=r"model\.json: not a law"):
        CostModel.load(tmp_path / "c")


def test_impossible_laws_raise() -> None:
    scenario, law = two_stages()
    with pytest.raises(InputError, match=r"law has 1 stages and scenario .* has 2"):
        AnalyticCostModel(scenario, Law(stages=law.stages[:1]))


@pytest.mark.parametrize("name", generated_presets.GENERATED)
def test_shipped_files_equal_the_generated_ones(name: str, tmp_path: Path) -> None:
    generated, shipped = generated_presets.GENERATED[name](), shipped_folder(name)
    generated.write(tmp_path)
    assert Scenario.load(name) == generated.scenario
    for model in ("cost_model", "revenue_model"):
        written = tmp_path / "data" / name / model / "model.json"
        assert (shipped / model / "model.json").read_text() == written.read_text()
    population = Population.load(shipped / "population.parquet", generated.scenario)
    np.testing.assert_array_equal(population.states, generated.population.states)
    np.testing.assert_array_equal(population.counts, generated.population.counts)
    assert sum(f.stat().st_size for f in shipped.rglob("*.*")) < 100_000


def test_every_generated_scenario_has_a_preset_and_an_id() -> None:
    assert set(generated_presets.GENERATED) | {"default"} <= set(presets())
    ids = {name.partition("/")[2] for name in marca_env.ENVIRONMENTS}
    assert {"Bursty-v0", "DataCentres-v0", "RankingModel-v0", *(f"Stages{n}-v0" for n in range(2, 11))} <= ids


@pytest.mark.parametrize("name", SMALL)
def test_budgets_bind_and_state_dependent_actions_gain(name: str) -> None:
    """Half of the most expensive action exceeds every budget; the optimum beats the best single action by a tenth."""
    engine = Engine.load(name)
    population, scenario = engine.population, engine.scenario
    values, costs = engine.table(population.states)
    weights = population.counts / population.counts.sum()
    budgets = scenario.budgets / scenario.peak_qps
    mean, cost = weights @ values, np.einsum("m,mjg->jg", weights, costs)
    best = mean[(cost <= budgets).all(axis=1)].max()
    bound, prices = dual_bound(values, costs, weights, budgets)
    assert bound > 1.1 * best
    assert bound < 0.95 * weights @ values.max(axis=1)
    assert prices.max() > 0


@pytest.mark.parametrize("name", SMALL)
def test_revenue_and_cost_rise_with_every_option(name: str) -> None:
    engine = Engine.load(name)
    shape = engine.scenario.action_shape
    values, costs = engine.table(engine.population.states[::37])
    grid = values.reshape(-1, *shape)
    cost_grid = costs.sum(axis=2).reshape(-1, *shape)
    for axis in range(1, grid.ndim):
        assert (np.diff(grid, axis=axis) >= 0).all()
        assert (np.diff(cost_grid, axis=axis) >= -1e-9).all()


@pytest.mark.slow
def test_generated_environments_pass_the_pettingzoo_tests(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("ranking-model-v0", "data-centres-v0", "stages-4-v0"):
            api_test(marca_env.env(name), num_cycles=20)
            parallel_api_test(marca_env.parallel_env(name), num_cycles=20)
        for name in ("marca_env/RankingModel-v0", "marca_env/DataCentres-v0", "marca_env/Stages2-v0"):
            check_env(gymnasium.make(name).unwrapped)


def test_ranking_agent_chooses_its_model() -> None:
    env = marca_env.parallel_env("ranking-model-v0")
    assert env.possible_agents == ["retrieval", "pre_ranking", "ranking"]
    engine = get_engine("ranking-model-v0")
    states = engine.population.states[:5]
    _, costs, revenue = zip(*(engine.evaluate(states, np.tile([2, 2, k], (5, 1))) for k in range(3)), strict=True)
    assert (costs[2][:, 2] > costs[0][:, 2]).all()
    assert (costs[2][:, :2] == costs[0][:, :2]).all()
    assert (revenue[2] > revenue[0]).all()


def test_bursts_overload_options_that_fit_between_them() -> None:
    env = gymnasium.make("marca_env/Bursty-v0").unwrapped
    env.reset(seed=0)
    infos = []
    for _ in range(180):
        *_, terminated, _, info = env.step(2)
        infos += [info] if "load" in info else []
    assert terminated
    assert len(infos) == 60
    scenario = Scenario.load("bursty-v0")
    share = np.array([[info["load"][c.name] / c.budget for c in scenario.clusters] for info in infos])
    assert np.median(share.max(axis=1)) < 1 < share.max()
    levels = [max(info["degradation"].values()) for info in infos]
    assert min(levels) == 0
    assert max(levels) >= 2


def test_day_of_the_bursty_scenario_uses_its_own_traffic() -> None:
    scenario = Scenario.load("bursty-v0")
    days = [daily_traffic(scenario, np.random.default_rng(seed)).qps for seed in (0, 1)]
    assert (days[0] != days[1]).any()
    for qps in days:
        assert len(qps) == 1440
        np.testing.assert_allclose(np.sort(qps[:240]) / scenario.peak_qps, np.sort(scenario.traffic))
        assert qps.max() == scenario.peak_qps
    window = RequestWindow(requests=4)
    clusters = WindowClusters(scenario, window, 1, np.zeros(3))
    for k in range(4):
        load = clusters.serve(np.ones((1, 3)), np.ones((1, 3))).load
        np.testing.assert_allclose(load, scenario.traffic[k] * scenario.peak_qps)


def test_scenario_of_ten_stages_can_be_played() -> None:
    env = gymnasium.make("marca_env/Stages10-v0").unwrapped
    env.reset(seed=0)
    for _ in range(10):
        *_, terminated, _, info = env.step(1)
    assert terminated
    assert info["revenue"] > 0
    assert len(info["results"]) == 10
