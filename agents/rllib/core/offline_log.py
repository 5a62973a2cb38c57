"""A request log as training data, in memory or streamed; it replaces RLlib's offline data pipeline."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import psutil
from ray.rllib.offline.offline_data import OfflineData

from agents.offline.chunks import LogChunk, log_chunks, log_files
from agents.offline.coverage import LogCoverage
from agents.offline.episodes import Columns, EpisodeEncoder
from agents.offline.rows import read_chunk, read_rows, row_type
from agents.offline.shuffle_plan import ShufflePlan
from agents.offline.splits import Split
from agents.rllib.core.cluster import start_ray
from agents.rllib.core.streamed_log import StreamedLog
from agents.team.reward_statistics import RewardStatistics
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

logger = logging.getLogger(__name__)

COVERED_ROWS = 50_000
"""Rows of a streamed log in which the tried actions are counted."""
READ_BYTES = 400
"""Approximate memory of a row while its chunk is being read and checked."""


class InMemoryLog:
    """Log in memory; episodes are drawn uniformly with replacement, as from a replay buffer.

    Args:
        rows: (M,) of :func:`agents.offline.rows.row_type`.
        encoder: encoder of the rows as episodes.
        seed: seed of the draws.
    """

    def __init__(self, rows: np.ndarray, encoder: EpisodeEncoder, seed: int | None = None) -> None:
        self.rows, self.encoder = rows, encoder
        self.rng = np.random.default_rng(seed)
        self.drawn = 0
        """Number of rows drawn so far."""

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, n: int) -> Columns:
        """Draw ``n`` episodes uniformly with replacement."""
        self.drawn += n
        return self.encoder(self.rows[self.rng.integers(0, len(self.rows), n)])

    def reward_statistics(self) -> RewardStatistics:
        """Return the statistics of the whole log."""
        return RewardStatistics.of_last_rewards(self.rows["reward"], self.encoder.encoder.n_turns)

    def state(self, *, content: bool = False) -> dict[str, Any]:
        """Return the random state for a checkpoint; the log itself stays in its files."""
        return {"rng": self.rng.bit_generator.state, "drawn": self.drawn}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue drawing from ``state``; the state of a streamed run only sets the number of drawn rows."""
        self.drawn = int(state.get("drawn", 0))
        if "rng" in state:
            self.rng.bit_generator.state = state["rng"]


class OfflineLog(OfflineData):
    """Log of ``config.offline_data(input_=…)``: Parquet or CSV files, folders or globs.

    Attributes:
        buffer: source of the minibatches.
        streamed: whether Ray Data reads the log during training instead of holding it in memory.
    """

    def __init__(self, config: Any) -> None:
        # RLlib's constructor is not called: it would read the files with Ray Data as RLlib's own episodes.
        self.config = config
        scenario = Scenario.load(config.scenario)
        chunks = log_chunks(log_files(config.input_), scenario)
        self._chunks = chunks
        split, encoder = log_split(config), EpisodeEncoder(scenario, joint=config.preset().joint)
        self.streamed = must_stream(chunks, scenario, config.streaming, config.memory_limit)
        self.buffer: InMemoryLog | StreamedLog
        if self.streamed:
            start_ray(num_cpus=1)  # Ray Data reads
            plan = ShufflePlan(tuple(chunks), scenario, config.shuffle_buffer, config.seed, split)
            self.buffer = StreamedLog(plan, encoder)
        else:
            self.buffer = InMemoryLog(read_rows(chunks, scenario, split), encoder, config.seed)
        self.rows = sum(chunk.rows for chunk in chunks)
        """Number of rows of the log, held-out ones included."""
        self._warn_of_untried_actions(chunks, scenario)
        self.learner_handles: Any = None
        self.locality_hints: Any = None
        self.module_spec: Any = None
        self.spaces: Any = None

    def sample(
        self, num_samples: int, return_iterator: bool = False, num_shards: int = 1, module_state: Any = None
    ) -> Any:
        """Return the next ``num_samples`` episodes."""
        return self.buffer.sample(num_samples)

    def held_out(self, part: str) -> int:
        """Return the number of rows of a part (``validation`` or ``test``); 0 if all rows are trained on."""
        split = log_split(self.config)
        if split is None:
            return 0
        return sum(int(split.mask(part, c.file, c.first_row, c.offset, c.rows, self.rows).sum()) for c in self._chunks)

    def _warn_of_untried_actions(self, chunks: list[LogChunk], scenario: Scenario) -> None:
        """Log a table of the actions that the log never or hardly tried."""
        rows = self.buffer.rows if isinstance(self.buffer, InMemoryLog) else _some_rows(chunks, scenario)
        if not len(rows):
            return
        total = self.rows if self.streamed else None
        name = ", ".join(str(source) for source in _as_list(self.config.input_))
        text = LogCoverage.of(rows["actions"], scenario).warning(name, self.buffer.encoder.encoder.turn_agent, total)
        if text is not None:
            logger.warning(text)

    def close(self) -> None:
        """Stop the readers of a streamed log."""
        if isinstance(self.buffer, StreamedLog):
            self.buffer.close()


