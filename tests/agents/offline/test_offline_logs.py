"""Request logs of any kind as rows and episodes: files, pieces, splits, and errors that say where."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agents.offline import chunks as pieces_module
from agents.offline.chunks import log_files, log_pieces
from agents.offline.episodes import EpisodeEncoder, log_episodes
from agents.offline.rows import load_rows, read_piece, row_type, rows_of
from agents.offline.splits import PARTS, Split
from agents.rllib import CONFIGS
from agents.rllib.core.offline import LogBuffer, must_stream
from marca_env.logs.log_files import write_request_log
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.paths import SAMPLES

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not here")


@pytest.fixture(scope="module")
def rows(tiny_requests: pd.DataFrame, tiny_scenario: Scenario) -> np.ndarray:
    return rows_of(tiny_requests, tiny_scenario)


def write_groups(frame: pd.DataFrame, path: Path, size: int) -> Path:
    """Parquet in row groups of ``size``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=size)
    return path


# -- files and pieces --------------------------------------------------------------------------------------------
def test_every_form_of_a_log_gives_the_same_rows(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, rows: np.ndarray, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(pieces_module, "_SCAN", 7_777)  # pieces and reads end at different places
    for name in ("one.parquet", "one.csv", "one.tsv"):
        write_request_log(tiny_requests, tmp_path / name, tiny_scenario)
    for k in range(3):
        part = tiny_requests.iloc[k * 2000 : (k + 1) * 2000]
        write_request_log(part, tmp_path / "parts" / "day" / f"{k}.parquet", tiny_scenario)
        write_groups(part, tmp_path / "groups" / f"{k}.parquet", 300)
    (tmp_path / "parts" / "_SUCCESS.csv").write_text("")
    (tmp_path / "parts" / "notes.txt").write_text("not a log")
    with (tmp_path / "one.csv").open("ab") as file:
        file.write(b"\r\n\n")  # blank lines at the end are no rows
    forms: list[Any] = ["one.parquet", "one.csv", "one.tsv", "parts", "groups/*.parquet", "parts/**/*.parquet"]
    sources = [str(tmp_path / form) for form in forms] + [[tmp_path / "groups" / f"{k}.parquet" for k in range(3)]]
    for source in sources:
        assert np.array_equal(load_rows(source, tiny_scenario), rows), source
    found = log_pieces(log_files(str(tmp_path / "one.csv")), tiny_scenario)
    assert len(found) > 5
    assert sum(p.rows for p in found) == len(rows)
    groups = log_pieces(log_files(tmp_path / "groups"), tiny_scenario)
    assert [p.rows for p in groups[:7]] == [300] * 6 + [200]
    assert [(p.file, p.first_row, p.offset) for p in groups[6:9]] == [(0, 1800, 1800), (1, 0, 2000), (1, 300, 2300)]
    assert np.array_equal(read_piece(groups[8], tiny_scenario), rows[2300:2600])


def test_files_that_are_not_there(tmp_path: Path, tiny_scenario: Scenario) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in [
        (tmp_path / "empty", "no log in this folder"),
        (str(tmp_path / "*.csv"), "no file matches"),
        (tmp_path / "none.parquet", "no such file"),
        ([], "no log given"),
    ]:
        with pytest.raises(InputError, match=message):
            load_rows(source, tiny_scenario)  # type: ignore[arg-type]


@needs_samples
def test_the_published_sample_as_it_is() -> None:
    """Its action results, which it lacks, are those that the shipped cost model expects."""
    rows = load_rows(SAMPLES / "requests.csv")
    assert len(rows) == 10
    assert rows["actions"][0].tolist() == [2, 4, 0, 0, 2]
    assert rows["reward"].tolist() == pd.read_csv(SAMPLES / "requests.csv", header=None)[9].tolist()
    assert (rows["results"] > 0).all()
    assert (rows["results"][:, 0] >= rows["results"][:, 2]).all()  # retrieved and ranked
    assert np.isfinite(EpisodeEncoder("default")(rows)["state"]).all()
    with pytest.raises(InputError, match="column 'revenue' is missing; learning needs"):
        load_rows(SAMPLES / "costs.csv")
    with pytest.raises(InputError, match="stands alone"):
        load_rows([SAMPLES / "requests.csv", SAMPLES / "requests.csv"])


# -- bad logs ----------------------------------------------------------------------------------------------------
BAD: list[tuple[str, Any, str]] = [
    ("truncation", 3, r"row 4501, column 'truncation' .*3 is out of range 0 … 2"),
    ("revenue", -0.25, r"row 4501, column 'revenue' .*-0.25 is below 0"),
    ("revenue", np.nan, r"row 4501, column 'revenue' .*is empty"),
    ("uv", 0.5, r"row 4501, column 'uv' .*0.5 must be a whole number"),
]


def spoilt(frame: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    """With one bad value in row 4,501."""
    frame = frame.astype({column: float}) if isinstance(value, float) else frame.copy()
    frame.loc[4500, column] = value
    return frame


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(("column", "value", "message"), BAD)
def test_a_bad_row_is_named(
    tiny_requests: pd.DataFrame,
    tiny_scenario: Scenario,
    tmp_path: Path,
    monkeypatch: Any,
    suffix: str,
    column: str,
    value: Any,
    message: str,
) -> None:
    """By its row in the file, not in the piece that it was read with."""
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 20_000)
    frame = spoilt(tiny_requests, column, value)
    path = tmp_path / f"bad.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        write_groups(frame, path, 1000)
    with pytest.raises(InputError, match=rf"^{path}: {message}"):
        load_rows(path, tiny_scenario)


def test_logs_that_cannot_be_read(tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path) -> None:
    good = write_groups(tiny_requests, tmp_path / "good.parquet", 1000)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-50])
    torn = tmp_path / "torn.parquet"  # the footer is whole, the rows are not
    data = bytearray(good.read_bytes())
    data[2000:30_000] = bytes(28_000)
    torn.write_bytes(data)
    empty = tmp_path / "empty.csv"
    tiny_requests.iloc[:0].to_csv(empty, index=False)
    nothing = tmp_path / "nothing.parquet"
    nothing.write_bytes(b"")
    write_groups(tiny_requests.iloc[:0], tmp_path / "norows.parquet", 10)
    write_groups(tiny_requests.drop(columns="gmv"), tmp_path / "lacking.parquet", 1000)
    (tmp_path / "blank.csv").write_text(tiny_requests.head(3).to_csv(index=False).replace("\n", "\n\n"))
    ragged = tiny_requests.head(3).to_csv(index=False).splitlines()
    (tmp_path / "ragged.csv").write_text("\n".join([*ragged[:2], ragged[2] + ",1,2"]))
    for name, message in [
        ("cut.parquet", "cannot be read .*cut short"),
        ("torn.parquet", r"rows 1 to 1000: cannot be read .*cut short"),
        ("empty.csv", "no rows; write the log again"),
        ("norows.parquet", "no rows; write the log again"),
        ("nothing.parquet", "the file is empty"),
        ("lacking.parquet", "column 'gmv' is missing; a log of this kind has the columns uv, "),
        ("blank.csv", "3 rows in 6 lines; remove blank lines"),
        ("ragged.csv", "cannot be read|more fields than the header"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load_rows(tmp_path / name, tiny_scenario)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_empty_parts_of_a_log_are_passed_over(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, rows: np.ndarray, tmp_path: Path
) -> None:
    write_groups(tiny_requests.iloc[:0], tmp_path / "0.parquet", 10)
    write_groups(tiny_requests, tmp_path / "1.parquet", 4000)
    assert np.array_equal(load_rows(tmp_path, tiny_scenario), rows)


# -- splits ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["hash", "period"])
def test_parts_are_disjoint_and_of_their_share(
    by: str, tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path
) -> None:
    """Each row is in exactly one part, whatever pieces it is read in."""
    frame = tiny_requests.assign(revenue=np.arange(6000, dtype=float))  # its own number
    write_groups(frame, tmp_path / "a.parquet", 6000)
    write_groups(frame, tmp_path / "b.parquet", 700)
    split = Split(by, validation=0.2, test=0.1, seed=3)
    found = {}
    for part in PARTS:
        one, other = (
            load_rows(tmp_path / f, tiny_scenario, split=split, part=part) for f in ("a.parquet", "b.parquet")
        )
        assert np.array_equal(one, other)
        found[part] = one["reward"].astype(int)
    assert sorted(np.concatenate(list(found.values()))) == list(range(6000))
    assert len(found["validation"]) == pytest.approx(1200, abs=0 if by == "period" else 100)
    assert len(found["test"]) == pytest.approx(600, abs=0 if by == "period" else 80)
    if by == "period":
        assert found["train"].max() < found["validation"].min()
        assert found["validation"].max() < found["test"].min()
    else:
        assert abs(np.corrcoef(np.isin(np.arange(6000), found["test"]), np.arange(6000))[0, 1]) < 0.05
        other = Split(by, validation=0.2, test=0.1, seed=4).mask("test", 0, 0, 0, 6000, 6000)
        both = np.isin(np.arange(6000), found["test"]) & other
        assert both.sum() == pytest.approx(60, abs=30)  # seeds are independent


def test_a_hash_keeps_rows_where_they_are_when_files_are_added() -> None:
    split = Split("hash", seed=1)
    assert np.array_equal(split.mask("test", 2, 100, 900, 50, 1000), split.mask("test", 2, 100, 7000, 50, 90_000))
    assert not np.array_equal(split.mask("test", 1, 0, 0, 500, 500), split.mask("test", 2, 0, 0, 500, 500))


def test_impossible_splits() -> None:
    with pytest.raises(InputError, match="did you mean 'hash'"):
        Split("hsah")
    with pytest.raises(InputError, match="nothing is left to train on"):
        Split("hash", 0.5, 0.5)
    with pytest.raises(InputError, match=r"validation share is -0\.1"):
        Split("hash", -0.1, 0.5)
    with pytest.raises(InputError, match="unknown part 'tests'"):
        Split("hash").mask("tests", 0, 0, 0, 5, 5)


# -- episodes and options ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("joint", [False, True])
def test_rows_and_their_log_are_the_same_episodes(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, rows: np.ndarray, joint: bool
) -> None:
    """The revenue of each request comes with its last decision; nothing is lost in the compact row."""
    expected = log_episodes(tiny_requests.iloc[:64], tiny_scenario, joint=joint)
    found = EpisodeEncoder(tiny_scenario, joint=joint)(rows[:64])
    assert set(found) == set(expected)
    assert all(np.array_equal(found[k], expected[k]) for k in expected)
    assert np.array_equal(found["reward"][:, -1], tiny_requests["revenue"].to_numpy(np.float32)[:64])
    assert not found["reward"][:, :-1].any()
    assert rows.dtype == row_type(tiny_scenario)
    assert row_type(Scenario.load("default")).itemsize == 36


def test_the_buffer_draws_evenly_and_goes_on_from_its_state(tiny_scenario: Scenario, rows: np.ndarray) -> None:
    encoder = EpisodeEncoder(tiny_scenario)
    numbered = rows[:200].copy()
    numbered["reward"] = np.arange(200)
    buffer = LogBuffer(numbered, encoder, seed=5)
    drawn = np.concatenate([buffer.sample(500)["reward"][:, -1] for _ in range(20)])
    assert np.bincount(drawn.astype(int), minlength=200).min() > 20
    state = buffer.state()
    again = LogBuffer(numbered, encoder, seed=9)
    again.set_state(state)
    assert again.drawn == buffer.drawn == 10_000
    assert np.array_equal(again.sample(50)["reward"], buffer.sample(50)["reward"])
    assert buffer.return_scale() == pytest.approx(np.arange(200).std())


def test_when_a_log_is_streamed(tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path) -> None:
    found = log_pieces([write_groups(tiny_requests, tmp_path / "log.parquet", 500)], tiny_scenario)
    taken = 6000 * row_type(tiny_scenario).itemsize
    assert not must_stream(found, tiny_scenario, "auto", None)
    assert must_stream(found, tiny_scenario, "auto", 1.9 * taken)
    assert not must_stream(found, tiny_scenario, "auto", 2.1 * taken)
    assert must_stream(found, tiny_scenario, True, None)
    assert not must_stream(found, tiny_scenario, False, 1.0)
    with pytest.raises(InputError, match=r"500 rows in one row group take about .* smaller row groups"):
        must_stream(found, tiny_scenario, "auto", 1000.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streaming": "yes"}, "streaming is 'yes'; give true, false or 'auto'"),
        ({"memory_limit": 0}, "memory_limit is 0; give a number of bytes"),
        ({"shuffle_buffer": 0}, "shuffle_buffer is 0"),
        ({"split": "month"}, "unknown split 'month'"),
        ({"split": "hash", "test_share": 1.5}, "test share is 1.5"),
        ({"stream": True}, "did you mean 'streaming'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str, tiny_artefacts: Path) -> None:
    with pytest.raises(InputError, match=message):
        CONFIGS["VDN"]().offline_data(input_=[str(tiny_artefacts / "requests.parquet")]).training(**options).validate()


def test_the_samples_are_left_as_they_are(tmp_path: Path, tiny_requests: pd.DataFrame, tiny_scenario: Scenario) -> None:
    """Reading writes nothing beside a log."""
    write_request_log(tiny_requests, tmp_path / "log.csv", tiny_scenario)
    copy = tmp_path / "copy.csv"
    shutil.copy(tmp_path / "log.csv", copy)
    load_rows(tmp_path / "log.csv", tiny_scenario)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.csv", "log.csv"]
    assert copy.read_bytes() == (tmp_path / "log.csv").read_bytes()
