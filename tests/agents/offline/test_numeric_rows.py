"""Logs with numbers and signals as compact rows and as episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents.offline.episodes import EpisodeEncoder
from agents.offline.rows import encode_rows, load_rows, row_states, row_type
from marca_env.logs.log_files import write_request_log
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage
from marca_env.utils.errors import InputError


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario(
        name="reporting",
        stages=(
            Stage("first", "api", (Decision("depth", "queue", (10, 20, 30)),), signals=("best",)),
            Stage("second", "api", (Decision("model", "model", ("a", "b")),)),
        ),
        clusters=(Cluster("api", cores=20.0, budget=10.0),),
        features=(Feature("taste", 2, kind="number"), Feature("segment", 3)),
        peak_qps=10.0,
    )


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    rng, n = np.random.default_rng(0), 40
    frame = pd.DataFrame({"taste_0": rng.normal(size=n), "taste_1": rng.normal(size=n)})
    frame = frame.assign(segment=rng.integers(3, size=n), depth=rng.integers(3, size=n), model=rng.integers(2, size=n))
    frame = frame.assign(result_first=20.0, result_second=10.0, signal_first_best=rng.normal(size=n))
    return frame.assign(impressions=1.0, clicks=0.0, revenue=rng.random(n), gmv=0.0)


def test_rows_hold_numbers_as_float32_and_codes_exactly(scenario, log) -> None:
    rows = encode_rows(log, scenario)
    assert rows["states"].dtype == np.float32
    assert rows["states"].shape == (40, 3)
    assert rows["results"].shape == (40, 3)
    states = row_states(rows, scenario)
    assert states.dtype == np.float64
    np.testing.assert_array_equal(states[:, 2], log["segment"])
    np.testing.assert_allclose(states[:, :2], log[["taste_0", "taste_1"]], rtol=1e-6)
    np.testing.assert_allclose(rows["results"][:, 2], log["signal_first_best"], rtol=1e-6)


def test_codes_beyond_float32_take_float64(scenario, tiny_scenario) -> None:
    large = scenario.replace(features=(*scenario.features, Feature("item", 2**24 + 1)))
    assert row_type(large)["states"].base == np.float64
    assert row_type(tiny_scenario)["states"].base == np.int16


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_logs_are_read_from_files_chunk_by_chunk(scenario, log, name, tmp_path: Path) -> None:
    write_request_log(log, tmp_path / name, scenario)
    np.testing.assert_array_equal(load_rows(tmp_path / name, scenario), encode_rows(log, scenario))


def test_a_bad_number_names_file_row_and_column(scenario, log, tmp_path: Path) -> None:
    log.assign(taste_1=["x", *log["taste_1"][1:]]).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(InputError, match=r"log\.csv: row 1, column 'taste_1'.*'x' is not a finite number"):
        load_rows(tmp_path / "log.csv", scenario)
    log.drop(columns="signal_first_best").to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(InputError, match="column 'signal_first_best' is missing"):
        load_rows(tmp_path / "other.csv", scenario)


def test_later_agents_observe_the_signal_and_earlier_ones_do_not(scenario, log) -> None:
    columns = EpisodeEncoder(scenario)(encode_rows(log, scenario))
    signal = log["signal_first_best"].to_numpy(np.float32)
    at = -2  # before the price
    np.testing.assert_allclose(columns["obs:second"][:, 1, at], signal, rtol=1e-6)
    assert not columns["obs:second"][:, 0, at].any()
    changed = encode_rows(log.assign(signal_first_best=9.0), scenario)
    np.testing.assert_array_equal(EpisodeEncoder(scenario)(changed)["obs:first"], columns["obs:first"])
