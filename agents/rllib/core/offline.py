"""Learning from a request log: in memory as compact rows, or streamed, in place of RLlib's data pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import psutil
from ray.rllib.offline.offline_data import OfflineData

from agents.offline.chunks import Piece, log_files, log_pieces
from agents.offline.episodes import Columns, EpisodeEncoder
from agents.offline.rows import row_type, rows_in
from agents.offline.shuffle_plan import WindowPlan
from agents.offline.splits import Split
from agents.rllib.core.streaming import StreamedLog
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

READ_BYTES = 400
"""About what a row takes while its piece is being read and checked."""


class LogBuffer:
    """A log in memory, drawn from evenly with replacement, as a buffer of episodes is.

    Args:
        rows: (M,) of :func:`agents.offline.rows.row_type`.
        encoder: of their episodes.
        seed: of the draws.
    """

    def __init__(self, rows: np.ndarray, encoder: EpisodeEncoder, seed: int | None = None) -> None:
        self.rows, self.encoder = rows, encoder
        self.rng = np.random.default_rng(seed)
        self.drawn = 0
        """Rows drawn so far."""

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, n: int) -> Columns:
        """``n`` episodes drawn evenly with replacement."""
        self.drawn += n
        return self.encoder(self.rows[self.rng.integers(0, len(self.rows), n)])

    def return_scale(self) -> float:
        """Standard deviation of the returns."""
        return float(self.rows["reward"].std())

    def state(self, *, content: bool = False) -> dict[str, Any]:
        """What a checkpoint holds: the random state; the log stays in its files."""
        return {"rng": self.rng.bit_generator.state, "drawn": self.drawn}

    def set_state(self, state: dict[str, Any]) -> None:
        """Draw on as where ``state`` was taken; of a streamed run only the number of rows is taken over."""
        self.drawn = int(state.get("drawn", 0))
        if "rng" in state:
            self.rng.bit_generator.state = state["rng"]


class LogEpisodes(OfflineData):
    """What ``config.offline_data(input_=…)`` becomes: Parquet or CSV files, folders or globs of them.

    Attributes:
        buffer: what minibatches are drawn from.
        streamed: whether the log is read through Ray Data instead of held in memory.
    """

    def __init__(self, config: Any) -> None:
        # RLlib's constructor would read the files with Ray Data as episodes of its own; nothing of it is needed.
        self.config = config
        scenario = Scenario.load(config.scenario)
        pieces = log_pieces(log_files(config.input_), scenario)
        split, encoder = log_split(config), EpisodeEncoder(scenario, joint=config.preset().joint)
        self.streamed = must_stream(pieces, scenario, config.streaming, config.memory_limit)
        self.buffer: LogBuffer | StreamedLog
        if self.streamed:
            plan = WindowPlan(tuple(pieces), scenario, config.shuffle_buffer, config.seed, split)
            self.buffer = StreamedLog(plan, encoder)
        else:
            self.buffer = LogBuffer(rows_in(pieces, scenario, split), encoder, config.seed)
        self.learner_handles: Any = None
        self.locality_hints: Any = None
        self.module_spec: Any = None
        self.spaces: Any = None

    def sample(
        self, num_samples: int, return_iterator: bool = False, num_shards: int = 1, module_state: Any = None
    ) -> Any:
        """The next ``num_samples`` episodes."""
        return self.buffer.sample(num_samples)

    def close(self) -> None:
        """Stop reading ahead."""
        if isinstance(self.buffer, StreamedLog):
            self.buffer.close()


def log_split(config: Any) -> Split | None:
    """How the options of a configuration divide the log; ``None`` if they do not."""
    if config.split is None:
        return None
    return Split(config.split, config.validation_share, config.test_share, config.split_seed)


def must_stream(pieces: list[Piece], scenario: Scenario, streaming: Any, memory_limit: float | None) -> bool:
    """Whether a log is to be streamed.

    Args:
        streaming: ``True``, ``False`` or ``"auto"``: if its rows, and a copy while they are read, exceed the limit.
        memory_limit: bytes that the log may take; ``None``: half of the memory that is free now.

    Raises:
        InputError: a piece alone takes more than the limit.
    """
    limit = memory_limit or psutil.virtual_memory().available / 2
    stream = streaming is True
    if streaming == "auto":
        stream = 2 * row_type(scenario).itemsize * sum(p.rows for p in pieces) > limit
    largest = max(pieces, key=lambda p: p.rows)
    if stream and largest.rows * READ_BYTES > limit:
        taken = f"{largest.rows * READ_BYTES / 2**20:.0f} MiB to read, above the limit of {limit / 2**20:.0f}"
        raise InputError(
            f"{largest.path}: {largest.rows:,} rows in one row group take about {taken}; "
            "write the log with smaller row groups (row_group_size=100_000), or raise memory_limit"
        )
    return stream


def check_log_options(config: Any) -> None:
    """Refuse options of a log that mean nothing.

    Raises:
        InputError: naming the option and what it may be.
    """
    if config.streaming not in (True, False, "auto"):
        raise InputError(f"streaming is {config.streaming!r}; give true, false or 'auto'")
    limit = config.memory_limit
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0):
        raise InputError(f"memory_limit is {limit!r}; give a number of bytes, or None")
    window = config.shuffle_buffer
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise InputError(f"shuffle_buffer is {window!r}; it must be a whole number of rows, at least 1")
    log_split(config)
