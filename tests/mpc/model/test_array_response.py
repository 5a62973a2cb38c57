"""The response network in plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import jacrev

from mpc import SystemModel
from mpc.model.conditions import Conditions
from tests.helpers.small_system import fitted


def untrained(n_clusters=2, seed=0, **options) -> SystemModel:
    ones, zeros = [1.0] * n_clusters, [0.0] * n_clusters
    scaling = {"price_mean": ones, "price_std": ones, "cost_mean": zeros, "cost_std": ones}
    return SystemModel([f"c{k}" for k in range(n_clusters)], ones, [9.0] * n_clusters, scaling, seed=seed, **options)


def conditions(rng, *shape, n_clusters=2) -> Conditions:
    return Conditions(
        qps=rng.uniform(50, 400, shape),
        minute=rng.integers(0, 1440, shape),
        degradation=rng.integers(0, 3, (*shape, n_clusters)),
    )


def test_the_array_response_and_its_slopes_match_the_network_and_autograd():
    _, _, fitted_model = fitted()
    rng = np.random.default_rng(5)
    for model in (fitted_model, untrained(3, seed=2, members=4)):
        size = model.n_clusters
        last, horizon = conditions(rng, n_clusters=size), conditions(rng, 6, n_clusters=size)
        load, last_prices = rng.uniform(1, 5, size), rng.uniform(0.5, 2, size)
        u = rng.uniform(0.0, 3.0, (6, size))
        logs = model.rollout_log_cost(load, last, last_prices, horizon)
        with torch.no_grad():
            expected = logs(torch.tensor(u)).numpy()
        blocks = jacrev(logs)(torch.tensor(u)).detach().numpy()  # (N,G,N,G)
        costs = model.array_response().horizon(load, last, last_prices, horizon)
        log_costs, slopes = costs.with_slopes(u)
        assert log_costs == pytest.approx(expected, abs=1e-12)
        assert slopes == pytest.approx(blocks[np.arange(6), :, np.arange(6)], abs=1e-12)
        blocks[np.arange(6), :, np.arange(6)] = 0.0
        assert np.abs(blocks).max() == 0.0  # a price acts on its own minute alone
        assert costs(np.stack([u, u + 1])) == pytest.approx(np.stack([expected, costs(u + 1)]), abs=1e-12)
        with torch.no_grad():
            assert costs.tensor(torch.tensor(u)).numpy() == pytest.approx(expected, abs=1e-12)
