"""Fitted models of scenarios with numbers and signals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.evaluation.slice_calibration import request_slices
from benchmarks.plotting.time_windows import TimeWindows
from marca_env.models.cost_model import CostModel
from marca_env.models.deterministic_linear import DeterministicFactor, DeterministicLinear, JoinedFactor, chunks
from marca_env.models.engine import Engine
from marca_env.models.population import Population
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.encoding import NUMBER_LIMIT, InputEncoder
from marca_env.scenario.scenario import Feature, Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import make_cost_log, make_requests

N = 1500


@pytest.fixture(scope="module")
def scenario(tiny_scenario: Scenario) -> Scenario:
    """The tiny scenario with two numbers, a hidden category, and a signal of the first stage."""
    first, *others = tiny_scenario.stages
    features = (Feature("taste", 2, kind="number"), *tiny_scenario.features, Feature("row", N, hidden=True))
    stages = (type(first)(first.name, first.cluster, first.decisions, first.queue_limit, ("best",)), *others)
    return tiny_scenario.replace(name="numeric", features=features, stages=stages)


@pytest.fixture(scope="module")
def log(scenario: Scenario, tiny_scenario: Scenario) -> pd.DataFrame:
    """Requests whose signal and revenue follow the numbers."""
    frame, rng = make_requests(tiny_scenario, N), np.random.default_rng(1)
    taste = rng.normal(size=(N, 2))
    frame = frame.assign(taste_0=taste[:, 0], taste_1=taste[:, 1], row=np.arange(N))
    frame["signal_retrieval_best"] = 50 + 10 * taste[:, 0] + 5 * frame["rescoring"]
    return frame.assign(revenue=np.exp(taste[:, 1]), clicks=1.0)


@pytest.fixture(scope="module")
def models(scenario: Scenario, log: pd.DataFrame) -> tuple[CostModel, RevenueModel]:
    costs = CostModel.fit(scenario, log, make_cost_log(scenario), epochs=12)
    return costs, RevenueModel.fit(scenario, log, members=2, epochs=12)


def draw(scenario: Scenario, log: pd.DataFrame, n: int) -> tuple[np.ndarray, np.ndarray]:
    rows = log.iloc[:n]
    return rows[list(scenario.state_columns)].to_numpy(float), rows[list(scenario.decision_names)].to_numpy()


def test_signals_and_revenue_follow_the_numbers(models, scenario, log) -> None:
    states, actions = draw(scenario, log, N)
    results = models[0].results(states, actions)
    assert results.shape == (N, 4)
    signal = log["signal_retrieval_best"].to_numpy()
    assert np.mean((results[:, 3] - signal) ** 2) < 0.05 * signal.var()
    assert results[:, :3].min() >= 0
    counts = log[list(scenario.result_columns[:3])].to_numpy()
    assert (np.abs(results[:, :3] - counts).mean(axis=0) < 0.1 * counts.mean(axis=0)).all()
    assert np.corrcoef(np.log(models[1].predict(states, actions)), states[:, 1])[0, 1] > 0.97


@pytest.mark.parametrize("sizes", [(1, 7, 40), (513, 100, 2)])
def test_prediction_of_a_row_does_not_depend_on_its_batch(models, scenario, log, sizes) -> None:
    states, actions = draw(scenario, log, sum(sizes))
    for predict in (models[0].results, models[1].predict):
        whole, ends = predict(states, actions), np.cumsum([0, *sizes])
        parts = [predict(states[a:b], actions[a:b]) for a, b in pairwise(ends)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        order = np.random.default_rng(0).permutation(len(states))
        np.testing.assert_array_equal(predict(states[order], actions[order]), whole[order])


def test_prediction_does_not_depend_on_the_number_of_threads(models, scenario, log) -> None:
    states, actions = draw(scenario, log, 700)
    before, threads = models[0].results(states, actions), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        np.testing.assert_array_equal(models[0].results(states, actions), before)
    finally:
        torch.set_num_threads(threads)


def test_hidden_features_are_no_inputs_and_numbers_are_limited(models, scenario, log) -> None:
    states, actions = draw(scenario, log, 20)
    other, far, limit = states.copy(), states.copy(), states.copy()
    other[:, -1] = other[::-1, -1]
    far[:, 0], limit[:, 0] = 1e6, NUMBER_LIMIT
    for predict in (models[0].results, models[1].predict):
        np.testing.assert_array_equal(predict(other, actions), predict(states, actions))
        np.testing.assert_array_equal(predict(far, actions), predict(limit, actions))


def test_tables_hold_every_joint_action(models, scenario, log) -> None:
    states, joint = draw(scenario, log, 3)[0], scenario.joint_actions
    table = models[1].table(states)
    results, costs = models[0].table(states)
    for k in range(3):
        repeated = np.repeat(states[k : k + 1], len(joint), axis=0)
        np.testing.assert_allclose(table[k], models[1].predict(repeated, joint), rtol=1e-4)
        np.testing.assert_array_equal(results[k], models[0].results(repeated, joint))
        np.testing.assert_array_equal(costs[k], models[0].predict(repeated, joint))


def test_saved_models_come_back_and_older_files_are_read(models, scenario, log, tmp_path: Path) -> None:
    states, actions = draw(scenario, log, 30)
    for model, load in zip(models, (CostModel.load, RevenueModel.load), strict=True):
        model.save(tmp_path / type(model).__name__)
        again = load(tmp_path / type(model).__name__)
        np.testing.assert_array_equal(again.predict(states, actions), model.predict(states, actions))
    assert "signal_mean" in (tmp_path / "CostModel" / "model.json").read_text()


def test_damaged_scales_of_signals_are_refused(models, tmp_path: Path) -> None:
    models[0].save(tmp_path)
    path = tmp_path / "model.json"
    path.write_text(path.read_text().replace('"signal_std"', '"signal_sd"'))
    with pytest.raises(InputError, match="signal_mean and signal_std"):
        CostModel.load(tmp_path)


def test_engine_serves_signals_in_batches_of_any_size(models, scenario, log) -> None:
    states, actions = draw(scenario, log, 200)
    engine = Engine(scenario, *models, Population(states, np.ones(200)))
    outcome = engine.outcome(states, actions, np.random.default_rng(0))
    assert outcome.signals is not None
    np.testing.assert_array_equal(outcome.all_results, models[0].results(states, actions))
    np.testing.assert_array_equal(engine.evaluate(states[:1], actions[:1])[2], outcome.revenue[:1])


def test_fused_layers_predict_what_the_layers_of_training_compute(models, scenario, log) -> None:
    net = models[0]._net
    x = torch.from_numpy(InputEncoder(scenario).inputs(*draw(scenario, log, 50)))
    with torch.inference_mode():
        fused, trained = net(x), net._train_forward(x)
    torch.testing.assert_close(fused, trained, rtol=1e-5, atol=1e-5)


def test_training_computes_the_layers_one_after_the_other(models, scenario, log) -> None:
    """Values and gradients in float64, against cross layers, experts, gates and towers written as they are defined."""
    torch.manual_seed(1)
    net = copy.deepcopy(models[0]._net).double().train()
    x = torch.from_numpy(InputEncoder(scenario).inputs(*draw(scenario, log, 20))).double()
    for weights in (net.cross_bias, *(layer.weight for layer in net.cross)):
        torch.nn.init.normal_(weights, std=0.3)
    crossed = x
    for layer, bias in zip(net.cross, net.cross_bias, strict=True):
        crossed = x * layer(crossed) + bias + crossed
    joined = torch.cat([crossed, net.deep(x), net.wide(x)], dim=1)
    experts = torch.relu(net.experts(joined)).view(len(x), 4, -1)
    expected = []
    for gate, tower, columns in zip(net.gates, net.towers, net.gate_inputs, strict=True):
        shares = torch.softmax(gate(x[:, columns]), dim=1)
        expected.append(tower((shares[:, :, None] * experts).sum(1)))
    ours, plain = net(x), torch.cat(expected, dim=1)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)
    parameters, shares = list(net.parameters()), torch.randn_like(plain)
    gradients = (torch.autograd.grad((y * shares).sum(), parameters) for y in (ours, plain))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_joined_factors_multiply_as_each_of_them() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(9, 40).clamp(-1, 1), torch.ones(9, 1)], dim=1)
    layers, columns = [DeterministicLinear(41, 7), DeterministicLinear(41, 3)], [None, None]
    joined = JoinedFactor([layer.factor for layer in layers], columns)
    torch.testing.assert_close(joined(x), torch.cat([layer.factor(x) for layer in layers], dim=1), rtol=0, atol=0)
    some = JoinedFactor([layers[0].factor, DeterministicFactor(torch.eye(2))], [None, [3, 5]])
    torch.testing.assert_close(some(x)[:, 7:], x[:, [3, 5]], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("device", "first"), [("cpu", 512), ("cuda", 65_536), ("cuda:1", 65_536)])
def test_a_gpu_gets_larger_chunks(device: str, first: int) -> None:
    parts = list(chunks(100_000, device))
    assert parts[0] == slice(0, first)
    assert parts[-1].stop >= 100_000


def test_layers_run_on_any_device(models) -> None:
    """The meta device has shapes without numbers: a tensor left on the CPU would fail."""
    net = models[0]._net
    moved = type(net)(net.wide.in_features, net.gate_inputs).to("meta").eval()
    assert moved(torch.empty(5, net.wide.in_features, device="meta")).shape == (5, 4)


def test_logs_with_faults_are_refused(scenario, log) -> None:
    bad = log.assign(taste_1=np.where(log.index == 4, np.inf, log["taste_1"]))
    fits: list[Callable[..., object]] = [RevenueModel.fit, lambda s, x: CostModel.fit(s, x, make_cost_log(s))]
    for fit in fits:
        with pytest.raises(InputError, match=r"row 5, column 'taste_1'.*is not a finite number"):
            fit(scenario, bad)
    with pytest.raises(InputError, match="'signal_retrieval_best' is missing"):
        CostModel.fit(scenario, log.drop(columns="signal_retrieval_best"), make_cost_log(scenario))


def test_time_windows_of_a_pool_come_after_vectors(models, scenario, log) -> None:
    states = draw(scenario, log, 40)[0]
    pool = Engine(scenario, *models, Population(states, np.ones(40))).pool(100, seed=2)
    windows, n_windows = pool.time_windows
    assert n_windows == 4
    np.testing.assert_array_equal(windows, pool.states[:, 3])  # after two numbers and the user value
    morning = pool.probabilities(500)  # of the second window
    assert morning[windows == 1].sum() == pytest.approx(1.0)
    assert set(request_slices(scenario, pool.states, np.zeros((len(pool.states), 4), int))) >= {"uv", "w×g"}
    assert TimeWindows.of(scenario) == TimeWindows(4)
    numbers = scenario.replace(features=(Feature("w", 1, kind="number"),))
    assert TimeWindows.of(numbers) is None
