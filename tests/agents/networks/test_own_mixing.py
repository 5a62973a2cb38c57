"""A monotone transformation of an agent's values by what it sees."""

from __future__ import annotations

import torch

from agents.networks.own_mixing import OwnMixing
from agents.networks.q_network import QNetwork


def test_it_matches_its_equation() -> None:
    torch.manual_seed(0)
    mixing = OwnMixing(5).double()
    values, seen = torch.randn(3, 2, 4).double(), torch.randn(3, 5).double()
    actual = mixing(values, seen)
    for b in range(3):
        w1, w2, b2 = (net(seen[b]) for net in mixing.weights)
        for k in range(2):
            for a in range(4):
                hidden = torch.nn.functional.elu(w1.abs() * values[b, k, a] + mixing.b1(seen[b]))
                torch.testing.assert_close(actual[b, k, a], w2.abs() @ hidden + b2[0])


def test_the_order_of_actions_stays() -> None:
    torch.manual_seed(1)
    mixing, values = OwnMixing(6), torch.randn(64, 3, 7)
    mixed = mixing(values, torch.randn(64, 6))
    assert (mixed.sort(-1).indices == values.sort(-1).indices).all()
    assert mixed.std() > 0


def test_episodes_and_single_steps_have_the_same_values() -> None:
    torch.manual_seed(2)
    network = QNetwork(4, 3, gru=6, hidden=(5,), heads=2, own_mixing=True).double()
    observations, hidden = torch.randn(2, 3, 4).double(), network.initial_hidden(2)
    unrolled = network.unroll(observations, torch.ones(2, 3, dtype=torch.bool))
    for t in range(3):
        hidden = network.advance(observations[:, t], hidden)
        torch.testing.assert_close(network.values(observations[:, t], hidden), unrolled[:, t])
