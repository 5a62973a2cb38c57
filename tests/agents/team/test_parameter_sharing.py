"""Agents with equal spaces share one Q network, which sees the agent's id and learns from all of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.algorithms.presets import PresetError, preset
from agents.policy.allocation_policy import load_team, save_team
from agents.rllib import CONFIGS
from agents.rllib.training.training import train
from agents.team.parameter_sharing import SharedNetworks
from agents.team.td_losses import team_losses
from agents.team.team import Team, TeamSpec, obs_key, on_turn_masks
from marca_env.utils.errors import InputError
from tests.helpers.reference_losses import make_batch

SPEC = TeamSpec(("first", "other", "second"), (5, 3, 5), (4, 2, 4), 6, 4)  # the first and the last are alike


def make_team(name: str = "QMIX", seed: int = 0, **options: Any) -> Team:
    """Build a team with random weights."""
    torch.manual_seed(seed)
    algorithm = preset(name, **{"share_parameters": True, "hidden": (6,), "gru": 5, **options})
    return Team(SPEC, algorithm, central=True).double()


def with_tags(batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return the networks' inputs: observations followed by the agent's id for agents that share."""
    observations = [batch[obs_key(a)] for a in SPEC.agents]
    tags = torch.eye(2).double().expand(*observations[0].shape[:-1], 2, 2)
    return [
        torch.cat([observations[0], tags[..., 0, :]], -1),
        observations[1],
        torch.cat([observations[2], tags[..., 1, :]], -1),
    ]


@pytest.mark.parametrize("gru", [None, 5])
def test_shared_values_are_those_of_one_network_with_the_agent_id(gru: int | None) -> None:
    team, batch = make_team(gru=gru), make_batch(SPEC)
    shared, lone = team.agents.networks
    turns = on_turn_masks(SPEC, batch)
    needed = [on & (torch.rand(on.shape) < 0.7) for on in turns]
    values, _ = team.unroll(batch, needed)
    for q, net, observations, on, at in zip(
        values, (shared, lone, shared), with_tags(batch), turns, needed, strict=True
    ):
        torch.testing.assert_close(q, net.unroll(observations, on, at))
        assert q[at].abs().min() > 0
    both = [net.head.layers[0].weight.shape[1] for net in (shared, lone)]
    assert both == ([5, 5] if gru else [5 + 2, 3])


@pytest.mark.parametrize("gru", [None, 5])
def test_single_steps_of_an_agents_view_match_its_unrolled_values(gru: int | None) -> None:
    team, batch = make_team(gru=gru, heads=2), make_batch(SPEC)
    for g, (unrolled, on) in enumerate(zip(*team.unroll(batch), strict=True)):
        net, observations = team.agents[g], batch[obs_key(SPEC.agents[g])]
        hidden = net.initial_hidden(len(observations))
        for t in range(SPEC.max_steps + 1):
            next_hidden = net.advance(observations[:, t], hidden)
            if net.cell is not None:  # the way in which joint actions are evaluated
                by_parts = net.next_hidden(net.input_gates(observations[:, t]), net.hidden_gates(hidden), hidden)
                torch.testing.assert_close(next_hidden, by_parts)
            torch.testing.assert_close(net.values(observations[:, t], next_hidden)[on[:, t]], unrolled[:, t][on[:, t]])
            hidden = torch.where(on[:, t, None], next_hidden, hidden)