def _as_list(sources: Any) -> list[Any]:
    return list(sources) if isinstance(sources, (list, tuple)) else [sources]


def _some_rows(chunks: list[LogChunk], scenario: Scenario) -> np.ndarray:
    """Read the first chunks of a log; none if they have a fault, which the training names when it gets there."""
    parts: list[np.ndarray] = []
    for chunk in chunks:
        try:
            parts.append(read_chunk(chunk, scenario))
        except InputError:
            break
        if sum(map(len, parts)) >= COVERED_ROWS:
            break
    return np.concatenate(parts) if parts else np.empty(0, row_type(scenario))


def log_split(config: Any) -> Split | None:
    """Return the split that the options of a configuration describe; ``None`` if the log is not split."""
    if config.split is None:
        return None
    return Split(config.split, config.validation_share, config.test_share, config.split_seed)


def must_stream(chunks: list[LogChunk], scenario: Scenario, streaming: Any, memory_limit: float | None) -> bool:
    """Return whether a log has to be streamed.

    Args:
        chunks: the chunks of the log.
        scenario: scenario of the log.
        streaming: ``True``, ``False``, or ``"auto"``: stream if the rows and a copy of them exceed the limit.
        memory_limit: bytes that the log may take; ``None``: half of the memory that is free now.

    Raises:
        InputError: a single chunk takes more than the limit.
    """
    limit = memory_limit or psutil.virtual_memory().available / 2
    stream = streaming is True
    if streaming == "auto":
        stream = 2 * row_type(scenario).itemsize * sum(c.rows for c in chunks) > limit
    largest = max(chunks, key=lambda c: c.rows)
    if stream and largest.rows * READ_BYTES > limit:
        size = f"{largest.rows * READ_BYTES / 2**20:.0f} MiB to read, above the limit of {limit / 2**20:.0f}"
        raise InputError(
            f"{largest.path}: {largest.rows:,} rows in one row group take about {size}; "
            "write the log with smaller row groups (row_group_size=100_000), or raise memory_limit"
        )
    return stream


def check_log_options(config: Any) -> None:
    """Refuse invalid options of a log.

    Raises:
        InputError: an invalid value; the message names the option and the valid values.
    """
    if config.streaming not in (True, False, "auto"):
        raise InputError(f"streaming is {config.streaming!r}; use true, false or 'auto'")
    limit = config.memory_limit
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0):
        raise InputError(f"memory_limit is {limit!r}; use a number of bytes, or None")
    window = config.shuffle_buffer
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise InputError(f"shuffle_buffer is {window!r}; use a whole number of rows, at least 1")
    log_split(config)
