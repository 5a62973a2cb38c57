"""The same seed gives the same bits: alone or in a batch, in any order, process and number of threads."""

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

from marca_env.envs.batched_env import BatchedRecommender
from marca_env.envs.request_window import RequestWindow
from marca_env.models.cost_model import AnalyticCostModel
from marca_env.models.deterministic_linear import DeterministicFactor, DeterministicLinear
from marca_env.models.engine import Engine
from marca_env.models.population import Sparsity
from marca_env.models.revenue_model import AnalyticRevenueModel
from marca_env.scenario.scenario import Scenario
from tests.helpers.paths import ROOT

WINDOWS = (None, RequestWindow(requests=3, traffic=(2.0,), price_rate=0.5))


@pytest.fixture(params=["none", "gamma"])
def fresh(request: pytest.FixtureRequest, tiny_scenario: Scenario, tiny_artefacts: Path):
    """Makes engines of fitted models that remember nothing yet."""
    return lambda: Engine.load(tiny_scenario, tiny_artefacts, noise=request.param)


def play(engine: Engine, choices: np.ndarray, seed: int | None, **options: Any) -> list[dict[str, np.ndarray]]:
    """All that (B,T) choices give: of each step arrays whose first axis is B."""
    return continued(BatchedRecommender(len(choices), engine=engine, **options), choices, seed)


