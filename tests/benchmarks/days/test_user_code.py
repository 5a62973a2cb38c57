"""A user's own policies and balancers in a simulated day: built, checked, and in the tables beside the others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import balance_day, simulate_day
from benchmarks.cli.main import main
from benchmarks.days.balancers import build_balancer
from benchmarks.days.calibration import Calibration
from benchmarks.days.policies import build_policy, check_policies
from benchmarks.days.user_code import UserBalancer
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.control import ControlObservation
from marca_env.traffic.day_simulator import replay
from marca_env.traffic.simulated_system import draw_arrivals
from marca_env.traffic.workload import Traffic
from marca_env.utils.errors import InputError

MODULE = """
import numpy as np

class Greedy:
    def __init__(self, calibration):
        self.engine = calibration.engine
    def update(self, observation):
        return observation.prices
    def decide(self, states, prices):
        revenue, costs = self.engine.table(states)
        return self.engine.scenario.joint_actions[(revenue - costs @ prices).argmax(1)]

class Proportional:
    def __init__(self, gain=5.0):
        self.gain = gain
    def update(self, observation):
        return np.maximum(0.0, observation.prices + self.gain * (observation.load / observation.budget - 1.0))

class Lazy:
    pass

def broken():
    raise RuntimeError("no weights")
"""
ANALYTIC = "stages-3-v0"


@pytest.fixture
def my_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's module in the current folder."""
    (tmp_path / "users_code.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("users_code", None)
    return tmp_path


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration(Engine.load(ANALYTIC), requests=30)


class OwnPrices:
    """A policy that keeps its prices; what it decides is given."""

    def __init__(self, decide: Any) -> None:
        self._decide = decide

    def update(self, observation: ControlObservation) -> np.ndarray:
        return observation.prices

    def decide(self, states: np.ndarray, prices: np.ndarray) -> Any:
        return self._decide(states, prices)


def replay_with(policy: Any, calibration: Calibration) -> Any:
    """Replay three minutes under a user's policy."""
    pool = calibration.engine.pool(20, seed=1)
    traffic = Traffic("flat", np.full(3, 0.5 * calibration.scenario.peak_qps), 0)
    built = build_policy(policy, calibration, pool.states)
    return replay(built, pool, traffic, draw_arrivals(pool, traffic, 0))


def test_a_policy_gets_states_and_prices_and_its_options_are_played(calibration: Calibration) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    last = np.array(calibration.scenario.action_shape) - 1

    def decide(states: np.ndarray, prices: np.ndarray) -> np.ndarray:
        seen.append((states, prices))
        return np.tile(last, (len(states), 1))

    rows = replay_with(OwnPrices(decide), calibration)
    cheap = replay_with(OwnPrices(lambda s, p: np.zeros((len(s), len(last)), dtype=int)), calibration)
    assert len(rows) == 3
    states, prices = seen[-1]
    assert states.shape[1] == len(calibration.scenario.features)
    assert prices.shape == (len(calibration.scenario.clusters),)
    columns = [f"load_{c}" for c in calibration.scenario.cluster_names]
    assert (rows[columns].to_numpy() > cheap[columns].to_numpy()).all()


def raise_an_error(states: np.ndarray, prices: np.ndarray) -> np.ndarray:
    raise KeyError("no such user")


@pytest.mark.parametrize(
    ("decide", "expected"),
    [
        (lambda s, p: np.zeros(len(s)), r"policy OwnPrices, a first call .*returned shape \(2,\); return \(2, "),
        (lambda s, p: np.full((len(s), 3), np.nan), "whole numbers"),
        (lambda s, p: np.full((len(s), 3), 99), "is 99; it must lie in 0 to"),
        (lambda s, p: None, r"returned shape \(\)"),
        (lambda s, p: [["x"] * 3] * len(s), "whole numbers"),
        (raise_an_error, "KeyError: 'no such user' .test_user_code.py, line .*--debug shows the traceback"),
    ],
)
def test_a_wrong_decision_is_one_line(calibration: Calibration, decide: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        replay_with(OwnPrices(decide), calibration)
    assert "\n" not in str(caught.value)


def test_a_fault_in_the_middle_of_the_day_names_its_minute(calibration: Calibration) -> None:
    calls = iter(range(100))

    def decide(states: np.ndarray, prices: np.ndarray) -> np.ndarray:
        if next(calls) == 3:  # the trial, then minutes 0, 1 and 2
            raise ValueError("two\nlines")
        return np.zeros((len(states), len(calibration.scenario.decisions)), dtype=int)

    with pytest.raises(InputError, match="policy OwnPrices, minute 2: ValueError: two lines"):
        replay_with(OwnPrices(decide), calibration)


OBSERVATION = ControlObservation(
    minute=0,
    qps=10.0,
    load=np.array([2.0, 1.0]),
    budget=np.ones(2),
    degradation=np.zeros(2, dtype=int),
    backlog=np.zeros(2),
    prices=np.array([1.0, 2.0]),
)


class Returns:
    def __init__(self, value: Any) -> None:
        self.value = value

    def update(self, observation: ControlObservation) -> Any:
        observation.load[:] = -1.0  # the observation is the user's own copy
        return self.value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.nan, r"prices of shape \(\)"),
        ([1.0], r"prices of shape \(1,\)"),
        ([1.0, np.nan], "nan for cluster 'heavy'"),
        ([1.0, np.inf], "inf for cluster 'heavy'"),
        ([-1.0, 1.0], "-1 for cluster 'light'"),
        (None, "not an array of real numbers"),
        ([1j, 1.0], "not an array of real numbers"),
        ({"light": 1.0}, "cluster 'heavy' has none"),
        ({"light": 1.0, "heavi": 1.0}, "did you mean 'heavy'"),
    ],
)
def test_wrong_prices_are_one_line(value: Any, expected: str) -> None:
    balancer = UserBalancer("mine", Returns(value), Scenario.load(ANALYTIC))
    with pytest.raises(InputError, match=expected) as caught:
        balancer.update(OBSERVATION)
    assert str(caught.value).startswith("balancer mine, minute 0: ")
    assert OBSERVATION.load[0] == 2.0


