"""A streamed log: the order of its plan, exact resumption, and clear errors."""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import ray
import torch

from agents.offline.episodes import EpisodeEncoder
from agents.offline.rows import load_rows
from agents.policy.allocation_policy import AllocationPolicy
from agents.rllib import CONFIGS
from agents.rllib.core.cluster import start_ray
from agents.rllib.core.streamed_log import StreamedLog
from agents.rllib.training.algorithm_checkpoints import restore, save_checkpoint
from agents.rllib.training.training import train
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.request_logs import make_plan, rows_in_order, write_parquet

pytestmark = pytest.mark.distributed

SMALL = {"gru": 8, "hidden": [16], "lr": 3e-3, "train_batch_size_per_learner": 200, "updates_per_iteration": 5}


@pytest.fixture(scope="module", autouse=True)
def running_ray() -> Iterator[None]:
    """Start a ray with two CPUs for two learners, so that the readers get none."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ray.shutdown()
    start_ray(num_cpus=2)
    yield
    gc.collect()  # close streams that are still open
    ray.shutdown()
    torch.set_num_threads(threads)


def numbers(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return the row numbers of a minibatch."""
    return columns["reward"][:, -1].astype(int)


@pytest.mark.slow
def test_minibatches_follow_the_plan_and_continue_from_a_state(numbered_log: Path, tiny_scenario: Scenario) -> None:
    """Order and state hold across windows, epochs and Ray datasets, and a second stream continues exactly."""
    plan, encoder = make_plan(numbered_log, tiny_scenario), EpisodeEncoder(tiny_scenario)
    stream = StreamedLog(plan, encoder)
    assert len(stream) == 6000
    batches = [numbers(stream.sample(700)) for _ in range(20)]
    expected = np.concatenate([rows_in_order(plan, e) for e in range(3)])
    assert np.array_equal(np.concatenate(batches), expected[:14_000])
    state = stream.state()
    again = StreamedLog(dataclasses.replace(plan, seed=99, _memo={}), encoder)
    again.set_state(state)
    assert np.array_equal(numbers(again.sample(700)), expected[14_000:14_700])
    stream.close()
    assert np.array_equal(numbers(stream.sample(700)), expected[14_000:14_700])
    everything = load_rows(numbered_log, tiny_scenario)
    assert stream.reward_statistics().episode.std == pytest.approx(everything["reward"].std(), rel=0.1)
    first = stream.sample(1)
    row = everything[numbers(first)]
    assert all(np.array_equal(first[k], v) for k, v in encoder(row).items())
    stream.close()
    again.close()


def test_a_closed_stream_leaves_no_reader_thread(numbered_log: Path, tiny_scenario: Scenario) -> None:
    """A reader thread would end the process after ray.shutdown()."""
    before = set(threading.enumerate())
    stream = StreamedLog(make_plan(numbered_log, tiny_scenario), EpisodeEncoder(tiny_scenario))
    stream.sample(700)
    assert any(t.name.startswith("iter_threaded") for t in set(threading.enumerate()) - before)
    stream.close()
    assert not any(t.name.startswith("iter_threaded") for t in set(threading.enumerate()) - before)


@pytest.mark.slow
def test_a_bad_row_is_the_same_error_at_every_draw(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path
) -> None:
    bad = tiny_requests.iloc[:2000].copy()
    bad.loc[1234, "revenue"] = np.nan
    write_parquet(bad, tmp_path / "bad.parquet")
    stream = StreamedLog(make_plan(tmp_path, tiny_scenario, window=300), EpisodeEncoder(tiny_scenario))
    place = rf"^{tmp_path / 'bad.parquet'}: row 1235, column 'revenue' .*is empty; fill the value in or remove the row$"
    for _ in range(2):
        with pytest.raises(InputError, match=place):
            [stream.sample(100) for _ in range(20)]
    assert stream.drawn < 2000
    stream.close()


