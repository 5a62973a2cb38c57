"""Environment steps per second of arrays and of tensors: ``python -m benchmarks.experiments.sampling.tensor_rates``.

Random agents show what the environment costs, a team's greedy decisions what the networks add. The table of outcomes is
made before the measurement. Rates are per second of time; on a CPU also per second of CPU time of one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from rich.table import Table

from agents.algorithms.presets import preset
from agents.rllib.core.rollout import rollout
from agents.rllib.core.tensor_rollout import tensor_rollout
from agents.rllib.modules.team_module import TeamRLModule
from agents.team.team import TeamSpec
from marca_env.envs.batched_env import BatchedRecommender
from marca_env.envs.options import EnvOptions
from marca_env.envs.tensor_env import TensorRecommender
from marca_env.models.engine import Engine, get_engine
from marca_env.utils.console import make_console
from marca_env.utils.model_files import check_device

SIZES = (4_096, 65_536)
"""Numbers of sub-environments."""
KINDS = ("arrays, random", "tensors, random", "tensors, team")
REPEATS, LEAST_SECONDS = 3, 1.0
Play = Callable[[], Any]


def measure_tensor_rates(
    engine: Engine, sizes: Sequence[int] = SIZES, device: str = "cpu", *, repeats: int = REPEATS, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure complete episodes, columns of the replay included, of each kind in turn.

    Args:
        engine: what the environments simulate.
        sizes: numbers of sub-environments.
        device: torch device of the tensors; arrays are on the CPU.
        repeats: measurements of each kind.
        seed: of networks, requests and exploration.

    Returns:
        A row for each size and kind: ``sub_environments``, ``kind``, and the medians ``per_second`` and
        ``per_cpu_second`` of environment steps.
    """
    rows: list[dict[str, Any]] = []
    for size in sizes:
        plays = _plays(engine, size, check_device(device), seed)
        for play in plays.values():  # caches, allocators, the table
            play()
        rates: dict[str, list[tuple[float, float]]] = {kind: [] for kind in plays}
        for _ in range(repeats):
            for kind, play in plays.items():
                rates[kind].append(_rate(play, size * len(engine.scenario.decisions), device))
        for kind, pairs in rates.items():
            wall, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
            rows.append({"sub_environments": size, "kind": kind, "per_second": wall, "per_cpu_second": cpu})
    return rows


def _plays(engine: Engine, size: int, device: str, seed: int) -> dict[str, Play]:
    """Return what plays one batch of episodes, by kind."""
    env = BatchedRecommender(size, EnvOptions(engine=engine))
    tensors = TensorRecommender.of(env, device)
    spec = TeamSpec.from_source(env)
    small = preset("QMIX").replace(gru=64, hidden=(64,))
    torch.manual_seed(seed)
    module = TeamRLModule(model_config={"team": spec.to_dict(), "preset": small.to_dict()}, inference_only=True)
    module.to(device).eval()
    rng = np.random.default_rng(seed)
    generator = torch.Generator(device)
    generator.manual_seed(seed)
    return {
        "arrays, random": lambda: rollout(env, _Blank(), spec, rng, 1.0),
        "tensors, random": lambda: tensor_rollout(tensors, module, spec, generator, 1.0),
        "tensors, team": lambda: tensor_rollout(tensors, module, spec, generator, 0.05),
    }


class _Blank:
    """Networks of agents that only act at random."""

    def initial_hidden(self, batch: int) -> dict[str, torch.Tensor]:
        """Return no recurrent states."""
        return {}


def _rate(play: Play, steps: int, device: str) -> tuple[float, float]:
    """Return environment steps per second and per second of CPU time, over at least a second."""
    played, began, cpu = 0, time.perf_counter(), time.process_time()
    while True:
        play()
        played += steps
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        if seconds >= LEAST_SECONDS:
            return played / seconds, played / max(time.process_time() - cpu, 1e-9)


def rates_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rates as a table."""
    table = Table(title="Sampling, environment steps per second")
    for column in ("sub-environments", "kind", "a second", "a CPU second"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for row in rows:
        rates = (f"{row[name]:,.0f}" for name in ("per_second", "per_cpu_second"))
        table.add_row(f"{row['sub_environments']:,}", row["kind"], *rates)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="torch device of the tensors")
    parser.add_argument("--scenario", default="default", help="preset, YAML file or folder")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of sub-environments")
    args = parser.parse_args(argv)
    make_console().print(rates_table(measure_tensor_rates(get_engine(args.scenario), args.sizes, args.device)))


if __name__ == "__main__":
    main()
