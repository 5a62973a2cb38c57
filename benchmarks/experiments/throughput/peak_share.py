"""Rate of some work as a share of the rate of a large fp32 matrix product on the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

SIZE = 2048
"""Rows and columns of the matrices whose product sets the peak."""


def share_of_peak(what: str, step: Callable[[], Any], count: int, repeats: int) -> dict[str, Any]:
    """Time ``step`` between large matrix products.

    Args:
        what: name of the work.
        step: the work; it does ``count`` things.
        count: things that a step does.
        repeats: number of measurements.

    Returns:
        ``what``, ``flops`` of a step, ``repeats``, and as ``[median, lowest, highest]``: ``per_second`` (things),
        ``gflops`` (GFLOP/s), ``ceiling_gflops`` (of the matrix product), ``share`` and ``cpu_share``.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()
    matrix_product = _MatrixProduct()
    rows = []
    for _ in range(repeats):
        before = matrix_product()
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        after = matrix_product()
        peak, cpu_peak = ((x + y) / 2 for x, y in zip(before, after, strict=True))
        rows.append((count / wall, flops / wall / 1e9, peak / 1e9, flops / wall / peak, flops / cpu / cpu_peak))
    names = ("per_second", "gflops", "ceiling_gflops", "share", "cpu_share")
    spans = {n: [statistics.median(v), min(v), max(v)] for n, v in zip(names, zip(*rows, strict=True), strict=True)}
    return {"what": what, "flops": flops, "repeats": repeats, **spans}


class _MatrixProduct:
    """Operations per second, and per CPU second, of a large fp32 matrix product: the best of three."""

    def __init__(self) -> None:
        self.a, self.b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
        self.out = torch.empty(SIZE, SIZE)

    def __call__(self) -> tuple[float, float]:
        wall, cpu = [], []
        for _ in range(3):
            began, busy = time.perf_counter(), time.process_time()
            torch.mm(self.a, self.b, out=self.out)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - busy)
        return 2 * SIZE**3 / min(wall), 2 * SIZE**3 / min(cpu)
