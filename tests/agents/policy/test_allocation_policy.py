"""The policy's values are the team's, decisions follow Eq. 6, and damaged folders are one error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from agents.algorithms.presets import preset
from agents.algorithms.td_targets import take, turn_rounds, waiting_values
from agents.offline.episodes import log_episodes, team_encoder
from agents.policy.allocation_policy import AllocationPolicy, load_team
from agents.policy.checkpoints import seal
from agents.team.team import Team, TeamSpec, action_key, mask_key
from marca_env.models.cost_model import CostModel
from marca_env.models.latency_map import LatencyMap
from marca_env.scenario.scenario import Latency, Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import make_cost_log
from tests.helpers.policies import save_untrained_policy

SMALL = {"gru": 8, "hidden": (8,)}
VARIANTS = [
    ("VDN", SMALL),
    ("QMIX", {**SMALL, "gru": None}),
    ("AWRQMixer", {**SMALL, "heads": 3}),
    ("AWRQMixer", {**SMALL, "heads": 3, "mixer_input": "state+actions"}),
    ("AWRQMixerV2", {**SMALL, "heads": 3}),
    ("QMIX", {**SMALL, "mixer": "resq"}),
    ("QMIX", {**SMALL, "waiting_values": "zero"}),
    ("AWRQMixerV2", {**SMALL, "waiting_values": "round"}),
    ("WeightedQMIX", SMALL),
    ("IQL", SMALL),
    ("JointDQN", {"hidden": (8,)}),
    ("JointDDQN", {"hidden": (8,)}),
    ("JointDRQN", SMALL),
    ("AveragedDQN", {"hidden": (8,), "heads": 3}),
    ("REM", {"hidden": (8,), "heads": 3}),
    ("QMIX", {**SMALL, "normalization": "layer", "activation": "elu"}),
    ("VDN", {**SMALL, "normalization": "batch", "activation": "gelu"}),
    ("QMIX", {"gru": 8, "hidden": (), "normalization": "layer", "dropout": 0.3}),
]


@pytest.fixture(scope="module")
def cost_model(tiny_artefacts: Path) -> CostModel:
    """Load the cost model of the tiny scenario."""
    return CostModel.load(tiny_artefacts / "cost_model")


def make_policy(scenario: Scenario, costs: CostModel, name: str, options: dict, scale: float = 3.0) -> AllocationPolicy:
    """Build a policy with random weights and non-zero biases."""
    torch.manual_seed(0)
    algorithm = preset(name, **options)
    team = Team(TeamSpec.from_source(team_encoder(scenario, joint=algorithm.joint)), algorithm)
    for key, parameter in team.named_parameters():  # zero biases would hide errors
        if key.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return AllocationPolicy(team, scenario, costs, reward_scale=scale)


def episode_values(policy: AllocationPolicy, states: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Return Q_tot at the last turn of every episode, as training computes it: (B, J')."""
    scenario, team = policy.scenario, policy.team
    rows, actions = np.repeat(states, len(joint), 0), np.tile(joint, (len(states), 1))
    frame = pd.DataFrame(np.hstack([rows, actions]), columns=[*scenario.feature_names, *scenario.decision_names])
    observed_actions = actions.copy()
    observed_actions[:, -1] = 0  # the last decision is not taken yet when results are observed
    for k, name in enumerate(scenario.stage_names):
        frame[f"result_{name}"] = policy.cost_model.results(rows, observed_actions)[:, k]
    columns = log_episodes(frame.assign(revenue=0.0), scenario, joint=policy.preset.joint)
    batch = {k: torch.as_tensor(v) for k, v in columns.items()}
    taken = [batch[action_key(a)] for a in team.spec.agents]
    with torch.no_grad():
        q, turns = team.unroll(batch)
        q_taken = [take(x[:, :-1], a).mean(-1) for x, a in zip(q, taken, strict=True)]
        waiting, turns = policy.preset.mixer.waiting_values, [on[:, :-1] for on in turns]
        rounds = turn_rounds(turns)
        utilities = torch.stack(
            [waiting_values(c, on, waiting, rounds) for c, on in zip(q_taken, turns, strict=True)], -1
        )
        best = utilities.clone()
        for g, (x, a, on, name) in enumerate(zip(q, taken, turns, team.spec.agents, strict=True)):
            value, action = x[:, :-1].mean(2).masked_fill(~batch[mask_key(name)][:, :-1], -torch.inf).max(-1)
            best[..., g] = torch.where(on & (a != action), value, utilities[..., g])
        deciders = torch.stack(turns).sum(0)
        mixed = team.mix(utilities, batch["state"][:, :-1], taken, best, deciders)[:, -1]
    return mixed.numpy().reshape(len(states), -1) * policy.reward_scale


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_parts_of_a_value_are_those_of_training(
    tiny_scenario: Scenario, cost_model: CostModel, name: str, options: dict
) -> None:
    """Each decision has the value of its agent, each agent that of its last decision; they are mixed to the total."""
    policy = make_policy(tiny_scenario, cost_model, name, options)
    rng = np.random.default_rng(1)
    states = rng.integers(0, tiny_scenario.feature_sizes, (60, 4))
    actions = rng.integers(0, tiny_scenario.action_shape, (60, len(tiny_scenario.action_shape)))
    parts = policy.value_parts(states, actions)
    joint = np.ravel_multi_index(tuple(actions.T), tuple(tiny_scenario.action_shape))
    np.testing.assert_allclose(parts["total"], policy.values(states)[np.arange(60), joint], rtol=1e-4, atol=1e-4)
    turns = list(policy.encoder.turn_agent)
    for agent in policy.team.spec.agents:
        last = len(turns) - 1 - turns[::-1].index(agent)
        decision = tiny_scenario.decision_names[last]
        np.testing.assert_array_equal(parts[f"agent:{agent}"], parts[f"decision:{decision}"])
    assert set(parts) == {
        *(f"decision:{decision}" for decision in tiny_scenario.decision_names),
        *(f"agent:{agent}" for agent in policy.team.spec.agents),
        "total",
    }
    if name in ("VDN", "REM", "JointDQN"):  # the sum of the agents' values
        total = sum(parts[f"agent:{agent}"] for agent in policy.team.spec.agents)
        np.testing.assert_allclose(parts["total"], total, rtol=1e-5)
    with pytest.raises(InputError, match="60 states and 59 actions"):
        policy.value_parts(states, actions[1:])


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_values_are_q_tot_at_the_last_turn(
    tiny_scenario: Scenario, cost_model: CostModel, name: str, options: dict
) -> None:
    policy = make_policy(tiny_scenario, cost_model, name, options)
    states = np.random.default_rng(0).integers(0, tiny_scenario.feature_sizes, (7, 4))
    states[5] = states[1]
    tree = policy._tree
    actual, expected = policy.values(states), episode_values(policy, states, tree.leaves)
    np.testing.assert_allclose(actual, expected[:, tree.leaf_of_action], rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0.01


def test_actions_with_the_same_effect_share_a_value(tiny_scenario: Scenario, cost_model: CostModel) -> None:
    policy = make_policy(tiny_scenario, cost_model, "QMIX", SMALL)
    values = policy.values(np.zeros((1, 4), dtype=int))[0]
    off = [tiny_scenario.joint_index(np.array([0, length, 1, 2])) for length in range(3)]
    assert len(set(values[off])) == 1


def test_the_chunk_size_does_not_change_values(
    tiny_scenario: Scenario, cost_model: CostModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(tiny_scenario, cost_model, "AWRQMixer", {**SMALL, "heads": 2})
    states = np.stack(np.unravel_index(np.arange(48), tiny_scenario.feature_sizes), 1)
    expected = policy.values(states)
    monkeypatch.setattr("agents.policy.joint_action_values._CHUNK_NODES", 40)
    np.testing.assert_allclose(policy.values(states), expected, rtol=1e-5, atol=1e-6)


def test_decisions_maximise_value_minus_priced_cost(tiny_scenario: Scenario, cost_model: CostModel) -> None:
    policy = make_policy(tiny_scenario, cost_model, "QMIX", SMALL)
    states = np.random.default_rng(1).integers(0, tiny_scenario.feature_sizes, (20, 4))
    values, costs = policy.values(states), policy.costs(states)
    for prices in (np.zeros(2), np.array([5.0, 20.0])):
        actions = policy.decide(states, prices)
        score = values - costs @ prices
        reached = np.take_along_axis(score, tiny_scenario.joint_index(actions)[:, None], 1)[:, 0]
        np.testing.assert_allclose(reached, score.max(1), rtol=1e-4, atol=1e-5)
    expensive = policy.decide(states, np.array([1e6, 1e6]))
    cheapest = costs.sum(-1).min(1)
    paid = costs.sum(-1)[np.arange(20), tiny_scenario.joint_index(expensive)]
    np.testing.assert_allclose(paid, cheapest, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_saved_policy_is_loaded_unchanged(
    tiny_scenario: Scenario, cost_model: CostModel, tmp_path: Path, name: str, options: dict
) -> None:
    policy = make_policy(tiny_scenario, cost_model, name, options)
    policy.save(tmp_path / "p")
    again = AllocationPolicy.load(tmp_path / "p")
    states = np.zeros((3, 4), dtype=int)
    assert np.array_equal(again.values(states), policy.values(states))
    assert again.scenario == tiny_scenario


def test_a_policy_keeps_the_service_times_that_its_agents_observe(
    tiny_scenario: Scenario, cost_model: CostModel, tmp_path: Path
) -> None:
    """The folder is enough to decide, wherever the scenario came from."""
    limited = tiny_scenario.replace(latency=Latency(0.02))
    latency_map = LatencyMap.from_log(limited, make_cost_log(tiny_scenario))
    team = Team(
        TeamSpec.from_source(team_encoder(limited, latency_map=latency_map)), preset("QMIX", gru=8, hidden=(8,))
    )
    policy = AllocationPolicy(team, limited, cost_model, latency_map=latency_map)
    policy.save(tmp_path / "p")
    again = AllocationPolicy.load(tmp_path / "p")
    states = np.zeros((3, 4), dtype=int)
    assert np.array_equal(again.values(states), policy.values(states))
    assert again.latency_map is not None
    assert (tmp_path / "p" / "cost_model" / "latency.json").is_file()


SAVER = """
import itertools, sys, time
from agents.policy.allocation_policy import AllocationPolicy
policies = [AllocationPolicy.load(path) for path in sys.argv[2:]]
for policy in itertools.cycle(policies):
    policy.save(sys.argv[1])
    print("saved", flush=True)
    time.sleep(0.2)
"""


@pytest.mark.slow
def test_loading_while_another_process_saves_gives_one_policy_or_the_other(
    tiny_scenario: Scenario, cost_model: CostModel, tiny_requests: pd.DataFrame, tmp_path: Path
) -> None:
    """Two policies with other teams, units and cost models: never the weights, units or costs of both."""
    other_costs = CostModel.fit(tiny_scenario, tiny_requests, make_cost_log(tiny_scenario), epochs=1)
    make_policy(tiny_scenario, cost_model, "VDN", SMALL, 1.0).save(tmp_path / "a")
    torch.manual_seed(9)
    make_policy(tiny_scenario, other_costs, "VDN", SMALL, 2.0).save(tmp_path / "b")
    states = np.zeros((1, 4), dtype=int)

    def seen(folder: Path) -> tuple[float, bytes, bytes]:
        policy = AllocationPolicy.load(folder)
        return policy.reward_scale, policy.values(states).tobytes(), policy.costs(states).tobytes()

    whole = {seen(tmp_path / name) for name in "ab"}
    assert len(whole) == 2
    assert len(set(zip(*whole, strict=True))) == 3
    command = [sys.executable, "-c", SAVER, *(str(tmp_path / name) for name in ("live", "a", "b"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as saver:
        try:
            assert saver.stdout is not None
            assert saver.stdout.readline() == b"saved\n"
            loaded = [seen(tmp_path / "live") for _ in range(150)]
        finally:
            saver.kill()
    assert set(loaded) == whole


def test_a_cost_model_that_was_not_saved_with_the_policy_is_named(
    tiny_scenario: Scenario, cost_model: CostModel, tiny_requests: pd.DataFrame, tmp_path: Path
) -> None:
    make_policy(tiny_scenario, cost_model, "VDN", SMALL).save(tmp_path)
    other = CostModel.fit(tiny_scenario, tiny_requests, make_cost_log(tiny_scenario), epochs=1)
    other.save(tmp_path / "cost_model")
    with pytest.raises(InputError, match="not the cost model with which this policy was saved; pass cost_model"):
        AllocationPolicy.load(tmp_path)
    assert AllocationPolicy.load(tmp_path, cost_model=tmp_path / "cost_model").cost_model.scenario == tiny_scenario


def test_a_run_is_loaded_from_its_newest_checkpoint(
    tiny_scenario: Scenario, cost_model: CostModel, tmp_path: Path
) -> None:
    """The newest checkpoint has the largest iteration, compared as a number."""
    for name, scale in (("checkpoint_999999", 1.0), ("checkpoint_1000000", 2.0)):
        make_policy(tiny_scenario, cost_model, "VDN", SMALL, scale).save(tmp_path / name / "policy")
        seal(tmp_path / name)
    (tmp_path / "checkpoint_backup").mkdir()
    assert AllocationPolicy.load(tmp_path).reward_scale == 2.0
    assert AllocationPolicy.load(tmp_path / "checkpoint_999999").reward_scale == 1.0


def test_the_shipped_cost_model_of_another_system_is_refused(
    tiny_scenario: Scenario, cost_model: CostModel, tmp_path: Path
) -> None:
    policy = make_policy(tiny_scenario.replace(name="default"), cost_model, "VDN", SMALL)
    policy.save(tmp_path)
    shutil.rmtree(tmp_path / "cost_model")
    with pytest.raises(InputError, match="fitted to another system than the policy"):
        AllocationPolicy.load(tmp_path)


def test_a_missing_cost_model_is_an_error_with_a_remedy(
    tiny_scenario: Scenario, cost_model: CostModel, tiny_artefacts: Path, tmp_path: Path
) -> None:
    policy = make_policy(tiny_scenario.replace(name="mine"), cost_model, "VDN", SMALL)
    policy.save(tmp_path)
    shutil.rmtree(tmp_path / "cost_model")
    with pytest.raises(InputError, match="no cost model, and none is shipped for scenario 'mine'; copy the one that"):
        AllocationPolicy.load(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        AllocationPolicy.load(tmp_path, cost_model=tmp_path / "nowhere")
    for source in (cost_model, tiny_artefacts / "cost_model", str(tiny_artefacts / "cost_model")):
        assert AllocationPolicy.load(tmp_path, cost_model=source).costs(np.zeros((1, 4), dtype=int)).shape[2] == 2


def test_no_requests_give_no_decisions(tiny_scenario: Scenario, cost_model: CostModel) -> None:
    policy = make_policy(tiny_scenario, cost_model, "VDN", SMALL)
    assert policy.decide(np.zeros((0, 4), dtype=int), np.ones(2)).shape == (0, 4)


def test_damaged_policy_folders_are_refused(tiny_scenario: Scenario, cost_model: CostModel, tmp_path: Path) -> None:
    make_policy(tiny_scenario, cost_model, "QMIX", SMALL).save(tmp_path)
    weights, description = tmp_path / "weights.safetensors", tmp_path / "policy.json"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"weights\.safetensors.*cannot be read"):
        AllocationPolicy.load(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match="no such file"):
        AllocationPolicy.load(tmp_path)
    weights.write_bytes(data)
    text = description.read_text()
    description.write_text(text.replace('"gru": 8', '"gru": 9'))
    with pytest.raises(InputError, match="do not belong together"):
        AllocationPolicy.load(tmp_path)
    description.write_text(text[:40])
    with pytest.raises(InputError, match="not valid JSON"):
        load_team(tmp_path)


def test_invalid_states_are_refused(tiny_scenario: Scenario, cost_model: CostModel) -> None:
    policy = make_policy(tiny_scenario, cost_model, "VDN", SMALL)
    with pytest.raises(InputError, match="state 1: w is 4"):
        policy.values(np.array([[0, 0, 0, 0], [0, 4, 0, 0]]))
    with pytest.raises(InputError, match="one column per name: uv, w, g, history"):
        policy.values(np.zeros((2, 3), dtype=int))


def test_only_the_necessary_matrix_products_are_computed() -> None:
    """Heads are evaluated only at an agent's last decision; equal or cached states cost nothing."""

    class Costs:
        def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
            return np.full((len(states), 3), 100.0, np.float32)

    scenario = Scenario.load("default")
    policy = make_policy(scenario, Costs(), "AWRQMixer", {"gru": 16, "heads": 5, "hidden": (64,)})  # type: ignore[arg-type]
    states = np.stack(np.unravel_index(np.arange(40), scenario.feature_sizes), 1)
    flops = []
    for batch in (states[:20], np.repeat(states[:20], 7, axis=0), np.concatenate([states, states])):
        with FlopCounterMode(display=False) as counter:
            policy.values(batch)
        flops.append(counter.get_flop_counts().get("Global", {}).get(torch.ops.aten.baddbmm, 0))
    nodes = sum(level.size for level in policy._tree.levels if level.final)
    assert nodes == 32 + 64
    heads = (
        20
        * 5
        * sum(
            2 * level.size * (16 * 64 + 64 * policy.team.agents[g].n_actions)
            for g, level in enumerate(x for x in policy._tree.levels if x.final)
        )
    )
    mixing = 20 * 64 * 5 * 2 * 2 * 32
    assert flops == [heads + mixing, 0, heads + mixing]


def test_forget_clears_the_cache(tiny_scenario: Scenario, cost_model: CostModel) -> None:
    policy = make_policy(tiny_scenario, cost_model, "VDN", SMALL)
    states = np.zeros((1, 4), dtype=int)
    before = policy.values(states)
    with torch.no_grad():
        for parameter in policy.team.parameters():
            parameter.mul_(1.5)
    assert np.array_equal(policy.values(states), before)
    policy.forget()
    assert not np.allclose(policy.values(states), before)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.parametrize("most", [0, 25_000_000])
def test_decisions_match_the_plain_evaluation(
    tiny_scenario: Scenario, cost_model: CostModel, name: str, options: dict, most: int, monkeypatch: Any
) -> None:
    """All states, single or batched, cached or not, match whole episodes and Eq. 6 by hand."""
    monkeypatch.setattr("agents.policy.allocation_policy._MAX_CACHED_NUMBERS", most)
    policy = make_policy(tiny_scenario, cost_model, name, options)
    states = np.stack(np.unravel_index(np.arange(48), tiny_scenario.feature_sizes), 1)
    values = episode_values(policy, states, policy._tree.leaves)[:, policy._tree.leaf_of_action].astype(np.float64)
    costs = cost_model.table(states)[1]
    for prices in (np.zeros(2), np.array([3.0, 0.5]), np.array([40.0, 90.0])):
        score = values - costs @ prices
        actions = policy.decide(states, prices)
        indices = tiny_scenario.joint_index(actions)
        best = score.max(1)
        reached = score[np.arange(48), indices]
        np.testing.assert_allclose(reached, best, rtol=0, atol=2e-5 * (1 + np.abs(best).max()))
        second = np.array([np.unique(row.round(4))[-2:] for row in score])
        clear = second[:, 1] - second[:, 0] > 1e-3
        assert clear.any()
        expected = policy._tree.leaves[policy._tree.leaf_of_action[score.argmax(1)]]
        assert np.array_equal(actions[clear], expected[clear])
        alone = np.concatenate([policy.decide(row[None], prices) for row in states[:6]])
        assert np.array_equal(alone[clear[:6]], actions[:6][clear[:6]])


def test_large_state_spaces_are_not_cached(
    tiny_scenario: Scenario, cost_model: CostModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = np.stack(np.unravel_index(np.arange(20), tiny_scenario.feature_sizes), 1)
    expected = make_policy(tiny_scenario, cost_model, "VDN", SMALL).values(states)
    for most in (10, 100, 48 * 24):  # smaller than the states, their values, their costs
        monkeypatch.setattr("agents.policy.allocation_policy._MAX_CACHED_NUMBERS", most)
        policy = make_policy(tiny_scenario, cost_model, "VDN", SMALL)
        for _ in range(2):
            np.testing.assert_allclose(policy.values(states), expected, rtol=1e-6)
            assert policy.decide(states, np.ones(2)).shape == (20, 4)
        assert policy._leaf_costs.table is None


def test_prices_may_be_named_by_cluster(tmp_path: Path) -> None:
    save_untrained_policy(tmp_path)
    policy = AllocationPolicy.load(tmp_path)
    states = np.zeros((2, len(policy.scenario.features)), dtype=int)
    by_name = dict(zip(policy.scenario.cluster_names, (3.0, 50.0), strict=True))
    shuffled = dict(reversed(by_name.items()))
    np.testing.assert_array_equal(policy.decide(states, shuffled), policy.decide(states, np.array([3.0, 50.0])))
    for prices, expected in (
        ({"retrieval": 1.0}, "cluster 'ranking' has none"),
        ({"retrieval": 1.0, "rankin": 1.0}, "did you mean 'ranking'"),
        ({"retrieval": 1.0, "ranking": -1.0}, "-1 for cluster 'ranking'"),
        ({"retrieval": 1.0, "ranking": "x"}, "not an array of real numbers"),
        ([1.0], "prices of shape"),
        ([1.0, 1j], "not an array of real numbers"),
    ):
        with pytest.raises(InputError, match=expected):
            policy.decide(states, prices)  # type: ignore[arg-type]


def test_a_checkpoint_of_ppo_says_that_it_cannot_serve(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint_000001"
    checkpoint.mkdir()
    (checkpoint / "rllib_checkpoint.json").write_text("{}")
    with pytest.raises(InputError, match=r"such as PPO, which cannot serve.*train a preset to serve"):
        AllocationPolicy.load(checkpoint)
