"""The environment benchmark measures what it says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.experiments.environment import experiment as environment
from marca_env.models.engine import Engine


def test_rounds_are_interleaved_and_work_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []
    monkeypatch.setattr(environment.time, "perf_counter", lambda: clock[0])

    def work(name: str, takes: float) -> environment.Work:
        def do() -> int:
            clock[0] += takes
            calls.append(name)
            return 10

        return do

    rows = environment.measured({"slow": work("slow", 1.0), "fast": work("fast", 0.5)}, rounds=3, seconds=1.0)
    assert calls == ["slow", "fast"] + ["slow", "fast", "fast"] * 3
    assert rows == [
        {"what": "slow", "per_second": [10.0, 10.0, 10.0]},
        {"what": "fast", "per_second": [20.0, 20.0, 20.0]},
    ]


def test_workloads_play_legal_episodes_and_count_their_steps(exact_engine: Engine) -> None:
    import marca_env

    assert environment.outcomes(exact_engine, 7, 0)() == 7
    batched = environment.batched_steps(exact_engine, 7, 0)
    assert [batched(), batched()] == [8 * 7 * 4, 7 * 4]
    assert environment.parallel_steps(marca_env.parallel_env(engine=exact_engine, on_illegal="error"), 0, 3)() == 12
    assert environment.aec_steps(marca_env.env(engine=exact_engine), 0, 3)() == 12


def test_memory_grows_with_the_batch() -> None:
    small, large = (environment.memory(batch, 0)["peak"] for batch in (10, 1000))
    assert 10 * small < 10 * large < 1000 * small


@pytest.mark.parametrize("options", [4, 10])
def test_the_wide_chain_has_as_many_actions_as_it_says(options: int) -> None:
    engine = environment.widened(options)
    assert engine.scenario.n_joint_actions == options**5
    states, rng = engine.population.states[:20], np.random.default_rng(0)
    actions = rng.integers(0, options, (20, 5))
    results, cost, revenue = engine.evaluate(states, actions)
    assert (np.diff(results, axis=1) <= 0).all()
    assert (cost > 0).all()
    assert (revenue > 0).all()


def test_tables_show_every_row() -> None:
    row = {"what": "x", "per_second": [2.0, 1.0, 3.0], "aim": 5}
    size = {"what": "4", "joint_actions": 9, "decisions": 2, "episode_us": 1.0, "decision_us": 0.5, "argmax_us": 2.0}
    result = {"rounds": 5, "rates": [row, {**row, "aim": None}], "memory": [{"batch": 2, "peak": 10}]}
    tables = list(environment.tables({**result, "stages": [size], "actions": [size, size]}))
    assert [table.row_count for table in tables] == [2, 1, 1, 2]
