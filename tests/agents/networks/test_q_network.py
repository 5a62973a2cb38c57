"""Q ensembles match a slow float64 reference, and the recurrent state changes only on turn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agents.networks.q_network import (
    ACTIVATIONS,
    EPSILON,
    INITIALIZERS,
    NORMALIZATIONS,
    EnsembleMLP,
    EnsembleNorm,
    QNetwork,
)
from marca_env.utils.errors import InputError


def weights(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return the state of a module as float64 arrays."""
    return {k: v.detach().double().numpy() for k, v in module.state_dict().items()}


def slow_mlp(w: dict[str, np.ndarray], x: np.ndarray, prefix: str = "") -> np.ndarray:
    """Evaluate the heads one by one: (I,) → (K, A)."""
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
    """Return the next state of a GRU cell by its formulas."""
    gates_x = w["cell.weight_ih"] @ x + w["cell.bias_ih"]
    gates_h = w["cell.weight_hh"] @ h + w["cell.bias_hh"]
    (rx, zx, nx), (rh, zh, nh) = np.split(gates_x, 3), np.split(gates_h, 3)
    reset, update = 1 / (1 + np.exp(-rx - rh)), 1 / (1 + np.exp(-zx - zh))
    return (1 - update) * np.tanh(nx + reset * nh) + update * h


def test_an_ensemble_equals_k_separate_networks() -> None:
    torch.manual_seed(0)
    net = EnsembleMLP(3, 5, (7, 6), 4)
    x = torch.randn(9, 5)
    expected = np.stack([slow_mlp(weights(net), row) for row in x.double().numpy()])
    np.testing.assert_allclose(net(x).detach().numpy(), expected, atol=1e-5)


def test_heads_start_differently_within_glorot_bounds() -> None:
    net = EnsembleMLP(4, 30, (50,), 2)
    first = net.layers[0].weight
    assert float(first.detach().abs().max()) <= np.sqrt(6 / 80) + 1e-6
    assert len({w[0, 0].item() for w in first}) == 4


def plain_unroll(net: QNetwork, observations: torch.Tensor, on_turn: torch.Tensor) -> torch.Tensor:
    """Unroll one step at a time for all rows, with torch's GRU cell: (B, T, K, A)."""
    hidden, values = net.initial_hidden(len(observations)), []
    for t in range(observations.shape[1]):
        next_hidden = net.advance(observations[:, t], hidden)
        hidden = torch.where(on_turn[:, t, None], next_hidden, hidden)
        values.append(net.values(observations[:, t], next_hidden))
    return torch.stack(values, 1)


PATTERNS = {
    "ragged": lambda rng: rng.random((9, 6)) < 0.5,
    "lockstep": lambda rng: np.tile([True, True, False, True, False, False], (9, 1)),
    "always": lambda rng: np.ones((9, 6), bool),
    "one episode": lambda rng: np.eye(9, 6, dtype=bool) & (np.arange(9) == 2)[:, None],
}


@pytest.mark.parametrize("gru", [None, 6])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("some", [False, True])
def test_unroll_matches_one_step_at_a_time(gru: int | None, pattern: str, some: bool) -> None:
    """Values and gradients agree, also with unequal turns and with values that are not needed."""
    torch.manual_seed(1)
    net = QNetwork(5, 3, heads=2, hidden=(4,), gru=gru).double()
    for layer in net.head.layers:
        torch.nn.init.normal_(layer.bias)
    rng = np.random.default_rng(0)
    observations = torch.tensor(rng.normal(size=(9, 6, 5)))
    on = torch.tensor(PATTERNS[pattern](rng))
    needed = torch.tensor((rng.random((9, 6)) < 0.5) | np.eye(9, 6, dtype=bool)) if some else None
    keep = on if needed is None else on & needed
    factor = torch.tensor(rng.normal(size=(9, 6, 2, 3)))
    gradients = []
    for q in (net.unroll(observations, on, needed), plain_unroll(net, observations, on) * keep[..., None, None]):
        net.zero_grad()
        (q**2 * factor).sum().backward()
        gradients.append((q.detach(), {n: p.grad for n, p in net.named_parameters()}))
    (fast, fast_grad), (plain, plain_grad) = gradients
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-12)
    for name, grad in plain_grad.items():
        torch.testing.assert_close(fast_grad[name], grad, rtol=1e-9, atol=1e-12)
    assert keep.any()
    assert fast[keep].abs().min() > 0


