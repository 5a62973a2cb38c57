"""Experiment ``environment``: rates are measured in turn, workloads play legal episodes, sizes are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import marca_env
from benchmarks.experiments.environment import experiment, rates, sizes, workloads
from benchmarks.suite.api import Row
from marca_env.models.engine import Engine


def test_rounds_are_interleaved_and_work_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []
    monkeypatch.setattr(rates.time, "perf_counter", lambda: clock[0])

    def work(name: str, takes: float) -> rates.Work:
        def do() -> int:
            clock[0] += takes
            calls.append(name)
            return 10

        return do

    rows = rates.measure_rates({"slow": work("slow", 1.0), "fast": work("fast", 0.5)}, rounds=3, seconds=1.0)
    assert calls == ["slow", "fast"] + ["slow", "fast", "fast"] * 3
    assert rows == [
        {"what": "slow", "per_second": [10.0, 10.0, 10.0]},
        {"what": "fast", "per_second": [20.0, 20.0, 20.0]},
    ]


def test_workloads_play_legal_episodes_and_count_their_steps(exact_engine: Engine) -> None:
    assert workloads.outcomes(exact_engine, 7, 0)() == 7
    batched = workloads.batched_steps(exact_engine, 7, 0)
    assert [batched(), batched()] == [8 * 7 * 4, 7 * 4]
    assert workloads.parallel_steps(marca_env.parallel_env(engine=exact_engine, on_illegal="error"), 0, 3)() == 12
    assert workloads.aec_steps(marca_env.env(engine=exact_engine, on_illegal="error"), 0, 3)() == 12


def test_memory_grows_with_the_batch() -> None:
    small, large = (sizes.peak_memory(batch, 0)["peak"] for batch in (10, 1000))
    assert 10 * small < 10 * large < 1000 * small


@pytest.mark.parametrize("options", [4, 10])
def test_the_wide_chain_has_as_many_actions_as_it_says(options: int) -> None:
    engine = sizes.with_options(options)
    assert engine.scenario.n_joint_actions == options**5
    states, rng = engine.population.states[:20], np.random.default_rng(0)
    actions = rng.integers(0, options, (20, 5))
    results, cost, revenue = engine.evaluate(states, actions)
    assert (np.diff(results, axis=1) <= 0).all()
    assert (cost > 0).all()
    assert (revenue > 0).all()


def test_tables_show_every_row() -> None:
    rate = {"what": "x", "per_second": [2.0, 1.0, 3.0], "aim": 5}
    size = {"what": "4", "joint_actions": 9, "decisions": 2, "episode_us": 1.0, "decision_us": 0.5, "argmax_us": 2.0}
    measured = [[rate, {**rate, "aim": None}], [{"batch": 2, "peak": 10}], [size], [size, size]]
    cases = experiment.cases(quick=True, seeds=(0,))
    rows = [Row(case, {"rows": numbers}, 1.0) for case, numbers in zip(cases, measured, strict=True)]
    assert [table.row_count for table in experiment.tables(rows)] == [2, 1, 1, 2]


def test_every_case_of_a_quick_run_is_measured(tmp_path: Path) -> None:
    for case in experiment.cases(quick=True, seeds=(0,)):
        assert experiment.measure(case, tmp_path)["rows"]
