"""Tests of determinism: equal bits for equal seeds, in any batch, order, process and number of threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from marca_env.envs import generated_presets
from marca_env.envs.batched_env import BatchedRecommender, batched_env
from marca_env.envs.request_window import RequestWindow
from marca_env.models.cost_model import AnalyticCostModel
from marca_env.models.deterministic_linear import DeterministicFactor, DeterministicLinear
from marca_env.models.engine import Engine
from marca_env.models.population import Sparsity
from marca_env.models.revenue_model import AnalyticRevenueModel, RevenueModel
from marca_env.scenario.scenario import Scenario
from tests.helpers.paths import ROOT

WINDOWS = (None, RequestWindow(requests=3, traffic=(2.0,), price_rate=0.5))


@pytest.fixture(params=["none", "gamma"])
def fresh(request: pytest.FixtureRequest, tiny_scenario: Scenario, tiny_artefacts: Path):
    """Return a factory of engines of fitted models with an empty cache."""
    return lambda: Engine.load(tiny_scenario, tiny_artefacts, noise=request.param)


def play(engine: Engine, choices: np.ndarray, seed: int | None, **options: Any) -> list[dict[str, np.ndarray]]:
    """Play (B,T) choices and return, for each step, arrays whose first axis is B."""
    return play_on(batched_env(len(choices), engine=engine, **options), choices, seed)


def play_on(env: BatchedRecommender, choices: np.ndarray, seed: int | None) -> list[dict[str, np.ndarray]]:
    steps = [env.reset(seed=seed)]
    for t in range(env.max_steps):
        waits = {agent: np.full(env.num_envs, n - 1) for agent, n in env.action_sizes.items()}
        options = env.scenario.action_shape[env.turn]
        steps.append(env.step({**waits, str(env.agent_on_turn): choices[:, t] % options}))
    return [{**s.observations, "state": s.state, "reward": s.reward, **s.infos} for s in steps]


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# -- products ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (61, 250), (109, 128), (500, 3)])
def test_product_is_accurate_and_its_rows_do_not_depend_on_the_batch(inputs: int, outputs: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(300, inputs, generator=draw) * torch.exp(3.0 * torch.randn(300, 1, generator=draw))
    x[7] = 0.0
    weight = torch.randn(inputs, outputs, generator=draw)
    factor = DeterministicFactor(weight)
    product = factor(x)
    true, size = x.double() @ weight.double(), x.double().abs() @ weight.double().abs()
    assert ((product - true).abs() <= 1e-6 * size + 1e-12).all()
    order = torch.randperm(300, generator=draw)
    assert torch.equal(factor(x[order]), product[order])
    assert torch.equal(torch.cat([factor(part) for part in x.split(7)]), product)
    terms = torch.randperm(inputs, generator=draw)
    assert torch.equal(
        DeterministicFactor(weight[terms])(x[:, terms]), product
    )  # the order of additions changes no bit


def test_layer_computes_the_same_function_in_training_and_prediction() -> None:
    torch.manual_seed(0)
    layer, x = DeterministicLinear(20, 4), torch.randn(50, 20)
    learning = layer(x)
    torch.testing.assert_close(layer.eval()(x), learning, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        layer.train().weight.mul_(2.0)
    torch.testing.assert_close(layer.eval()(x), layer.train()(x), rtol=1e-5, atol=1e-5)


# -- models ------------------------------------------------------------------------------------------------
def evaluate_in_parts(engine: Engine, order: np.ndarray, size: int) -> list[np.ndarray]:
    """Evaluate a fixed set of pairs in ``order``, ``size`` at a time, and return the results in the set's own order."""
    rng, scenario = np.random.default_rng(0), engine.scenario
    states = rng.integers(0, scenario.feature_sizes, (len(order), len(scenario.features)))
    actions = rng.integers(0, scenario.action_shape, (len(order), len(scenario.decisions)))
    parts = [order[k : k + size] for k in range(0, len(order), size)]
    columns_of_parts = zip(*(engine.evaluate(states[part], actions[part]) for part in parts), strict=True)
    return [np.concatenate(columns)[np.argsort(order)] for columns in columns_of_parts]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 16, 257])
def test_fitted_models_are_batch_invariant(tiny_scenario: Scenario, tiny_artefacts: Path, size: int) -> None:
    first = evaluate_in_parts(Engine.load(tiny_scenario, tiny_artefacts), np.arange(600), 600)
    other = evaluate_in_parts(
        Engine.load(tiny_scenario, tiny_artefacts), np.random.default_rng(1).permutation(600), size
    )
    for a, b in zip(first, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["default", "stages-4-v0"])