def test_prices_may_be_named_by_cluster(calibration: Calibration) -> None:
    balancer = UserBalancer("mine", Returns({"heavy": 3, "light": 1}), Scenario.load(ANALYTIC))
    assert balancer.update(OBSERVATION).tolist() == [1.0, 3.0]


def test_a_constructor_that_requires_an_argument_gets_the_calibration(
    my_module: Path, calibration: Calibration
) -> None:
    policy = build_policy("users_code.Greedy", calibration, calibration.pool.states)
    assert policy.name == "users_code.Greedy"
    assert policy.policy.engine is calibration.engine  # type: ignore[attr-defined]
    balancer = build_balancer("users_code.Proportional", calibration, _day())
    assert balancer.balancer.gain == 5.0  # type: ignore[attr-defined]


def _day() -> Any:
    from marca_env.traffic.days import generated

    return generated("smooth", Scenario.load(ANALYTIC), 0, 5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("users_code.Greed", "did you mean 'Greedy'"),
        ("users_code.Lazy", r"policy users_code.Lazy has no method decide\(states, prices\)"),
        ("no_such_module.Mine", "No module named 'no_such_module'"),
        ("my_policy", "or the dotted path of your own class, such as my_module.Mine"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_before_any_work(my_module: Path, name: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        check_policies([name])


def test_a_constructor_that_fails_is_one_line(my_module: Path, calibration: Calibration) -> None:
    with pytest.raises(InputError, match=r"policy users_code\.broken, when it was built: RuntimeError: no weights"):
        build_policy("users_code.broken", calibration, calibration.pool.states)


def test_two_methods_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="given twice"):
        check_policies(["static", "static"])


@pytest.mark.slow
def test_own_policy_and_own_balancer_stand_in_the_tables(my_module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate = ["simulate", "--scenario", ANALYTIC, "--minutes", "10", "--requests", "30", "--seeds", "0"]
    assert main([*simulate, "--policies", "static", "users_code.Greedy", "--out", "s"]) == 0
    assert "users_code.Greedy" in capsys.readouterr().out
    assert list(json.loads(Path("s/summary.json").read_text())["policies"]) == ["static", "users_code.Greedy"]
    tiny = ["--minutes", "10", "--requests", "30", "--days", "1", "--epochs", "2", "--tuning", "5"]
    methods = ["--methods", "static", "users_code.Proportional"]
    assert main(["balance", "--scenario", ANALYTIC, *tiny, *methods, "--out", "b"]) == 0
    assert "users_code.Proportional" in capsys.readouterr().out
    assert list(json.loads(Path("b/summary.json").read_text())["methods"]) == ["static", "users_code.Proportional"]


@pytest.mark.slow
def test_python_functions_return_the_table(my_module: Path) -> None:
    import users_code

    table = simulate_day(["static", users_code.Greedy], scenario=ANALYTIC, minutes=10, requests=30)
    assert table.index.tolist() == ["static", "Greedy"]
    assert table.loc["Greedy", "uplift"] > 0
    assert {"mu_light", "nu_heavy", "bound_share"} <= set(table.columns)
    tiny = {"minutes": 10, "requests": 30, "days": 1, "epochs": 2, "tuning": 5}
    table = balance_day(["static", users_code.Proportional(2.0)], scenario=ANALYTIC, **tiny)
    assert table.index.tolist() == ["static", "Proportional"]
    assert 0 < table["mu_all"].min() <= 1
    with pytest.raises(InputError, match="did you mean 'minutes'"):
        balance_day(["static"], minuten=10)


@pytest.mark.slow
def test_debug_shows_the_traceback(my_module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["simulate", "--scenario", ANALYTIC, "--minutes", "5", "--requests", "20", "--seeds", "0"]
    assert main([*command, "--policies", "users_code.broken"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*command, "--policies", "users_code.broken", "--debug"]) == 2
    error = capsys.readouterr().err
    assert "RuntimeError: no weights" in error
    assert "Traceback" in error


@pytest.mark.parametrize(("experiment", "name"), [("balancing", "Proportional"), ("online", "Greedy")])
def test_benches_take_own_methods_and_know_their_code(my_module: Path, experiment: str, name: str) -> None:
    from benchmarks.suite.runner import plan_run

    def plan() -> Any:
        sys.modules.pop("users_code", None)
        return plan_run(experiment, my_module / "out", quick=True, seeds=[0], methods=[f"users_code.{name}"])

    first = plan()
    assert f"users_code.{name}" in {case.method for case in first.cases}
    (my_module / "users_code.py").write_text(MODULE + "\n# changed\n", encoding="utf-8")
    assert {case.key for case in plan().cases} != {case.key for case in first.cases}
    with pytest.raises(InputError, match="no method"):
        plan_run(experiment, my_module / "out", quick=True, seeds=[0], methods=["users_code.Lazy"])
