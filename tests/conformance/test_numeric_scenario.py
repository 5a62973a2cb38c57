"""A system with numbers and signals, from its logs to a policy: fit, environments, offline and online training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pettingzoo.test import api_test, parallel_api_test

import marca_env
from agents.policy.allocation_policy import AllocationPolicy
from agents.rllib.training.training import offline_train, online_train
from benchmarks.days.calibration import replay_options
from benchmarks.evaluation.offline_evaluation import OfflineEvaluation
from marca_env.integration.feature_coding import FeatureCoder
from marca_env.integration.fit_system import fit_system
from marca_env.integration.logged_system import read_logged_system
from marca_env.integration.mapping import Mapping
from marca_env.logs.log_files import read_request_log
from marca_env.models.engine import Engine
from tests.helpers.numeric_system import write_system

PRICES = [0.1, 0.1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``marca fit`` writes."""
    home = tmp_path_factory.mktemp("numeric")
    paths = write_system(home)
    system = read_logged_system(Mapping.load(paths["mapping"]), paths["requests"], paths["costs"])
    report = fit_system(system, home / "system", members=2)
    assert report["features"]["taste"]["missing"]["visits"] == pytest.approx(0.25, abs=0.05)
    assert "retrieval.best" in report["results"]
    return home / "system"


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.load(folder)


def test_fitted_folder_holds_numbers_and_signals(folder: Path, engine: Engine) -> None:
    scenario = engine.scenario
    assert scenario.state_columns == ("taste_0", "taste_1", "taste_2", "taste_3", "segment")
    assert scenario.result_columns == ("result_retrieval", "result_ranking", "signal_retrieval_best")
    log = read_request_log(folder / "requests.parquet", scenario)
    for name in ("taste_0", "taste_1", "signal_retrieval_best"):
        assert log[name].mean() == pytest.approx(0.0, abs=1e-6)
        assert log[name].std(ddof=0) == pytest.approx(1.0, abs=0.1)  # a few numbers lie beyond ten
    coder = FeatureCoder.load(folder)
    raw = {"age": 40.0, "spend": 50.0, "visits": None, "segment": 2, "top_score": 100.0}
    state = coder.encode(raw)
    assert state.dtype == np.float64
    assert state[0, 2:].tolist() == [0.0, 1.0, 2.0]  # the mean in place of the number, its mark, the code
    assert coder.encode_signals([raw]).shape == (1, 1)


def test_environments_pass_the_checks_of_pettingzoo(engine: Engine) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names of agents and spaces of different sizes
        api_test(marca_env.env(engine=engine), num_cycles=20)
        parallel_api_test(marca_env.parallel_env(engine=engine), num_cycles=20)
        parallel_api_test(marca_env.parallel_env(engine=engine, window=3), num_cycles=20)


def test_single_and_batched_environments_agree(engine: Engine) -> None:
    single, batched = marca_env.parallel_env(engine=engine), marca_env.batched_env(1, engine=engine)
    observations, infos = single.reset(seed=4)
    step = batched.reset(seed=4)
    while single.agents:
        for agent, observation in observations.items():
            np.testing.assert_array_equal(observation["observation"], step.observations[agent][0])
        actions = {agent: int(np.flatnonzero(infos[agent]["action_mask"])[-1]) for agent in single.agents}
        observations, rewards, _, _, infos = single.step(actions)
        step = batched.step({agent: np.array([action]) for agent, action in actions.items()})
    assert rewards["ranking"] == pytest.approx(float(step.reward[0]))


def test_pools_and_days_take_the_requests(engine: Engine) -> None:
    pool = engine.pool(60, seed=1)
    assert pool.time_windows is None
    assert set(replay_options(pool)) == {"weights"}
    assert pool.probabilities(700).sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(pool.outcomes["revenue"], engine.table(pool.states)[0])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["offline", "online"])
def test_teams_learn_and_their_policies_decide(
    folder: Path, engine: Engine, how: str, tmp_path: Path, one_cpu_ray: None
) -> None:
    options: dict[str, Any] = {"updates_per_iteration": 4, "train_batch_size_per_learner": 64}
    source: dict[str, Any] = {"env_config": {"scenario": str(folder)}, "num_envs": 64}
    log = folder / "requests.parquet"
    if how == "offline":
        path = offline_train(log, tmp_path / "run", algo="QMIX", scenario=folder, iterations=2, options=options)
    else:
        path = online_train(tmp_path / "run", algo="AWRQMixer", iterations=2, options=options, **source)
    policy = AllocationPolicy.load(path, cost_model=engine.cost_model)  # type: ignore[arg-type]
    states = engine.population.states[:50]
    actions = policy.decide(states, PRICES)
    assert actions.shape == (50, 2)
    policy.save(tmp_path / "policy")
    again = AllocationPolicy.load(tmp_path / "policy")
    np.testing.assert_array_equal(again.values(states), policy.values(states))
    in_turn = again.decide_in_turn(states, PRICES, engine.results)  # the engine reports what the policy expects
    assert (in_turn == actions).all(axis=1).mean() > 0.9  # but for ties: the fitted counts depend on later decisions
    evaluation = OfflineEvaluation.from_log(log, engine.scenario, truths=["model"], requests=40)
    assert set(evaluation.score(policy.values)) == {"spearman_model", "return_model"}
    assert set(evaluation.slices(policy.values)) == {"all", "depth", "model"}