@pytest.mark.parametrize("gru", [None, 6])
def test_unroll_matches_a_float64_reference(gru: int | None) -> None:
    torch.manual_seed(1)
    net = QNetwork(5, 3, heads=2, hidden=(4,), gru=gru)
    rng = np.random.default_rng(0)
    observations, on = rng.normal(size=(6, 4, 5)), rng.random((6, 4)) < 0.6
    q = net.unroll(torch.tensor(observations, dtype=torch.float32), torch.tensor(on)).detach().numpy()
    w = weights(net)
    for b in range(6):
        h = np.zeros(gru or 0)
        for t in range(4):
            if not on[b, t]:
                continue
            h = slow_gru(w, observations[b, t], h) if gru else h
            np.testing.assert_allclose(q[b, t], slow_mlp(w, h if gru else observations[b, t], "head."), atol=1e-5)


def test_leaky_slope_is_the_slope_below_zero() -> None:
    torch.manual_seed(5)
    steep, flat = (EnsembleMLP(1, 2, (3,), 1, activation="leaky_relu", leaky_slope=slope) for slope in (0.5, 0.0))
    relu = EnsembleMLP(1, 2, (3,), 1)
    for net in (flat, relu):
        net.load_state_dict(steep.state_dict())
    x = torch.randn(20, 2)
    torch.testing.assert_close(flat(x), relu(x))
    w = weights(steep)
    h = x.numpy() @ w["layers.0.weight"][0] + w["layers.0.bias"][0]
    expected = np.where(h > 0, h, 0.5 * h) @ w["layers.1.weight"][0] + w["layers.1.bias"][0]
    np.testing.assert_allclose(steep(x).detach().numpy()[:, 0], expected, atol=1e-6)


def test_linear_heads_read_the_normalised_output_of_the_gru() -> None:
    torch.manual_seed(6)
    net = QNetwork(3, 2, heads=2, hidden=(), gru=16, dropout=0.5, normalization="layer").eval()
    observation = torch.randn(9, 3)
    hidden = net.advance(observation, net.initial_hidden(9))
    state = hidden.detach().numpy()
    state = (state - state.mean(1, keepdims=True)) / np.sqrt(state.var(1, keepdims=True) + EPSILON)
    w = weights(net)
    expected = np.einsum("bh,kha->bka", state, w["head.layers.0.weight"])
    np.testing.assert_allclose(net.values(observation, hidden).detach().numpy(), expected, atol=1e-5)
    whole = net.unroll(observation[:, None], torch.ones(9, 1, dtype=torch.bool))
    np.testing.assert_allclose(whole[:, 0].detach().numpy(), expected, atol=1e-5)


def test_linear_heads_drop_units_of_the_gru_in_training_only() -> None:
    """Half of the units are dropped, the others doubled, and the mean over draws is the value without dropout."""
    torch.manual_seed(7)
    net = QNetwork(3, 2, hidden=(), gru=64, dropout=0.5)
    observation = torch.randn(1, 3)
    hidden = net.advance(observation, net.initial_hidden(1))
    plain = net.eval().values(observation, hidden)
    assert torch.equal(plain, net.values(observation, hidden))
    net.train()
    draws = torch.stack([net.values(observation, hidden) for _ in range(4000)]).detach()
    assert draws.std() > 0
    torch.testing.assert_close(draws.mean(0), plain.detach(), atol=float(4 * draws.std(0).max() / 4000**0.5), rtol=0)


def test_values_are_zero_if_no_agent_is_on_turn() -> None:
    net = QNetwork(3, 2)
    assert net.unroll(torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.bool)).abs().sum() == 0


