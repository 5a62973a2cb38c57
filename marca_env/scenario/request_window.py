"""Length, traffic and prices of an episode of several requests; what happens in it is in the environments' package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marca_env.utils.argument_types import checked_fields
from marca_env.utils.dataclass_schema import from_plain
from marca_env.utils.errors import InputError, shown
from marca_env.utils.validation import as_number, as_real_array, as_whole_number

MAX_REQUESTS = 1_000_000


@dataclass(frozen=True)
@checked_fields
class RequestWindow:
    """An episode of several requests.

    Raises:
        InputError: a field is out of its range.
    """

    requests: int = 30
    """Requests of an episode, one after the other."""
    seconds: float = 60.0
    """Duration of the slice of traffic that a request stands for."""
    traffic: tuple[float, ...] | None = None
    """Rate of each slice relative to ``scenario.peak_qps``, repeated from the start at its end. ``None``: the
    scenario's own."""
    price_rate: float = 0.0
    """η of λ_g ← max(0, λ_g + η · (undegraded load_g / budget_g − 1)) after each slice, currency per core-second. 0
    leaves λ unchanged."""

    def __post_init__(self) -> None:
        as_whole_number("window.requests", self.requests, 1, MAX_REQUESTS)
        if as_number("window.seconds", self.seconds) <= 0:
            raise InputError(f"window.seconds is {self.seconds}; pass a positive number")
        as_number("window.price_rate", self.price_rate, 0)
        rates = as_real_array("window.traffic", (1.0,) if self.traffic is None else self.traffic, "pass rates")
        if rates.ndim != 1 or len(rates) == 0 or not np.all(np.isfinite(rates)) or np.any(rates < 0):
            raise InputError(f"window.traffic is {shown(self.traffic)}; pass finite rates that are not negative")


def as_window(window: RequestWindow | int | dict | None) -> RequestWindow | None:
    """Return a window as it is, or build it from a number of requests or from a mapping of its fields.

    Raises:
        InputError: a field is unknown or out of its range.
    """
    if window is None or isinstance(window, RequestWindow):
        return window
    if isinstance(window, dict):
        return from_plain(RequestWindow, window, "window")
    return RequestWindow(requests=window)
