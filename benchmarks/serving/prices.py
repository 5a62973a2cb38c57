"""Published prices of computation: their version, their age, and what an age means for those who use them.

One controller publishes, any number of decision servers read. Prices that are too old are used for a while as the last
good ones; after that a server uses its static rule, because nobody knows the load any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from marca_env.utils.errors import InputError, shown
from marca_env.utils.files import read_json, write_json
from marca_env.utils.validation import as_number, as_whole_number, prices_by_cluster

PriceState = Literal["fresh", "last-good", "stale"]
"""``fresh``: use them; ``last-good``: too old, but still used for a while; ``stale``: use the static rule."""
FRESH_SECONDS, HOLD_SECONDS = 180.0, 1800.0
"""Default age up to which prices are fresh, and time after that for which they are used as the last good ones."""
_FORMAT = 1
_REMEDY = "remove the file to begin without prices"


@dataclass(frozen=True)
class PublishedPrices:
    """Prices as they were published."""

    prices: tuple[float, ...]
    """(G,) λ, currency per core-second, in the order of the board's clusters."""
    version: int
    """1, 2, … of the board, also after a restart."""
    published_at: float
    """Unix time of the telemetry behind the prices, seconds. Prices that follow an older plan keep the older time."""
    source: str
    """Who set them, such as the name of a balancer."""

    def by_cluster(self, clusters: Sequence[str]) -> dict[str, float]:
        """Return the prices by the name of the cluster."""
        return dict(zip(clusters, self.prices, strict=True))


@dataclass(frozen=True)
class PriceStatus:
    """The prices in force and how far they can be trusted now."""

    prices: tuple[float, ...]
    """(G,) λ, currency per core-second; empty before the first publication."""
    version: int
    """0 before the first publication."""
    age: float
    """Seconds since the telemetry behind the prices; infinite before the first publication."""
    state: PriceState
    source: str = ""


class PriceBoard:
    """Holds the published prices; any thread may publish and read.

    Args:
        clusters: names of the G clusters, in the scenario's order.
        fresh_seconds: greatest age of fresh prices.
        hold_seconds: time after that for which they are used as the last good ones.
        clock: Unix time in seconds.

    Raises:
        InputError: no cluster, or a time that is not finite or negative.
    """

    def __init__(
        self,
        clusters: Sequence[str],
        *,
        fresh_seconds: float = FRESH_SECONDS,
        hold_seconds: float = HOLD_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not clusters:
            raise InputError("clusters: a price board needs the name of at least one cluster")
        self.clusters = tuple(clusters)
        self.fresh_seconds = as_number("fresh_seconds", fresh_seconds, 0.0)
        self.hold_seconds = as_number("hold_seconds", hold_seconds, 0.0)
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: PublishedPrices | None = None

    @property
    def latest(self) -> PublishedPrices | None:
        """The prices that were published last, whatever their age; ``None`` before the first."""
        return self._latest

    def publish(
        self, prices: Sequence[float] | Mapping[str, float], source: str, *, at: float | None = None
    ) -> PublishedPrices:
        """Publish prices under the next version.

        Args:
            prices: (G,) numbers in the order of the clusters, or a mapping from the name of each cluster to its price;
                currency per core-second.
            source: who set them.
            at: Unix time of the telemetry behind them, seconds; ``None``: now.

        Raises:
            InputError: an unknown or missing cluster, or a price that is negative or not finite.
        """
        checked = prices_by_cluster(prices, self.clusters)
        at = self._clock() if at is None else as_number("at", at)
        with self._lock:
            version = 1 if self._latest is None else self._latest.version + 1
            self._latest = PublishedPrices(tuple(checked.tolist()), version, at, str(source))
            return self._latest

    def current(self, now: float | None = None) -> PriceStatus:
        """Return the prices in force with their age.

        Prices of the future count like old ones: after a clock was set back nobody knows their age.

        Args:
            now: Unix time, seconds; ``None``: that of the clock.
        """
        latest, now = self._latest, self._clock() if now is None else now
        if latest is None:
            return PriceStatus((), 0, float("inf"), "stale")
        age = abs(now - latest.published_at)
        state: PriceState = "fresh" if age <= self.fresh_seconds else "last-good"
        if age > self.fresh_seconds + self.hold_seconds:
            state = "stale"
        return PriceStatus(latest.prices, latest.version, age, state, latest.source)

    # -- restarts --------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return the prices and their version as values of JSON."""
        latest = self._latest
        state: dict[str, Any] = {"format": _FORMAT, "clusters": list(self.clusters), "version": 0}
        if latest is not None:
            state |= {
                "version": latest.version,
                "prices": list(latest.prices),
                "published_at": latest.published_at,
                "source": latest.source,
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any], where: str = "prices") -> None:
        """Continue from :meth:`state_dict`.

        Args:
            state: prices and version.
            where: its source, for messages.

        Raises:
            InputError: prices of other clusters, or damaged values.
        """
        if not isinstance(state, Mapping) or state.get("format") != _FORMAT:
            raise InputError(f"{where}: not prices of this version of the package; {_REMEDY}")
        if tuple(state.get("clusters") or ()) != self.clusters:
            raise InputError(
                f"{where}: clusters: prices of {shown(state.get('clusters'))}, and the scenario has "
                f"{', '.join(self.clusters)}; {_REMEDY}"
            )
        try:
            version = as_whole_number("version", state.get("version"))
            latest = None
            if version > 0:
                prices = prices_by_cluster(state.get("prices"), self.clusters)
                at = as_number("published_at", state.get("published_at"))
                latest = PublishedPrices(tuple(prices.tolist()), version, at, str(state.get("source", "")))
        except InputError as error:
            raise InputError(f"{where}: {error}; {_REMEDY}") from None
        with self._lock:
            self._latest = latest

    def save(self, path: str | Path) -> None:
        """Write the prices and their version to a JSON file, atomically.

        Raises:
            WriteError: the file cannot be written.
        """
        write_json(path, self.state_dict())

    def load(self, path: str | Path) -> None:
        """Continue with the prices and the version of a file.

        Raises:
            InputError: the file is missing or damaged, or holds prices of other clusters.
        """
        self.load_state_dict(read_json(path, _REMEDY, finite=True), str(path))
