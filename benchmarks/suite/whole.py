"""An experiment of the older form, ``run(out, *, quick, seeds) -> result``, as one whole case of the suite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.suite.api import Case, Row


class Whole:
    """What the contract of :mod:`benchmarks.suite.api` asks for; the row's numbers are the result.

    Args:
        name: of the experiment, which is also the method.
        module: with ``run`` and perhaps ``tables(result)``.
    """

    ALONE = True

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name, self.module = name, module
        self.__doc__ = module.__doc__
        self.SEEDS: tuple[int, ...] = tuple(getattr(module, "SEEDS", (0,)))
        self.PARTS: tuple[str, ...] = tuple(getattr(module, "PARTS", ()))

    def cases(self, *, quick: bool, seeds: Sequence[int]) -> list[Case]:
        """The one case."""
        return [Case(self.name, seeds[0], config={"quick": quick, "seeds": list(seeds)})]

    def measure(self, case: Case, folder: Path) -> dict[str, Any]:
        """Run the experiment; what it keeps beside its result goes to ``folder``."""
        return self.module.run(folder, quick=case.config["quick"], seeds=tuple(case.config["seeds"]))

    def tables(self, rows: Sequence[Row]) -> Iterable[Any]:
        """Of the last row: results of other seeds are others' tables."""
        yield from getattr(self.module, "tables", lambda result: ())(rows[-1].numbers) if rows else ()

    def figures(self, rows: Sequence[Row], folder: Path) -> dict[str, Path]:
        """The pictures that the last of the runs left in its folder."""
        home = folder / "quick" if rows and rows[-1].case.config["quick"] and (folder / "quick").is_dir() else folder
        return {path.stem: path for path in sorted(home.glob("*.png"))}
