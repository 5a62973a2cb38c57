"""The loop of the controller with real balancers on the small system."""

from __future__ import annotations

import copy
import json
import math
import shutil
import threading
import time
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.serving.controller_loop import ControllerLoop
from benchmarks.serving.prices import PriceBoard
from benchmarks.serving.telemetry import TelemetryInbox, TelemetryReading
from marca_env.traffic.simulated_system import SimulatedSystem
from marca_env.traffic.workload import Traffic
from marca_env.utils.errors import InputError
from mpc import AdaptiveBalancer, FeedbackBalancer, FeedbackSettings, MPCBalancer, StaticBalancer
from mpc.controller.telemetry import Event
from tests.helpers.small_system import fitted, make_pool, simulate, sine_days

CLUSTERS, BUDGETS = ("retrieval", "ranking"), (7.0, 7.0)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 86_400.0 * 20_000

    def __call__(self) -> float:
        return self.now


def make_loop(balancer, clock: Clock, budgets=BUDGETS, **options) -> ControllerLoop:
    board = PriceBoard(CLUSTERS, fresh_seconds=180, hold_seconds=600, clock=clock)
    return ControllerLoop(balancer, None, board, budgets=budgets, clock=clock, **options)


def value(minute: int, load=(9.0, 5.0), qps: float = 300.0) -> TelemetryReading:
    return TelemetryReading(minute, "value", qps, tuple(load))


def feedback() -> FeedbackBalancer:
    return FeedbackBalancer(FeedbackSettings(scale=2.0))


def test_the_loop_sets_the_prices_that_the_balancer_would_set_in_process():
    """An hour of the simulated system through readings: the same prices as with the balancer's own observations."""
    pool, days, clock = make_pool(per_window=10), sine_days(1, seed=3), Clock()
    expected = simulate(pool, feedback(), days, start=(3.0, 3.0), minutes=(600, 660)).log
    loop = make_loop(feedback(), clock, pool.scenario.budgets)
    loop.board.publish((3.0, 3.0), "start")
    traffic = Traffic("hour", days[0, 600:660], first_minute=600)
    system = SimulatedSystem(pool, traffic, np.random.default_rng(0))
    system.start(np.array([3.0, 3.0]))
    prices = []
    for minute in range(600, 660):
        in_force = loop.board.current().prices
        prices.append(in_force)
        outcome, seen = system.step(np.array(in_force))
        clock.now += 60
        load, levels = tuple(seen.load.tolist()), tuple(seen.degradation.tolist())
        loop.step(TelemetryReading(minute, "value", outcome.qps, load, degradation=levels))
    assert np.array(prices) == pytest.approx(expected[["price_retrieval", "price_ranking"]].to_numpy())
    assert loop.readings == {"value": 60}


def test_prices_age_while_telemetry_is_missing_and_are_fresh_again_after_it():
    clock, loop = Clock(), None
    loop = make_loop(feedback(), clock)
    states = []
    for minute in range(30):
        clock.now += 60
        loop.step(value(minute) if minute < 5 or minute >= 25 else TelemetryReading(minute, "missing"))
        states.append(loop.board.current().state)
    assert states[:5] == ["fresh"] * 5
    assert [states.index(s) for s in ("last-good", "stale")] == [8, 18]
    assert states[25:] == ["fresh"] * 5
    assert loop.readings == {"value": 10, "missing": 20}
    assert loop.board.current().version == 10


def test_a_quiet_night_keeps_prices_fresh_and_a_repeated_minute_changes_nothing():
    clock = Clock()
    loop = make_loop(feedback(), clock)
    for minute in range(3):
        loop.step(value(minute))
    for minute in range(3, 40):
        clock.now += 60
        loop.step(TelemetryReading(minute, "no-traffic", 0.0, (0.0, 0.0)))
        assert loop.board.current().state == "fresh"
    before = loop.board.current()
    assert before.prices == (0.0, 0.0)
    loop.step(value(39))
    assert loop.board.current() == before
    assert loop.readings == {"value": 3, "no-traffic": 37, "stale": 1}


def test_events_of_the_balancer_are_counted_by_kind_also_when_its_list_is_full():
    class Noisy(StaticBalancer):
        """Records an event in each minute, and keeps the last three."""

        def __init__(self) -> None:
            super().__init__([1.0, 2.0])
            self.events: deque[Event] = deque(maxlen=3)

        def update(self, observation):
            self.events.append(Event(observation.minute, "gap" if observation.minute % 2 else "range", "…", "held"))
            return super().update(observation)

    loop = make_loop(Noisy(), Clock())
    for minute in range(10):
        loop.step(value(minute))
    assert loop.events == {"gap": 5, "range": 5}
    assert loop.records[-1].events == ("range",)


def test_a_balancer_that_fails_leaves_the_prices_and_the_loop_goes_on():
    class Broken:
        """Fails in its second and third minute."""

        calls = 0

        def reset(self) -> None:
            pass

        def update(self, observation):
            self.calls += 1
            if self.calls == 2:
                raise ValueError("no idea")
            return np.array([math.nan, 1.0]) if self.calls == 3 else np.array([1.0 * self.calls, 1.0])

    clock = Clock()
    loop = make_loop(Broken(), clock)
    versions = []
    for minute in range(4):
        published = loop.step(value(minute))
        assert published is not None
        versions.append((published.version, published.prices))
    assert versions == [(1, (1.0, 1.0)), (1, (1.0, 1.0)), (1, (1.0, 1.0)), (2, (4.0, 1.0))]
    assert loop.failures == 2
    assert "no idea" in loop.records[1].failure
    assert "retrieval" in loop.records[2].failure


