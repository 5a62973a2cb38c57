"""Experiments as data: a case says everything that defines one row; a row is a case, what came out, and where.

A module ``benchmarks/experiments/<id>.py``, or any other by its dotted path, is an experiment if it has::

    SEEDS: tuple[int, ...]                                          # of a full run
    def cases(*, quick: bool, seeds: Sequence[int]) -> list[Case]   # plain data; nothing is measured yet
                                                                    # optional: methods: Sequence[str] | None = None
    def measure(case: Case, folder: Path) -> dict[str, Any]         # JSON numbers of one case
    def tables(rows: Sequence[Row]) -> Iterable[rich.table.Table]   # of whatever rows there are
    def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]   # optional: caption → PNG in folder
    def check(case: Case) -> None                                   # optional: InputError if it cannot be measured

- The first line of its docstring is the summary that ``marca bench list`` shows.
- ``measure`` depends on its case alone, not on other cases or the order in which they run; ``folder`` is the
  experiment's own, for caches and files beside the numbers, and may be missing or empty. It may run in a Ray worker.
- ``check`` is called with a case of every method before anything is measured; it must be quick and start nothing.
- ``methods``, where ``cases`` takes it, are those to compare instead of all; users name their own by dotted paths.
- ``PARTS`` are ids of further experiments that the same command runs after it if they are there.
- ``ALONE = True`` marks experiments that measure speed: their cases run one after the other, on this machine.
- Anything heavy (ray, torch) is imported inside the functions, so that the list is quick to show.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """What defines one row, as plain data that JSON holds."""

    method: str
    """What is compared with others: an algorithm, a policy, a solver."""
    seed: int
    scenario: str = "default"
    """Id of the scenario, version included."""
    task: str = ""
    """Where methods are compared, if in several places: a trace, a parameter's value."""
    budget: Mapping[str, Any] = field(default_factory=dict)
    """What it may spend, alike for all methods: updates, environment steps, requests."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Options of the method and of the judging, all that matter."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``Case(**data)`` turns it back."""
        return dataclasses.asdict(self)

    @property
    def key(self) -> str:
        """Fingerprint of everything: cases with the same key are the same measurement."""
        text = json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Row:
    """A case that was measured."""

    case: Case
    numbers: Mapping[str, Any]
    """What ``measure`` returned."""
    seconds: float
    """Wall-clock time that it took."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """``when``, on which ``machine``, with which ``versions``, and whether in a ``quick`` run."""
    cpu_seconds: float | None = None
    """CPU time of the process that measured it, and of its children that had ended."""


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Method → its rows, in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.case.method, []).append(row)
    return found
