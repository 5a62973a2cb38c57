"""Start a local ray or join a cluster, and check that it has the resources of a configuration."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants

from agents.rllib.core.in_process import keep_objects_here
from marca_env.utils.errors import InputError, SystemFaultError, one_line

START_ATTEMPTS = 2
"""Starts of a local ray; on a busy machine one may take longer than the half minute that ray waits."""


def start_ray(num_cpus: int | None = None, address: str | None = None) -> None:
    """Start a minimal local ray unless one is running.

    A local ray listens on the loopback interface alone: whoever can reach its ports can run code.

    Args:
        num_cpus: CPUs of the local ray; ``None``: those of the machine.
        address: address of a running cluster to join instead, as ``auto`` or ``host:port``. Its nodes need this
            package and the requirements of a user's environment.

    Raises:
        InputError: no cluster at the address.
        SystemFaultError: ray cannot be started here.
    """
    if address is not None:
        _check_reachable(address)
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # otherwise ray warns about unused GPUs
    quiet = {"log_to_driver": False, "configure_logging": True, "logging_level": logging.ERROR}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"no Ray cluster at {address!r} ({one_line(error)[:200]}); start one with: ray start; "
                "if the cluster uses token authentication, set RAY_AUTH_MODE=token here, too"
            ) from None
        return
    memory = 200 * 1024**2 if num_cpus == 1 else None
    # "local": otherwise ray joins any cluster that runs on this machine, and then refuses num_cpus
    options = {"num_cpus": num_cpus, "include_dashboard": False, "object_store_memory": memory, **quiet}
    for attempt in range(START_ATTEMPTS):
        try:
            with _on_loopback():
                ray.init(address="local", **options)
            return
        except Exception as error:  # ray has no class of its own for a start that takes too long
            ray.shutdown()
            if attempt == START_ATTEMPTS - 1:
                raise SystemFaultError(
                    f"ray could not be started ({one_line(error)[:200]}); try again when the machine is less busy, or "
                    "join a running cluster by its address"
                ) from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a ray that starts meanwhile use 127.0.0.1 as its address, as ray does on macOS and Windows.

    Ray's servers listen on all interfaces unless this is the address of the node, and ``ray.init`` replaces a given
    loopback address. Ray's own environment variable for this has precedence.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    if ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR not in os.environ:
        ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def start_ray_for(*configs: Any) -> None:
    """Start a local ray if one of these configurations needs it, with one CPU if nothing in them is remote.

    The teams of this package need none in a single process, which then begins to learn about ten seconds earlier;
    algorithms of others may use it.
    """
    is_remote = any(_is_remote(config) for config in configs)
    if is_remote or any(getattr(config, "needs_ray", True) for config in configs):
        start_ray(None if is_remote else 1)
    else:
        keep_objects_here()


def _is_remote(config: Any) -> bool:
    evaluators = config.evaluation_interval and config.evaluation_num_env_runners
    return bool(config.num_env_runners or config.num_learners or evaluators)


def _check_reachable(address: str) -> None:
    """Fail at once if nothing listens at the address; ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster at {address!r}: nothing answers there ({error}); start one with: ray start"
        ) from None


def check_resources(config: Any) -> None:
    """Refuse a configuration that needs more CPUs or GPUs than ray has; RLlib would wait for them silently.

    Raises:
        InputError: too few resources; the message names what is needed, what ray has and what to lower.
    """
    if not ray.is_initialized():
        return
    learners = config.num_learners if isinstance(config.num_learners, int) else 0
    evaluators = config.evaluation_num_env_runners if config.evaluation_interval else 0
    cpus = (config.num_env_runners + evaluators) * config.num_cpus_per_env_runner
    cpus_per_learner = config.num_cpus_per_learner  # a number or "auto"
    if not isinstance(cpus_per_learner, (int, float)):
        cpus_per_learner = not config.num_gpus_per_learner
    cpus += learners * cpus_per_learner
    gpus = learners * (config.num_gpus_per_learner or 0)
    actors = {"environment runners": config.num_env_runners, "evaluation runners": evaluators, "learners": learners}
    listed = " and ".join(f"{n} {name}" for name, n in actors.items() if n)
    for kind, needed in (("CPU", cpus), ("GPU", gpus)):
        available = ray.cluster_resources().get(kind, 0)
        if needed > available:
            raise InputError(
                f"{listed} need {needed:g} {kind}s but ray has {available:g}; lower num_env_runners or "
                "num_learners, start ray with more, or pass the address of a larger cluster"
            )
