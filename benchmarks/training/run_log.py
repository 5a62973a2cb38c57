"""What a run reports, kept in its folder: JSON lines, a table, TensorBoard events; Weights & Biases if asked for."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from marca_env.utils.errors import InputError

LINES, TABLE = "progress.jsonl", "progress.csv"
STEP = "training_iteration"


class RunLog:
    """Writes every number of every iteration as it comes; whatever stops the run, the lines so far are there.

    A resumed run goes on in the same files; iterations that it repeats replace the old ones.

    Args:
        folder: of the run; made at the first line.
        wandb: project to report to; needs ``pip install wandb``.
        described: what W&B shows as the run's configuration.

    Raises:
        ImportError: ``wandb`` is asked for and not installed.
        InputError: when entered, nothing can be written in ``folder``.
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
        """Add an iteration; ``numbers`` name → value, ``training_iteration`` among them."""
        if not self._begun:
            self._begin(int(numbers[STEP]))
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
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read_lines(self.folder) if row[STEP] < first]
        (self.folder / LINES).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self._write_table(rows)
        self._events = _event_writer(self.folder, first)

    def _add_row(self, numbers: Mapping[str, float]) -> None:
        if not set(numbers) <= set(self._columns):  # an episode has ended or learning has begun: new columns
            self._write_table(read_lines(self.folder))
            return
        with (self.folder / TABLE).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(dict(numbers))

    def _write_table(self, rows: list[dict[str, float]]) -> None:
        names = sorted({name for row in rows for name in row}, key=lambda n: (n != STEP, "/" in n, n))
        self._columns = names
        with (self.folder / TABLE).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(rows)


def check_writable(folder: Path) -> None:
    """Try the folder before an hour is spent on what could not be kept in it; one that is made for it is removed.

    Raises:
        InputError: nothing can be written there, with the system's reason.
    """
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: nothing can be written there ({error.strerror}); give another folder") from error
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def read_lines(folder: str | Path) -> list[dict[str, float]]:
    """The iterations of a run, oldest first; none if nothing was reported. A line cut short by a kill is left out."""
    path = Path(folder) / LINES
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _event_writer(folder: Path, first: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        print("no TensorBoard events: pip install tensorboardX", file=sys.stderr)
        return None
    # the writer's own file names tell only the second: a resumed run must not overwrite what it goes on from
    return SummaryWriter(str(folder), purge_step=first if first > 1 else None, filename_suffix=f".{first}")


def _wandb_run(project: str, folder: Path, described: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError(f"--wandb needs Weights & Biases: pip install wandb ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(project=project, name=folder.name, dir=str(folder), config=described, resume="allow")
