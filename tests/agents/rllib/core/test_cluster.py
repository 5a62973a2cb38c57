"""Training on a cluster of several nodes, joined by its address, survives the loss of a node."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from agents.rllib.core.cluster import start_ray
from marca_env.utils.errors import InputError
from tests.helpers.dice_runs import local_ray, make_config, shown, workers_that_find_dice

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start the head of a cluster without CPUs, so that runners are on other nodes."""
    with workers_that_find_dice():
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 1024**2})
        try:
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()


def add_node(cluster: Any) -> Any:
    """Add a node with one CPU."""
    return cluster.add_node(num_cpus=1, object_store_memory=80 * 1024**2)


def test_a_wrong_cluster_address_is_refused() -> None:
    ray.shutdown()
    with pytest.raises(InputError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        start_ray(address="127.0.0.1:1")


@pytest.mark.slow
def test_a_local_run_with_remote_evaluation_gets_the_cpus_of_the_machine() -> None:
    from agents.rllib import train

    ray.shutdown()
    config = make_config().evaluation(evaluation_interval=1, evaluation_num_env_runners=1, evaluation_duration=8)
    with workers_that_find_dice():
        algorithm, numbers = train(config, stop={"training_iteration": 1})
        algorithm.stop()
    assert numbers["training_iteration"] == 1


@pytest.mark.slow
def test_training_survives_the_loss_of_a_node(cluster: Any) -> None:
    first, second = add_node(cluster), add_node(cluster)
    cluster.wait_for_nodes()
    start_ray(address=cluster.address)
    assert sum(node["Alive"] for node in ray.nodes()) == 3
    algorithm = make_config(2, 0).training(epsilon=1.0).build_algo()
    try:
        nodes = algorithm.env_runner_group.foreach_env_runner(
            lambda r: (os.getpid(), ray.get_runtime_context().get_node_id()), local_env_runner=False
        )
        assert len({node for _, node in nodes}) == 2
        algorithm.train()
        assert len(shown(algorithm)) == 16
        cluster.remove_node(second, allow_graceful=False)

        began, gained = time.monotonic(), []
        for _ in range(6):
            before = len(shown(algorithm))
            algorithm.train()
            gained.append(len(shown(algorithm)) - before)
        assert time.monotonic() - began < 60
        assert gained[-1] == 8  # one runner continues; the other waits for a CPU
        assert set(gained) <= {8, 16}

        add_node(cluster)
        deadline = time.monotonic() + 240
        while gained[-1] < 16:
            assert time.monotonic() < deadline
            before = len(shown(algorithm))
            algorithm.train()
            gained.append(len(shown(algorithm)) - before)
            time.sleep(0.2)
        assert len(np.unique(shown(algorithm), axis=0)) == len(shown(algorithm))  # no episode is repeated
        assert algorithm.env_runner_group.num_healthy_remote_workers() == 2
    finally:
        algorithm.stop()
    assert first is not None


@pytest.mark.slow
def test_a_local_ray_listens_on_the_loopback_interface_alone() -> None:
    """Every port of ray's processes and of this one, as the system lists them."""
    ray.shutdown()
    before = {c.laddr for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    with local_ray(1):
        ray.get(ray.remote(num_cpus=0)(lambda: os.getpid()).remote())
        processes = {os.getpid(), *(p.pid for p in psutil.Process().children(recursive=True))}
        listening = {
            c.laddr.ip
            for c in psutil.net_connections("inet")
            if c.status == psutil.CONN_LISTEN and c.pid in processes and c.laddr not in before
        }
    assert listening
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