@pytest.fixture(scope="module")
def training_log(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a folder with a log and its scenario."""
    folder = tmp_path_factory.mktemp("training")
    write_parquet(tiny_requests, folder / "requests.parquet")
    tiny_scenario.save(folder / "tiny.yaml")
    return folder


def make_config(folder: Path, name: str = "VDN", **options: Any) -> Any:
    """Configure an algorithm that streams the log."""
    config = CONFIGS[name]().offline_data(input_=[str(folder / "*.parquet")]).debugging(seed=1)
    settings = {"scenario": str(folder / "tiny.yaml"), "streaming": True, "shuffle_buffer": 1000, **SMALL}
    return config.training(**{**settings, **options})


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    """Return a copy of the weights of the local learner."""
    return {k: v.clone() for k, v in algorithm.learner_group._learner._team.state_dict().items()}


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(training_log: Path, tmp_path: Path) -> None:
    """The weights are exactly equal; the run continues in the middle of an epoch."""
    uninterrupted, _ = train(make_config(training_log), stop={"training_iteration": 4})
    first, _ = train(make_config(training_log), stop={"training_iteration": 2})
    checkpoint = save_checkpoint(first, tmp_path)
    first.stop()
    again = restore(checkpoint)
    assert again.buffer.drawn == 2 * 5 * 200
    for _ in range(2):
        again.train()
    assert again.buffer.drawn == uninterrupted.buffer.drawn == 4 * 5 * 200
    first, second = weights(uninterrupted), weights(again)
    assert all(torch.equal(first[k], second[k]) for k in first)
    uninterrupted.stop()
    again.stop()


@pytest.mark.slow
def test_streamed_and_in_memory_learning_agree(training_log: Path, tiny_scenario: Scenario, exact_law: Any) -> None:
    """The same learner with the same rows in another order ranks the actions about equally well."""
    states = np.stack(np.unravel_index(np.arange(48), tiny_scenario.feature_sizes), 1)
    joint = tiny_scenario.joint_actions
    truth = exact_law.predict(np.repeat(states, len(joint), 0), np.tile(joint, (48, 1))).reshape(48, -1)
    reached, means = [], []
    for streaming in (True, False):
        options = {"lr": 5e-3, "gru": 16, "hidden": [32], "updates_per_iteration": 40}
        algorithm, _ = train(make_config(training_log, streaming=streaming, **options), stop={"training_iteration": 5})
        assert algorithm.offline_data.streamed is streaming
        team, scale = (
            algorithm.learner_group._learner._team.online,
            float(algorithm.learner_group._learner._team.reward_scale),
        )
        values = AllocationPolicy(team, tiny_scenario, exact_law, reward_scale=scale).values(states)
        reached.append(np.corrcoef(values.ravel(), truth.ravel())[0, 1])
        means.append(values.mean())
        algorithm.stop()
    assert min(reached) > 0.7
    assert abs(reached[0] - reached[1]) < 0.15
    assert means[0] == pytest.approx(means[1], rel=0.25)


@pytest.mark.slow
def test_two_learners_share_the_stream(
    training_log: Path, tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path
) -> None:
    """Both learners step together on separate minibatches, and a bad row stops both with its error."""
    (tmp_path / "tiny.yaml").write_text((training_log / "tiny.yaml").read_text())
    write_parquet(tiny_requests.iloc[:3000], tmp_path / "log.parquet")
    plan = make_plan(tmp_path / "log.parquet", tiny_scenario, window=600, seed=1)
    spoilt = tiny_requests.iloc[:3000].copy()
    row = plan.chunks[plan.windows(0)[-1][0]].first_row  # a row of the chunk that the first epoch reads last
    spoilt.loc[row, "truncation"] = 9
    write_parquet(spoilt, tmp_path / "log.parquet")
    options = {"shuffle_buffer": 600, "train_batch_size_per_learner": 100, "updates_per_iteration": 2}
    config = make_config(tmp_path, **options).learners(num_learners=2)
    algorithm, _ = train(config, stop={"training_iteration": 1})
    assert algorithm.buffer.drawn == 2 * 2 * 100
    answers = algorithm.learner_group.foreach_learner(lambda x: {k: v.numpy() for k, v in x._team.state_dict().items()})
    first, second = (answer.get() for answer in answers)
    assert all(np.array_equal(first[k], second[k], equal_nan=True) for k in first)
    message = rf"log.parquet: row {row + 1}, column 'truncation' .*9 is out of range 0 … 2"
    with pytest.raises(InputError, match=message):
        [algorithm.train() for _ in range(10)]
    assert 2000 < algorithm.buffer.drawn < 3000
    algorithm.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path
) -> None:
    """Six times the rows need the same memory, up to the size of a few windows."""
    encoder, grown = EpisodeEncoder(tiny_scenario), {}
    repeated = pd.concat([tiny_requests] * 50, ignore_index=True)  # 300,000 rows, 9 MB as compact rows
    for size, files in (("small", 2), ("large", 12)):
        folder = tmp_path / size
        folder.mkdir()
        for k in range(files):
            write_parquet(repeated, folder / f"{k:02d}.parquet", row_group_size=30_000)
        stream = StreamedLog(make_plan(folder, tiny_scenario, window=60_000), encoder)
        stream.sample(2000)
        process = psutil.Process()
        before = process.memory_full_info().uss
        most = before
        for _ in range(150):
            stream.sample(2000)
            most = max(most, process.memory_full_info().uss)
        grown[size] = most - before
        stream.close()
    compact = 3_600_000 * make_plan(folder, tiny_scenario).read(0, 0).dtype.itemsize
    assert grown["large"] < 0.25 * compact
    assert grown["large"] < grown["small"] + 0.1 * compact
