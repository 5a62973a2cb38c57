"""Request log that does not fit in memory: Ray Data reads it window by window, ahead of the learner.

Workers read, check and shuffle windows of the log (:mod:`agents.offline.shuffle_plan`) and return them as compact rows.
A row becomes an episode, a hundred times as large, when its minibatch is drawn. Several learners get one minibatch each
from the same stream. Their shards are therefore equal, and a bad row stops all learners before any of them uses it.

On a cluster every node must be able to read the files under the same path.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import ray.data

from agents.offline.episodes import Columns, EpisodeEncoder
from agents.offline.rows import row_type
from agents.offline.shuffle_plan import ShufflePlan, read_window
from agents.team.reward_statistics import RewardStatistics
from marca_env.utils.errors import InputError

READERS = 2
"""Number of windows that are read at the same time."""
AHEAD = 16
"""Number of windows in one Ray dataset; the next dataset continues where it ends, also in the middle of an epoch."""


_READER, _PATIENCE_S = "iter_threaded", 60.0
"""Ray Data's name of the threads that fetch blocks, and the seconds to wait for one of them to end."""


class StreamedLog:
    """Read-only buffer that draws minibatches of a log in the order of a shuffle plan.

    Each epoch draws every row once. The order depends only on the plan's seed. A checkpoint therefore contains only the
    seed and the number of drawn rows; a resumed run continues with the next row, as if it had not been interrupted.

    Args:
        plan: the order (:class:`agents.offline.shuffle_plan.ShufflePlan`).
        encoder: encoder of the rows as episodes.
    """

    def __init__(self, plan: ShufflePlan, encoder: EpisodeEncoder) -> None:
        self.plan, self.encoder = plan, encoder
        self.drawn = 0
        """Number of rows drawn so far."""
        self._rows, self._windows = self._begin()

    def __len__(self) -> int:
        """Return the number of rows of an epoch."""
        return int(self.plan.counts.sum())

    def sample(self, n: int) -> Columns:
        """Return the next ``n`` episodes.

        Raises:
            InputError: a bad row (the message names file, row and column), or a file that can no longer be read.
        """
        parts, missing = [], n
        while missing:
            if not len(self._rows):
                self._rows = self._next_window()
            parts.append(self._rows[:missing])
            self._rows = self._rows[missing:]
            missing -= len(parts[-1])
        self.drawn += n
        return self.encoder(np.concatenate(parts))

    def reward_statistics(self) -> RewardStatistics:
        """Return the statistics of the first window."""
        return RewardStatistics.of_last_rewards(self.plan.read(0, 0)["reward"], self.encoder.encoder.n_turns)

    def state(self, *, content: bool = False) -> dict[str, Any]:
        """Return the position in the log for a checkpoint."""
        return {"drawn": self.drawn, "seed": self.plan.seed}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; the state of a run with the log in memory only sets the number of drawn rows."""
        self.drawn = int(state["drawn"])
        if "seed" in state and state["seed"] != self.plan.seed:
            self.plan = ShufflePlan(
                self.plan.chunks, self.plan.scenario, self.plan.window, int(state["seed"]), self.plan.split
            )
        self.close()

    def _next_window(self) -> np.ndarray:
        try:
            return next(self._windows)
        except BaseException:  # a generator that has raised is exhausted; start again, so that the error can recur
            self.close()
            raise

    def close(self) -> None:
        """Stop reading ahead; the next draw starts reading again."""
        self._windows.close()
        self._rows, self._windows = self._begin()

    def _begin(self) -> tuple[np.ndarray, Generator[np.ndarray, None, None]]:
        return np.empty(0, row_type(self.plan.scenario)), self._read(self.drawn)

    def _read(self, start: int) -> Generator[np.ndarray, None, None]:
        """Yield windows without end from the ``start``-th row on; the first window lacks the rows already drawn."""
        positions = self.plan.positions(start)
        while True:
            next_positions = list(islice(positions, AHEAD))
            dataset = _dataset(self.plan, next_positions)
            with _blocks(dataset) as blocks:
                for (_, _, skipped), block in zip(next_positions, blocks, strict=True):
                    if block["problem"][0]:
                        raise InputError(str(block["problem"][0]))
                    yield np.frombuffer(block["rows"][0], row_type(self.plan.scenario))[skipped:]


@contextmanager
def _blocks(dataset: Any) -> Iterator[Iterator[Any]]:
    """Yield the blocks of a dataset, and wait for Ray Data's threads to end.

    The threads end some time after their iterator is closed. A thread that asks for its block after ``ray.shutdown()``
    would end the whole process.
    """
    blocks = iter(dataset.iter_batches(batch_size=None, batch_format="numpy"))
    earlier_threads, readers = set(threading.enumerate()), set()
    try:
        try:
            first = [next(blocks)]  # starts the threads
        finally:
            readers = {t for t in set(threading.enumerate()) - earlier_threads if t.name.startswith(_READER)}
        yield _chain(first, blocks)
    finally:
        blocks.close()
        for thread in readers - {threading.current_thread()}:
            thread.join(_PATIENCE_S)


def _chain(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    """Yield the block in ``first``, without keeping a reference to it, and then the rest."""
    yield first.pop()
    yield from rest


def _dataset(plan: ShufflePlan, positions: list[tuple[int, int, int]]) -> Any:
    """Build a Ray dataset with one row per window, read in order by :data:`READERS` workers.

    Reading requests no CPU: it would otherwise wait forever if the learners hold all CPUs.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    items = [{"position": np.array(position[:2])} for position in positions]
    windows = ray.data.from_items(items, override_num_blocks=len(items))
    windows.context.execution_options.preserve_order = True
    windows.context.enable_progress_bars = False
    return windows.map_batches(
        partial(read_window, plan),
        batch_size=1,
        batch_format="numpy",
        num_cpus=0,
        compute=ray.data.TaskPoolStrategy(size=READERS),
    )
