"""Data centres: a request loads, is degraded, dropped and priced by the clusters of its own site only."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.cli.main import main
from benchmarks.days.artefacts import true_pool
from marca_env.envs.batched_env import batched_env
from marca_env.envs.generated_presets import _site_rates
from marca_env.envs.price_env import BalancingEnv
from marca_env.envs.request_window import RequestWindow, WindowClusters
from marca_env.models.cost_map import CostMap
from marca_env.models.engine import Engine
from marca_env.models.request_pool import RequestPool
from marca_env.scenario.scenario import Cluster, Scenario, ScenarioError
from marca_env.testbench.cascade_service import CascadeService
from marca_env.traffic.allocation import allocate, degrade, serve_minute
from marca_env.traffic.clusters import ClusterModel, ClusterState
from marca_env.traffic.simulated_system import sample_arrivals
from marca_env.traffic.workload import daily_traffic
from marca_env.utils.errors import InputError

NAME = "data-centres-v0"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(NAME)


@pytest.fixture(scope="module")
def pool(engine: Engine) -> RequestPool:
    """Return every state of the population as a pool."""
    states, counts = engine.population.states, engine.population.counts
    values, costs = engine.table(states)
    return RequestPool(engine.scenario, states, {"revenue": values}, costs, counts)


# -- the scenario ------------------------------------------------------------------------------------------
def test_stages_have_a_cluster_at_each_site(tmp_path: Path) -> None:
    scenario = Scenario.load(NAME)
    assert scenario.n_sites == 3
    assert scenario.stage_clusters.tolist() == [[0, 3, 3], [1, 4, 4], [2, 5, 5]]
    uses = [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]]
    assert scenario.site_clusters.astype(int).tolist() == uses
    assert scenario.site_of(np.array([[0, 1, 2, 2], [5, 0, 0, 1]])).tolist() == [2, 1]  # type: ignore[union-attr]
    scenario.save(tmp_path / "s.yaml")
    assert Scenario.load(tmp_path / "s.yaml") == scenario
    one = Scenario.load("default")
    assert (one.n_sites, one.site_of(np.zeros((2, 5)))) == (1, None)
    assert one.site_clusters.all()


def test_a_stage_may_share_a_cluster_between_sites() -> None:
    data = Scenario.load(NAME).to_dict()
    data["stages"][0]["cluster"] = "retrieval_asia"
    data["clusters"] = [c for c in data["clusters"] if c["name"] not in ("retrieval_europe", "retrieval_america")]
    assert Scenario.from_dict(data).stage_clusters.tolist() == [[0, 1, 1], [0, 2, 2], [0, 3, 3]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"site": "j"}, "site: unknown feature 'j'"),
        ({"site": None}, r"stage 'retrieval': clusters \['retrieval_asia'.*, one per data centre; name the feature"),
        ({"site": "g"}, "stage 'retrieval': 3 clusters for the 4 codes of site feature 'g'; name one for each"),
        ({"stages.1.cluster": ["ranking_asia", "ranking_europe"]}, "stage 'pre_ranking': 2 clusters for the 3 codes"),
        ({"stages.0.cluster": ["retrieval_asia", "retrieval_euorpe", "x"]}, "did you mean 'retrieval_europe'"),
        ({"stages.0.cluster": ["retrieval_asia"] * 3}, "cluster 'retrieval_europe' runs no stage"),
        ({"stages.0.cluster": 3}, "expected text"),
        ({f"stages.{k}.cluster": "ranking_asia" for k in range(3)}, "site is 'i', but no stage has a list of clusters"),
    ],
)
def test_bad_sites_are_refused_in_one_line(changes: dict[str, Any], expected: str) -> None:
    data = Scenario.load(NAME).to_dict()
    for path, value in changes.items():
        *parents, last = path.split(".")
        node: Any = data
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node[key]
        node[last] = value
    with pytest.raises(ScenarioError, match=expected):
        Scenario.from_dict(data)


# -- costs -------------------------------------------------------------------------------------------------
def test_a_request_costs_its_own_site_what_it_would_cost_a_single_one(engine: Engine) -> None:
    scenario, model = engine.scenario, engine.cost_model
    rng = np.random.default_rng(0)
    states = rng.integers(0, scenario.feature_sizes, (200, 4))
    actions = rng.integers(0, scenario.action_shape, (200, 3))
    results, cost, _ = engine.evaluate(states, actions)
    stages = engine.stage_costs(actions, results)
    assert stages is not None
    expected = np.zeros((200, 6))
    for k, (_, _, _, site) in enumerate(states):
        expected[k, site] = stages[k, 0]
        expected[k, 3 + site] = stages[k, 1] + stages[k, 2]
    np.testing.assert_allclose(cost, expected, rtol=1e-6)
    np.testing.assert_allclose(model.predict(states, actions), expected, rtol=1e-6)  # type: ignore[attr-defined]
    table = model.table(states[:5])[1]  # type: ignore[attr-defined]
    np.testing.assert_allclose(table, engine.table(states[:5])[1], rtol=1e-6)
    with pytest.raises(InputError, match=r"3 sites, by feature 'i'; pass the site of each request"):
        model.cost_map.cost(actions, results)


def test_a_price_at_one_site_moves_only_its_requests(pool: RequestPool) -> None:
    free, priced = (
        allocate(pool.outcomes["revenue"], pool.costs, p) for p in (np.zeros(6), np.array([50.0, *[0.0] * 5]))
    )
    site = pool.scenario.site_of(pool.states)
    assert (free == priced)[site != 0].all()
    assert (free != priced)[site == 0].mean() > 0.5


# -- clusters ----------------------------------------------------------------------------------------------
def test_degradation_acts_at_its_own_site_only(pool: RequestPool) -> None:
    scenario, site = pool.scenario, pool.scenario.site_of(pool.states)
    most_expensive = np.full(len(pool.states), scenario.n_joint_actions - 1)
    ran = scenario.joint_actions[degrade(scenario, most_expensive, np.array([0, 2, 0, 0, 0, 3]), site)]
    assert (ran[site == 0] == [3, 3, 2]).all()
    assert (ran[site == 1] == [1, 3, 2]).all()  # retrieval at level 2: half of three, rounded down
    assert (ran[site == 2] == [3, 0, 0]).all()  # both stages of the ranking cluster at a quarter


def test_drops_take_the_revenue_of_their_own_site_only(pool: RequestPool) -> None:
    scenario = pool.scenario.replace(
        clusters=tuple(Cluster(c.name, 1e-3 if k == 4 else 1e3, 1e-3) for k, c in enumerate(pool.scenario.clusters))
    )
    small = RequestPool(scenario, pool.states, pool.outcomes, pool.costs, pool.weights)
    chosen, counts = np.full(len(pool.states), 20), np.full(len(pool.states), 3)
    clusters = ClusterModel(scenario)
    outcome, _ = serve_minute(small, chosen, counts, clusters, clusters.initial(), 60.0)
    dropped = outcome.reading.dropped
    assert dropped[4] > 0.9
    assert (np.delete(dropped, 4) == 0).all()
    earned, europe = 3 * pool.outcomes["revenue"][:, 20].astype(float), scenario.site_of(pool.states) == 1
    expected = earned[~europe].sum() + (1 - dropped[4]) * earned[europe].sum()
    assert outcome.outcomes["revenue"] == pytest.approx(expected)
    assert outcome.served_share == pytest.approx(1 - europe.mean() * dropped[4])


def test_in_a_window_time_passes_at_the_site_of_the_request() -> None:
    scenario, shares = Scenario.load(NAME), np.array([0.5, 0.3, 0.2])
    clusters = WindowClusters(
        scenario, RequestWindow(requests=3, traffic=(0.5,), price_rate=1.0), 2, np.zeros(6), shares
    )
    waiting = np.tile(np.arange(6.0), (2, 1))
    clusters.state = ClusterState(np.full((2, 6), 1), waiting)
    cost, site = np.zeros((2, 6)), np.array([0, 2])
    cost[0, [0, 3]], cost[1, [2, 5]] = [1e-4, 1e-3], [2e-4, 20.0]
    part = clusters.serve(cost, cost, site)
    qps = 0.5 * scenario.peak_qps * np.array([[0.5] * 6, [0.2] * 6])
    np.testing.assert_allclose(part.load, cost * qps)
    moved = np.zeros((2, 6), dtype=bool)
    moved[0, [0, 3]] = moved[1, [2, 5]] = True
    assert (clusters.state.waiting_work[~moved] == waiting[~moved]).all()
    assert (clusters.state.degradation[~moved] == 1).all()
    assert clusters.state.degradation[0, 0] == 0  # 0.025 of a budget of 0.244: released
    assert clusters.state.degradation[1, 5] == 2
    assert (clusters.prices[~moved] == 0).all()
    assert clusters.prices[1, 5] > 0
    alone, _ = ClusterModel(scenario).step(
        ClusterState(np.ones(6, int), np.arange(6.0)), cost[0] * 250, cost[0] * 250, 60
    )
    np.testing.assert_allclose(clusters.state.waiting_work[0, [0, 3]], alone.waiting_work[[0, 3]])
    assert part.served_share[0] == 1.0
    assert 0 < part.served_share[1] < 0.1
    ran = clusters.degrade(np.array([[3, 3, 2], [3, 3, 2]]), site)
    assert ran.tolist() == [[3, 3, 2], [3, 1, 1]]


def test_a_window_of_requests_of_many_sites_can_be_played(engine: Engine) -> None:
    env = batched_env(32, engine=engine, window=12)
    env.reset(seed=0)
    ended = []
    while not ended or not ended[-1].terminated.all():
        here = env.agent_on_turn
        site = env.scenario.site_of(env.states).copy()  # type: ignore[union-attr]
        moves = {a: np.full(32, env.encoder.legal(a, env.turn)[-1]) for a in env.agents}
        step = env.step(moves)
        if step.infos:
            ended.append(step)
            others = ~env.scenario.site_clusters[site]
            assert not step.infos["cost"][others].any()
        assert here in env.agents
    assert len(ended) == 12
    assert max(s.infos["degradation"].max() for s in ended) > 0


# -- traffic -----------------------------------------------------------------------------------------------
def test_each_site_has_its_own_day(pool: RequestPool, engine: Engine) -> None:
    """The mix of the time windows times the total traffic is each site's day, by the scenario's clock."""
    rates, site = _site_rates(), pool.scenario.site_of(pool.states)
    total = rates.sum(axis=1)
    np.testing.assert_allclose(pool.scenario.traffic, total / total.max(), atol=6e-4)
    np.testing.assert_allclose(engine.population.site_shares(pool.scenario), [0.45, 0.35, 0.2], atol=0.01)
    mix = np.array([np.bincount(site, pool.probabilities(90 + 180 * k), 3) for k in range(8)])
    true = rates.reshape(8, 180, 3).sum(axis=1)
    np.testing.assert_allclose(mix, true / true.sum(axis=1, keepdims=True), atol=0.03)
    assert len(set((mix * true.sum(axis=1, keepdims=True)).argmax(axis=0))) == 3  # three sites, three peaks
    counts = sample_arrivals(np.random.default_rng(0), pool, 1000.0, 60.0, 90)
    assert set(pool.states[counts > 0, 1]) == {0}


def test_a_day_of_traffic_keeps_the_clock() -> None:
    scenario = Scenario.load(NAME)
    for seed in (0, 1):
        traffic = daily_traffic(scenario, np.random.default_rng(seed))
        by_clock = np.roll(traffic.qps, traffic.first_minute)
        np.testing.assert_allclose(by_clock, np.array(scenario.traffic) * scenario.peak_qps)


def test_balancing_sees_every_site_peak_in_its_own_hours(engine: Engine) -> None:
    env = BalancingEnv(scenario=NAME, engine=engine, pool_size=2000)
    env.reset(seed=0)
    loads, first = [], env.control.minute
    for _ in range(1440):
        *_, truncated, info = env.step(env.action_of(env.price_max / 2))
        loads.append(info["load"])
    assert truncated
    day = np.roll(np.array(loads), first, axis=0).reshape(8, 180, 6).mean(axis=1)
    rates = _site_rates().reshape(8, 180, 3).mean(axis=1)
    for site in range(3):
        for cluster in (site, 3 + site):
            assert np.corrcoef(day[:, cluster], rates[:, site])[0, 1] > 0.95


def test_a_price_per_site_earns_more_than_one_for_all(pool: RequestPool) -> None:
    """Compare the best prices of a grid that fit every budget, one for all sites and one per site.

    The hours are those after midnight: evening in America, night in Europe.
    """
    scenario, site = pool.scenario, pool.scenario.site_of(pool.states)
    counts = pool.probabilities(90) * np.mean(scenario.traffic[:180]) * scenario.peak_qps
    values, retrieval = pool.outcomes["revenue"], np.arange(6) < 3
    together, alone = 0.0, np.zeros(3)
    for a in np.append(0.0, np.geomspace(3, 300, 12)):
        for b in np.append(0.0, np.geomspace(0.3, 30, 12)):
            chosen = allocate(values, pool.costs, np.where(retrieval, a, b))
            rows = np.arange(len(chosen))
            fits = counts @ pool.costs[rows, chosen] <= scenario.budgets
            earned = np.bincount(site, counts * values[rows, chosen])
            together = max(together, earned.sum() if fits.all() else 0.0)
            alone = np.maximum(alone, np.where([fits[uses].all() for uses in scenario.site_clusters], earned, 0.0))
    assert together > 0
    assert alone.sum() > 1.2 * together


# -- commands ----------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_headroom_of_analytic_models_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["headroom", "--scenario", NAME, "--requests", "300"]) == 0
    printed = capsys.readouterr().out
    assert "12.5%" in printed
    assert main(["headroom", "--scenario", NAME, "--requests", "300", "--budgets", "0.05"]) == 2
    assert "below the cheapest action" in capsys.readouterr().err


def test_the_true_pool_of_analytic_models_holds_their_values(engine: Engine) -> None:
    pool = true_pool(engine.scenario, 50, 3)
    values, costs = engine.table(pool.states)
    np.testing.assert_array_equal(pool.outcomes["revenue"], values)
    np.testing.assert_array_equal(pool.costs, costs)
    assert pool.weights is not None
    assert pool.weights.sum() == 50


@pytest.mark.slow
def test_a_day_is_simulated_at_every_site(tmp_path: Path) -> None:
    arguments = ["--scenario", NAME, "--policies", "static", "dcaf", "--minutes", "40", "--requests", "200"]
    assert main(["simulate", *arguments, "--seeds", "0", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["policies"]["dcaf"]["utilisation"]) == set(Scenario.load(NAME).cluster_names)
    assert summary["policies"]["dcaf"]["gmv"] is None
    assert summary["policies"]["dcaf"]["revenue"] > 0


@pytest.mark.slow
def test_the_testbench_measures_a_stage_once_and_degradation_at_every_site(tiny_scenario: Scenario) -> None:
    retrieval, pre_ranking, ranking = tiny_scenario.stages
    ours = tuple(Cluster(f"{c.name}_{site}", c.cores, c.budget) for site in "ab" for c in tiny_scenario.clusters)
    both = ("ranking_a", "ranking_b")
    scenario = tiny_scenario.replace(
        site="g",
        clusters=ours,
        stages=(
            dataclasses.replace(retrieval, cluster=("retrieval_a", "retrieval_b")),
            dataclasses.replace(pre_ranking, cluster=both),
            dataclasses.replace(ranking, cluster=both),
        ),
    )
    service = CascadeService(scenario)
    buckets = service.buckets()
    whole = ("degradation", "request")
    assert {b.cluster for b in buckets if b.component in whole} == set(scenario.cluster_names)
    assert {b.cluster for b in buckets if b.component not in whole} == {"retrieval_a", "ranking_a"}
    for bucket in buckets:
        if bucket.component == "degradation":
            service.handler(bucket.workload)(0)
    rows = [
        (b.stage, b.cluster, b.component, b.value_bucket, b.queue_length, 1e-3 + 1e-5 * b.queue_length) for b in buckets
    ]
    log = pd.DataFrame(rows, columns=["stage", "cluster", "component", "value_bucket", "queue_length", "cost"])
    log = log.assign(qps=10.0, machines=1, cores=1, repeat=0, utilisation=0.1)
    cost = CostMap.from_log(scenario, log).cost(np.zeros((2, 4), int), np.full((2, 3), 10.0), np.array([0, 1]))
    assert (cost > 0).tolist() == [[True, True, False, False], [False, False, True, True]]
    assert cost[0, :2].tolist() == cost[1, 2:].tolist()
