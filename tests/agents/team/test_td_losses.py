"""Losses match tests/helpers/reference_losses.py; padding has no effect; every weight gets a gradient."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from agents.algorithms.presets import PRESETS, preset
from agents.algorithms.td_targets import used_steps
from agents.team.reward_statistics import RewardUnits
from agents.team.td_losses import team_losses
from agents.team.team import Team, TeamSpec
from tests.helpers.reference_losses import make_batch, slow_losses

UNITS = RewardUnits(scale=2.5, shift=0.3, return_scale=4.0)
SPEC = TeamSpec(("first", "second", "third"), (5, 4, 3), (4, 3, 2), 6, 4)
ALONE = TeamSpec(("controller",), (6,), (4,), 6, 4)
SMALL = {"hidden": (6,), "dropout": 0.0}
AWRQ = {"gru": 5, "heads": 3}
REFERENCE_CODE: dict[str, Any] = {
    "mixer_input": "state+actions",
    "credit": "cumulative",
    "weighting_level": "batch",
    "weighting_gradient": True,
    "head_action": "own",
    "ensemble_loss": "heads_and_mixture",
    "mixer_target": "return",
}
"""All readings of the paper's reference code at once."""

CASES: list[tuple[str, dict[str, Any]]] = [
    ("VDN", {"gru": 5}),
    ("QMIX", {"gru": 5}),
    ("QMIX", {"gru": None}),
    ("QMIX", {"gru": 5, "double_q": False}),
    ("QMIX", {"gru": 5, "heads": 2}),
    ("QMIX", {"gru": 5, "loss": "mae"}),
    ("QMIX", {"gru": 5, "loss": "huber", "huber_delta": 0.3}),
    ("QMIX", {"gru": 5, "mixer_input": "state+actions"}),
    ("QMIX", {"gru": 5, "mixer_activation": "tanh", "head_weighting": "random", "heads": 4}),
    ("QMIX", {"gru": 5, "agent_loss": 0.4, "head_target": "mean", "heads": 3}),
    ("WeightedQMIX", {"gru": 5, "td_alpha": 0.3}),
    ("WeightedQMIX", {"gru": 5, "td_weighting": "central", "td_alpha": 0.3}),
    ("WeightedQMIX", {"gru": 5, "td_weighting": "central", "td_alpha": 0.3, "double_q": False, "heads": 2}),
    ("WeightedQMIX", {"gru": None, "loss": "huber", "huber_delta": 0.5, "mixer": "softplus"}),
    ("AWRQMixer", AWRQ),
    ("AWRQMixer", {**AWRQ, "weighting_level": "batch"}),
    ("AWRQMixer", {**AWRQ, "credit": "cumulative"}),
    ("AWRQMixer", {**AWRQ, "adaptive_weighting": False}),
    ("AWRQMixer", {**AWRQ, "head_action": "own"}),
    ("AWRQMixer", {**AWRQ, "head_action": "own", "double_q": True}),
    ("AWRQMixer", {**AWRQ, "head_weighting": "random"}),
    ("AWRQMixer", {**AWRQ, "ensemble_loss": "heads_and_mixture"}),
    ("AWRQMixer", {**AWRQ, "ensemble_loss": "heads_and_mixture", "loss": "huber", "huber_delta": 0.4}),
    ("AWRQMixer", {**AWRQ, **REFERENCE_CODE}),
    ("QMIX", {"gru": 5, "mixer_target": "return"}),
    ("AWRQMixer", {**AWRQ, "variance_credit": False}),
    ("AWRQMixer", {**AWRQ, "softplus_mixer": False}),
    ("AWRQMixer", {**AWRQ, "mixer_input": "state+actions", "double_q": True}),
    ("AWRQMixer", {**AWRQ, "loss": "huber", "huber_delta": 0.5, "mixer_activation": "leaky_relu"}),
    ("AWRQMixer", {**AWRQ, "td_weighting": "optimistic"}),
    ("QMIX", {"gru": 5, "mixer": "qplex"}),
    ("QMIX", {"gru": 5, "mixer": "qplex", "heads": 3, "head_weighting": "disagreement", "attention_heads": 2}),
    ("QMIX", {"gru": 5, "mixer": "resq", "double_q": False}),
    ("QMIX", {"gru": 5, "mixer": "resq", "heads": 3, "head_weighting": "random", "mixer_target": "return"}),
    ("QMIX", {"gru": 5, "mixer": "residual", "heads": 2}),
    ("VDN", {"gru": 5, "mixer": "additive", "td_weighting": "advantage"}),
    ("WeightedQMIX", {"gru": 5, "mixer": "additive", "td_weighting": "central", "td_alpha": 0.2}),
    ("WeightedQMIX", {"gru": 5, "mixer": "qplex", "td_weighting": "central", "td_alpha": 0.1, "td_lambda": 0.6}),
    ("AWRQMixerV2", {"gru": 5}),
    ("WeightedQMIX", {"gru": 5, "td_weighting": "central", "td_alpha": 0.3, "waiting_values": "zero"}),
    ("WeightedQMIX", {"gru": 5, "td_weighting": "central", "td_alpha": 0.3, "waiting_values": "round"}),
    ("AWRQMixerV2", {"gru": 5, "waiting_values": "round", "td_lambda": 0.0}),
    ("AWRQMixerV2", {**AWRQ, "disagreement_weighting": True, "credit_weighting": True, "mixer": "qplex"}),
    ("AWRQMixerV2", {**AWRQ, "advantage_weighting": False, "td_lambda": 0.8, "trace": "better", "agent_loss": 0.3}),
    ("QMIX", {"gru": 5, "td_weighting": "advantage"}),
    ("QMIX", {"gru": 5, "td_lambda": 1.0}),
    ("QMIX", {"gru": 5, "td_lambda": 0.7, "double_q": False, "trace": "all"}),
    ("AWRQMixer", {**AWRQ, "variance_credit": False, "td_lambda": 0.7}),
    ("AWRQMixer", {**AWRQ, "variance_credit": False, "td_lambda": 1.0, "trace": "all", "head_action": "own"}),
    ("AWRQMixer", {**AWRQ, "variance_credit": False, "td_lambda": 0.6, "trace": "better"}),
    ("AWRQMixer", {**AWRQ, "credit_use": "weight", "credit_share": 0.8}),
    ("AWRQMixer", {**AWRQ, "credit_use": "weight", "credit": "cumulative", "agent_loss": 0.0}),
    ("AWRQMixer", {**AWRQ, "credit_use": "weight", "head_weighting": "disagreement", "td_lambda": 0.5}),
    ("AWRQMixer", {**AWRQ, "head_weighting": "disagreement", "weighting_level": "batch", "credit_use": "weight"}),
    ("WeightedQMIX", {"gru": 5, "credit": "variance", "credit_use": "weight"}),
    ("IQL", {"gru": 5}),
    ("IQL", {"gru": 5, "loss": "mae", "double_q": False}),
    ("IQL", {"gru": 5, "td_lambda": 0.4, "credit": "variance", "credit_use": "weight"}),
    ("JointDQN", {}),
    ("JointDDQN", {}),
    ("JointDRQN", {"gru": 5}),
    ("AveragedDQN", {"heads": 3}),
    ("AveragedDQN", {"heads": 3, "head_target": "own"}),
    ("REM", {"heads": 3}),
    ("REM", {"heads": 3, "loss": "huber", "double_q": True}),
]


