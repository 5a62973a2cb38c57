"""Experiment ``sampling``: the runners of both libraries play whole episodes of the same environment."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="the runners need ray: pip install 'marca-env[rllib]'")

from benchmarks.experiments.sampling import experiment, runners
from benchmarks.experiments.sampling.tensor_rates import KINDS, measure_tensor_rates, rates_table
from benchmarks.suite.api import Row
from marca_env.models.engine import Engine, get_engine

POLICY = {"epsilon": 0.05, "hidden": 64}


def test_three_runners_are_measured_in_turn(exact_engine: Engine) -> None:
    numbers = runners.measure_rates(16, 1, 0, exact_engine, **POLICY)
    assert numbers["sub_environments"] == 16
    for name in ("rllib", "looped", "batched"):
        assert 0 < numbers[name]["least"] <= numbers[name]["median"] <= numbers[name]["most"]
    assert numbers["batched_ratio"] == pytest.approx(numbers["batched"]["median"] / numbers["rllib"]["median"])
    assert numbers["batched_cpu_ratio"] > 1
    (case,) = experiment.cases(quick=True, seeds=(0,))
    (table,) = experiment.tables([Row(case, numbers, 1.0)])
    assert table.columns[0].header == "sub-environments"
    assert list(table.columns[0].cells) == ["16"]


def test_every_runner_counts_the_steps_of_whole_episodes(exact_engine: Engine) -> None:
    steps = exact_engine.scenario.decisions
    make = runners.pettingzoo_maker(exact_engine)
    assert runners.rllib_runner(3, exact_engine, 0, **POLICY)() == 3 * len(steps)
    assert runners.team_runner(3, make, 0, len(steps), **POLICY)() == 3 * len(steps)


def test_rates_of_tensors_are_measured_beside_those_of_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.experiments.sampling.tensor_rates.LEAST_SECONDS", 0.0)
    rows = measure_tensor_rates(get_engine("stages-3-v0"), (4, 9), repeats=1)
    assert [(row["sub_environments"], row["kind"]) for row in rows] == [(n, kind) for n in (4, 9) for kind in KINDS]
    assert all(row["per_second"] > 0 and row["per_cpu_second"] > 0 for row in rows)
    assert rates_table(rows).row_count == 6
