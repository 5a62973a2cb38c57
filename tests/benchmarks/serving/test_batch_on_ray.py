"""Files decided by several processes and on a cluster that loses a node: the results are those of one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster

from agents.rllib.core.cluster import start_ray
from benchmarks.cli.main import main
from benchmarks.serving.batch_files import FileTask
from benchmarks.serving.batch_job import BatchJob, JobResult, policy_sum, run_here, run_on_ray
from marca_env.utils.errors import InputError
from tests.helpers.batch_policies import write_policy_and_logs
from tests.helpers.factories import make_tiny_scenario

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
SCENARIO = make_tiny_scenario()
FILES, ROWS = 12, 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy_and_logs(tmp_path_factory.mktemp("decide"), SCENARIO, FILES, ROWS, digits=2)


def make_job(folder: Path, **options: Any) -> BatchJob:
    policy = str(folder / "policy")
    return BatchJob(policy, policy_sum(policy, SCENARIO), (20.0, 10.0), (0, 0, 0, 0), keys=("id",), **options)


def make_tasks(folder: Path, out: Path) -> list[FileTask]:
    return [FileTask(path, out / path.name) for path in sorted((folder / "logs").iterdir())]


def assert_equal_results(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert len(names) == FILES
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert pq.read_table(one / name).equals(pq.read_table(other / name))


def count_nothing(rows: int) -> None:
    pass


def decide_here(folder: Path, out: Path) -> JobResult:
    job = make_job(folder)
    return run_here(job, make_tasks(folder, out), job.build(), count_nothing)


def test_two_workers_write_what_one_process_writes(folder: Path, tmp_path: Path) -> None:
    ray.shutdown()
    decide_here(folder, tmp_path / "here")
    words = ["--policy", str(folder / "policy"), "--requests", str(folder / "logs"), "--static", "0,0,0,0"]
    words += ["--prices", "20", "10", "--keys", "id", "--batch-size", "70", "--workers", "2"]
    try:
        assert main(["decide", *words, "--out", str(tmp_path / "ray")]) == 0
    finally:
        ray.shutdown()
    assert_equal_results(tmp_path / "here", tmp_path / "ray")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Start the head of a cluster without CPUs, so that all work is on other nodes."""
    ray.shutdown()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 1024**2})
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_the_loss_of_a_node_half_way_changes_nothing(cluster: Any, folder: Path, tmp_path: Path) -> None:
    decide_here(folder, tmp_path / "here")
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 1024**2) for _ in range(2)]
    cluster.wait_for_nodes()
    start_ray(address=cluster.address)
    job, out, removed = make_job(folder, batch_size=10), tmp_path / "ray", threading.Event()

    def remove_node() -> None:
        while sum(1 for _ in out.glob("*.parquet")) < FILES // 4:
            time.sleep(0.02)
        cluster.remove_node(nodes[1], allow_graceful=False)
        removed.set()

    thread = threading.Thread(target=remove_node, daemon=True)
    thread.start()
    result = run_on_ray(job, make_tasks(folder, out), None, count_nothing)
    thread.join(60)
    assert removed.is_set()
    assert (result.files, result.rows, result.errors) == (FILES, FILES * ROWS, [])
    assert_equal_results(tmp_path / "here", out)
    with pytest.raises(InputError, match="--workers is 9, but ray has"):
        run_on_ray(job, make_tasks(folder, out), 9, count_nothing)


def test_a_policy_that_changed_is_refused_by_the_workers(folder: Path, tmp_path: Path) -> None:
    job = make_job(folder)
    wrong = BatchJob(job.policy, "0" * 64, job.prices, job.static_action)
    with pytest.raises(InputError, match="changed meanwhile; run the command again"):
        wrong.build()
    assert np.isfinite(job.build().prices).all()