def continued(env: BatchedRecommender, choices: np.ndarray, seed: int | None) -> list[dict[str, np.ndarray]]:
    steps = [env.reset(seed=seed)]
    for t in range(env.max_steps):
        waits = {agent: np.full(env.num_envs, n - 1) for agent, n in env.action_sizes.items()}
        options = env.scenario.action_shape[env.turn]
        steps.append(env.step({**waits, str(env.agent_on_turn): choices[:, t] % options}))
    return [{**s.observations, "state": s.state, "reward": s.reward, **s.infos} for s in steps]


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# -- products ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (61, 250), (109, 128), (500, 3)])
def test_a_product_is_near_and_its_rows_are_independent(inputs: int, outputs: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(300, inputs, generator=draw) * torch.exp(3.0 * torch.randn(300, 1, generator=draw))
    x[7] = 0.0
    weight = torch.randn(inputs, outputs, generator=draw)
    factor = DeterministicFactor(weight)
    found = factor(x)
    true, size = x.double() @ weight.double(), x.double().abs() @ weight.double().abs()
    assert ((found - true).abs() <= 1e-6 * size + 1e-12).all()
    order = torch.randperm(300, generator=draw)
    assert torch.equal(factor(x[order]), found[order])
    assert torch.equal(torch.cat([factor(part) for part in x.split(7)]), found)
    terms = torch.randperm(inputs, generator=draw)
    assert torch.equal(DeterministicFactor(weight[terms])(x[:, terms]), found)  # no order of additions changes a bit


def test_a_layer_learns_and_predicts_the_same_function() -> None:
    torch.manual_seed(0)
    layer, x = DeterministicLinear(20, 4), torch.randn(50, 20)
    learning = layer(x)
    torch.testing.assert_close(layer.eval()(x), learning, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        layer.train().weight.mul_(2.0)
    torch.testing.assert_close(layer.eval()(x), layer.train()(x), rtol=1e-5, atol=1e-5)


# -- models ------------------------------------------------------------------------------------------------
def asked(engine: Engine, order: np.ndarray, size: int) -> list[np.ndarray]:
    """Every pair of a fixed set, put to the engine in the given order, ``size`` at a time; in the set's own order."""
    rng, scenario = np.random.default_rng(0), engine.scenario
    states = rng.integers(0, scenario.feature_sizes, (len(order), len(scenario.features)))
    actions = rng.integers(0, scenario.action_shape, (len(order), len(scenario.decisions)))
    parts = [order[k : k + size] for k in range(0, len(order), size)]
    found = zip(*(engine.evaluate(states[part], actions[part]) for part in parts), strict=True)
    return [np.concatenate(columns)[np.argsort(order)] for columns in found]


@pytest.mark.parametrize("size", [1, 3, 16, 257])
def test_fitted_models_do_not_see_what_else_is_asked(tiny_scenario: Scenario, tiny_artefacts: Path, size: int) -> None:
    first = asked(Engine.load(tiny_scenario, tiny_artefacts), np.arange(600), 600)
    other = asked(Engine.load(tiny_scenario, tiny_artefacts), np.random.default_rng(1).permutation(600), size)
    for a, b in zip(first, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["default", "stages-4-v0"])
def test_nor_do_the_shipped_ones(name: str) -> None:
    first = asked(Engine.load(name), np.arange(200), 200)
    other = asked(Engine.load(name), np.random.default_rng(1).permutation(200), 7)
    for a, b in zip(first, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_members_are_averaged_in_one_order(tiny_scenario: Scenario, tiny_requests: Any) -> None:
    from marca_env.models.revenue_model import RevenueModel

    model = RevenueModel.fit(tiny_scenario, tiny_requests, members=12, epochs=1)
    rng = np.random.default_rng(0)
    states = rng.integers(0, tiny_scenario.feature_sizes, (40, 4))
    actions = rng.integers(0, tiny_scenario.action_shape, (40, 4))
    alone = np.concatenate([model.predict(states[k : k + 1], actions[k : k + 1]) for k in range(40)])
    np.testing.assert_array_equal(model.predict(states, actions), alone)


def test_a_stated_law_does_not_see_them_either() -> None:
    from marca_env.envs import generated_presets

    made = generated_presets.with_stages(5)
    cost, revenue = AnalyticCostModel(made.scenario, made.law), AnalyticRevenueModel(made.scenario, made.law)
    states, actions = made.population.states[:50], made.scenario.joint_actions[::4][:50]
    for model in (cost, revenue):
        alone = np.concatenate([model.predict(states[k : k + 1], actions[k : k + 1]) for k in range(50)])
        np.testing.assert_array_equal(model.predict(states, actions), alone)


# -- batches -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", WINDOWS)
def test_request_k_of_a_thousand_is_episode_k_of_one(fresh, window: RequestWindow | None) -> None:
    options = {"window": window, "prices": [1.0, 2.0], "reward": "lagrangian"}
    choices = np.random.default_rng(0).integers(0, 60, (1000, 12))
    together = play(fresh(), choices, seed=3, **options)
    env = BatchedRecommender(1, engine=fresh(), **options)
    for k in range(12):
        alone = continued(env, choices[k : k + 1], 3 if k == 0 else None)
        for a, b in zip(together, alone, strict=True):
            same({name: values[k : k + 1] for name, values in a.items()}, b)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [1, 2, 37])
def test_the_first_of_a_batch_do_not_see_how_many_there_are(fresh, window: RequestWindow | None, size: int) -> None:
    choices = np.random.default_rng(0).integers(0, 60, (1000, 12))
    large, small = (play(fresh(), choices[:n], seed=5, window=window, prices=[1.0, 2.0]) for n in (1000, size))
    for a, b in zip(large, small, strict=True):
        same({name: values[:size] for name, values in a.items()}, b)


@pytest.mark.parametrize("window", WINDOWS)
def test_nor_do_those_of_several_sites(window: RequestWindow | None) -> None:
    choices = np.random.default_rng(0).integers(0, 60, (300, 12))
    prices = np.arange(1.0, 1.0 + len(Scenario.load("data-centres-v0").clusters))
    large, small = (
        play(Engine.load("data-centres-v0"), choices[:n], seed=5, window=window, prices=prices) for n in (300, 3)
    )
    for a, b in zip(large, small, strict=True):
        same({name: values[:3] for name, values in a.items()}, b)


def test_noise_comes_from_a_stream_of_its_own(tiny_scenario: Scenario, exact_law: Any, exact_engine: Engine) -> None:
    """The same requests with and without it; in windows of two, the second request has new noise."""
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
    """Of trajectories of the shipped environments: a batch of requests, of windows, and hours of prices."""
    digest = hashlib.sha256()
    choices = np.random.default_rng(0).integers(0, 60, (300, 10))
    for window in (None, 2):
        for step in play(Engine.load("default"), choices, seed=1, window=window, prices=[1.0, 2.0]):
            for name in sorted(step):
                digest.update(np.ascontiguousarray(step[name]).tobytes())
    env = gymnasium.make("marca_env/Balancing-v0", minutes=10, pool_size=20)
    digest.update(env.reset(seed=1)[0].tobytes())
    for k in range(10):
        seen, reward, *_ = env.step(np.full(2, k / 10, dtype=np.float32))
        digest.update(seen.tobytes() + np.float64(reward).tobytes())
    return digest.hexdigest()


def test_processes_and_threads_change_nothing() -> None:
    root = ROOT
    found = []
    for threads in ("1", "2"):
        env = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": threads}
        env |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, threads], capture_output=True, text=True, env=env, cwd=root, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(done.stdout.strip())
    assert found[0] == found[1]
    assert len(found[0]) == 64