def make_team(name: str, seed: int, options: dict[str, Any]) -> Team:
    """Build a team with random weights and non-zero biases."""
    torch.manual_seed(seed)
    algorithm = preset(name, **{**SMALL, **options})
    team = Team(ALONE if algorithm.joint else SPEC, algorithm, central=True).double()
    for label, parameter in team.named_parameters():
        if label.endswith("bias"):  # biases start at zero, where they would have no effect
            torch.nn.init.normal_(parameter, std=0.3)
    return team


@pytest.mark.parametrize(("name", "options"), CASES)
def test_losses_match_a_slow_reference(name: str, options: dict[str, Any]) -> None:
    online, target = make_team(name, 0, options), make_team(name, 1, options)
    for seed in range(2):
        # Q*'s weights compare two values; only many samples reveal a wrong value
        batch = make_batch(online.spec, n=24 if options.get("td_weighting") != "central" else 150, seed=seed)
        actual = team_losses(online, target, batch, units=UNITS, generator=torch.Generator().manual_seed(seed))
        draw = torch.rand(online.preset.network.heads, generator=torch.Generator().manual_seed(seed)).double().numpy()
        expected = slow_losses(online, target, batch, units=UNITS, draw=draw)
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            assert actual[key].item() == pytest.approx(value, rel=1e-9, abs=1e-12), key


