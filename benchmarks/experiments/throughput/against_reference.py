"""CPU time of the learner's update beside that of a plain torch loop of the same sizes under ``torch.compile``."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ray.rllib.core.learner.training_data import TrainingData

from agents.rllib import AWRQMixerConfig
from agents.rllib.core.cluster import start_ray
from agents.team.team import TeamSpec, action_key, mask_key, obs_key, turn_key
from benchmarks.experiments.throughput.reference_update import Episodes, Sizes, make_step
from marca_env.utils.errors import one_line

logger = logging.getLogger(__name__)

STEPS = 10
"""Updates of an iteration, which is timed as a whole."""


def compare_updates(
    seed: int, sizes: dict[str, Any], repeats: int, *, own_turns: bool = False, backend: str | None = "inductor"
) -> dict[str, Any]:
    """Time both updates in turn, in CPU time of one thread.

    Args:
        seed: seed of the networks and episodes.
        sizes: ``batch``, ``heads``, ``gru`` and ``hidden``.
        repeats: iterations of each.
        own_turns: whether the plain loop unrolls each agent at its own turns alone.
        backend: of ``torch.compile``; if it fails, the loop is compared without it, and ``compiled`` says so.

    Returns:
        ``what``, ``compiled``, ``own_turns``, ``ours_ms`` and ``reference_ms`` of an update, and ``speed_up``, the
        median of the ratios.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start_ray(num_cpus=1)
    batch, networks = sizes["batch"], {k: v for k, v in sizes.items() if k != "batch"}
    config = AWRQMixerConfig().environment("marca_env/parallel-v0").debugging(seed=seed)
    config.training(train_batch_size_per_learner=batch, tau=0.01, **networks)
    algorithm = config.env_runners(num_envs_per_env_runner=min(batch, 512)).build_algo()
    try:
        while len(algorithm.buffer) < batch:
            (episodes,) = algorithm.env_runner.sample(num_episodes=min(batch, 512), random_actions=True)
            algorithm.buffer.add(episodes.columns)
        stream = TrainingData(data_iterators=[algorithm._stream])

        def ours() -> None:
            algorithm.learner_group.update(training_data=stream, minibatch_size=batch, num_iters=STEPS)

        columns = {name: torch.as_tensor(x) for name, x in algorithm.buffer.sample(batch).items()}
        spec = TeamSpec.from_dict(config.team())
        step, compiled = _reference(spec, config.preset(), columns, backend, own_turns)

        def reference() -> None:
            for _ in range(STEPS):
                step(_episodes(spec, algorithm.buffer.sample(batch)))

        ours()
        times = [[_cpu_ms(ours), _cpu_ms(reference)] for _ in range(repeats)]
    finally:
        algorithm.stop()
        torch.set_num_threads(threads)
    first, second = zip(*times, strict=True)
    return {
        "what": f"batch {batch}, {sizes['heads']} heads, GRU {sizes['gru']}, heads {list(sizes['hidden'])}",
        "compiled": compiled,
        "own_turns": own_turns,
        "ours_ms": statistics.median(first),
        "reference_ms": statistics.median(second),
        "speed_up": statistics.median(b / a for a, b in times),
    }


def _reference(
    spec: TeamSpec, preset: Any, columns: dict[str, Any], backend: str | None, own_turns: bool
) -> tuple[Callable[[Episodes], Any], bool]:
    """Return the loop's step, and whether it is compiled."""
    options = preset.network
    sizes = Sizes(
        spec.observation_sizes,
        spec.action_sizes,
        spec.state_size,
        options.heads,
        int(options.gru or 0),
        options.hidden,
        options.dropout,
        tuple(tuple(np.flatnonzero(columns[turn_key(a)][0]).tolist()) for a in spec.agents) if own_turns else None,
    )
    step = make_step(sizes, backend=backend)
    try:
        step(_episodes(spec, columns))
    except Exception as error:
        if backend is None:
            raise
        logger.warning("the plain loop is compared without torch.compile: %s", one_line(error))
        return make_step(sizes, backend=None), False
    return step, backend is not None


def _episodes(spec: TeamSpec, columns: dict[str, Any]) -> Episodes:
    tensors = {name: torch.as_tensor(x) for name, x in columns.items()}
    agents = spec.agents
    return Episodes(
        [tensors[obs_key(a)] for a in agents],
        [tensors[mask_key(a)] for a in agents],
        [tensors[action_key(a)].long() for a in agents],
        [tensors[turn_key(a)] for a in agents],
        tensors["state"],
        tensors["reward"],
        tensors["terminated"],
    )


def _cpu_ms(iteration: Callable[[], None]) -> float:
    began = time.process_time()
    iteration()
    return 1000 * (time.process_time() - began) / STEPS
