"""Request logs as rows: file formats, chunks, and errors with their place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents.offline import chunks as chunks_module
from agents.offline.chunks import log_chunks, log_files
from agents.offline.episodes import EpisodeEncoder
from agents.offline.rows import load_rows, read_chunk
from marca_env.integration.fit_system import fit_system
from marca_env.integration.logged_system import read_logged_system
from marca_env.integration.mapping import Mapping
from marca_env.logs.log_files import write_request_log
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.paths import SAMPLES
from tests.helpers.request_logs import write_parquet

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are missing")


def test_every_file_format_gives_the_same_rows(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, rows: np.ndarray, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr(chunks_module, "_SCAN_BYTES", 7_777)  # chunks and reads end at different bytes
    for name in ("one.parquet", "one.csv", "one.tsv"):
        write_request_log(tiny_requests, tmp_path / name, tiny_scenario)
    for k in range(3):
        part = tiny_requests.iloc[k * 2000 : (k + 1) * 2000]
        write_request_log(part, tmp_path / "parts" / "day" / f"{k}.parquet", tiny_scenario)
        write_parquet(part, tmp_path / "groups" / f"{k}.parquet", 300)
    (tmp_path / "parts" / "_SUCCESS.csv").write_text("")
    (tmp_path / "parts" / "notes.txt").write_text("not a log")
    with (tmp_path / "one.csv").open("ab") as file:
        file.write(b"\r\n\n")  # blank lines at the end do not count as rows
    forms: list[Any] = ["one.parquet", "one.csv", "one.tsv", "parts", "groups/*.parquet", "parts/**/*.parquet"]
    sources = [str(tmp_path / form) for form in forms] + [[tmp_path / "groups" / f"{k}.parquet" for k in range(3)]]
    for source in sources:
        assert np.array_equal(load_rows(source, tiny_scenario), rows), source
    chunks = log_chunks(log_files(str(tmp_path / "one.csv")), tiny_scenario)
    assert len(chunks) > 5
    assert sum(p.rows for p in chunks) == len(rows)
    groups = log_chunks(log_files(tmp_path / "groups"), tiny_scenario)
    assert [p.rows for p in groups[:7]] == [300] * 6 + [200]
    assert [(p.file, p.first_row, p.offset) for p in groups[6:9]] == [(0, 1800, 1800), (1, 0, 2000), (1, 300, 2300)]
    assert np.array_equal(read_chunk(groups[8], tiny_scenario), rows[2300:2600])


def test_missing_files_are_refused(tmp_path: Path, tiny_scenario: Scenario) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in [
        (tmp_path / "empty", "no log in this folder"),
        (str(tmp_path / "*.csv"), "no file matches"),
        (tmp_path / "none.parquet", "no such file"),
        ([], "no log given"),
    ]:
        with pytest.raises(InputError, match=message):
            load_rows(source, tiny_scenario)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def published_system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario made from the published samples: `marca fit` without a mapping."""
    folder = tmp_path_factory.mktemp("published")
    mapping = Mapping.load("published")
    system = read_logged_system(mapping, *(SAMPLES / f"{name}.csv" for name in ("requests", "costs", "system")))
    fit_system(system, folder, members=1, seed=0)
    return folder


@pytest.mark.slow
@needs_samples
def test_the_published_sample_is_read_with_the_models_of_its_own_scenario(published_system: Path) -> None:
    """The scenario's coding gives the states, its cost model the action results that the sample lacks."""
    rows = load_rows(SAMPLES / "requests.csv", published_system)  # type: ignore[arg-type]
    own = load_rows(published_system / "requests.parquet", published_system)  # type: ignore[arg-type]
    assert rows["states"].tolist() == own["states"].tolist()
    assert rows["actions"].tolist() == own["actions"].tolist()
    assert rows["actions"][0].tolist() == [2, 4, 0, 0, 2]
    assert rows["reward"].tolist() == pd.read_csv(SAMPLES / "requests.csv", header=None)[9].tolist()
    assert np.isfinite(EpisodeEncoder(published_system)(rows)["state"]).all()  # type: ignore[arg-type]
    with pytest.raises(InputError, match="column 'revenue' is missing; use a log with the revenue"):
        load_rows(SAMPLES / "costs.csv", published_system)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be the only file"):
        load_rows([SAMPLES / "requests.csv", SAMPLES / "requests.csv"], published_system)  # type: ignore[arg-type]