def test_every_preset_has_a_case() -> None:
    assert {name for name, _ in CASES} == set(PRESETS)


@pytest.mark.parametrize("weighting", ["optimistic", "central"])
def test_weighted_qmix_weights_apply_to_samples_and_not_to_q_star(weighting: str) -> None:
    """Changing alpha changes the gradients of Q_tot's weights, but not those of Q*."""
    grads = []
    for alpha in (1.0, 0.5):
        online = make_team("WeightedQMIX", 0, {"gru": 5, "td_weighting": weighting, "td_alpha": alpha})
        target = make_team("WeightedQMIX", 1, {"gru": 5, "td_weighting": weighting, "td_alpha": alpha})
        losses = team_losses(online, target, make_batch(SPEC))
        losses["loss"].backward()
        grads.append(({n: p.grad for n, p in online.named_parameters()}, losses["mixer_loss"].item()))
        assert all(p.grad is None for p in target.parameters())
    (unweighted, loss), (weighted, less) = grads
    assert loss / 2 < less < loss  # some weights are 1 and some are alpha
    q_tot_weights = {n for n in unweighted if not n.startswith("central.")}
    assert all(torch.equal(unweighted[n], weighted[n]) for n in set(unweighted) - q_tot_weights)
    assert not any(torch.allclose(unweighted[n], weighted[n]) for n in q_tot_weights)
    # not one common factor, as if the loss were reduced before it is weighted
    ratios = torch.cat([(weighted[n] / unweighted[n]).flatten() for n in q_tot_weights if n.startswith("mixer")])
    assert ratios[ratios.isfinite()].std() > 0.01


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("AWRQMixer", {**AWRQ, "credit": "cumulative"}),
        ("WeightedQMIX", {"gru": 5, "td_weighting": "central"}),
        ("IQL", {"gru": 5}),
        ("QMIX", {"gru": 5, "normalization": "layer"}),
        ("QMIX", {"gru": 5, "normalization": "batch"}),
        ("QMIX", {"gru": 5, "mixer": "resq", "td_lambda": 0.8, "heads": 3, "head_weighting": "disagreement"}),
        ("AWRQMixer", {**AWRQ, "mixer": "qplex", "credit_use": "weight", "td_lambda": 0.8}),
    ],
)
def test_padding_and_observations_off_turn_have_no_effect(name: str, options: dict[str, Any]) -> None:
    """Entries after the end of an episode and observations while an agent waits do not change the loss."""
    online = make_team(name, 0, options)
    target = copy.deepcopy(online).eval()
    batch = make_batch(SPEC)
    other = {k: v.clone() for k, v in batch.items()}
    after = ~torch.cat([torch.ones_like(batch["filled"][:, :1]), batch["filled"]], 1)
    for key, values in other.items():
        if key.startswith("obs"):
            waits = ~batch[key.replace("obs", "turn")]
            values[after | waits] = 1e3
        elif key == "state":
            values[after] = -1e3
        elif key.startswith(("mask", "turn")):
            values[after] = True
        elif key == "reward":
            values[~batch["filled"]] = 77.0
        elif key.startswith("action"):
            values[~batch["filled"]] = 0
    longer = {}
    for key, values in other.items():
        extra = torch.zeros_like(values[:, -1:])
        longer[key] = torch.cat([values, extra], 1)
    assert not all(torch.equal(batch[k], other[k]) for k in batch)
    expected = team_losses(copy.deepcopy(online), target, batch)["loss"].item()
    for changed in (other, longer):
        assert team_losses(copy.deepcopy(online), target, changed)["loss"].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("idle", [False, True])
