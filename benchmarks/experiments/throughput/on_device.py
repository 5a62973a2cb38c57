"""What one device does: rates of matrix products, updates, decisions and sampling, and how often the host waits.

Rates are shares of the device's ceiling, the rate of a large matrix product in the same precision. Launches and waits
are those of the host, counted by ``torch.profiler``: on CUDA calls that start kernels or graphs, and synchronisations;
on a CPU operators, and operators for whose value a GPU would be waited for.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.core.learner.training_data import TrainingData
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from agents.rllib import AWRQMixerConfig
from agents.rllib.core.arithmetic import update_arithmetic
from agents.rllib.core.cluster import start_ray
from agents.team.td_losses import team_losses
from benchmarks.experiments.throughput.decisions import device_decisions

MODES: dict[str, dict[str, Any]] = {
    "fp32": {"matmul_precision": "highest", "compile": "off"},
    "fp32, graph": {"matmul_precision": "highest", "compile": "graph"},
    "tf32, graph": {"matmul_precision": "high", "compile": "graph"},
    "bf16, graph": {"amp": "bf16", "compile": "graph"},
    "bf16, compiled, graph": {"amp": "bf16", "compile": "both"},
}
"""Name of a way to update → options of training; the first word is the precision of its ceiling."""
CPU_MODES = ("fp32",)
PRECISIONS = {"fp32": ("highest", torch.float32), "tf32": ("high", torch.float32), "bf16": ("highest", torch.bfloat16)}
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
CPU_WAITS = ("aten::_local_scalar_dense", "aten::nonzero")


def measure_device(
    seed: int, device: str, *, batch: int, updates: int, repeats: int, size: int, requests: int
) -> dict[str, Any]:
    """Measure one device.

    Args:
        seed: seed of networks and episodes.
        device: ``cpu`` or ``cuda``.
        batch: episodes of an update.
        updates: updates of an iteration.
        repeats: iterations, decisions and sampling rounds of each kind.
        size: rows and columns of the matrices whose product sets the ceilings.
        requests: requests of a decision.

    Returns:
        ``device`` (its name), ``ceilings`` (precision → GFLOP/s), ``updates`` (one row a mode: ``ms``, ``share`` of the
        ceiling, ``launches`` and ``waits`` of one update), ``decide`` and ``sampling`` (things a second).
    """
    modes = list(MODES) if device == "cuda" else list(CPU_MODES)
    ceilings = {name: _ceiling(name, device, size) for name in PRECISIONS if device == "cuda" or name != "tf32"}
    start_ray(num_cpus=1)
    rows = [_updates(seed, device, mode, ceilings, batch, updates, repeats) for mode in modes]
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "ceilings": ceilings,
        "updates": rows,
        "decide": device_decisions(seed, device, requests, repeats),
        "sampling": _sampling(seed, batch, repeats),
    }


def _ceiling(name: str, device: str, size: int) -> float:
    """Return GFLOP/s of a large product, the best of five."""
    precision, dtype = PRECISIONS[name]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    with update_arithmetic(precision):
        seconds = [_seconds(lambda: torch.mm(a, b, out=out), device) for _ in range(6)]
    return 2 * size**3 / min(seconds[1:]) / 1e9


def _updates(
    seed: int, device: str, mode: str, ceilings: dict[str, float], batch: int, updates: int, repeats: int
) -> dict[str, Any]:
    config = AWRQMixerConfig().environment("marca_env/parallel-v0").debugging(seed=seed)
    config.learners(num_gpus_per_learner=1 if device == "cuda" else 0)
    config.training(train_batch_size_per_learner=batch, target_update=1, **MODES[mode])
    algorithm = config.env_runners(num_envs_per_env_runner=batch).build_algo()
    try:
        (episodes,) = algorithm.env_runner.sample(num_episodes=batch, random_actions=True)
        algorithm.buffer.add(episodes.columns)
        data = TrainingData(data_iterators=[algorithm._stream])

        def iterate() -> None:
            algorithm.learner_group.update(training_data=data, minibatch_size=batch, num_iters=updates)

        iterate()
        flops = _flops(algorithm.learner_group._learner, episodes.columns, device)
        seconds = statistics.median(_seconds(iterate, device) for _ in range(repeats)) / updates
        launches, waits = _counted(iterate, device)
    finally:
        algorithm.stop()
    ceiling = ceilings[mode.split(",")[0]]
    return {
        "mode": mode,
        "ms": 1e3 * seconds,
        "gflop": flops / 1e9,
        "share": flops / seconds / 1e9 / ceiling,
        "launches": launches / updates,
        "waits": waits / updates,
    }


def _flops(learner: Any, columns: dict[str, Any], device: str) -> int:
    """Return the operations of the loss and its backward pass."""
    team = learner._team
    batch = {name: torch.as_tensor(x).to(device) for name, x in columns.items()}
    with FlopCounterMode(display=False) as counter:
        team_losses(team.online, team.target, batch)["loss"].backward()
    team.online.zero_grad()
    return int(counter.get_total_flops())


def _counted(work: Callable[[], None], device: str) -> tuple[int, int]:
    """Return how often the host starts something on the device, and how often it waits for it."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        work()
    counts = {event.key: event.count for event in profiler.key_averages()}
    if device == "cuda":
        launches = sum(n for key, n in counts.items() if key.startswith(LAUNCHES))
        return launches, sum(counts.get(key, 0) for key in WAITS)
    operators = sum(n for key, n in counts.items() if key.startswith("aten::"))
    return operators, sum(counts.get(key, 0) for key in CPU_WAITS)


def _sampling(seed: int, envs: int, repeats: int) -> dict[str, Any]:
    """Return environment steps a second of a runner with an untrained team, which samples on the host."""
    config = AWRQMixerConfig().environment("marca_env/parallel-v0").debugging(seed=seed)
    algorithm = config.env_runners(num_envs_per_env_runner=envs).build_algo()
    try:
        runner = algorithm.env_runner
        (episodes,) = runner.sample(num_episodes=envs)
        seconds = statistics.median(_seconds(lambda: runner.sample(num_episodes=envs), "cpu") for _ in range(repeats))
    finally:
        algorithm.stop()
    return {"what": f"sampling, {envs} environments, on the host", "per_second": episodes.env_steps() / seconds}


def _seconds(work: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
