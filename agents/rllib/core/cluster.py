"""Ray: started here or joined, and whether it holds what a configuration asks for."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import ray

from marca_env.utils.errors import InputError, one_line


def start_ray(num_cpus: int | None = None, address: str | None = None) -> None:
    """Start a minimal local ray unless one runs: RLlib asks for it even where nothing is remote.

    Args:
        num_cpus: of the local ray; ``None``: those of the machine.
        address: of a running cluster to join instead, as ``auto`` or ``host:port``. Its nodes need this package, and
            what a user's environment needs.

    Raises:
        InputError: no cluster at the address.
    """

    if address is not None:
        _knock(address)
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or ray warns about GPUs that nobody asked for
    quiet = {"log_to_driver": False, "configure_logging": True, "logging_level": logging.ERROR}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"no Ray cluster at {address!r} ({one_line(error)[:200]}); start one: ray start; "
                "where the cluster asks for its token, as ray start has it, set RAY_AUTH_MODE=token here, too"
            ) from None
        return
    memory = 200 * 1024**2 if num_cpus == 1 else None
    # "local": or ray joins any cluster that happens to run on this machine, and refuses num_cpus then
    ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, object_store_memory=memory, **quiet)


def _knock(address: str) -> None:
    """Fail at once where nobody listens; ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address!r}: nothing answers there ({error}); is it up?") from None


def check_resources(config: Any) -> None:
    """Refuse what RLlib would wait for without a word: more actors than ray can ever hold.

    Raises:
        InputError: naming what is needed, what there is and what to lower.
    """

    if not ray.is_initialized():
        return
    learners = config.num_learners if isinstance(config.num_learners, int) else 0
    evaluators = config.evaluation_num_env_runners if config.evaluation_interval else 0
    cpus = (config.num_env_runners + evaluators) * config.num_cpus_per_env_runner
    each = config.num_cpus_per_learner
    cpus += learners * (each if isinstance(each, (int, float)) else not config.num_gpus_per_learner)  # or "auto"
    gpus = learners * (config.num_gpus_per_learner or 0)
    asked = [f"{n} {what}" for n, what in ((config.num_env_runners, "environment runners"),) if n]
    asked += [f"{n} {what}" for n, what in ((evaluators, "evaluation runners"), (learners, "learners")) if n]
    for kind, wanted in (("CPU", cpus), ("GPU", gpus)):
        held = ray.cluster_resources().get(kind, 0)
        if wanted > held:
            raise InputError(
                f"{' and '.join(asked)} need {wanted:g} {kind}s but ray has {held:g}; lower num_env_runners or "
                "num_learners, or start ray with more (or give the address of a larger cluster)"
            )