def test_shipped_models_are_batch_invariant(name: str) -> None:
    first = evaluate_in_parts(Engine.load(name), np.arange(200), 200)
    other = evaluate_in_parts(Engine.load(name), np.random.default_rng(1).permutation(200), 7)
    for a, b in zip(first, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_mean_over_members_is_batch_invariant(tiny_scenario: Scenario, tiny_requests: Any) -> None:
    model = RevenueModel.fit(tiny_scenario, tiny_requests, members=12, epochs=1)
    rng = np.random.default_rng(0)
    states = rng.integers(0, tiny_scenario.feature_sizes, (40, 4))
    actions = rng.integers(0, tiny_scenario.action_shape, (40, 4))
    alone = np.concatenate([model.predict(states[k : k + 1], actions[k : k + 1]) for k in range(40)])
    np.testing.assert_array_equal(model.predict(states, actions), alone)


def test_analytic_models_are_batch_invariant() -> None:
    generated = generated_presets.make_stages(5)
    cost, revenue = (
        AnalyticCostModel(generated.scenario, generated.law),
        AnalyticRevenueModel(generated.scenario, generated.law),
    )
    states, actions = generated.population.states[:50], generated.scenario.joint_actions[::4][:50]
    for model in (cost, revenue):
        alone = np.concatenate([model.predict(states[k : k + 1], actions[k : k + 1]) for k in range(50)])
        np.testing.assert_array_equal(model.predict(states, actions), alone)


# -- batches -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", WINDOWS)
def test_request_k_of_a_batch_equals_episode_k_of_a_single_environment(fresh, window: RequestWindow | None) -> None:
    options = {"window": window, "prices": [1.0, 2.0], "reward": "lagrangian"}
    choices = np.random.default_rng(0).integers(0, 60, (1000, 12))
    together = play(fresh(), choices, seed=3, **options)
    env = batched_env(1, engine=fresh(), **options)
    for k in range(12):
        alone = play_on(env, choices[k : k + 1], 3 if k == 0 else None)
        for a, b in zip(together, alone, strict=True):
            assert_equal({name: values[k : k + 1] for name, values in a.items()}, b)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [1, 2, 37])
def test_first_requests_of_a_batch_do_not_depend_on_its_size(fresh, window: RequestWindow | None, size: int) -> None:
    choices = np.random.default_rng(0).integers(0, 60, (1000, 12))
    large, small = (play(fresh(), choices[:n], seed=5, window=window, prices=[1.0, 2.0]) for n in (1000, size))
    for a, b in zip(large, small, strict=True):
        assert_equal({name: values[:size] for name, values in a.items()}, b)


@pytest.mark.parametrize("window", WINDOWS)
def test_requests_of_several_sites_do_not_depend_on_the_batch_size(window: RequestWindow | None) -> None:
    choices = np.random.default_rng(0).integers(0, 60, (300, 12))
    prices = np.arange(1.0, 1.0 + len(Scenario.load("data-centres-v0").clusters))
    large, small = (
        play(Engine.load("data-centres-v0"), choices[:n], seed=5, window=window, prices=prices) for n in (300, 3)
    )
    for a, b in zip(large, small, strict=True):
        assert_equal({name: values[:3] for name, values in a.items()}, b)


def test_noise_has_its_own_random_stream(tiny_scenario: Scenario, exact_law: Any, exact_engine: Engine) -> None:
    """Requests are equal with and without noise; in windows of two, the second request has new noise."""
    noisy = Engine(
        tiny_scenario, exact_law, exact_law, exact_engine.population, noise="gamma", sparsity=Sparsity(0.5, 1.0)
    )
    choices = np.zeros((400, 8), dtype=int)
    plain, with_noise = (play(engine, choices, seed=0, window=2) for engine in (exact_engine, noisy))
    for a, b in zip(plain, with_noise, strict=True):
        np.testing.assert_array_equal(a["state"], b["state"])
    first, second = (with_noise[t]["revenue"] > 0 for t in (4, 8))
    assert 0.02 < first.mean() < 0.98
    assert (first != second).any()


# -- processes and threads ---------------------------------------------------------------------------------
PROGRAM = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from tests.marca_env.envs.test_determinism import fingerprint
print(fingerprint())
"""


def fingerprint() -> str:
    """Return a hash of trajectories of the shipped environments: requests, windows, and minutes of prices."""
    digest = hashlib.sha256()
    choices = np.random.default_rng(0).integers(0, 60, (300, 10))
    for window in (None, 2):
        for step in play(Engine.load("default"), choices, seed=1, window=window, prices=[1.0, 2.0]):
            for name in sorted(step):
                digest.update(np.ascontiguousarray(step[name]).tobytes())
    env = gymnasium.make("marca_env/Balancing-v0", minutes=10, pool_size=20)
    digest.update(env.reset(seed=1)[0].tobytes())
    for k in range(10):
        observation, reward, *_ = env.step(np.full(2, k / 10, dtype=np.float32))
        digest.update(observation.tobytes() + np.float64(reward).tobytes())
    return digest.hexdigest()


@pytest.mark.slow
def test_processes_and_threads_do_not_change_results() -> None:
    root = ROOT
    hashes = []
    for threads in ("1", "2"):
        env = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": threads}
        env |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, threads], capture_output=True, text=True, env=env, cwd=root, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        hashes.append(done.stdout.strip())
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 64
