"""Requirements that a controller must meet in a rehearsal: bounds that are read from a file and checked after a replay.

Each bound is checked for every seed; a broken one is named with the worst seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pandas as pd

from benchmarks.suite.user_methods import user_object_name
from marca_env.utils.errors import InputError, one_line, shown, unknown_option
from marca_env.utils.validation import as_number
from marca_env.utils.yaml import read_mapping
from mpc.controller.telemetry import FaultKind

ALL = "all"
"""All clusters together, or faults of all kinds."""
DEFAULT_METHOD = "mpc"
Run = tuple[Mapping[str, Any], pd.DataFrame]
"""Scores of a method on a seed, and its minutes."""


class Quantity(NamedTuple):
    """Something that is bounded."""

    side: Literal["least", "most"]
    entries: Literal["clusters", "kinds", "none"]
    """What a bound may be given for: clusters, kinds of faults, or nothing."""
    meaning: str
    measure: Callable[[Run, str], float]
    """Scores and minutes, entry → value."""
    highest: float = 1.0
    """Greatest bound that makes sense."""


def _score(name: str) -> Callable[[Run, str], float]:
    return lambda run, entry: float(run[0][name][entry])


def _prices(run: Run, cluster: str) -> pd.Series:
    return run[1][f"price_{cluster}"]


def _faults(run: Run, kind: str) -> float:
    events: Mapping[str, int] = run[0]["events"]
    return (sum(events.values()) if kind == ALL else events.get(kind, 0)) / len(run[1])


_ANY = float("inf")
QUANTITIES: dict[str, Quantity] = {
    "mu": Quantity("least", "clusters", "utilisation μ", _score("mu")),
    "nu": Quantity("most", "clusters", "over-utilisation ν", _score("nu"), _ANY),
    "priced_mu": Quantity("least", "clusters", "utilisation μ of the priced minutes", _score("priced_mu")),
    "priced_nu": Quantity("most", "clusters", "over-utilisation ν of the priced minutes", _score("priced_nu"), _ANY),
    "price_min": Quantity("least", "clusters", "lowest price", lambda run, c: float(_prices(run, c).min()), _ANY),
    "price_max": Quantity("most", "clusters", "highest price", lambda run, c: float(_prices(run, c).max()), _ANY),
    "faults": Quantity("most", "kinds", "faults per minute", _faults, _ANY),
    "degraded": Quantity("most", "none", "share of degraded minutes", lambda run, _: float(run[0]["degraded"])),
    "lost": Quantity("most", "none", "share of lost requests", lambda run, _: float(run[0]["lost"])),
    "bound_share": Quantity("least", "none", "share of the dual bound", lambda run, _: float(run[0]["bound_share"])),
}
"""Field of the file → what it bounds."""
_FIELDS = ("method", *QUANTITIES)


@dataclass(frozen=True)
class Bound:
    """One bound on one quantity."""

    field: str
    entry: str
    """Cluster, kind of fault, or ``all``."""
    value: float

    @property
    def quantity(self) -> Quantity:
        """What is bounded."""
        return QUANTITIES[self.field]

    def is_broken(self, value: float) -> bool:
        """Return whether a value is on the wrong side; one that is not a number is."""
        return not (value >= self.value if self.quantity.side == "least" else value <= self.value)

    def describe(self, value: float, seed: int) -> str:
        """Return the line that says how a value breaks the bound."""
        q = self.quantity
        what = f"{self.field}.{self.entry}" if q.entries != "none" else self.field
        relation = "below" if q.side == "least" else "above"
        return f"{what}: {q.meaning} is {value:.5g} (seed {seed}), {relation} the required {self.value:g}"


@dataclass(frozen=True)
class Requirements:
    """The bounds of a file and the method that must keep them."""

    method: str
    bounds: tuple[Bound, ...]
    where: str
    """The file, for messages."""

    @classmethod
    def read(cls, path: str | Path, clusters: Sequence[str], methods: Sequence[Any]) -> Requirements:
        """Read requirements from a YAML or JSON file.

        Args:
            path: the file; its fields are ``method`` and those of :data:`QUANTITIES`.
            clusters: names of the scenario's clusters.
            methods: methods that are compared.

        Raises:
            InputError: the file is missing or not valid, or a field, cluster, kind or value in it is wrong; the message
                names the field and what to write.
        """
        where, data = f"--require {path}", read_mapping(Path(path), "requirements")
        for name in data:
            if name not in _FIELDS:
                raise InputError(f"{where}: {unknown_option('field', name, _FIELDS)}")
        try:
            method = _method(data.get("method"), [user_object_name(method) for method in methods])
            bounds = tuple(
                bound
                for name, entries in data.items()
                if name != "method"
                for bound in _bounds(name, entries, clusters)
            )
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if not bounds:
            raise InputError(f"{where}: no bound in it; write at least one, such as 'nu: 0.01'")
        return cls(method, bounds, where)

    def broken(self, rows: Sequence[Mapping[str, Any]], minutes: Sequence[pd.DataFrame]) -> list[str]:
        """Return a line for each bound that the method breaks on some seed.

        Args:
            rows: scores of all methods and seeds, with ``method``, ``seed`` and ``settings``.
            minutes: minutes of all methods and seeds, with ``method`` and ``seed``.

        Raises:
            InputError: the method was not replayed.
        """
        frames = {(frame["method"].iloc[0], int(frame["seed"].iloc[0])): frame for frame in minutes}
        runs: list[tuple[int, Run]] = [
            (int(row["seed"]), (row, frames[row["method"], int(row["seed"])]))
            for row in rows
            if row["method"] == self.method and not row["settings"]
        ]
        if not runs:
            raise InputError(f"{self.where}: {self.method!r} was not replayed; nothing can be said about it")
        lines = []
        for bound in self.bounds:
            values = [(bound.quantity.measure(run, bound.entry), seed) for seed, run in runs]
            failed = [(value, seed) for value, seed in values if bound.is_broken(value)]
            if failed:
                pick = min if bound.quantity.side == "least" else max
                lines.append(f"{self.method}: {bound.describe(*pick(failed))}")
        return lines


def _method(name: Any, methods: Sequence[str]) -> str:
    """Return the method that is judged."""
    if name is None:
        if DEFAULT_METHOD in methods:
            return DEFAULT_METHOD
        if len(methods) == 1:
            return methods[0]
        raise InputError(f"method is missing; write which of the methods must keep the bounds: {', '.join(methods)}")
    if name not in methods:
        raise InputError(f"{unknown_option('method', name, methods)}; give it to --methods as well")
    return str(name)


def _bounds(field: str, given: Any, clusters: Sequence[str]) -> Iterator[Bound]:
    """Yield the bounds of one field; a plain number bounds all together, or each price."""
    quantity = QUANTITIES[field]
    each = field in ("price_min", "price_max")
    valid = {"clusters": (*clusters,) if each else (*clusters, ALL), "kinds": (*get_args(FaultKind), ALL), "none": ()}
    names = valid[quantity.entries]
    if isinstance(given, Mapping):
        if not names or not given:
            raise InputError(f"{field} is {shown(given)}; write {_example(field, names)}")
        kind = "cluster" if quantity.entries == "clusters" else "kind of fault"
        for entry in given:
            if entry not in names:
                raise InputError(f"{field}: {unknown_option(kind, entry, names)}")
        entries = dict(given)
    else:
        entries = dict.fromkeys(clusters if each else (ALL,), given)
    for entry, value in entries.items():
        where = f"{field}.{entry}" if isinstance(given, Mapping) else field
        try:
            yield Bound(field, str(entry), as_number(where, value, 0.0, quantity.highest))
        except InputError as error:
            raise InputError(f"{one_line(error)}; write {_example(field, names)}") from None


def _example(field: str, names: Sequence[str]) -> str:
    example = f"'{field}: 0.9'" if QUANTITIES[field].side == "least" else f"'{field}: 0.01'"
    return example if not names else f"{example}, or a number for each of {', '.join(names)}"
