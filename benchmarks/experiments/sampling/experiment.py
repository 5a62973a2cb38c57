"""Environment steps per second of the team's runner against RLlib's own multi-agent runner.

Both run the recommender with one feed-forward network of 64 hidden units per agent (VDN's), ε = 0.05, the same number
of sub-environments and one thread, in turn in one process. RLlib steps the PettingZoo environment through its own
wrapper, with the smallest module that makes the same decisions. Our runner steps the batched environment and, to tell
the effect of the runner from the effect of the environment, the same PettingZoo environments as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.suite.api import Case, Row
from marca_env.models.engine import Engine

ALONE = True
SEEDS = (0,)
METHOD = "runners in turn"
SIZES, QUICK_SIZES = (8, 64, 256, 1000), (8,)
"""Numbers of sub-environments."""
REPEATS, QUICK_REPEATS = 5, 2
EPSILON, HIDDEN = 0.05, 64
TARGET = 50.0
"""Rate to reach, as a multiple of RLlib's rate."""


def cases(*, quick: bool, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return a case for each number of sub-environments; each measures all runners in turn."""
    sizes, repeats = (QUICK_SIZES, QUICK_REPEATS) if quick else (SIZES, REPEATS)
    config = {"epsilon": EPSILON, "hidden": HIDDEN, "threads": 1}
    return [
        Case(
            METHOD,
            seed,
            task=f"{size} sub-environments",
            budget={"sub_environments": size, "repeats": repeats},
            config=config,
        )
        for seed in seeds
        for size in sizes
    ]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Measure the rates of all runners; see :func:`~benchmarks.experiments.sampling.runners.measure_rates`.

    Returns:
        The rates, and ``matmul_gflops``: the rate of a matrix product on this machine right after them.
    """
    from agents.rllib.core.cluster import start_ray
    from benchmarks.experiments.sampling.runners import matmul_gflops, measure_rates

    start_ray(num_cpus=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(int(case.config["threads"]))
    try:
        size, repeats = int(case.budget["sub_environments"]), int(case.budget["repeats"])
        epsilon, hidden = float(case.config["epsilon"]), int(case.config["hidden"])
        rates = measure_rates(size, repeats, case.seed, Engine.load(), epsilon=epsilon, hidden=hidden)
        return {**rates, "matmul_gflops": matmul_gflops(), "target": TARGET}
    finally:
        torch.set_num_threads(threads)


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return the rates by number of sub-environments."""
    if not rows:
        return
    table = Table(title="Sampling, environment steps per second")
    for column in ("sub-environments", "RLlib", "ours, PettingZoo", "ours, batched", "PettingZoo ×", "batched ×"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = row.numbers
        rates = [f"{numbers[name]['median']:,.0f}" for name in ("rllib", "looped", "batched")]
        ratios = f"{numbers['looped_ratio']:.1f}", f"{numbers['batched_ratio']:.0f}"
        table.add_row(str(numbers["sub_environments"]), *rates, *ratios)
    yield table
