"""Guard rails: readings of the telemetry that make a decision server fall back to its static rule by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marca_env.utils.errors import InputError
from marca_env.utils.validation import as_number, as_whole_number

LOAD, LATE, REVENUE = "load", "late", "revenue"
GUARDS = (LOAD, LATE, REVENUE)
_LATCHED = (REVENUE,)  # under the static rule, revenue says nothing about the policy: a person decides


@dataclass(frozen=True)
class GuardLimits:
    """Limits of the guard rails; ``None``: no such guard.

    Raises:
        InputError: a limit that is negative or not finite, or a number of readings below 1.
    """

    load: float | None = None
    """Greatest load of any cluster, as a fraction of its budget."""
    late: float | None = None
    """Greatest share of late requests."""
    revenue: float | None = None
    """Smallest revenue per request, currency."""
    patience: int = 3
    """Readings in a row beyond a limit after which the guard acts."""
    recovery: int = 10
    """Readings in a row within the limit after which the guard for load or lateness ends."""

    def __post_init__(self) -> None:
        for name in GUARDS:
            if (limit := getattr(self, name)) is not None:
                as_number(f"limit of the guard for {name}", limit, 0.0)
        as_whole_number("patience of the guards", self.patience, 1)
        as_whole_number("recovery of the guards", self.recovery, 1)


class GuardRails:
    """Counts readings beyond their limits.

    The guard for revenue stays until :meth:`clear`: under the static rule, revenue says nothing about the policy.

    Args:
        limits: the limits.

    Attributes:
        active: guard that acts → why.
    """

    def __init__(self, limits: GuardLimits) -> None:
        self.limits = limits
        self.clear()

    def clear(self) -> None:
        """End all guards and count from zero."""
        self.active: dict[str, str] = {}
        self._beyond = dict.fromkeys(GUARDS, 0)
        self._within = dict.fromkeys(GUARDS, 0)

    def observe(self, measured: Mapping[str, float | None]) -> list[str]:
        """Take a reading.

        Args:
            measured: ``load`` as a fraction of the budget, ``late`` as a share, ``revenue`` per request; what is
                absent, ``None`` or NaN was not measured and changes nothing.

        Returns:
            What changed, a line for each guard that began or ended to act.
        """
        changes = []
        for name in GUARDS:
            limit, value = getattr(self.limits, name), measured.get(name)
            if limit is None or value is None or math.isnan(value):
                continue
            is_beyond = value < limit if name == REVENUE else value > limit
            self._beyond[name] = self._beyond[name] + 1 if is_beyond else 0
            self._within[name] = 0 if is_beyond else self._within[name] + 1
            if name not in self.active and self._beyond[name] >= self.limits.patience:
                what = "below" if name == REVENUE else "above"
                self.active[name] = f"{name} {value:.4g} {what} {limit:g} in {self._beyond[name]} readings"
                changes.append(f"guard {name} acts, static rule in force: {self.active[name]}")
            elif name in self.active and name not in _LATCHED and self._within[name] >= self.limits.recovery:
                del self.active[name]
                changes.append(f"guard {name} ended after {self._within[name]} readings within {limit:g}")
        return changes

    def state_dict(self) -> dict[str, Any]:
        """Return the active guards and the counts as values of JSON."""
        return {"active": dict(self.active), "beyond": dict(self._beyond), "within": dict(self._within)}

    def load_state_dict(self, state: Any, where: str = "guards") -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InputError: damaged values.
        """
        self.clear()
        try:
            self.active = {name: str(why) for name, why in state["active"].items() if name in GUARDS}
            for counts, own in ((state["beyond"], self._beyond), (state["within"], self._within)):
                own.update({name: as_whole_number(name, counts.get(name, 0)) for name in GUARDS})
        except (TypeError, KeyError, AttributeError, InputError) as error:
            self.clear()
            raise InputError(f"{where}: damaged ({type(error).__name__}); remove the file") from None
