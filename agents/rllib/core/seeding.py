"""Random numbers as pure functions of the position in a run, so that a resumed run draws the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def fresh_seed() -> int:
    """Return a seed from the operating system, below 2³¹."""
    return int(np.random.SeedSequence().generate_state(1)[0] >> 1)


@contextmanager
def torch_randomness(*key: int, device: Any = "cpu") -> Iterator[None]:
    """Seed torch's global generators with ``key`` inside the block and restore their states afterwards."""
    device = torch.device(device)
    generators = [torch.default_generator]  # torch.manual_seed would visit every kind of device: 0.3 ms a call
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [g.get_state() for g in generators]
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
