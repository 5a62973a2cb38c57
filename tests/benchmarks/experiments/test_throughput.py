"""Experiment ``throughput``: operations are counted right, and shares are of the machine's peak."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from agents.algorithms.presets import preset
from agents.offline.episodes import log_episodes, team_encoder
from agents.team.td_losses import team_losses
from agents.team.team import Team, TeamSpec
from benchmarks.experiments.throughput import decisions, experiment, peak_share, reference_update
from benchmarks.suite.api import Row
from marca_env.scenario.scenario import Scenario


def test_counted_operations_of_an_update_match_those_by_hand() -> None:
    """No step is computed that no TD error uses, and the count holds what the networks need."""
    pytest.importorskip("ray", reason="the learner needs ray: pip install 'marca-env[rllib]'")
    from benchmarks.experiments.throughput import updates

    scenario, episodes = Scenario.load("default"), 40
    encoder = team_encoder(scenario)
    chosen = preset("VDN", heads=3, gru=32, hidden=(16, 8), double_q=False)
    spec = TeamSpec.from_source(encoder)
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
    by_hand = updates.network_flops(config, episodes)
    assert counter.get_total_flops() == by_hand


def test_shares_are_rates_over_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_share, "SIZE", 64)
    a, b = torch.ones(8, 16), torch.ones(16, 4)
    row = peak_share.share_of_peak("products", lambda: a @ b, 10, repeats=3)
    assert row["flops"] == 2 * 8 * 16 * 4
    for name in ("per_second", "gflops", "ceiling_gflops", "share", "cpu_share"):
        median, low, high = row[name]
        assert 0 < low <= median <= high
    assert row["gflops"][0] == pytest.approx(row["per_second"][0] / 10 * row["flops"] / 1e9)
    update, decide, _ = experiment.cases(quick=True, seeds=(0,))
    rows = [
        Row(update, {"threads": 1, "rows": [row]}, 1.0),
        Row(decide, {"threads": 1, "rows": [row], "single": []}, 1.0),
    ]
    tables = list(experiment.tables(rows))
    assert tables[0].row_count == 2


def test_decisions_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    small = preset("AWRQMixer", heads=2, gru=8, hidden=(8,))
    monkeypatch.setattr(decisions, "preset", lambda name: small)
    monkeypatch.setattr(peak_share, "SIZE", 64)
    rows, single = decisions.measure_decisions(seed=0, requests=6, singles=2, repeats=1)
    assert rows[0]["flops"] >= rows[1]["flops"] > 0
    assert rows[2]["flops"] == 0  # all answers are in the cache
    assert [0 < s["p50_ms"] <= s["p99_ms"] for s in single] == [True, True]


def test_a_device_is_measured_with_its_launches_and_waits() -> None:
    pytest.importorskip("ray", reason="the learner needs ray: pip install 'marca-env[rllib]'")
    (case,) = experiment.cases(quick=True, seeds=(0,), device="cpu")
    case = dataclasses.replace(case, budget={**case.budget, "batch": 8, "size": 64})
    numbers = experiment.measure(case, Path())
    (row,) = numbers["device"]["updates"]
    assert row["ms"] > 0
    assert row["launches"] > 100
    assert 0 < row["waits"] < 60  # checks of the gradients, dropout of the CPU, and metrics of the iteration
    assert numbers["device"]["ceilings"].keys() == {"fp32", "bf16"}
    assert [table.row_count for table in experiment.tables([Row(case, numbers, 1.0)])] == [1, 2]


def test_a_plain_loop_is_timed_beside_the_update() -> None:
    pytest.importorskip("ray", reason="the learner needs ray: pip install 'marca-env[rllib]'")
    case = experiment.cases(quick=True, seeds=(0,))[-1]
    numbers = experiment.measure(case, Path())
    assert not numbers["reference"]["compiled"]
    assert numbers["reference"]["speed_up"] > 0
    assert [table.row_count for table in experiment.tables([Row(case, numbers, 1.0)])] == [1]


def test_the_plain_loop_learns() -> None:
    """Its loss falls on one batch, and unrolling only an agent's own turns changes nothing."""
    torch.manual_seed(0)
    turns = ((0, 1), (2,))
    batch = reference_update.Episodes(
        [torch.randn(20, 4, n) for n in (5, 4)],
        [torch.ones(20, 4, 3, dtype=torch.bool)] * 2,
        [torch.randint(0, 3, (20, 3)) for _ in turns],
        [torch.tensor([[t in steps for t in range(4)]]).expand(20, 4) for steps in turns],
        torch.randn(20, 4, 6),
        torch.randn(20, 3),
        torch.tensor([[False, False, True]]).expand(20, 3),
    )
    losses = []
    for known in (None, turns):
        torch.manual_seed(1)
        sizes = reference_update.Sizes((5, 4), (3, 3), 6, 2, 8, (), 0.0, known)
        step, online = reference_update.make_step(sizes, backend=None), reference_update.Networks(sizes)
        losses.append(float(reference_update.loss_of(online, online, batch).detach()))
        step(batch)
    torch.manual_seed(1)
    step = reference_update.make_step(sizes, backend=None)
    values = [step(batch) for _ in range(60)]
    assert float(values[-1]) < 0.7 * float(values[0])
