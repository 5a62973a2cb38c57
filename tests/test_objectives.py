"""Targets, own-turn processes, head weights and the whole team loss against slow float64 reimplementations."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from agents import objectives
from agents.learning import team_losses
from agents.presets import preset
from agents.team import Team, TeamSpec, action_key, mask_key, obs_key


def test_greedy_respects_the_mask() -> None:
    q = torch.tensor([[5.0, 1.0, 3.0], [-9.0, -8.0, -7.0]])
    mask = torch.tensor([[False, True, True], [True, True, False]])
    assert objectives.greedy(q, mask).tolist() == [2, 1]


def test_td_target_stops_at_the_end() -> None:
    found = objectives.td_target(torch.ones(2), torch.full((2,), 10.0), torch.tensor([False, True]), 0.9)
    assert found.tolist() == [10.0, 1.0]


def test_carry_keeps_the_latest_turn() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    on = torch.tensor([[False, True, False, True]])
    assert objectives.carry(values, on).tolist() == [[0.0, 2.0, 2.0, 4.0]]


@pytest.mark.parametrize("seed", range(4))
def test_own_turns_by_search(seed: int) -> None:
    """For each turn: rewards until the next own turn, and the value there, unless the episode ended in between."""
    rng = np.random.default_rng(seed)
    b, t, k = 30, 6, 2
    reward, value = rng.normal(size=(b, t)), rng.normal(size=(b, t + 1, k))
    on = rng.random((b, t + 1)) < 0.5
    end = rng.integers(0, t + 3, b)  # beyond t: cut off, not ended
    terminated = np.arange(t)[None] == end[:, None]
    reward[np.arange(t)[None] > end[:, None]] = 0
    on[np.arange(t + 1)[None] > end[:, None]] = False
    found_r, found_v = objectives.own_turns(*map(torch.tensor, (reward, value, on, terminated)))
    for i in range(b):
        for s in np.flatnonzero(on[i, :t]):
            later = [u for u in range(s + 1, t + 1) if on[i, u] and u <= end[i]]
            stop = later[0] if later else t
            assert found_r[i, s] == pytest.approx(reward[i, s:stop].sum())
            np.testing.assert_allclose(found_v[i, s], value[i, later[0]] if later else np.zeros(k))


def test_adaptive_weights_follow_the_error() -> None:
    losses = torch.tensor([[[1.0, 3.0], [0.0, 0.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert objectives.adaptive_weights(losses, valid).tolist() == [[[0.25, 0.75], [0.5, 0.5]]]
    losses = torch.tensor([[[1.0, 3.0], [100.0, 0.0]]])
    valid = torch.tensor([[True, False]])
    assert objectives.adaptive_weights(losses, valid, "batch").tolist() == [[[0.25, 0.75]]]


def test_random_weights_are_convex_and_seeded() -> None:
    draw = [objectives.random_weights(7, torch.zeros(1), torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(draw[0], draw[1])
    assert float(draw[0].sum()) == pytest.approx(1.0)
    assert float(draw[0].min()) >= 0


# -- the loss of a team ------------------------------------------------------------------------------------
SPEC = TeamSpec(("first", "second"), (5, 4), (4, 3), 6, 3)
TURNS = {"first": [0, 1], "second": [2]}


def make_batch(n: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
    """Sequential turns as in a cascade; the reward comes at the end. float64."""
    rng = np.random.default_rng(seed)
    t = SPEC.max_steps
    batch: dict[str, Any] = {"state": rng.normal(size=(n, t + 1, SPEC.state_size))}
    for agent, o, a in zip(SPEC.agents, SPEC.observation_sizes, SPEC.action_sizes, strict=True):
        mask = np.zeros((n, t + 1, a), bool)
        mask[..., -1] = True
        mask[:, TURNS[agent], -1] = False
        mask[:, TURNS[agent], :-1] = rng.random((n, len(TURNS[agent]), a - 1)) < 0.7
        mask[:, TURNS[agent], 0] = True
        actions = np.where(mask[:, :-1], rng.random((n, t, a)), -1).argmax(-1)
        batch |= {obs_key(agent): rng.normal(size=(n, t + 1, o)), mask_key(agent): mask, action_key(agent): actions}
    batch["reward"] = np.zeros((n, t))
    batch["reward"][:, -1] = rng.exponential(2.0, n)
    batch["terminated"] = np.tile(np.arange(t) == t - 1, (n, 1))
    batch["filled"] = np.ones((n, t), bool)
    return {k: torch.as_tensor(v) for k, v in batch.items()}


def slow_loss(online: Team, target: Team, batch: dict[str, torch.Tensor], scale: float) -> float:
    """Episode by episode in plain loops; only Q and the mixer come from the networks."""
    options = online.preset.options
    b = {k: v.numpy() for k, v in batch.items()}
    n, steps = b["reward"].shape
    q = [x.detach().numpy() for x in online.unroll(batch)[0]]
    qt = [x.detach().numpy() for x in target.unroll(batch)[0]]
    best = []
    for g, agent in enumerate(SPEC.agents):
        chooser = (q if options["double_q"] else qt)[g].mean(2)
        best.append(np.where(b[mask_key(agent)], chooser, -np.inf).argmax(-1))
    errors = [slow_errors(g, q[g], qt[g], best[g], b, options, scale) for g in range(2)]
    weights = [slow_weights(e, options) for e in errors]

    mixer_errors = []
    for i in range(n):
        latest, done = np.zeros(2), np.zeros(2)
        for t in range(steps):
            coming = done.copy()
            for g, agent in enumerate(SPEC.agents):
                a = b[action_key(agent)][i, t]
                if t in TURNS[agent]:
                    latest[g] = (weights[g][i, t] * q[g][i, t, :, a]).sum()
                    coming[g] = done[g] = qt[g][i, t, :, a].mean()
                if t + 1 in TURNS[agent]:
                    coming[g] = qt[g][i, t + 1, :, best[g][i, t + 1]].mean()
            goal = b["reward"][i, t] / scale
            if t + 1 < steps:
                goal += options["gamma"] * _mix(target, coming, b["state"][i, t + 1])
            mixer_errors.append((goal - _mix(online, latest, b["state"][i, t])) ** 2)
    agent_losses = [np.mean([(w[k] * e[k]).sum() for k in e]) for w, e in zip(weights, errors, strict=True)]
    return float(np.mean(mixer_errors) + options["agent_loss"] * sum(agent_losses))


Errors = dict[tuple[int, int], np.ndarray]


def slow_errors(g: int, q: Any, qt: Any, best: Any, b: dict[str, Any], options: dict[str, Any], scale: float) -> Errors:
    """(episode, turn) → squared TD error of each head (Eq. 8)."""
    agent, returns, errors = SPEC.agents[g], b["reward"].sum(1) / scale, {}
    for t in TURNS[agent]:
        actions = b[action_key(agent)][:, t]
        variance = np.var([returns[actions == j].mean() for j in np.unique(actions)])
        later = [u for u in TURNS[agent] if u > t]
        for i, a in enumerate(actions):
            earned = variance * returns[i] if options["credit"] == "variance" else 0.0 if later else returns[i]
            ahead = qt[i, later[0], :, best[i, later[0]]] if later else 0.0
            errors[i, t] = (earned + options["gamma"] * ahead - q[i, t, :, a]) ** 2
    return errors


def slow_weights(errors: Errors, options: dict[str, Any]) -> Errors:
    """η of each head (Eq. 9)."""
    total = sum(errors.values())
    if options["head_weighting"] != "adaptive":
        return {k: np.full(len(e), 1 / len(e)) for k, e in errors.items()}
    if options["weighting_level"] == "batch":
        return {k: total / np.sum(total) for k in errors}
    return {k: e / e.sum() for k, e in errors.items()}


def _mix(team: Team, utilities: np.ndarray, state: np.ndarray) -> float:
    assert team.mixer is not None
    return team.mixer(torch.tensor(utilities)[None], torch.tensor(state)[None]).item()


SMALL = {"gru": 5, "hidden": (6,)}
CASES = [
    ("VDN", {}),
    ("QMIX", {}),
    ("QMIX", {"double_q": False}),
    ("AWRQMixer", {"heads": 3, "dropout": 0.0}),
    ("AWRQMixer", {"heads": 3, "dropout": 0.0, "weighting_level": "sample"}),
    ("AWRQMixer", {"heads": 3, "dropout": 0.0, "adaptive_weighting": False}),
    ("AWRQMixer", {"heads": 3, "dropout": 0.0, "variance_credit": False}),
    ("AWRQMixer", {"heads": 3, "dropout": 0.0, "softplus_mixer": False}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_team_loss(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    online = Team(SPEC, preset(name, **SMALL, **options)).double()
    torch.manual_seed(1)
    target = Team(SPEC, preset(name, **SMALL, **options)).double()
    batch = make_batch()
    found = team_losses(online, target, batch, reward_scale=2.5)
    assert found["loss"].item() == pytest.approx(slow_loss(online, target, batch, 2.5), rel=1e-9)


def test_padding_changes_nothing() -> None:
    """Steps after the end of an episode, whatever they hold, leave the loss as it is."""
    torch.manual_seed(0)
    chosen = preset("AWRQMixer", heads=2, dropout=0.0, credit="cumulative", **SMALL)
    online = Team(SPEC, chosen).double()
    target = copy.deepcopy(online)
    batch = make_batch()
    longer = {}
    for name, values in batch.items():
        extra = values[:, -1:].clone()
        if name in ("filled", "terminated"):
            extra[:] = False
        elif name.startswith("mask"):
            extra[:] = True
        elif extra.dtype == torch.double:
            extra += 7.0
        longer[name] = torch.cat([values, extra], 1)
    a, b = team_losses(online, target, batch), team_losses(online, target, longer)
    assert a["loss"].item() == pytest.approx(b["loss"].item(), rel=1e-9)


def test_every_weight_of_the_team_takes_part_and_none_of_the_target() -> None:
    """Data-parallel training fails on weights that the forward pass leaves out."""
    torch.manual_seed(0)
    online = Team(SPEC, preset("QMIX", **SMALL)).double()
    target = copy.deepcopy(online)
    team_losses(online, target, make_batch())["loss"].backward()
    assert all(p.grad is None for p in target.parameters())
    assert [n for n, p in online.named_parameters() if p.grad is None] == []