def test_observations_off_turn_have_no_effect() -> None:
    """An observation while the agent waits does not change later values."""
    torch.manual_seed(2)
    net = QNetwork(3, 2, gru=4)
    on = torch.tensor([[True, False, True]])
    observations = torch.randn(1, 3, 3)
    changed = observations.clone()
    changed[:, 1] += 5
    assert torch.equal(net.unroll(observations, on)[:, 2], net.unroll(changed, on)[:, 2])


SLOW_ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
}


def test_every_activation_has_a_reference() -> None:
    assert set(SLOW_ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_hidden_layers_match_their_formulas(activation: str, normalization: str) -> None:
    torch.manual_seed(4)
    net = EnsembleMLP(2, 3, (5,), 2, activation=activation, normalization=normalization).double()
    for p in net.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(7, 3, dtype=torch.float64)
    out = net(x).detach().numpy()
    w = weights(net)
    for k in range(2):
        h = x.numpy() @ w["layers.0.weight"][k] + w["layers.0.bias"][k]
        if normalization != "none":
            axis = 1 if normalization == "layer" else 0
            h = (h - h.mean(axis, keepdims=True)) / np.sqrt(h.var(axis, keepdims=True) + 1e-5)
            h = h * w["norms.0.weight"][k] + w["norms.0.bias"][k]
        h = SLOW_ACTIVATIONS[activation](h)
        np.testing.assert_allclose(out[:, k], h @ w["layers.1.weight"][k] + w["layers.1.bias"][k], atol=1e-10)


def test_evaluation_uses_the_running_batch_statistics() -> None:
    torch.manual_seed(0)
    norm = EnsembleNorm("batch", 2, 3).double()
    x = torch.randn(2, 50, 3, dtype=torch.float64) * 2 + 1
    norm(x)
    torch.testing.assert_close(norm.running_mean[:, 0], 0.1 * x.mean(1))
    torch.testing.assert_close(norm.running_var[:, 0], 0.9 + 0.1 * x.var(1))
    statistics = {n: b.clone() for n, b in norm.named_buffers()}
    row = x[:, :1]
    alone = norm(row)  # a single row has no variance
    norm.eval()
    expected = (row - statistics["running_mean"]) / torch.sqrt(statistics["running_var"] + 1e-5)
    torch.testing.assert_close(norm(row), expected)
    torch.testing.assert_close(alone, expected)
    norm(x)
    assert all(torch.equal(b, statistics[n]) for n, b in norm.named_buffers())


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_initialisers_have_the_right_variance(initializer: str) -> None:
    torch.manual_seed(0)
    fan_in, fan_out = 300, 200
    net = QNetwork(8, 4, heads=3, hidden=(fan_out,), gru=fan_in, initializer=initializer)
    for weight in net.head.layers[0].weight.detach().double():
        if initializer == "orthogonal":
            torch.testing.assert_close(weight.T @ weight, torch.eye(fan_out).double(), atol=1e-5, rtol=0)
            continue
        variance = {"he": 2 / fan_in, "lecun": 1 / fan_in, "random": 0.05**2 / 3, "glorot": 2 / (fan_in + fan_out)}[
            initializer.partition("_")[0]
        ]
        assert weight.var().item() == pytest.approx(variance, rel=0.03)
        bound = np.sqrt(3 * variance)
        assert (weight.abs().max() <= bound + 1e-6) == (not initializer.endswith("_normal"))
    assert net.cell is not None
    if initializer == "orthogonal":
        recurrent = net.cell.weight_hh.detach().double()
        torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(fan_in).double(), atol=1e-5, rtol=0)
    assert not any(layer.bias.any() for layer in net.head.layers)


@pytest.mark.parametrize(
    ("option", "value", "near"),
    [("activation", "reul", "relu"), ("normalization", "layers", "layer"), ("initializer", "glorot", "glorot_normal")],
)
def test_unknown_options_name_the_nearest_valid_one(option: str, value: str, near: str) -> None:
    with pytest.raises(InputError, match=f"unknown {option} '{value}'; did you mean '{near}'"):
        QNetwork(3, 2, **{option: value})  # type: ignore[arg-type]
