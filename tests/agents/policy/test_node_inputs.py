"""Decisions from tensors are those from NumPy to the last bit, and nothing in them waits for the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.algorithms.presets import preset
from agents.offline.episodes import team_encoder
from agents.policy.allocation_policy import AllocationPolicy
from agents.policy.node_inputs import HostInputs, TensorInputs
from agents.team.team import Team, TeamSpec
from marca_env.models.cost_map import CostMap, Curve
from marca_env.models.cost_model import CostModel, ResultScale, _network
from marca_env.models.cost_tensors import CostTensors, CurveTensor
from marca_env.models.engine import shipped_folder
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Feature, Scenario
from tests.helpers.factories import make_cost_log

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")),
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def numeric(tiny_scenario: Scenario) -> Scenario:
    """The tiny scenario with numbers, a hidden category and a signal of the first stage."""
    first, *others = tiny_scenario.stages
    features = (Feature("taste", 2, kind="number"), *tiny_scenario.features, Feature("row", 9, hidden=True))
    stages = (type(first)(first.name, first.cluster, first.decisions, first.queue_limit, ("best",)), *others)
    return tiny_scenario.replace(name="numeric", features=features, stages=stages)


def untrained_costs(scenario: Scenario, device: str = "cpu") -> CostModel:
    """Build a cost model with random weights and the measured cost map of the tiny scenario."""
    n = len(scenario.signals)
    counts = np.linspace(40.0, 90.0, len(scenario.stages), dtype=np.float32)
    scale = ResultScale(counts, np.full(n, 50.0, np.float32), np.full(n, 7.0, np.float32))
    net = _network(InputEncoder(scenario), 4)
    torch.manual_seed(4)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return CostModel(scenario, net, scale, CostMap.from_log(scenario, make_cost_log(scenario)), device)


def draw(scenario: Scenario, n: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    columns = [
        rng.integers(f.size, size=(n, 1)) if f.kind == "category" else 6 * rng.normal(size=(n, f.size))
        for f in scenario.features
    ]
    return np.concatenate(columns, axis=1)


def make_policy(scenario: Scenario, costs: CostModel, name: str, device: str = "cpu") -> AllocationPolicy:
    torch.manual_seed(1)
    small = preset(name, hidden=(8,), **({"gru": 8} if name != "JointDQN" else {}))
    team = Team(TeamSpec.from_source(team_encoder(scenario, joint=small.joint)), small)
    return AllocationPolicy(team, scenario, costs, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["default", "numeric"])
def test_results_and_costs_are_those_of_the_cost_model_to_the_last_bit(numeric, kind, device) -> None:
    costs = untrained_costs(numeric, device)
    if kind == "default":
        costs = CostModel.load(shipped_folder("default") / "cost_model", device=device)
    scenario, actions = costs.scenario, costs.scenario.joint_actions[::5]
    states = draw(scenario, 7)
    pairs = np.repeat(states, len(actions), axis=0), np.tile(actions, (len(states), 1))
    tensors = CostTensors(costs, actions)
    results = tensors.results(states)
    np.testing.assert_array_equal(results.cpu().flatten(0, 1), costs.results(*pairs))
    np.testing.assert_array_equal(tensors.costs(states, results).cpu().flatten(0, 1), costs.predict(*pairs))


def test_a_curve_is_the_same_inside_at_and_beyond_its_knots() -> None:
    x = np.concatenate([np.linspace(-5.0, 40.0, 400), [0.1, 3.0, 7.7, 20.0]])
    for curve in (
        Curve(np.array([0.1, 3.0, 7.7, 20.0]), np.array([0.3, 0.3, 1.9, 2.2])),
        Curve(np.ones(1), np.ones(1)),
    ):
        np.testing.assert_array_equal(CurveTensor(curve, "cpu")(torch.from_numpy(x)), curve(x))


@pytest.mark.parametrize("name", ["AWRQMixer", "JointDQN"])
@pytest.mark.parametrize("kind", ["default", "numeric"])
def test_inputs_of_every_node_are_those_that_numpy_makes(numeric, kind, name) -> None:
    costs = untrained_costs(numeric)
    if kind == "default":
        costs = CostModel.load(shipped_folder("default") / "cost_model")
    policy = make_policy(costs.scenario, costs, name)
    tensors = policy._evaluate.inputs
    assert isinstance(tensors, TensorInputs)
    host = HostInputs(policy.encoder, policy._tree, costs.results, CPU)
    states, last = draw(costs.scenario, 5), len(policy._tree.levels) - 1
    reports = np.random.default_rng(3).normal(30, 20, (5, len(costs.scenario.result_columns))).astype(np.float32)
    for turn in range(last + 1):
        known = policy.encoder.settled(turn)
        for observed in (None, (reports, known)):
            ours, theirs = (inputs.observe(states, observed, turn) for inputs in (tensors, host))
            for k in range(3 if turn == last else 2):  # the mixer reads the state of the last turn
                np.testing.assert_array_equal(ours[k], theirs[k])


def test_values_and_decisions_are_those_of_inputs_from_numpy(numeric) -> None:
    costs = untrained_costs(numeric)
    policy, other = (make_policy(numeric, costs, "AWRQMixer") for _ in range(2))
    other._evaluate.inputs = HostInputs(policy.encoder, policy._tree, costs.results, CPU)
    other._cost_tensors = None
    states, prices = draw(numeric, 9), np.array([3.0, 8.0])
    np.testing.assert_array_equal(policy.values(states), other.values(states))
    np.testing.assert_array_equal(policy.costs(states), other.costs(states))
    np.testing.assert_array_equal(policy.decide(states, prices), other.decide(states, prices))


def test_a_pass_over_the_tree_copies_nothing_to_the_host(numeric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the finished values and costs leave the device: one copy for each of the two."""
    policy, copies = make_policy(numeric, untrained_costs(numeric), "AWRQMixer"), []
    states = draw(numeric, 9)

    def counted(name: str) -> Any:
        real = getattr(torch.Tensor, name)

        def call(tensor: torch.Tensor, *args: Any) -> Any:
            copies.append(name)
            return real(tensor, *args)

        return call

    for name in ("cpu", "item", "tolist", "nonzero", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name))
    policy.decide(states, np.array([3.0, 8.0]))
    assert copies == ["cpu", "cpu"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_decisions_on_a_gpu_are_those_of_a_cpu(numeric) -> None:
    ours, theirs = (make_policy(numeric, untrained_costs(numeric, d), "AWRQMixer", d) for d in ("cuda", "cpu"))
    states = draw(numeric, 200)
    np.testing.assert_allclose(ours.costs(states), theirs.costs(states), rtol=1e-4)
    np.testing.assert_allclose(ours.values(states), theirs.values(states), rtol=1e-4, atol=1e-5)