@pytest.mark.parametrize("name", ["VDN", "QMIX", "WeightedQMIX", "IQL"])
def test_shared_gradients_are_the_sum_over_agents(name: str) -> None:
    """Shared weights get the sum of the gradients of equal but separate networks."""
    online, target, batch = make_team(name), make_team(name, seed=1), make_batch(SPEC)
    apart = [_separate(team) for team in (online, target)]
    observations = with_tags(batch)
    with_ids = {**batch, **{obs_key(a): x for a, x in zip(SPEC.agents, observations, strict=True)}}
    actual, expected = team_losses(online, target, batch), team_losses(*apart, with_ids)
    assert actual["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-12)
    actual["loss"].backward()
    expected["loss"].backward()
    parts = [(online, apart[0])] + ([(online.central, apart[0].central)] if online.central is not None else [])
    for one, each in parts:
        teachers = [dict(net.named_parameters()) for net in each.agents]
        for label, weight in one.agents.networks[0].named_parameters():
            torch.testing.assert_close(weight.grad, teachers[0][label].grad + teachers[2][label].grad)
        for label, weight in one.agents.networks[1].named_parameters():
            torch.testing.assert_close(weight.grad, teachers[1][label].grad)
    assert all(p.grad is None for p in target.parameters())


def _separate(team: Team) -> Team:
    """Build the same team without sharing: each agent has a copy of the network and its id as an input."""
    spec = TeamSpec(SPEC.agents, (7, 3, 7), SPEC.action_sizes, SPEC.state_size, SPEC.max_steps)
    options = {k: v for k, v in team.preset.options.items() if k in ("hidden", "gru")}
    apart = Team(spec, preset(team.preset.name, **options), central=True).double()
    for one, each in ((team, apart), (team.central, apart.central)):
        if one is None:
            continue
        for net, mine in zip(each.agents, (0, 1, 0), strict=True):
            net.load_state_dict(one.agents.networks[mine].state_dict())
        if one.mixer is not None:
            each.mixer.load_state_dict(one.mixer.state_dict())
    return apart


@pytest.mark.parametrize("idle", [(), ("first",), ("first", "second")])
def test_every_shared_weight_gets_a_gradient(idle: tuple[str, ...]) -> None:
    online = make_team()
    batch = make_batch(SPEC)
    for agent in idle:
        batch[f"turn:{agent}"][:] = False
    team_losses(online, copy.deepcopy(online), batch)["loss"].backward()
    assert [n for n, p in online.named_parameters() if p.grad is None] == []


def test_a_saved_policy_is_loaded_unchanged(tmp_path: Path) -> None:
    team = make_team().float()
    save_team(tmp_path, tensors=team.state_dict(), preset=team.preset, spec=SPEC, reward_scale=2.0, scenario=None)
    again, _ = load_team(tmp_path)
    assert isinstance(again.agents, SharedNetworks)
    batch = {k: v.float() if v.is_floating_point() else v for k, v in make_batch(SPEC).items()}
    for a, b in zip(again.unroll(batch)[0], team.unroll(batch)[0], strict=True):
        assert torch.equal(a, b)
    names = {name for name, _ in team.named_parameters() if name.startswith("agents")}
    assert {name.split(".")[2] for name in names} == {"0", "1"}  # two networks for three agents


def test_sharing_without_equal_spaces_is_refused() -> None:
    with pytest.raises(InputError, match=r"no two agents have equal observation and action sizes \(5 and 4, 3 and 4\)"):
        Team(TeamSpec(("a", "b"), (5, 3), (4, 4), 6, 4), preset("VDN", share_parameters=True))
    with pytest.raises(PresetError, match="share_parameters is for teams"):
        preset("JointDQN", share_parameters=True)
    with pytest.raises(PresetError, match="share_parameters is 1; it must be true or false"):
        preset("VDN", share_parameters=1)


@pytest.mark.slow
def test_training_with_shared_parameters_resumes_exactly(tmp_path: Path, one_cpu_ray: None) -> None:
    small = {"gru": None, "hidden": (8,), "updates_per_iteration": 3, "learning_starts": 8, "share_parameters": True}
    small |= {"train_batch_size_per_learner": 8, "reward_scale": 2.0, "epsilon": 0.5}

    def fresh() -> Any:
        config = (
            CONFIGS["QMIX"]().environment("benchmarks.experiments.games.matrix_games.TwoStepGame").training(**small)
        )
        return config.env_runners(num_envs_per_env_runner=8).debugging(seed=1)

    def weights(algorithm: Any) -> dict[str, np.ndarray]:
        return {k: np.asarray(v) for k, v in algorithm.learner_group._learner._team.state_dict().items()}

    uninterrupted, _ = train(fresh(), stop={"training_iteration": 4})
    half, _ = train(fresh(), stop={"training_iteration": 2}, out=tmp_path)
    half.stop()
    resumed, _ = train(None, stop={"training_iteration": 4}, resume=tmp_path)
    expected, actual = weights(uninterrupted), weights(resumed)
    assert expected.keys() == actual.keys()
    assert all(np.array_equal(expected[k], actual[k]) for k in expected)
    for algorithm in (uninterrupted, resumed):
        algorithm.stop()
    with pytest.raises(InputError, match="no two agents have equal observation and action sizes"):
        CONFIGS["QMIX"]().environment("marca_env.parallel_env").training(share_parameters=True).validate()
