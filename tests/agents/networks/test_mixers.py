"""Mixers match their formulas, constrained ones are monotone, and greedy agents make a greedy team."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.algorithms.presets import PRESETS, preset
from agents.networks.mixers import (
    ACTIVATIONS,
    CONSTRAINTS,
    JOINT_ACTION_MIXERS,
    MonotoneMixer,
    UnrestrictedMixer,
    make_mixer,
)
from agents.tasks.matrix_games import MATRIX_3X3
from agents.team.team import Team, TeamSpec
from marca_env.utils.errors import InputError

CONSTRAINED = sorted(CONSTRAINTS)


def slow_mix(mixer: MonotoneMixer, q: np.ndarray, s: np.ndarray, constraint: str, activation: str) -> float:
    """Evaluate Eq. 11–14 for one state in float64."""
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
def test_monotone_mixers_match_the_equations(constraint: str, activation: str) -> None:
    torch.manual_seed(0)
    mixer = MonotoneMixer(3, 4, constraint=constraint, activation=activation, width=5, hypernet=6)
    for name, parameter in mixer.named_parameters():  # biases start at zero, where they would have no effect
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    q, s = np.random.default_rng(0).normal(size=(8, 3)), np.random.default_rng(1).normal(size=(8, 4))
    actual = mixer(torch.tensor(q, dtype=torch.float32), torch.tensor(s, dtype=torch.float32)).detach().numpy()
    expected = [slow_mix(mixer, a, b, constraint, activation) for a, b in zip(q, s, strict=True)]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(
    constraint=st.sampled_from(CONSTRAINED),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    n=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    scale=st.floats(0.01, 20),
    rise=st.floats(0, 50),
)
def test_constrained_mixers_are_monotone(
    constraint: str, activation: str, n: int, seed: int, scale: float, rise: float
) -> None:
    """∂Q_tot/∂Q_g ≥ 0 at random weights, states and values, and no rise of a Q_g lowers Q_tot."""
    generator = torch.Generator().manual_seed(seed)
    mixer = MonotoneMixer(n, 3, constraint=constraint, activation=activation, width=4, hypernet=4).double()
    for parameter in mixer.parameters():
        parameter.data.normal_(0, scale, generator=generator)
    q = (torch.randn(5, n, generator=generator, dtype=torch.double) * scale).requires_grad_()
    state = torch.randn(5, 3, generator=generator, dtype=torch.double)
    low = mixer(q, state)
    (slope,) = torch.autograd.grad(low.sum(), q)
    assert (slope >= 0).all()
    for g in range(n):
        higher = q.detach().clone()
        higher[:, g] += rise
        assert (mixer(higher, state) >= low - 1e-9 * (1 + low.abs())).all()


def test_the_unrestricted_mixer_is_not_monotone() -> None:
    """Q*'s mixer has slopes of both signs, so that the property above is not trivial."""
    torch.manual_seed(0)
    mixer, q = UnrestrictedMixer(2, 3, width=16), torch.randn(50, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(mixer(q, torch.randn(50, 3)).sum(), q)
    assert slope.min() < 0 < slope.max()


def test_the_unrestricted_mixer_matches_its_formula() -> None:
    torch.manual_seed(0)
    mixer = UnrestrictedMixer(2, 3, width=5)
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    q, state = np.random.default_rng(0).normal(size=(4, 2)), np.random.default_rng(1).normal(size=(4, 3))
    w = {k: v.numpy() for k, v in mixer.state_dict().items()}
    x = np.hstack([state, q])
    for layer in (0, 2, 4):
        x = np.maximum(x @ w[f"net.{layer}.weight"].T + w[f"net.{layer}.bias"], 0)
    expected = (x @ w["net.6.weight"].T + w["net.6.bias"])[:, 0]
    actual = mixer(torch.tensor(q, dtype=torch.float32), torch.tensor(state, dtype=torch.float32))
    np.testing.assert_allclose(actual.detach(), expected, rtol=1e-4)


SPEC = TeamSpec(("first", "second", "third"), (4, 4, 4), (3, 4, 2), 5, 1)


def greedy_gap(team: Team, mix: Callable[..., torch.Tensor], seed: int) -> float:
    """Return the value of the best joint action minus that of the agents' own choices; zero under IGM."""
    generator = torch.Generator().manual_seed(seed)
    q = []
    for net in team.agents:
        observation = torch.randn(1, 4, generator=generator, dtype=torch.double)
        q.append(net.values(observation, net.advance(observation, net.initial_hidden(1))).mean(1)[0])
    state = torch.randn(5, generator=generator, dtype=torch.double)
    joint = torch.tensor(list(itertools.product(*map(range, SPEC.action_sizes))))
    utilities = torch.stack([x[joint[:, g]] for g, x in enumerate(q)], -1)
    best = torch.stack([x.max() for x in q]).expand(len(joint), -1)
    values = mix(utilities, state.expand(len(joint), -1), list(joint.T), best)
    greedy_index = (joint == torch.stack([x.argmax() for x in q])).all(1).nonzero().item()
    return float((values.max() - values[greedy_index]).detach())


def gaps(name: str, mix: str = "mixer", **options: Any) -> list[float]:
    """Return the greedy gap of 20 random teams."""
    gaps = []
    for seed in range(20):
        torch.manual_seed(seed)
        team = Team(SPEC, preset(name, gru=None, hidden=(8,), **options), central=True).double()
        for parameter in team.parameters():
            torch.nn.init.normal_(parameter)
        mix_values = team.mix if mix == "mixer" else lambda u, s, *_, central=team.central: central.mix(u, s)
        gaps.append(greedy_gap(team, mix_values, seed))
    return gaps


@pytest.mark.parametrize(
    ("name", "options"),
    [(n, {}) for n in sorted(PRESETS) if not PRESETS[n].joint]
    + [("QMIX", {"mixer": mixer}) for mixer in ("resq", "qplex", "additive")],
)
def test_greedy_agents_make_the_greedy_joint_action(name: str, options: dict[str, Any]) -> None:
    """No joint action is better than the agents' own best actions (IGM, by enumeration)."""
    options = {"heads": 2, "dropout": 0.0} if name == "AWRQMixer" else options
    assert max(gaps(name, **options)) <= 1e-9


@pytest.mark.parametrize(
    ("name", "mix", "options"),
    [
        ("QMIX", "mixer", {"mixer_input": "state+actions", "initializer": "glorot_uniform"}),
        ("AWRQMixer", "mixer", {"mixer_input": "state+actions", "heads": 2, "dropout": 0.0}),
        ("WeightedQMIX", "star", {}),
    ],
)
def test_igm_fails_with_actions_in_the_mixer_input_and_for_q_star(name: str, mix: str, options: dict[str, Any]) -> None:
    """Hypernetworks with actions as input, and Q*, prefer other joint actions than the agents do."""
    assert sum(gap > 1e-3 for gap in gaps(name, mix, **options)) >= 5


@pytest.mark.parametrize(
    ("kind", "fits"),
    [
        *((kind, True) for kind in JOINT_ACTION_MIXERS),
        *((kind, False) for kind in ("additive", "softplus", "absolute")),
    ],
)
def test_mixers_of_joint_actions_represent_what_monotone_ones_cannot(kind: str, fits: bool) -> None:
    """The agents' best actions are the matrix game's (8 in a corner beside losses of 12); the mixer fits the rest."""
    torch.manual_seed(0)
    joint = torch.tensor(list(itertools.product(range(3), range(3))))
    payoff = torch.tensor(MATRIX_3X3).flatten()
    own = torch.tensor([0.0, -1.0, -1.0])
    options = {"action_size": 6} if kind in JOINT_ACTION_MIXERS else {}
    mixer = make_mixer(kind, 2, 1, hypernet=32, **options)
    inputs = [own[joint], torch.ones(9, 1)]
    if options:
        inputs += [torch.zeros(9, 2), torch.nn.functional.one_hot(joint, 3).flatten(1).float()]
    optimizer = torch.optim.Adam(mixer.parameters(), lr=0.02)
    for _ in range(400):
        loss = ((mixer(*inputs) - payoff) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01 if fits else loss.item() > 5


def test_the_residual_is_absent_where_one_agent_decides() -> None:
    """A single decision is worth the sum and the baseline; the published form lowers it as well."""
    torch.manual_seed(0)
    q, state, best = torch.tensor([[1.0, 2.0]] * 2), torch.ones(2, 3), torch.tensor([[1.0, 5.0]] * 2)
    actions, deciders = torch.eye(5)[:2], torch.tensor([1, 2])
    for kind, alone_is_lowered in (("residual", False), ("resq", True)):
        mixer = make_mixer(kind, 2, 3, action_size=5)
        main = mixer.monotone(q, state)
        lowered = mixer(q, state, best, actions, deciders) < main
        assert lowered.tolist() == [alone_is_lowered, True]
        assert (mixer(q, state, best, actions) < main).all()


def test_a_waiting_agent_has_no_advantage() -> None:
    """Where an agent's best value is its value, the others' actions do not change what it contributes."""
    torch.manual_seed(0)
    mixer = make_mixer("qplex", 2, 3, action_size=5).double()
    utilities, state = torch.tensor([[2.0, -1.0]]).double().expand(5, -1), torch.randn(1, 3).double().expand(5, -1)
    values = mixer(utilities, state, utilities, torch.eye(5).double())
    torch.testing.assert_close(values, values[:1].expand(5))


def test_candidates_are_mixed_as_one_by_one() -> None:
    torch.manual_seed(0)
    mixer = MonotoneMixer(2, 3)
    q, state = torch.randn(4, 6, 2), torch.randn(4, 3)
    together = mixer.mix(q, mixer.weights(state))
    one_by_one = torch.stack([mixer(q[:, m], state) for m in range(6)], 1)
    torch.testing.assert_close(together, one_by_one)


def test_unknown_mixers_and_activations_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'softplus'"):
        make_mixer("softplu", 2, 3)
    with pytest.raises(InputError, match="activation"):
        make_mixer("softplus", 2, 3, activation="gelu")
