"""The fused ensemble equals the general one, and its dropout has the right statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.networks.fused_mlp import DROPOUT_STEPS, apply_dropout, apply_dropout_
from agents.networks.q_network import EnsembleMLP


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_the_fused_path_equals_the_general_path(hidden: tuple[int, ...], rate: float) -> None:
    """Equal seeds give equal masks, values and gradients; without dropout also in chunks of a few rows."""
    torch.manual_seed(3)
    net = EnsembleMLP(3, 4, hidden, 2, dropout=rate).double()
    x = torch.randn(11, 4, dtype=torch.float64, requires_grad=True)
    if rate == 0.0:
        net._rows = 4
    results = []
    for forward in (net, lambda x: net.forward_general(x, rate)):
        torch.manual_seed(5)
        out = forward(x)
        gradients = torch.autograd.grad((out**3).sum(), [x, *net.parameters()])
        results.append([out.detach(), *gradients])
    for fused, general in zip(*results, strict=True):
        torch.testing.assert_close(fused, general, rtol=1e-10, atol=1e-12)


def test_gradients_of_the_fused_path_match_finite_differences() -> None:
    torch.manual_seed(0)
    net = EnsembleMLP(2, 3, (5, 4), 2).double()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: net(x), (x, *net.parameters()))


def test_no_graph_is_built_without_gradients() -> None:
    net = EnsembleMLP(2, 3, (5,), 2)
    x = torch.randn(6, 3)
    with torch.no_grad():
        silent = net(x)
    assert not silent.requires_grad
    torch.testing.assert_close(silent, net(x).detach())


def test_evaluation_uses_no_dropout() -> None:
    net = EnsembleMLP(2, 3, (50,), 2, dropout=0.5)
    x = torch.randn(4, 3)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.999, 0.00002])
def test_dropout_has_the_right_rate_scale_and_independence(rate: float) -> None:
    torch.manual_seed(0)
    mask = torch.ones(4, 500, 1003, dtype=torch.float64)
    scale = apply_dropout_(mask, rate)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    realised = 1 - 1 / scale
    assert abs(realised - rate) <= 0.5 / DROPOUT_STEPS
    n = mask.numel()
    assert abs(mask.mean().item() - (1 - realised)) < 4 * np.sqrt(rate * (1 - rate) / n)
    if rate == 0.5:
        flat = mask.flatten() - 0.5
        for lag in (1, 2, 3, 4, 1003, 501_500):  # within a word, between words, rows and heads
            correlation = 4 * (flat[lag:] * flat[:-lag]).mean()
            assert abs(correlation.item()) < 5 / np.sqrt(n - lag)


def test_dropout_is_determined_by_torchs_generator() -> None:
    x = torch.randn(3, 20, 30)
    torch.manual_seed(7)
    first, second = apply_dropout(x, 0.4), apply_dropout(x, 0.4)
    torch.manual_seed(7)
    assert torch.equal(apply_dropout(x, 0.4), first)
    assert not torch.equal(first, second)
    assert torch.equal(apply_dropout(x, 0.0), x)