def test_nothing_is_published_before_the_first_measurement():
    clock = Clock()
    loop = make_loop(StaticBalancer([1.0, 2.0]), clock)
    assert loop.step(TelemetryReading(0, "missing")) is None
    assert loop.board.current().state == "stale"
    published = loop.step(value(1))
    assert published is not None
    assert published.prices == (1.0, 2.0)


def test_records_are_rows_of_a_system_log():
    clock, rows = Clock(), []
    loop = make_loop(feedback(), clock, on_record=lambda record: rows.append(record.row(CLUSTERS)))
    loop.step(replace(value(600), degradation=(0, 1)))
    loop.step(TelemetryReading(601, "missing", reason="no reading came"))
    assert rows[0]["minute"] == 600
    assert (rows[0]["load_retrieval"], rows[0]["price_retrieval"], rows[0]["degradation_ranking"]) == (9.0, 0.0, 1)
    assert rows[0]["next_price_retrieval"] > 0
    assert (rows[1]["state"], rows[1]["reason"], rows[1]["qps"]) == ("missing", "no reading came", None)
    assert rows[1]["load_retrieval"] is None
    assert list(rows[0]) == list(rows[1])


def test_prices_counts_and_clock_survive_a_restart(tmp_path):
    clock, path = Clock(), tmp_path / "state.json"
    first = make_loop(feedback(), clock, state_file=path)
    for minute in range(5):
        clock.now += 60
        first.step(value(minute))
    second = make_loop(feedback(), clock, state_file=path)
    assert second.restore()
    assert second.board.latest == first.board.latest
    assert second.readings == first.readings
    second.step(value(4))  # seen before the restart
    assert second.readings["stale"] == 1
    published = second.step(value(5))
    assert published is not None
    assert published.version == 6
    assert not make_loop(feedback(), clock, state_file=tmp_path / "none.json").restore()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 9}, "not a state"),
        ({"at": "now"}, "at"),
        ({"minute": 5000}, "minute"),
        ({"readings": {"value": -1}}, "readings"),
        ({"readings": 3}, "remove the file"),
        ({"prices": None}, "prices"),
    ],
)
def test_a_damaged_state_is_one_line(tmp_path, change, words):
    clock, path = Clock(), tmp_path / "state.json"
    first = make_loop(feedback(), clock, state_file=path)
    first.step(value(0))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError) as caught:
        make_loop(feedback(), clock, state_file=path).restore()
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_running_loop_follows_posts_counts_silence_and_stops(tmp_path):
    inbox, stop, path = TelemetryInbox(), threading.Event(), tmp_path / "state.json"
    board = PriceBoard(CLUSTERS)
    loop = ControllerLoop(feedback(), inbox, board, 0.1, budgets=BUDGETS, state_file=path)
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    inbox.post(value(10))
    inbox.post(value(11))
    wait_until(lambda: loop.readings["missing"] >= 2)
    assert loop.readings["value"] == 2
    inbox.post(value(100))
    wait_until(lambda: loop.readings["value"] == 3)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert json.loads(path.read_text())["readings"]["value"] == 3


def wait_until(holds) -> None:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    assert holds()


def test_a_loop_needs_a_budget_for_each_cluster_and_a_source_to_run():
    board = PriceBoard(CLUSTERS)
    for budgets in ((7.0,), (7.0, 0.0), (7.0, math.nan)):
        with pytest.raises(InputError, match="budgets"):
            ControllerLoop(feedback(), None, board, budgets=budgets)
    with pytest.raises(InputError, match="source"):
        ControllerLoop(feedback(), None, board, budgets=BUDGETS).run(threading.Event())


@pytest.mark.slow
def test_a_refitted_model_survives_a_restart(tmp_path):
    path, model = tmp_path / "controller.json", fitted()[2]

    def adaptive() -> AdaptiveBalancer:
        return AdaptiveBalancer(MPCBalancer(model))

    first = make_loop(adaptive(), Clock(), state_file=path)
    first.step(value(600))
    assert list(tmp_path.glob("refitted-model-*")) == []
    for adopted in (1, 2):
        refit = copy.deepcopy(first.balancer.balancer.model)
        with torch.no_grad():
            next(iter(refit.response.parameters())).mul_(1.1)
        first.balancer.balancer.adopt(refit)
        first.balancer.adopted = adopted
        first.step(value(600 + adopted))
    assert [folder.name for folder in tmp_path.glob("refitted-model-*")] == ["refitted-model-2"]
    second = make_loop(adaptive(), Clock(), state_file=path)
    assert second.restore()
    weights = [loop.balancer.balancer.model.response.state_dict() for loop in (first, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    shutil.rmtree(tmp_path / "refitted-model-2")
    with pytest.raises(InputError, match="remove the file to begin without a past"):
        make_loop(adaptive(), Clock(), state_file=path).restore()
