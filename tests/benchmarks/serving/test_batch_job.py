"""Faults of a job: those of one file are its own and name it, those of the machine end the job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.serving.batch import BatchDecider
from benchmarks.serving.batch_files import FileTask
from benchmarks.serving.batch_job import BatchJob, run_here
from benchmarks.serving.request_states import RequestStates
from marca_env.utils.errors import WriteError
from tests.helpers.batch_policies import TinyCosts, make_requests_table, make_varied_policy
from tests.helpers.factories import make_tiny_scenario

JOB = BatchJob("policy", "sum", (20.0, 10.0), (0, 0, 0, 0))


class FaultyCosts(TinyCosts):
    """Costs that are not finite for requests with ``uv`` = 2."""

    def predict(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return np.where(states[:, :1] == 2, np.nan, super().predict(states, actions))


@pytest.fixture
def decider() -> BatchDecider:
    scenario = make_tiny_scenario()
    policy = make_varied_policy(scenario, FaultyCosts(scenario))
    return BatchDecider(policy, RequestStates(scenario), JOB.prices, JOB.static_action)


def write_requests(path: Path, greatest: int) -> None:
    table = make_requests_table(make_tiny_scenario(), 50).to_pandas()
    table.assign(uv=table["uv"].clip(upper=greatest)).to_parquet(path)


def test_a_fault_of_the_policy_names_the_file_and_spares_the_others(decider: BatchDecider, tmp_path: Path) -> None:
    tasks = [FileTask(tmp_path / f"{k}.parquet", tmp_path / "out" / f"{k}.parquet") for k in range(3)]
    for task, greatest in zip(tasks, (1, 2, 1), strict=True):
        write_requests(task.source, greatest)
    result = run_here(JOB, tasks, decider, lambda rows: None)
    assert (result.files, result.rows) == (2, 100)
    assert len(result.errors) == 1
    assert result.errors[0].startswith(f"{tasks[1].source}: request ")
    assert "a value or cost is not finite" in result.errors[0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.parquet", "2.parquet"]


def test_a_fault_of_the_disk_ends_the_job(decider: BatchDecider, tmp_path: Path) -> None:
    write_requests(tmp_path / "0.parquet", 1)
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(WriteError, match="cannot be written"):
        run_here(JOB, [FileTask(tmp_path / "0.parquet", tmp_path / "out" / "0.parquet")], decider, lambda rows: None)
    assert pq.read_metadata(tmp_path / "0.parquet").num_rows == 50
