"""The benchmark suite: one module per experiment, found by its name; ``marca bench NAME`` runs it.

A module ``benchmarks/experiments/<name>.py`` is an experiment if it has::

    def run(out: Path, *, quick: bool = False, seeds: Sequence[int] = (0,)) -> dict[str, Any]: ...

- The first line of its docstring is the summary that ``marca bench --list`` shows.
- ``out`` is a folder of this experiment's own for anything beside the result (figures, CSV); it need not exist yet.
- ``quick`` is a small run that shows that everything works; its numbers are not for reporting.
- The returned mapping is plain data for JSON. The command adds machine, versions, seeds and the settings, and writes
  ``<out>/<name>.json``; the module writes no such file itself.
- Optional: ``SEEDS``, the seeds of a full run (default ``(0,)``); ``tables(result) -> Iterable[rich.table.Table]``,
  what is printed; ``PARTS``, names of further experiments that the same command runs after it if they are there.

Anything heavy (ray, torch) is imported inside the functions, so that the list is quick to show.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from marca_env.errors import InputError, unknown_option

__all__ = ["experiment", "names", "summary"]


def names() -> tuple[str, ...]:
    """Every experiment there is, by name."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def experiment(name: str) -> ModuleType:
    """The module of an experiment.

    Raises:
        InputError: there is none of that name; the message names the nearest one.
    """
    if name not in names():
        raise InputError(unknown_option("experiment", name, names()))
    return importlib.import_module(f"{__name__}.{name}")


def summary(name: str) -> str:
    """First line of the experiment's docstring."""
    return (experiment(name).__doc__ or "").strip().partition("\n")[0]