def test_every_weight_of_the_team_gets_a_gradient_and_no_target_weight_does(name: str, idle: bool) -> None:
    """Data-parallel training fails if a weight gets no gradient, for instance because an agent never acts."""
    options = {"normalization": "batch", **({"heads": 2} if PRESETS[name].network.heads > 1 else {})}
    online = make_team(name, 0, options)
    target = copy.deepcopy(online).eval()
    batch = make_batch(online.spec)
    if idle:
        batch[f"turn:{online.spec.agents[0]}"][:] = False
    losses = team_losses(online, target, batch)
    losses["loss"].backward()
    assert all(p.grad is None for p in target.parameters())
    assert [n for n, p in online.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in online.parameters())


def test_disagreement_shares_out_the_gradient_and_not_the_value() -> None:
    """Q_tot is that of the heads' mean; a head far from the mean gets more of the gradient than one near it."""
    online, plain = (
        make_team("QMIX", 0, {"gru": 5, "heads": 3, "head_weighting": w}) for w in ("disagreement", "mean")
    )
    target, batch = copy.deepcopy(online).eval(), make_batch(SPEC)
    ours, others = team_losses(online, target, batch), team_losses(plain, target, batch)
    assert ours["mixer_loss"].item() == pytest.approx(others["mixer_loss"].item(), rel=1e-12)
    ours["loss"].backward()
    others["loss"].backward()
    layers = [team.agents[0].head.layers[-1].bias.grad for team in (online, plain)]
    assert torch.allclose(layers[1][0], layers[1][1])  # equal shares
    assert not torch.allclose(layers[0][0], layers[0][1])


def test_batch_statistics_cover_the_decisions_only() -> None:
    """Batch statistics cover observations whose values are used; the target network's do not change."""
    online = make_team("VDN", 0, {"gru": None, "normalization": "batch"})
    target = copy.deepcopy(online).eval()
    batch = make_batch(SPEC)
    before = {n: b.clone() for n, b in target.named_buffers()}
    team_losses(online, target, batch)
    assert all(torch.equal(b, before[n]) for n, b in target.named_buffers())
    net = online.agents[0]
    observed = torch.cat([torch.ones_like(batch["filled"][:, :1]), batch["filled"]], 1)
    on = batch["turn:first"] & observed
    acting, next_turns, _ = used_steps(on, batch["filled"], batch["terminated"])
    on = acting | next_turns  # double Q: the online network also chooses the next action
    rows = batch["obs:first"][on].numpy()
    layer = net.head.layers[0]
    hidden = rows @ layer.weight[0].detach().numpy() + layer.bias[0].detach().numpy()
    buffers = dict(net.named_buffers())
    mean = next(v for n, v in buffers.items() if n.endswith("running_mean"))
    var = next(v for n, v in buffers.items() if n.endswith("running_var"))
    np.testing.assert_allclose(mean.flatten(), 0.1 * hidden.mean(0), rtol=1e-9)
    np.testing.assert_allclose(var.flatten(), 0.9 + 0.1 * hidden.var(0, ddof=1), rtol=1e-9)
