"""A log as training data: draws in memory, the choice to stream it, and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents.offline.chunks import log_chunks
from agents.offline.episodes import EpisodeEncoder
from agents.offline.rows import row_type
from agents.rllib import CONFIGS
from agents.rllib.core.offline_log import InMemoryLog, must_stream
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.request_logs import write_parquet


def test_the_log_in_memory_draws_uniformly_and_continues_from_its_state(
    tiny_scenario: Scenario, rows: np.ndarray
) -> None:
    encoder = EpisodeEncoder(tiny_scenario)
    numbered = rows[:200].copy()
    numbered["reward"] = np.arange(200)
    buffer = InMemoryLog(numbered, encoder, seed=5)
    drawn = np.concatenate([buffer.sample(500)["reward"][:, -1] for _ in range(20)])
    assert np.bincount(drawn.astype(int), minlength=200).min() > 20
    state = buffer.state()
    again = InMemoryLog(numbered, encoder, seed=9)
    again.set_state(state)
    assert again.drawn == buffer.drawn == 10_000
    assert np.array_equal(again.sample(50)["reward"], buffer.sample(50)["reward"])
    assert buffer.reward_statistics().episode.std == pytest.approx(np.arange(200).std())


def test_a_log_is_streamed_if_it_exceeds_the_memory_limit(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path
) -> None:
    chunks = log_chunks([write_parquet(tiny_requests, tmp_path / "log.parquet", 500)], tiny_scenario)
    size = 6000 * row_type(tiny_scenario).itemsize
    assert not must_stream(chunks, tiny_scenario, "auto", None)
    assert must_stream(chunks, tiny_scenario, "auto", 1.9 * size)
    assert not must_stream(chunks, tiny_scenario, "auto", 2.1 * size)
    assert must_stream(chunks, tiny_scenario, True, None)
    assert not must_stream(chunks, tiny_scenario, False, 1.0)
    with pytest.raises(InputError, match=r"500 rows in one row group take about .* smaller row groups"):
        must_stream(chunks, tiny_scenario, "auto", 1000.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streaming": "yes"}, "streaming is 'yes'; use true, false or 'auto'"),
        ({"memory_limit": 0}, "memory_limit is 0; use a number of bytes"),
        ({"shuffle_buffer": 0}, "shuffle_buffer is 0"),
        ({"split": "month"}, "unknown split 'month'"),
        ({"split": "hash", "test_share": 1.5}, "test share is 1.5"),
        ({"stream": True}, "did you mean 'streaming'"),
    ],
)
def test_invalid_log_options_are_refused(options: dict[str, Any], message: str, tiny_artefacts: Path) -> None:
    with pytest.raises(InputError, match=message):
        CONFIGS["VDN"]().offline_data(input_=[str(tiny_artefacts / "requests.parquet")]).training(**options).validate()
