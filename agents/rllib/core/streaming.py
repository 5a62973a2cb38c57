"""Learning from a request log that does not fit in memory: Ray Data reads it, window by window, ahead of the learner.

Workers read, check and shuffle windows of the log (:mod:`agents.offline.shuffle_plan`) and hand them over as compact rows; a row
becomes an episode, a hundred times as large, when its minibatch is drawn. Several learners get one minibatch each from
the same stream: equal shards, and a bad row stops all of them before any of them starts on it.

On a cluster the files must be readable on every node under the same path.
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
from agents.offline.shuffle_plan import WindowPlan, read_window
from marca_env.utils.errors import InputError

READERS = 2
"""Windows that are read at the same time."""
AHEAD = 16
"""Windows that one Ray dataset covers; the next one starts where it ends, in the middle of an epoch or not."""


_READER, _PATIENCE_S = "iter_threaded", 60.0
"""Ray Data's name for the threads that fetch blocks, and how long one is waited for."""


class StreamedLog:
    """Minibatches of a log in the order of a :class:`~agents.offline.shuffle_plan.WindowPlan`, as a buffer that is only drawn from.

    Each epoch draws every row once. The order depends on the plan's seed alone, so that a checkpoint need only hold
    the seed and the number of rows drawn: a resumed run goes on with the next row, as if it had not been interrupted.
    """

    def __init__(self, plan: WindowPlan, encoder: EpisodeEncoder) -> None:
        self.plan, self.encoder = plan, encoder
        self.drawn = 0
        """Rows drawn so far."""
        self._held, self._windows = self._begin()

    def __len__(self) -> int:
        """Rows of an epoch."""
        return int(self.plan.counts.sum())

    def sample(self, n: int) -> Columns:
        """The next ``n`` episodes.

        Raises:
            InputError: a bad row, naming file, row and column, or a file that can no longer be read.
        """
        parts, missing = [], n
        while missing:
            if not len(self._held):
                self._held = self._next_window()
            parts.append(self._held[:missing])
            self._held = self._held[missing:]
            missing -= len(parts[-1])
        self.drawn += n
        return self.encoder(np.concatenate(parts))

    def return_scale(self) -> float:
        """Standard deviation of the returns in the first window."""
        return float(self.plan.read(0, 0)["reward"].std())

    def state(self, *, content: bool = False) -> dict[str, Any]:
        """What a checkpoint holds: where in the log the run is."""
        return {"drawn": self.drawn, "seed": self.plan.seed}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken; of a run that had the log in memory only the number of rows is known."""
        self.drawn = int(state["drawn"])
        if "seed" in state and state["seed"] != self.plan.seed:
            self.plan = WindowPlan(
                self.plan.pieces, self.plan.scenario, self.plan.window, int(state["seed"]), self.plan.split
            )
        self.close()

    def _next_window(self) -> np.ndarray:
        try:
            return next(self._windows)
        except BaseException:  # a generator that has raised is exhausted: who asks again gets the same answer
            self.close()
            raise

    def close(self) -> None:
        """Stop reading ahead; the next draw begins to read again."""
        self._windows.close()
        self._held, self._windows = self._begin()

    def _begin(self) -> tuple[np.ndarray, Generator[np.ndarray, None, None]]:
        return np.empty(0, row_type(self.plan.scenario)), self._read(self.drawn)

    def _read(self, start: int) -> Generator[np.ndarray, None, None]:
        """Endless windows from the ``start``-th row on; the first one without what was drawn of it."""
        places = self.plan.places(start)
        while True:
            chosen = list(islice(places, AHEAD))
            dataset = _dataset(self.plan, chosen)
            with _blocks(dataset) as blocks:
                for (_, _, skipped), block in zip(chosen, blocks, strict=True):
                    if block["problem"][0]:
                        raise InputError(str(block["problem"][0]))
                    yield np.frombuffer(block["rows"][0], row_type(self.plan.scenario))[skipped:]


@contextmanager
def _blocks(dataset: Any) -> Iterator[Iterator[Any]]:
    """The blocks of a dataset; leaves none of Ray Data's threads behind.

    They end some time after their iterator is closed, and one that asks for its block after ``ray.shutdown()`` takes
    the whole process with it.
    """
    blocks = iter(dataset.iter_batches(batch_size=None, batch_format="numpy"))
    others, readers = set(threading.enumerate()), set()
    try:
        try:
            first = [next(blocks)]  # starts the threads
        finally:
            readers = {t for t in set(threading.enumerate()) - others if t.name.startswith(_READER)}
        yield _from(first, blocks)
    finally:
        blocks.close()
        for thread in readers - {threading.current_thread()}:
            thread.join(_PATIENCE_S)


def _from(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    """The block in ``first``, which is not kept, and the rest."""
    yield first.pop()
    yield from rest


def _dataset(plan: WindowPlan, places: list[tuple[int, int, int]]) -> Any:
    """A Ray dataset of one row per window, read in order by :data:`READERS` workers.

    Reading asks for no CPU of its own: beside learners that hold them all it would otherwise wait for ever.
    """

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    items = [{"place": np.array(place[:2])} for place in places]
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
