"""Experiments as data: a case defines one measurement; a row is a case, its numbers, and where it was measured.

A module ``benchmarks/experiments/<id>/experiment.py``, or a user's module by its dotted path, is an experiment if it
has::

    SEEDS: tuple[int, ...]                                          # of a full run
    def cases(*, quick: bool, seeds: Sequence[int]) -> list[Case]   # plain data; nothing is measured yet
                                                                    # optional: methods: Sequence[str] | None = None
    def measure(case: Case, folder: Path) -> dict[str, Any]         # JSON numbers of one case
    def tables(rows: Sequence[Row]) -> Iterable[rich.table.Table]   # of any rows
    def figures(rows: Sequence[Row], folder: Path) -> dict[str, Path]   # optional: caption → PNG in folder
    def check(case: Case) -> None                                   # optional: InputError if it cannot be measured

- The first line of its docstring is the summary in ``marca bench list``, which reads it without importing the module.
- ``measure`` depends on its case alone, not on other cases or their order. ``folder`` is the experiment's own, for
  caches and files beside the numbers; it may be missing or empty. ``measure`` may run in a Ray worker.
- ``check`` gets one case of every method before anything is measured; it must be quick and start nothing.
- ``methods``, if ``cases`` takes it, are the methods to compare instead of all; users give theirs by dotted paths.
- ``tasks``, if ``cases`` takes it, are the tasks to compare on instead of all.
- ``device``, if ``cases`` takes it, is the device to measure.
- ``PARTS`` are ids of experiments that the same command runs after this one, if they exist.
- ``SIDE_BY_SIDE = True`` lets several processes run the experiment in one folder: each case is measured by one of them.
- ``ALONE = True`` marks experiments that measure speed: their cases run one after another, on this machine.
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
    """Definition of one measurement, as plain JSON data."""

    method: str
    """Algorithm, policy or solver that is compared with others."""
    seed: int
    scenario: str = "default"
    """Id of the scenario, with its version."""
    task: str = ""
    """Trace or parameter value on which methods are compared, if there are several."""
    budget: Mapping[str, Any] = field(default_factory=dict)
    """Updates, environment steps or requests, the same for all methods."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Every option of the method and of its evaluation that matters."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; ``Case(**data)`` is the inverse."""
        return dataclasses.asdict(self)

    @property
    def key(self) -> str:
        """Hash of all fields: cases with the same key are the same measurement."""
        text = json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Row:
    """Measured case."""

    case: Case
    numbers: Mapping[str, Any]
    """Return value of ``measure``."""
    seconds: float
    """Wall-clock time of the measurement."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """``when``, ``machine``, ``versions``, ``revision``, and whether it was a ``quick`` run."""
    cpu_seconds: float | None = None
    """CPU time of the measuring process and of its finished children."""


def rows_by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows by method, in their order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.case.method, []).append(row)
    return groups