@needs_samples
def test_ids_that_are_not_codes_are_refused() -> None:
    with pytest.raises(InputError, match="is not a code of feature 'uv' of scenario 'default'"):
        load_rows(SAMPLES / "requests.csv")


BAD: list[tuple[str, Any, str]] = [
    ("truncation", 3, r"row 4501, column 'truncation' .*3 is out of range 0 … 2"),
    ("revenue", -0.25, r"row 4501, column 'revenue' .*-0.25 is below 0"),
    ("revenue", np.nan, r"row 4501, column 'revenue' .*is empty"),
    ("uv", 0.5, r"row 4501, column 'uv' .*0.5 must be a whole number"),
]


def spoilt(frame: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    """Return the log with one bad value in row 4,501."""
    frame = frame.astype({column: float}) if isinstance(value, float) else frame.copy()
    frame.loc[4500, column] = value
    return frame


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(("column", "value", "message"), BAD)
def test_a_bad_row_is_named_by_its_row_in_the_file(
    tiny_requests: pd.DataFrame,
    tiny_scenario: Scenario,
    tmp_path: Path,
    monkeypatch: Any,
    suffix: str,
    column: str,
    value: Any,
    message: str,
) -> None:
    """The error names the row in the file, not in the chunk."""
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 20_000)
    frame = spoilt(tiny_requests, column, value)
    path = tmp_path / f"bad.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        write_parquet(frame, path, 1000)
    with pytest.raises(InputError, match=rf"^{path}: {message}"):
        load_rows(path, tiny_scenario)


def test_unreadable_logs_are_one_error(tiny_requests: pd.DataFrame, tiny_scenario: Scenario, tmp_path: Path) -> None:
    good = write_parquet(tiny_requests, tmp_path / "good.parquet", 1000)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-50])
    torn = tmp_path / "torn.parquet"  # the footer is intact, the rows are not
    data = bytearray(good.read_bytes())
    data[2000:30_000] = bytes(28_000)
    torn.write_bytes(data)
    empty = tmp_path / "empty.csv"
    tiny_requests.iloc[:0].to_csv(empty, index=False)
    nothing = tmp_path / "nothing.parquet"
    nothing.write_bytes(b"")
    write_parquet(tiny_requests.iloc[:0], tmp_path / "norows.parquet", 10)
    write_parquet(tiny_requests.drop(columns="gmv"), tmp_path / "lacking.parquet", 1000)
    (tmp_path / "blank.csv").write_text(tiny_requests.head(3).to_csv(index=False).replace("\n", "\n\n"))
    ragged = tiny_requests.head(3).to_csv(index=False).splitlines()
    (tmp_path / "ragged.csv").write_text("\n".join([*ragged[:2], ragged[2] + ",1,2"]))
    for name, message in [
        ("cut.parquet", "cannot be read .*cut short"),
        ("torn.parquet", r"rows 1 to 1000: cannot be read .*cut short"),
        ("empty.csv", "no rows; write the log again"),
        ("norows.parquet", "no rows; write the log again"),
        ("nothing.parquet", "the file is empty"),
        ("lacking.parquet", "column 'gmv' is missing; use a log with the columns uv, "),
        ("blank.csv", "3 rows in 6 lines; remove blank lines"),
        ("ragged.csv", "cannot be read|more fields than the header"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load_rows(tmp_path / name, tiny_scenario)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_empty_files_of_a_log_are_skipped(
    tiny_requests: pd.DataFrame, tiny_scenario: Scenario, rows: np.ndarray, tmp_path: Path
) -> None:
    write_parquet(tiny_requests.iloc[:0], tmp_path / "0.parquet", 10)
    write_parquet(tiny_requests, tmp_path / "1.parquet", 4000)
    assert np.array_equal(load_rows(tmp_path, tiny_scenario), rows)


def test_reading_writes_no_files(tmp_path: Path, tiny_requests: pd.DataFrame, tiny_scenario: Scenario) -> None:
    """Reading a log writes no files beside it."""
    write_request_log(tiny_requests, tmp_path / "log.csv", tiny_scenario)
    copy = tmp_path / "copy.csv"
    shutil.copy(tmp_path / "log.csv", copy)
    load_rows(tmp_path / "log.csv", tiny_scenario)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.csv", "log.csv"]
    assert copy.read_bytes() == (tmp_path / "log.csv").read_bytes()
