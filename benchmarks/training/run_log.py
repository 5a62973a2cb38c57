"""Log of a run's numbers in its folder: JSON lines, CSV, TensorBoard events; Weights & Biases if asked for."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from marca_env.utils.errors import InputError
from marca_env.utils.files import atomic_path, check_writable, explain_write_faults, parse_json

LINES, TABLE = "progress.jsonl", "progress.csv"
STEP = "training_iteration"


class RunLog:
    """Log that writes every number of every iteration at once, so that an interrupted run loses none.

    A resumed run continues the same files; iterations that it repeats replace the old ones.

    Args:
        folder: of the run; made at the first iteration.
        wandb: project to report to; needs ``pip install wandb``.
        described: configuration of the run that Weights & Biases shows.

    Raises:
        ImportError: ``wandb`` is given and the package is not installed.
        InputError: on entering, if ``folder`` is not writable.
    """

    def __init__(self, folder: Path, *, wandb: str | None = None, described: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self._wandb = _wandb_run(wandb, self.folder, dict(described or {})) if wandb else None
        self._events: Any = None
        self._columns: list[str] = []
        self._begun = False

    def __enter__(self) -> Self:
        check_writable(self.folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if kind is None else 1)

    def write(self, numbers: Mapping[str, float]) -> None:
        """Add an iteration.

        Args:
            numbers: name → value, ``training_iteration`` among them.
        """
        if not self._begun:
            self._begin(int(numbers[STEP]))
        with explain_write_faults(self.folder):
            with (self.folder / LINES).open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(numbers)) + "\n")
            self._add_row(numbers)
        if self._events is not None:
            for name, value in numbers.items():
                self._events.add_scalar(name, value, int(numbers[STEP]))
            self._events.flush()
        if self._wandb is not None:
            self._wandb.log(dict(numbers), step=int(numbers[STEP]))

    def _begin(self, first: int) -> None:
        self._begun = True
        rows = [row for row in read_lines(self.folder) if row[STEP] < first]
        with atomic_path(self.folder / LINES) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self._write_table(rows)
        self._events = _event_writer(self.folder, first)

    def _add_row(self, numbers: Mapping[str, float]) -> None:
        if not set(numbers) <= set(self._columns):  # new columns, as when the first episode has ended
            self._write_table(read_lines(self.folder))
            return
        with (self.folder / TABLE).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(dict(numbers))

    def _write_table(self, rows: list[dict[str, float]]) -> None:
        names = sorted({name for row in rows for name in row}, key=lambda n: (n != STEP, "/" in n, n))
        self._columns = names
        with atomic_path(self.folder / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(rows)


def read_lines(folder: str | Path) -> list[dict[str, float]]:
    """Read the iterations of a run, oldest first; a line that a kill cut short is skipped."""
    path = Path(folder) / LINES
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(parse_json(line, str(path)))
        except InputError:
            continue
    return rows


def _event_writer(folder: Path, first: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        print("no TensorBoard events: pip install tensorboardX", file=sys.stderr)
        return None
    # the writer's file names have a resolution of a second: a resumed run must not overwrite its predecessor
    return SummaryWriter(str(folder), purge_step=first if first > 1 else None, filename_suffix=f".{first}")


def _wandb_run(project: str, folder: Path, described: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError(f"--wandb needs Weights & Biases: pip install wandb ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(project=project, name=folder.name, dir=str(folder), config=described, resume="allow")
