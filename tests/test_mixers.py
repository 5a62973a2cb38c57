"""Mixers: what they compute, that constrained ones are monotone, and that greedy agents make a greedy team."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.mixers import CONSTRAINTS, MonotoneMixer, make_mixer
from marca_env.errors import InputError

CONSTRAINED = sorted(CONSTRAINTS)


def slow_mix(mixer: MonotoneMixer, q: np.ndarray, s: np.ndarray, constraint: str, activation: str) -> float:
    """Eq. 11–14 for one state in float64."""
    w = {k: v.detach().double().numpy() for k, v in mixer.state_dict().items()}

    def two(name: str) -> np.ndarray:
        hidden = np.maximum(w[f"{name}.0.weight"] @ s + w[f"{name}.0.bias"], 0)
        return w[f"{name}.2.weight"] @ hidden + w[f"{name}.2.bias"]

    positive = {"absolute": np.abs, "softplus": lambda x: np.log1p(np.exp(x))}[constraint]
    act = {"relu": lambda x: np.maximum(x, 0), "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))}
    w1 = positive(two("w1")).reshape(len(q), -1)
    hidden = act[activation](q @ w1 + w["b1.weight"] @ s + w["b1.bias"])
    return float((hidden @ positive(two("w2")) + two("b2"))[0])


@pytest.mark.parametrize(("constraint", "activation"), [("absolute", "elu"), ("softplus", "relu")])
def test_matches_the_equations(constraint: str, activation: str) -> None:
    torch.manual_seed(0)
    mixer = MonotoneMixer(3, 4, constraint=constraint, activation=activation, width=5, hypernet=6)
    for name, parameter in mixer.named_parameters():  # biases start at zero: make them count
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    q, s = np.random.default_rng(0).normal(size=(8, 3)), np.random.default_rng(1).normal(size=(8, 4))
    found = mixer(torch.tensor(q, dtype=torch.float32), torch.tensor(s, dtype=torch.float32)).detach().numpy()
    expected = [slow_mix(mixer, a, b, constraint, activation) for a, b in zip(q, s, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    constraint=st.sampled_from(CONSTRAINED),
    activation=st.sampled_from(["relu", "elu", "leaky_relu"]),
    n=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    scale=st.floats(0.01, 20),
    rise=st.floats(0, 50),
)
def test_constrained_mixers_never_fall(
    constraint: str, activation: str, n: int, seed: int, scale: float, rise: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mixer = MonotoneMixer(n, 3, constraint=constraint, activation=activation, width=4, hypernet=4).double()
    for parameter in mixer.parameters():
        parameter.data.normal_(0, scale, generator=generator)
    q = torch.randn(5, n, generator=generator, dtype=torch.double) * scale
    state = torch.randn(5, 3, generator=generator, dtype=torch.double)
    low = mixer(q, state)
    for g in range(n):
        higher = q.clone()
        higher[:, g] += rise
        assert (mixer(higher, state) >= low - 1e-9 * (1 + low.abs())).all()


@pytest.mark.parametrize("kind", ["sum", *CONSTRAINED])
@pytest.mark.parametrize("seed", range(5))
def test_greedy_agents_make_a_greedy_team(kind: str, seed: int) -> None:
    """IGM by enumeration: no joint action beats the one made of the agents' own best actions."""
    torch.manual_seed(seed)
    mixer = make_mixer(kind, 3, 4).double()
    sizes = (3, 4, 2)
    q = [torch.randn(n, dtype=torch.double) for n in sizes]
    joint = torch.stack([torch.stack([x[a] for x, a in zip(q, js, strict=True)]) for js in _all(sizes)])
    values = mixer(joint, torch.randn(4, dtype=torch.double).expand(len(joint), 4))
    best = torch.stack([x.max() for x in q])
    chosen = next(k for k, row in enumerate(joint) if torch.equal(row, best))
    assert values[chosen] >= values.max() - 1e-12


def _all(sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, sizes)))


def test_many_candidates_at_once() -> None:
    torch.manual_seed(0)
    mixer = MonotoneMixer(2, 3)
    q, state = torch.randn(4, 6, 2), torch.randn(4, 3)
    together = mixer.mix(q, mixer.weights(state))
    one_by_one = torch.stack([mixer(q[:, m], state) for m in range(6)], 1)
    torch.testing.assert_close(together, one_by_one)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'softplus'"):
        make_mixer("softplu", 2, 3)
    with pytest.raises(InputError, match="activation"):
        make_mixer("softplus", 2, 3, activation="gelu")
