"""The TestBench: known costs are measured, and measurements that show no cost are refused."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from benchmarks.cli.commands.testbench import measure
from marca_env.logs.log_files import read_cost_log, write_cost_log
from marca_env.models.cost_map import CostMap
from marca_env.models.latency import Duration
from marca_env.scenario.scenario import Scenario
from marca_env.testbench.cascade_service import CascadeService, low_discrepancy_points
from marca_env.testbench.service import Replay, ServiceProcess, cpu_seconds
from marca_env.testbench.testbench import TestBench, describe_machine, repeat_spread, to_cost_log
from marca_env.utils.errors import InputError
from tests.helpers.burner_service import MILLISECOND, Burner
from tests.helpers.factories import make_tiny_scenario


def bench(**options: object) -> TestBench:
    return TestBench("default", service=Burner, **{"seconds": 0.25, "repeats": 2, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return bench().run()


@pytest.mark.slow
def test_known_costs_are_measured(log: pd.DataFrame) -> None:
    """Base 1 ms, 0.1 ms a candidate, and 3 ms saved by degradation, up to the cost of messages."""
    cost = log.groupby(["component", "queue_length"])["cost"].mean() / MILLISECOND
    assert 1.0 < cost["base", 0] < 1.5
    assert 0.7 < cost["queue", 10] < 1.3
    assert 3.4 < cost["queue", 40] < 4.6
    assert 2.4 < cost["degradation", 1] < 3.6


def test_a_row_obeys_equation_26(log: pd.DataFrame) -> None:
    base = log[log["component"] == "base"]
    np.testing.assert_allclose(base["cost"], base["utilisation"] * base["machines"] * base["cores"] / base["qps"])
    assert base["utilisation"].between(0.1, 0.9).all()  # other processes take their part


def test_latency_is_measured_in_the_service(log: pd.DataFrame) -> None:
    """A request takes at least its milliseconds of CPU, without waiting in the queue; other work only adds."""
    latency = log.groupby(["component", "queue_length"])["latency_p50"].median() / MILLISECOND
    assert latency["base", 0] > 0.9
    assert latency["degradation", 1] > 1.9
    assert (log["latency_p99"] >= log["latency_p50"]).all()


def test_logs_without_latency_stay_valid(log: pd.DataFrame, tmp_path: Path) -> None:
    older = log.drop(columns=["latency_p50", "latency_p99"])
    write_cost_log(older, tmp_path / "old.csv")
    assert "latency_p50" not in read_cost_log(tmp_path / "old.csv")
    both = pd.concat([older, log], ignore_index=True)  # an old log that was resumed
    write_cost_log(both, tmp_path / "both.csv")
    assert read_cost_log(tmp_path / "both.csv")["latency_p50"].isna().sum() == len(older)


def test_every_bucket_has_every_repeat_and_a_spread(log: pd.DataFrame, tmp_path: Path) -> None:
    write_cost_log(log, tmp_path / "c.csv")
    again = read_cost_log(tmp_path / "c.csv")
    assert len(again) == 4 * 2
    table = repeat_spread(again)
    assert (table["repeats"] == 2).all()
    assert (table["spread"] < 0.3).all()


@pytest.mark.slow
def test_a_rate_beyond_the_service_is_refused_with_a_better_one() -> None:
    with pytest.raises(InputError, match=r"saturated|cannot keep up") as error:
        bench(qps=3000).run(only=["base"])
    advice = float(str(error.value).split("try ")[1].split(" QPS")[0])
    assert 250 < advice < 500  # 45 % of one core at a little over 1 ms a request


def test_a_rate_that_leaves_it_idle_is_refused_with_a_better_one() -> None:
    with pytest.raises(InputError, match="idle") as error:
        bench(qps=5, seconds=0.6).run(only=["base"])
    assert float(str(error.value).split("try ")[1].split(" QPS")[0]) > 200


class Busy:
    """Target in this process with a known cost in seconds; other work delays the first replays."""

    cores = 1

    def __init__(self, cost: float, delayed: int) -> None:
        self.cost, self.delayed, self.rates = cost, delayed, []
        self.buckets = Burner().buckets()[:1]

    def __enter__(self) -> Busy:
        return self

    def __exit__(self, *error: object) -> None: ...

    def prepare(self, workload: object) -> float:
        return self.cost

    def replay(self, due: np.ndarray, patience: float) -> Replay:
        self.rates.append(1.0 / due[0])
        late = 1.0 if len(self.rates) <= self.delayed else 0.0
        n = len(due)
        return Replay(due[-1], self.cost * n, n, n, np.full(n, late), growth=late)  # reports no service times


class Timed(Busy):
    """Target whose requests take as many milliseconds as their workload says, some of them twice as long."""

    def __init__(self) -> None:
        super().__init__(1e-3, delayed=0)
        self.buckets = Burner().buckets()

    def prepare(self, workload: object) -> float:
        assert isinstance(workload, float)
        self.workload = workload
        return self.cost

    def replay(self, due: np.ndarray, patience: float) -> Replay:
        times = np.full(len(due), self.workload * MILLISECOND)
        times[::50] *= 2
        return replace(super().replay(due, patience), service_times=times)


def test_latency_of_a_component_is_that_of_its_workload_without_the_other() -> None:
    """Means and variances are subtracted; rows of degradation keep what the degraded workload takes."""
    rows = TestBench("default", target=lambda machines: Timed(), seconds=0.25, repeats=1).run()
    base, queue, degraded = (
        rows[rows["component"] == name].sort_values("queue_length").iloc[-1]
        for name in ("base", "queue", "degradation")
    )
    assert (base["latency_p50"], base["latency_p99"]) == pytest.approx((1e-3, 2e-3))
    whole, rest = (Duration.from_quantiles(np.array(t), np.array(2 * t)) for t in (5e-3, 1e-3))
    component = Duration.from_quantiles(queue["latency_p50"], queue["latency_p99"])
    assert component.mean + rest.mean == pytest.approx(whole.mean)
    assert component.variance + rest.variance == pytest.approx(whole.variance)
    assert degraded["latency_p50"] == pytest.approx(2e-3)


@pytest.mark.parametrize(("cost", "slowest"), [(15e-6, 2600), (4e-6, 2999)])
def test_cheap_work_is_measured_after_a_neighbours_burst(
    cost: float, slowest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates fall while the machine is busy, never so far that it idles; the cheapest work runs at full rate."""
    monkeypatch.setattr("marca_env.testbench.testbench._PAUSE", 0.0)
    target = Busy(cost, delayed=4)
    (row,) = TestBench("default", target=lambda machines: target, seconds=0.25, repeats=1).measure(only=["base"])
    assert row["cost"] == pytest.approx(cost, rel=0.01)
    assert "latency_p50" not in row
    assert len(target.rates) == 5
    assert min(target.rates) > slowest


