"""Logs: written and read unchanged; every fault is named with file, row and column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marca_env.logs.log_files import (
    read_cost_log,
    read_request_log,
    read_system_log,
    write_cost_log,
    write_request_log,
    write_system_log,
)
from marca_env.logs.raw_tables import read_raw
from marca_env.logs.schema import check_table, decision_columns, system_columns
from marca_env.scenario.parts import Feature
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.factories import make_cost_log
from tests.helpers.paths import SAMPLES

published = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not at hand")


def system_log() -> pd.DataFrame:
    columns = {"day": [0, 0], "minute": [0, 1], "qps": [10.0, 11.5]}
    for cluster in ("retrieval", "ranking"):
        columns |= {f"load_{cluster}": [0.5, 0.6], f"price_{cluster}": [0.0, 1.5]}
        columns |= {f"degradation_{cluster}": [0, 1], f"backlog_{cluster}": [0.0, 0.1]}
    return pd.DataFrame(columns | {"revenue": [1.0, 2.0]})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_written_logs_are_read_unchanged(
    suffix: str, tmp_path: Path, tiny_scenario: Scenario, tiny_requests: pd.DataFrame
) -> None:
    costs, system = make_cost_log(tiny_scenario), system_log()
    write_request_log(tiny_requests, tmp_path / f"r{suffix}", tiny_scenario)
    write_cost_log(costs, tmp_path / f"c{suffix}")
    write_system_log(system, tmp_path / f"s{suffix}", tiny_scenario.cluster_names)
    read = read_request_log(tmp_path / f"r{suffix}", tiny_scenario)
    pd.testing.assert_frame_equal(read, tiny_requests, check_dtype=False)
    pd.testing.assert_frame_equal(read_cost_log(tmp_path / f"c{suffix}"), costs, check_dtype=False)
    pd.testing.assert_frame_equal(read_system_log(tmp_path / f"s{suffix}"), system, check_dtype=False)
    assert (read[list(tiny_scenario.decision_names)].dtypes == np.int64).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"c{suffix}", f"r{suffix}", f"s{suffix}"]


@pytest.mark.parametrize("rows", [slice(1, None), slice(1, 2)], ids=["all", "the first"])
def test_surplus_fields_are_refused(
    rows: slice, tmp_path: Path, tiny_scenario: Scenario, tiny_requests: pd.DataFrame
) -> None:
    """A surplus field would shift the others."""
    lines = tiny_requests.head(5).to_csv(index=False).splitlines()
    lines[rows] = [f"{line},7" for line in lines[rows]]
    (tmp_path / "r.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"more fields than its header|cannot be read"):
        read_request_log(tmp_path / "r.csv", tiny_scenario)


def put(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return change


BAD_REQUESTS = {
    "missing feature": (lambda f: f.drop(columns="uv"), ["column 'uv' is missing"]),
    "missing decision": (lambda f: f.drop(columns="truncation"), ["column 'truncation' is missing"]),
    "missing result": (lambda f: f.drop(columns="result_ranking"), ["column 'result_ranking' is missing"]),
    "no rows": (lambda f: f.head(0), ["no rows"]),
    "empty cell": (put("revenue", 3, None), ["row 4", "'revenue'", "is empty"]),
    "infinite": (put("revenue", 0, "inf"), ["row 1", "'revenue'", "not a finite number"]),
    "text": (put("clicks", 2, "many"), ["row 3", "'clicks'", "'many'", "not a finite number"]),
    "negative revenue": (put("revenue", 5, -0.5), ["row 6", "'revenue'", "below 0"]),
    "negative option": (put("channels", 1, -1), ["row 2", "'channels'", "below 0"]),
    "option out of range": (put("truncation", 7, 3), ["row 8", "'truncation'", "option index", "0 … 2"]),
    "feature out of range": (put("uv", 7, 3), ["row 8", "'uv'", "0 … 2"]),
    "fraction of an option": (put("rescoring", 4, 0.5), ["row 5", "'rescoring'", "whole number"]),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_malformed_request_log_is_named(
    case: str, suffix: str, tmp_path: Path, tiny_scenario: Scenario, tiny_requests: pd.DataFrame
) -> None:
    change, expected = BAD_REQUESTS[case]
    frame, path = change(tiny_requests.head(20)), tmp_path / f"log{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.astype({c: str for c in frame if frame[c].dtype == object}).replace("None", None).to_parquet(path)
    with pytest.raises(InputError) as error:
        read_request_log(path, tiny_scenario)
    for part in (str(path), *expected):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("cost", -1e-3, ["row 2", "'cost'", "core-seconds per request", "below 0"]),
        ("cost", np.nan, ["row 2", "'cost'", "is empty"]),
        ("stage", None, ["row 2", "'stage'", "is empty"]),
        ("repeat", 0.5, ["row 2", "'repeat'", "whole number"]),
    ],
)
def test_a_malformed_cost_log_is_named(
    column: str, value: object, expected: list[str], tmp_path: Path, tiny_scenario: Scenario
) -> None:
    put(column, 1, value)(make_cost_log(tiny_scenario)).to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(InputError) as error:
        read_cost_log(tmp_path / "c.csv")
    assert all(part in str(error.value) for part in expected)


def test_a_system_log_needs_its_clusters(tmp_path: Path) -> None:
    system_log().drop(columns="price_ranking").to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(InputError, match="'price_ranking' is missing"):
        read_system_log(tmp_path / "s.csv")
    system_log()[["day", "minute", "qps"]].to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(InputError, match="load_<cluster>"):
        read_system_log(tmp_path / "s.csv")


def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, tiny_scenario: Scenario, tiny_requests: pd.DataFrame
) -> None:
    whole = tmp_path / "whole.parquet"
    write_request_log(tiny_requests, whole, tiny_scenario)
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "empty.csv").touch()
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3,4\n")
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    problems = {
        "cut.parquet": "cut short",
        "empty.csv": "empty",
        "ragged.csv": "line 3",
        "binary.csv": "save it as CSV in UTF-8",
    }
    for name, problem in {**problems, "none.csv": "no such file", "log.xlsx": "unknown kind of file"}.items():
        with pytest.raises(InputError, match=problem) as error:
            read_request_log(tmp_path / name, tiny_scenario)
        assert name in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        pd.date_range("2020-01-01", periods=2),
        pd.date_range("2020-01-01", periods=2, tz="Europe/Berlin"),
        pd.to_timedelta([1, 2], unit="s"),
        [b"1.5", b"2.5"],
        [np.datetime64("2020-01-01"), 1.0],
        [timedelta(seconds=1), 1.0],
        [date(2020, 1, 1), 1.0],
        [1.0 + 0j, 2.0 + 0j],
        [complex(1), 2.0],
    ],
    ids=lambda v: type(v[0]).__name__,
)
def test_revenue_of_another_type_is_refused(values: Any, tmp_path: Path) -> None:
    log = system_log().assign(revenue=values)
    with pytest.raises(InputError, match=r"row 1, column 'revenue': .* is not a number; write a plain number"):
        check_table(log, system_columns(("retrieval", "ranking")), "log")
    if "complex" not in str(log["revenue"].dtype) and not isinstance(values, list):
        log.to_parquet(tmp_path / "log.parquet")
        with pytest.raises(InputError, match=r"'revenue': .* is not a number"):
            read_system_log(tmp_path / "log.parquet")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_logs_of_other_programs_are_read(encoding: str, separator: str, tmp_path: Path) -> None:
    """Semicolons come with decimal commas; a name beyond ASCII tells Windows-1252 from UTF-8."""
    log = system_log().assign(Größe=1.5)
    text = log.to_csv(index=False, sep=separator, decimal="," if separator == ";" else ".")
    (tmp_path / "s.csv").write_bytes(text.encode(encoding))
    pd.testing.assert_frame_equal(read_system_log(tmp_path / "s.csv"), log, check_dtype=False)
    raw = read_raw(tmp_path / "s.csv")
    assert raw.columns.tolist() == log.columns.tolist()
    assert raw["qps"].tolist() == ["10.0", "11.5"]


def test_damaged_metadata_of_parquet_are_one_line(tmp_path: Path) -> None:
    """The footer steers the reader: whatever byte is wrong there, the error names the file, or the log is read."""
    system_log().to_parquet(tmp_path / "whole.parquet")
    whole, rng = (tmp_path / "whole.parquet").read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(max(0, len(whole) - 4000), len(whole) - 4, 12):
            damaged[place] = int(rng.integers(256))
        (tmp_path / "s.parquet").write_bytes(damaged)
        try:
            read_system_log(tmp_path / "s.parquet")
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(message.startswith(str(tmp_path / "s.parquet")) for message in messages)
    assert max(map(len, messages)) < 600
    assert "\n" not in "".join(messages)


def test_an_invalid_log_is_not_written(tmp_path: Path, tiny_scenario: Scenario, tiny_requests: pd.DataFrame) -> None:
    path = tmp_path / "r.parquet"
    with pytest.raises(InputError, match="'uv'"):
        write_request_log(tiny_requests.assign(uv=99), path, tiny_scenario)
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_column_is_refused(tiny_scenario: Scenario, tiny_requests: pd.DataFrame) -> None:
    twice = pd.concat([tiny_requests, tiny_requests[["truncation"]]], axis=1)
    with pytest.raises(InputError, match="'truncation' appears twice"):
        check_table(twice, decision_columns(tiny_scenario), "log")


@published
def test_the_published_samples_are_read() -> None:
    scenario = Scenario.load("default")
    features = tuple(Feature(name, 10_000) for name in ("uv", "w", "g", "i"))
    ids = scenario.replace(features=features)  # wide enough for the published ids
    requests = read_request_log(SAMPLES / "requests.csv", ids)
    assert len(requests) == 10
    assert requests["revenue"].tolist() == [0, 0, 1, 0, 0, 0, 1, 1, 0, 0]
    assert requests.loc[2, list(scenario.decision_names)].tolist() == [3, 4, 4, 0, 3]
    check_table(requests, decision_columns(scenario), "sample")
    assert requests["uv"].tolist()[:3] == [2, 36, 13]  # as they are
    results = read_cost_log(SAMPLES / "costs.csv")
    assert results[["result_1", "result_2"]].to_numpy().tolist()[:3] == [[0, 0], [0, 1], [1, 1]]
    assert len(read_request_log(SAMPLES / "costs.csv", ids)) == 10


@published
def test_ids_that_are_not_codes_of_the_scenario_are_refused() -> None:
    """They used to be ranked into the buckets in silence."""
    with pytest.raises(InputError, match=r"row 2: id 36 is not a code of feature 'uv' .*marca fit --requests"):
        read_request_log(SAMPLES / "requests.csv")
    scenario = Scenario.load("default")
    features = (*(Feature(name, 10_000) for name in ("uv", "w", "g", "i")), Feature("history", 5))
    with pytest.raises(InputError, match="no column for feature 'history'"):
        read_request_log(SAMPLES / "requests.csv", scenario.replace(features=features))


@published
def test_each_published_transition_becomes_two_minutes_of_a_day() -> None:
    log = read_system_log(SAMPLES / "system.csv")
    assert len(log) == 20
    first = log[log["day"] == 0]
    assert first["minute"].tolist() == [502, 503]
    np.testing.assert_allclose(first["load_retrieval"], [5.483670403874975, 11.540777954040884])
    np.testing.assert_allclose(log.loc[log["day"] == 1, "price_ranking"], 17.821196, rtol=1e-6)


def test_a_headerless_log_of_another_shape_is_refused(tmp_path: Path, tiny_scenario: Scenario) -> None:
    (tmp_path / "r.csv").write_text("2,47,591,1,2,4,0,0,2,0\n36,54,6034,0,2,4,0,0,2,0\n")
    with pytest.raises(InputError, match="five decisions"):
        read_request_log(tmp_path / "r.csv", tiny_scenario)
    with pytest.raises(InputError, match="10 columns and no header"):
        read_cost_log(tmp_path / "r.csv")
    (tmp_path / "r.csv").write_text("2,47,591,1,2,4,0,0,9,0\n36,54,6034,0,2,4,0,0,2,0\n")
    wide = Scenario.load("default").replace(features=tuple(Feature(name, 10_000) for name in ("uv", "w", "g", "i")))
    with pytest.raises(InputError, match="row 1, column 'truncation'"):
        read_request_log(tmp_path / "r.csv", wide)
