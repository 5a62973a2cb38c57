"""Cards of windows: plans against what is played, and cases whose rows are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.cli.main import main
from benchmarks.days import fleet_planning, window_cards
from benchmarks.days.fleet_planning import FleetPlanner
from benchmarks.days.headroom import card
from benchmarks.days.window_cards import play, window_rows
from benchmarks.days.window_planning import WindowPlanner
from marca_env.models.engine import Engine
from marca_env.models.population import Population
from marca_env.scenario.request_window import RequestWindow
from marca_env.scenario.scenario import Cluster, Scenario
from marca_env.utils.errors import InputError


@pytest.fixture(autouse=True)
def few_windows(monkeypatch):
    """Play few windows: these tests are of the rules, not of the figures."""
    for name, value in {"WINDOWS": 200, "SCREENED": 30, "KNOWN": 20}.items():
        monkeypatch.setattr(window_cards, name, value)
    monkeypatch.setattr(fleet_planning, "SLICES", 300)


def small(budget: float) -> Engine:
    """Return two stages under three slices of traffic, with this share of their budgets and 18 kinds of requests."""
    scenario = Scenario.load("stages-2-v0")
    clusters = tuple(Cluster(c.name, c.cores * budget, c.budget * budget) for c in scenario.clusters)
    scenario = scenario.replace(clusters=clusters, window=RequestWindow(requests=3, traffic=(0.5, 1.0, 1.0)))
    whole = Engine.load(scenario)
    some = Population(whole.population.states[::24], whole.population.counts[::24])
    return Engine(scenario, whole.cost_model, whole.revenue_model, some)


def test_without_overload_the_myopic_policy_and_hindsight_are_best_too() -> None:
    _, static, _, rows, _ = window_rows(small(100.0), np.array([5.0, 5.0]), seed=0)
    assert rows["joint"] == pytest.approx(rows["myopic"]) == pytest.approx(rows["hindsight"])
    assert static < rows["truncation"] <= rows["joint"]


def test_under_load_foresight_pays_and_the_plan_is_worth_what_it_says() -> None:
    engine, prices = small(0.7), np.zeros(2)
    random, static, _, rows, _ = window_rows(engine, prices, seed=0)
    assert random < static < rows["joint"]
    assert rows["myopic"] < rows["joint"] <= rows["hindsight"]
    planner = WindowPlanner(engine, prices)
    values = planner.plan()

    def policy(env):
        state, t = env.clusters.state, env.clusters.n_served
        found = planner.action_values(t, state.degradation, state.waiting_work, planner.rows(env.states), values[t + 1])
        return engine.scenario.joint_actions[found.argmax(axis=1)]

    played = play(engine, prices, policy, 2000, seed=1)
    error = played.std() / np.sqrt(len(played))
    assert values[0].flat[0] / 3 == pytest.approx(played.mean(), abs=4 * error + 0.01 * played.mean())


def test_a_price_for_all_sites_earns_what_the_plan_says_and_a_controller_who_sees_all_earns_more() -> None:
    engine = Engine.load("fleet-v0")
    planner = FleetPlanner(engine, np.zeros(1), seed=0)
    values, best = planner.plan(central=False)

    def policy(env):
        state = env.clusters.state
        rows = planner.single.rows(env.states)
        where = env.clusters.n_served, state.degradation[:, 0], state.waiting_work[:, 0], rows
        return engine.scenario.joint_actions[planner.priced_actions(best, *where)]

    played = play(engine, np.zeros(1), policy, 500, seed=1)
    assert played.mean() == pytest.approx(values[0][0, 0] / 12, rel=0.03)
    assert planner.plan(central=True)[0][0][0, 0] > values[0][0, 0]


def test_the_command_prints_the_card_of_a_window_and_refuses_what_it_cannot_plan(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(window_cards, "WINDOWS", 50)
    file, window = tmp_path / "card.json", RequestWindow(requests=3, price_rate=0.1)
    assert main(["headroom", "--scenario", "fleet-v0", "--json", str(file)]) == 0
    assert "best static" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["gains"]["joint"] > found["gains"]["own_information"] > found["gains"]["myopic"]
    assert found["gains"]["truncation"] is None
    with pytest.raises(InputError, match="no card is made of this window"):
        card(Scenario.load("stages-2-v0").replace(window=window))
    with pytest.raises(InputError, match="6 clusters"):
        card(Scenario.load("data-centres-v0").replace(agent_kind="site", window=RequestWindow(requests=2)))