@pytest.mark.slow
def test_an_interrupted_run_is_resumed(log: pd.DataFrame) -> None:
    first = log.iloc[:5]
    rest = to_cost_log(bench().measure(done=first))
    assert len(rest) == len(log) - 5
    both = pd.concat([first, rest])
    assert not both.duplicated(["component", "queue_length", "repeat"]).any()


def test_stopping_early_ends_the_processes() -> None:
    before = set(psutil.Process().children())
    measuring = bench().measure()
    assert next(measuring)["cost"] > 0
    assert set(psutil.Process().children()) - before
    measuring.close()
    left = set(psutil.Process().children()) - before
    assert not [p for p in left if "tracker" not in " ".join(p.cmdline())]


@pytest.mark.slow
def test_a_selection_of_buckets_can_be_measured() -> None:
    rows = bench(repeats=1).run(only=["queue"])
    assert set(rows["component"]) == {"queue"}
    with pytest.raises(InputError, match=r"unknown bucket 'quue'; did you mean 'queue'"):
        bench().run(only=["quue"])


@pytest.mark.slow
def test_a_budget_shortens_the_replays() -> None:
    start = time.monotonic()
    assert len(bench(seconds=30.0).run(budget=2.0)) == 8
    assert time.monotonic() - start < 15.0


