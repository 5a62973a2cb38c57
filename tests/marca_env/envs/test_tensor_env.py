"""Episodes of tensors are those of arrays, to the last bit, and wait for the device nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import marca_env
from marca_env.envs.batched_env import BatchedRecommender
from marca_env.envs.options import EnvOptions
from marca_env.envs.tensor_env import OutcomeTable, TensorRecommender
from marca_env.models.engine import Engine
from marca_env.scenario.scenario import Feature, Latency, Scenario
from marca_env.utils.errors import InputError

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")),
]
B = 50


def tensors_of(env: BatchedRecommender, device: str = "cpu") -> tuple[TensorRecommender, torch.Tensor]:
    """Return the environment of tensors and the rows of the table at which the requests of ``env`` are."""
    tensors = TensorRecommender.of(env, device)
    found = (torch.from_numpy(env.states)[:, None] == tensors.table.states.cpu()).all(-1)
    assert found.any(1).all()
    return tensors, found.int().argmax(1).to(device)


def assert_same(ours: Any, theirs: Any) -> None:
    """Compare everything that both kinds of step hold."""
    for agent, observation in theirs.observations.items():
        np.testing.assert_array_equal(ours.observations[agent].cpu(), observation)
        np.testing.assert_array_equal(ours.masks[agent].cpu().expand(B, -1), theirs.masks[agent])
    np.testing.assert_array_equal(ours.state.cpu(), theirs.state)
    np.testing.assert_array_equal(ours.reward.cpu(), theirs.reward)
    assert bool(theirs.terminated.all()) == ours.terminated
    for name in ours.infos:
        np.testing.assert_array_equal(ours.infos[name].cpu(), theirs.infos[name])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("reward", "prices"), [("revenue", None), ("lagrangian", [0.7, 12.0])])
def test_an_episode_is_that_of_the_batched_environment(tiny_engine: Engine, device, reward, prices) -> None:
    env = BatchedRecommender(B, EnvOptions(engine=tiny_engine, reward=reward, prices=prices))
    rng = np.random.default_rng(0)
    for _ in range(2):
        theirs = env.reset(seed=3)
        tensors, requests = tensors_of(env, device)
        ours = tensors.reset(requests=requests)
        assert_same(ours, theirs)
        while env.agent_on_turn is not None:
            agent, wait = env.agent_on_turn, {a: np.full(B, n - 1) for a, n in env.action_sizes.items()}
            taken = rng.integers(env.action_sizes[agent], size=B)  # `wait` becomes the last option
            assert tensors.agent_on_turn == agent
            ours = tensors.step({agent: torch.from_numpy(taken).to(device)})
            theirs = env.step({**wait, agent: taken})
            assert_same(ours, theirs)
        assert set(ours.infos) == {"revenue", "cost", "results"}
        assert ours.infos["revenue"].std() > 0


def test_a_seed_gives_the_same_requests_and_their_shares_are_those_of_the_population(tiny_engine: Engine) -> None:
    env = marca_env.tensor_env(20_000, "cpu", engine=tiny_engine)
    env.reset(seed=5)
    first = env.requests.clone()
    env.reset()
    assert not torch.equal(env.requests, first)
    env.reset(seed=5)
    assert torch.equal(env.requests, first)
    counts = tiny_engine.population.counts
    drawn = np.bincount(first, minlength=len(counts)) / len(first)
    assert np.abs(drawn - counts / counts.sum()).max() < 0.01


def test_environments_of_an_engine_share_a_table(tiny_engine: Engine) -> None:
    one, other = (marca_env.tensor_env(n, "cpu", engine=tiny_engine) for n in (2, 3))
    assert one.table is other.table
    last = torch.tensor([1.0 - 1e-17, 0.0], dtype=torch.float64)
    assert one.table.draw(last).tolist() == [len(tiny_engine.population.states) - 1, 0]


def test_an_episode_reads_nothing_back(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    env, reads = marca_env.tensor_env(B, "cpu", engine=tiny_engine), []
    for name in ("cpu", "item", "tolist", "nonzero", "numpy", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name: reads.append(name))
    env.reset(seed=0)
    actions = torch.ones(B, dtype=torch.int64)
    while env.agent_on_turn is not None:
        env.step({env.agent_on_turn: actions})
    assert reads == []


def test_wrong_actions_are_one_line(tiny_engine: Engine) -> None:
    env = marca_env.tensor_env(2, "cpu", engine=tiny_engine, on_illegal="error")
    with pytest.raises(InputError, match="no episode is running"):
        env.step({})
    env.reset(seed=0)
    agent = env.agent_on_turn
    with pytest.raises(InputError, match=f"actions of agent '{agent}' are missing"):
        env.step({})
    with pytest.raises(InputError, match=r"of shape \(3,\); pass a tensor of shape \(2,\)"):
        env.step({agent: torch.zeros(3)})
    with pytest.raises(InputError, match=f"agent '{agent}' took action 99 at turn 0 of request 1"):
        env.step({agent: torch.tensor([0, 99])})


def test_what_has_no_tensors_is_refused(tiny_scenario: Scenario, tiny_engine: Engine, monkeypatch) -> None:
    def build(**options: Any) -> Any:
        return marca_env.tensor_env(2, "cpu", **{"engine": tiny_engine, **options})

    with pytest.raises(InputError, match="windows of requests have no tensors"):
        build(window=3)
    with pytest.raises(InputError, match="a callable reward has no tensors"):
        build(reward=lambda outcome, prices: outcome.revenue)
    with pytest.raises(InputError, match="device 'cudda' cannot be used here"):
        marca_env.tensor_env(2, "cudda", engine=tiny_engine)
    limited = tiny_scenario.replace(latency=Latency(limit=1.0))
    numbers = tiny_scenario.replace(features=(*tiny_scenario.features, Feature("taste", 2, kind="number")))
    for scenario, fault in ((limited, "it has a latency limit"), (numbers, "its features are numbers")):
        engine = Engine.__new__(Engine)
        vars(engine).update(vars(tiny_engine), scenario=scenario)
        with pytest.raises(InputError, match=fault):
            OutcomeTable(engine, "cpu")
    monkeypatch.setattr("marca_env.envs.tensor_env.MAX_PAIRS", 10)
    with pytest.raises(InputError, match="pairs of request and joint action, more than 10"):
        OutcomeTable(tiny_engine, "cpu")
