"""The registry of experiments and the command that runs them."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from agents.episodes import log_episodes, team_encoder
from agents.learning import team_losses
from agents.presets import preset
from agents.team import Team, TeamSpec
from benchmarks import experiments
from benchmarks.cli import main
from benchmarks.commands import bench
from benchmarks.experiments import throughput
from marca_env.errors import InputError
from marca_env.scenario import Scenario


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two experiments of the test's own in place of the suite; what they were called with."""
    calls: dict[str, Any] = {}
    monkeypatch.setattr(experiments, "names", lambda: ("first", "second"))

    def module(name: str, **extra: Any) -> types.ModuleType:
        made = types.ModuleType(f"benchmarks.experiments.{name}", f"Measures {name}.\n\nMore.")

        def run(out: Path, *, quick: bool = False, seeds: Any = (0,)) -> dict[str, Any]:
            calls[name] = (out, quick, tuple(seeds))
            return {"rate": 2.5}

        made.run = run  # type: ignore[attr-defined]
        for key, value in extra.items():
            setattr(made, key, value)
        monkeypatch.setitem(sys.modules, made.__name__, made)
        return made

    module("first", PARTS=("second", "absent"), SEEDS=(3, 4))
    module("second")
    return calls


def test_every_experiment_keeps_the_convention() -> None:
    assert "throughput" in experiments.names()
    for name in experiments.names():
        assert callable(experiments.experiment(name).run)
        assert experiments.summary(name).endswith((".", "?"))


def test_results_are_kept_with_what_is_needed_to_judge_them(own: dict[str, Any], tmp_path: Path) -> None:
    assert main(["bench", "first", "second", "--out", str(tmp_path)]) == 0
    assert own == {"first": (tmp_path / "first", False, (3, 4)), "second": (tmp_path / "second", False, (0,))}
    kept = json.loads((tmp_path / "first.json").read_text())
    assert kept["result"] == {"rate": 2.5}
    assert kept["seeds"] == [3, 4]
    assert kept["quick"] is False
    assert kept["machine"]["cores"] >= 1
    assert "torch" in kept["versions"]


def test_seeds_and_quick_are_passed_on(own: dict[str, Any], tmp_path: Path) -> None:
    assert main(["bench", "second", "--quick", "--seeds", "7", "8", "--out", str(tmp_path)]) == 0
    assert own == {"second": (tmp_path / "second", True, (7, 8))}
    assert json.loads((tmp_path / "second.json").read_text())["quick"] is True


def test_the_list(own: dict[str, Any], capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--list"]) == 0
    assert "Measures second." in capsys.readouterr().out
    assert own == {}


def test_unknown_experiments_and_seeds(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "troughput"]) == 2
    assert "unknown experiment 'troughput'; did you mean 'throughput'" in capsys.readouterr().err
    assert main(["bench", "throughput", "--seeds", "-1"]) == 2
    assert "-1 is negative" in capsys.readouterr().err
    with pytest.raises(InputError):
        bench.with_parts(["nothing"])


# -- throughput --------------------------------------------------------------------------------------------
def test_operations_of_an_update_by_hand_and_as_counted() -> None:
    """Nothing is unrolled that no TD error uses, and what is counted is what the networks need."""
    scenario, episodes = Scenario.load("default"), 40
    encoder = team_encoder(scenario)
    chosen = preset("VDN", heads=3, gru=32, hidden=(16, 8), double_q=False)
    spec = TeamSpec.of(encoder)
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, sizes, (episodes, 5)) for sizes in (scenario.feature_sizes, scenario.action_shape)]
    log = pd.DataFrame(np.hstack(codes), columns=[*scenario.feature_names, *scenario.decision_names])
    for stage in scenario.stage_names:
        log[f"result_{stage}"] = rng.uniform(10, 300, episodes)
    batch = {k: torch.as_tensor(v) for k, v in log_episodes(log.assign(revenue=1.0), scenario).items()}
    online, target = Team(spec, chosen), Team(spec, chosen).requires_grad_(False).eval()
    with FlopCounterMode(display=False) as counter:
        team_losses(online, target, batch)["loss"].backward()
    config = types.SimpleNamespace(team=spec.to_dict, preset=lambda: chosen)
    by_hand = throughput.network_flops(config, episodes)
    shared_rows = 2 * (2 * 3 * 32 * 32) * 3  # the product of the one zero state: online twice, target once, two agents
    assert counter.get_total_flops() == by_hand + shared_rows


def test_shares_are_rates_over_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "CEILING", 64)
    a, b = torch.ones(8, 16), torch.ones(16, 4)
    row = throughput.share_of_ceiling("products", lambda: a @ b, 10, repeats=3)
    assert row["flops"] == 2 * 8 * 16 * 4
    for name in ("per_second", "gflops", "ceiling_gflops", "share", "cpu_share"):
        median, low, high = row[name]
        assert 0 < low <= median <= high
    assert row["gflops"][0] == pytest.approx(row["per_second"][0] / 10 * row["flops"] / 1e9)
    tables = list(throughput.tables({"threads": 1, "update": row, "decide": [row], "single": []}))
    assert tables[0].row_count == 2


def test_decisions_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    small = preset("AWRQMixer", heads=2, gru=8, hidden=(8,))
    monkeypatch.setattr("agents.presets.preset", lambda name: small)
    monkeypatch.setattr(throughput, "CEILING", 64)
    rows, single = throughput._decisions(6, repeats=1, seed=0, singles=2)
    assert rows[0]["flops"] >= rows[1]["flops"] > 0
    assert rows[2]["flops"] == 0  # nothing is computed twice
    assert [0 < s["p50_ms"] <= s["p99_ms"] for s in single] == [True, True]