def test_poisson_arrivals_on_two_machines_are_measured() -> None:
    rows = bench(arrivals="poisson", machines=2, repeats=1, seconds=0.4, utilisation=0.3).run(only=["base"])
    assert 1.0 < rows.loc[0, "cost"] / MILLISECOND < 1.6  # type: ignore[operator]
    assert rows.loc[0, "machines"] == 2


def test_faults_of_the_service_are_reported() -> None:
    with pytest.raises(InputError, match="refill it"), ServiceProcess(functools.partial(Burner, "input")):
        pass
    with pytest.raises(InputError, match="the oven exploded"):
        TestBench("default", service=functools.partial(Burner, "handler")).run()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"arrivals": "uniforn"}, "did you mean 'uniform'"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"qps": -1.0}, "qps is -1.0"),
        ({"qps": 0.0}, "qps is 0.0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"utilisation": 1.5}, "utilisation is 1.5"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        bench(**options)


def test_the_clock_of_a_process_agrees_with_psutil() -> None:
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    times = psutil.Process().cpu_times()
    assert abs(cpu_seconds(psutil.Process().pid) - times.user - times.system) < 0.05


def test_the_machine_is_described() -> None:
    described = describe_machine()
    assert described["cores"] >= 1
    assert described["numpy"] == np.__version__


@pytest.mark.slow
def test_the_live_cascade_fills_a_cost_map(tiny_scenario: Scenario) -> None:
    """Every bucket that the scenario needs is measured on the real cascade, whole requests included."""
    factory = functools.partial(CascadeService, make_tiny_scenario(), 0, 2)
    rows = TestBench(tiny_scenario, service=factory, seconds=0.08, repeats=1).run()
    assert set(rows["value_bucket"]) == {0, 1}
    cost_map = CostMap.from_log(tiny_scenario, rows)
    actions = np.array([[0, 0, 0, 0], [1, 2, 1, 2]])
    cheap, dear = cost_map.cost(actions, np.array([[20.0, 20.0, 5.0], [60.0, 60.0, 20.0]]))
    assert (cheap > 0).all()
    assert (dear > cheap).all()
    assert (cost_map.degradation(np.array([3, 3])) >= cost_map.degradation(np.array([1, 1]))).all()


@pytest.mark.slow
def test_workloads_do_the_work_of_their_bucket(tiny_scenario: Scenario) -> None:
    service = CascadeService(tiny_scenario, value_buckets=2)
    for bucket in service.buckets():
        served = service.handler(bucket.workload)(0)
        if bucket.component == "channel:two_tower":
            assert isinstance(served, tuple)  # (queue, merged): popularity and the channel, without duplicates
            assert bucket.queue_length < served[1] <= bucket.queue_length + 60
        if bucket.component == "queue" and bucket.stage == "pre_ranking":
            assert len(served) == bucket.queue_length // 2  # type: ignore[arg-type]
    low, high = ([r.value[0] for r in group] for group in service._groups)
    assert max(low) <= min(high)


@pytest.mark.parametrize("n", [20, 50, 200])
def test_every_prefix_of_the_requests_is_mixed_evenly(n: int) -> None:
    """Each fifth of each dimension holds its share, which 200 random points miss by three times as much."""
    points = low_discrepancy_points(200, 6)[:n]
    for column in points.T:
        counts = np.bincount((5 * column).astype(int), minlength=5)
        assert np.abs(counts - n / 5).max() <= 2 + 0.02 * n


def test_a_kill_leaves_every_row_that_was_measured(tmp_path: Path) -> None:
    """Rows are written at once, so a kill loses none."""
    out, seen = tmp_path / "costs.csv", []

    class Watched(TestBench):
        def measure(self, **options: Any) -> Iterator[dict[str, Any]]:
            for row in super().measure(**options):
                yield row
                seen.append(len(read_cost_log(out)))

    bench = Watched("default", service=Burner, seconds=0.15, repeats=2)
    log = measure(bench, out, only=["base", "queue"])
    assert seen == list(range(1, len(log) + 1))
    assert (tmp_path / "machine.json").is_file()
