"""Q ensembles against a slow float64 reimplementation, and the rule that an agent off turn rests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.networks import EnsembleMLP, QNetwork


def weights(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {k: v.detach().double().numpy() for k, v in module.state_dict().items()}


def slow_mlp(w: dict[str, np.ndarray], x: np.ndarray, prefix: str = "") -> np.ndarray:
    """(I,) → (K, A), head by head."""
    depth = sum(k.startswith(f"{prefix}layers") for k in w) // 2
    heads = []
    for k in range(w[f"{prefix}layers.0.weight"].shape[0]):
        h = x
        for layer in range(depth):
            h = h @ w[f"{prefix}layers.{layer}.weight"][k] + w[f"{prefix}layers.{layer}.bias"][k, 0]
            h = np.maximum(h, 0) if layer < depth - 1 else h
        heads.append(h)
    return np.stack(heads)


def slow_gru(w: dict[str, np.ndarray], x: np.ndarray, h: np.ndarray) -> np.ndarray:
    gates_x = w["cell.weight_ih"] @ x + w["cell.bias_ih"]
    gates_h = w["cell.weight_hh"] @ h + w["cell.bias_hh"]
    (rx, zx, nx), (rh, zh, nh) = np.split(gates_x, 3), np.split(gates_h, 3)
    reset, update = 1 / (1 + np.exp(-rx - rh)), 1 / (1 + np.exp(-zx - zh))
    return (1 - update) * np.tanh(nx + reset * nh) + update * h


def test_ensemble_is_k_separate_networks() -> None:
    torch.manual_seed(0)
    net = EnsembleMLP(3, 5, (7, 6), 4)
    x = torch.randn(9, 5)
    expected = np.stack([slow_mlp(weights(net), row) for row in x.double().numpy()])
    np.testing.assert_allclose(net(x).detach().numpy(), expected, atol=1e-5)


def test_heads_start_different_within_glorot_bounds() -> None:
    net = EnsembleMLP(4, 30, (50,), 2)
    first = net.layers[0].weight
    assert float(first.detach().abs().max()) <= np.sqrt(6 / 80) + 1e-6
    assert len({w[0, 0].item() for w in first}) == 4


@pytest.mark.parametrize("gru", [None, 6])
def test_unroll_matches_one_step_at_a_time(gru: int | None) -> None:
    torch.manual_seed(1)
    net = QNetwork(5, 3, heads=2, hidden=(4,), gru=gru)
    rng = np.random.default_rng(0)
    seen, on = rng.normal(size=(6, 4, 5)), rng.random((6, 4)) < 0.6
    q = net.unroll(torch.tensor(seen, dtype=torch.float32), torch.tensor(on)).detach().numpy()
    w = weights(net)
    for b in range(6):
        h = np.zeros(gru or 0)
        for t in range(4):
            if not on[b, t]:
                continue
            h = slow_gru(w, seen[b, t], h) if gru else h
            np.testing.assert_allclose(q[b, t], slow_mlp(w, h if gru else seen[b, t], "head."), atol=1e-5)


def test_unroll_of_nobody_on_turn_is_zero() -> None:
    net = QNetwork(3, 2)
    assert net.unroll(torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.bool)).abs().sum() == 0


def test_rest_leaves_no_trace() -> None:
    """What an agent sees while it waits changes nothing later."""
    torch.manual_seed(2)
    net = QNetwork(3, 2, gru=4)
    on = torch.tensor([[True, False, True]])
    seen = torch.randn(1, 3, 3)
    other = seen.clone()
    other[:, 1] += 5
    assert torch.equal(net.unroll(seen, on)[:, 2], net.unroll(other, on)[:, 2])
