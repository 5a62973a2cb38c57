"""A tiny service of known cost. It stands alone, so that its process starts without the heavy fixtures."""

from __future__ import annotations

import time
from collections.abc import Callable

from marca_env.testbench.service import Bucket, Workload
from marca_env.utils.errors import InputError

MILLISECOND = 1e-3


class Burner:
    """A service that burns as many milliseconds of CPU as its workload says, by its own CPU clock."""

    def __init__(self, fault: str = "") -> None:
        if fault == "input":
            raise InputError("the burner has no fuel; refill it")
        self.fault = fault

    def buckets(self) -> list[Bucket]:
        base = Bucket("burn", "oven", "base", 0, 0, 1.0)
        queue = [Bucket("burn", "oven", "queue", 0, n, 1.0 + n / 10, 1.0) for n in (10, 40)]
        return [base, *queue, Bucket("burn", "oven", "degradation", 0, 1, 2.0, 5.0)]

    def handler(self, workload: Workload) -> Callable[[int], object]:
        assert isinstance(workload, float)
        milliseconds = workload

        def burn(_: int) -> None:
            if self.fault == "handler":
                raise ZeroDivisionError("the oven exploded")
            end = time.process_time() + milliseconds * MILLISECOND
            while time.process_time() < end:
                pass

        return burn
