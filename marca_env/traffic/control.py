"""What a balancer receives and returns: the telemetry of a minute and the protocol that all balancers follow.

A balancer sets the price λ of computation on each of the G clusters, once a control period.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

TelemetryState = Literal["value", "no-traffic", "missing", "stale"]
"""State of a reading. ``value``: traffic and load were measured; ``no-traffic``: no request came, and nothing is wrong;
``missing``: nothing, or only a part, was measured; ``stale``: an older reading again."""


@dataclass(frozen=True)
class ControlObservation:
    """All that a balancer may know when it sets the prices of the next control period."""

    minute: int
    """Minute of the day that the prices will hold for, 0 … 1439."""
    qps: float
    """Requests per second of the last minute."""
    load: np.ndarray
    """(G,) load Ĉ of the last minute, core-seconds per second, undegraded: measured load + f(D)."""
    budget: np.ndarray
    """(G,) core-seconds per second."""
    degradation: np.ndarray
    """(G,) int, degradation levels that hold in the coming minute."""
    backlog: np.ndarray
    """(G,) seconds that all cores of the cluster need for the work that waits."""
    prices: np.ndarray
    """(G,) λ in force in the last minute, currency per core-second."""
    state: TelemetryState | None = None
    """What the sender says about the reading; ``None``: the state follows from the values."""


@runtime_checkable
class Balancer(Protocol):
    """Sets prices from telemetry."""

    def update(self, observation: ControlObservation) -> np.ndarray:
        """Return the prices (G,) for the coming minute, finite and within [0, price_max]."""
        ...

    def reset(self) -> None:
        """Forget all telemetry, as at the start of a day."""
        ...
