"""The experiment on sampling: both libraries' runners really play whole episodes of the same environment."""

from __future__ import annotations

import pytest
from rich.console import Console

from benchmarks.experiments.sampling import experiment as sampling
from marca_env.models.engine import Engine


def test_three_runners_side_by_side(exact_engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    row = sampling._measure(16, 1, 0, exact_engine)
    assert row["sub_environments"] == 16
    for name in ("rllib", "looped", "batched"):
        assert 0 < row[name]["least"] <= row[name]["median"] <= row[name]["most"]
    assert row["batched_ratio"] == pytest.approx(row["batched"]["median"] / row["rllib"]["median"])
    assert row["batched_cpu_ratio"] > 1
    for table in sampling.tables({"rows": [row]}):
        Console(width=120).print(table)
    assert "sub-environments" in capsys.readouterr().out


def test_every_runner_counts_the_steps_of_whole_episodes(exact_engine: Engine) -> None:
    steps = exact_engine.scenario.decisions
    make = sampling._pettingzoo_maker(exact_engine)
    assert sampling._rllib_runner(3, exact_engine, 0)() == 3 * len(steps)
    assert sampling._team_runner(3, make, 0, len(steps))() == 3 * len(steps)
