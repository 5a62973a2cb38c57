"""Feature codes: the same in every process, learnt once, and defined for unseen values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marca_env.integration.feature_coding import FeatureCoder, FeatureCoding, stable_hash, to_text
from marca_env.integration.mapping import FeatureMap
from marca_env.integration.number_columns import NumberColumn
from marca_env.utils.errors import InputError


def coder(**fields: object) -> FeatureCoder:
    log = pd.DataFrame({"x": fields.pop("log")})
    return FeatureCoder.fit([FeatureCoding("f", column="x", **fields)], log)  # type: ignore[arg-type]


def test_the_hash_is_the_same_in_every_process() -> None:
    code = "from marca_env.integration.feature_coding import stable_hash; print(stable_hash('Ōsaka'))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{stable_hash('Ōsaka')}\n"}


def test_a_hash_codes_any_number_of_values_and_unseen_values() -> None:
    f = coder(log=[f"id-{k}" for k in range(20_000)], coding="hash", size=32)
    counts = np.bincount(f.encode({"x": [f"id-{k}" for k in range(20_000)]})[:, 0], minlength=32)
    assert counts.min() > 500
    for never in ("new", None, float("nan"), "", "\ud800", 3.5, True, b"x"):
        assert 0 <= f.encode({"x": never})[0, 0] < 32


@pytest.mark.parametrize(("a", "b"), [(3, "3"), (3.0, "3"), ("3.0", 3), (np.int64(7), 7.0), (None, float("nan"))])
def test_equal_values_have_equal_text_however_they_are_stored(a: object, b: object) -> None:
    assert to_text(a) == to_text(b)


def test_an_id_keeps_its_zeros() -> None:
    assert to_text("007") != to_text("7")


def test_frequent_values_get_one_code_each_and_the_rest_share_one() -> None:
    f = coder(log=["b"] * 5 + ["a"] * 3 + ["c", "d"], coding="frequency", size=3)
    assert f.encode({"x": ["b", "a", "c", "d", "never", None]})[:, 0].tolist() == [0, 1, 2, 2, 2, 2]


def test_quantiles_fill_their_buckets_evenly_and_ties_stay_together() -> None:
    numbers = np.random.default_rng(0).exponential(size=4000)
    codes = coder(log=numbers, coding="quantile", size=8).encode({"x": numbers})[:, 0]
    assert np.bincount(codes).tolist() == pytest.approx([500] * 8, abs=2)
    tied = coder(log=[0.0] * 90 + [1.0] * 10, coding="quantile", size=5)
    assert tied.encode({"x": [0, 1, -5, 99, None]})[:, 0].tolist() == [0, 1, 0, 1, 0]


def test_time_of_day_is_read_from_times_minutes_and_dates() -> None:
    f = coder(log=["2025-01-01T00:00"], coding="time", size=24)
    assert f.encode({"x": ["2025-06-01 13:59:59", "719", "2030-01-01"]})[:, 0].tolist() == [13, 11, 0]
    assert f.encode({"x": pd.to_datetime(["2025-06-01 23:59"])})[0, 0] == 23


def test_time_of_day_is_that_of_the_local_clock_also_over_a_change_of_summer_time() -> None:
    f = coder(log=["2025-01-01T00:00"], coding="time", size=24)
    times = ["2025-03-30T01:30:00+01:00", "2025-03-30T03:30:00+02:00", "2025-10-26 02:30+01:00", "2025-10-26T12:00Z"]
    assert f.encode({"x": times})[:, 0].tolist() == [1, 3, 2, 12]


def test_a_saved_coder_gives_the_same_codes(tmp_path: Path) -> None:
    log = pd.DataFrame({"n": [1.0, 2.0, 3.0, 9.0], "c": ["u", "v", "u", "w"]})
    first = FeatureCoder.fit(
        [FeatureCoding("a", 3, "n", "quantile"), FeatureCoding("b", 2, "c", "frequency"), FeatureCoding("h", 5, "c")],
        log,
    )
    first.save(tmp_path / "features.json")
    again = FeatureCoder.load(tmp_path)
    np.testing.assert_array_equal(first.encode(log), again.encode(log))
    one = again.encode({"n": 2.5, "c": "never"})
    many = again.encode([{"n": 2.5, "c": "never"}, {"n": 0, "c": "u"}])
    assert one.shape == (1, 3)
    np.testing.assert_array_equal(one[0], many[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"log": [1], "coding": "hsh", "size": 2}, "unknown coding 'hsh'; did you mean 'hash'"),
        ({"log": [1], "size": 0}, "size is 0"),
        ({"log": ["00:00"], "coding": "time", "size": 7}, "must divide a day"),
        (
            {"log": ["1", "a"], "coding": "quantile", "size": 2},
            r"row 2, column 'x' \(feature 'f'\): 'a' is not a number",
        ),
        ({"log": [0, 5], "coding": "code", "size": 2}, "row 2, column 'x'.* 5 is not a whole number of 0 … 1"),
        ({"log": ["soon"], "coding": "time", "size": 2}, "'soon' is neither a date and time nor a minute"),
        ({"log": [1440], "coding": "time", "size": 2}, "1440 is neither"),
    ],
)
def test_values_that_cannot_be_coded_are_named(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        coder(**fields)


def numeric(log: pd.DataFrame, *columns: str) -> FeatureCoder:
    """Return a coder of one feature of numbers."""
    numbers = tuple(NumberColumn(name) for name in columns)
    return FeatureCoder.fit([FeatureCoding("f", len(columns), columns[0], "numeric", numbers=numbers)], log)


def test_numbers_are_standardised_by_the_log() -> None:
    rng = np.random.default_rng(0)
    log = pd.DataFrame({"a": rng.normal(50, 10, 500), "b": rng.exponential(3, 500)})
    f = numeric(log, "a", "b")
    states = f.encode(log)
    assert states.dtype == np.float64
    np.testing.assert_allclose(states[:, 0], (log["a"] - log["a"].mean()) / log["a"].std(ddof=0), atol=1e-12)
    np.testing.assert_allclose(states.mean(axis=0), 0, atol=1e-12)
    assert f.encode({"a": "60", "b": 1e9})[0, 1] == 10.0  # text of a number counts; far numbers count as ten deviations
    assert f.codings[0].width == 2


def test_missing_numbers_are_the_mean_and_marked_where_the_log_lacked_some() -> None:
    f = numeric(pd.DataFrame({"a": [1.0, 3.0, None, 3.0], "b": [1.0, 2.0, 3.0, 4.0]}), "a", "b")
    assert [n.missing for n in f.codings[0].numbers] == [0.25, 0.0]
    assert f.codings[0].width == 3
    states = f.encode([{"a": None, "b": 2.5}, {"a": "", "b": None}, {"a": 3, "b": 2.5}])
    assert states[:, 2].tolist() == [1.0, 1.0, 0.0]
    assert states[:2, :2].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_constant_numbers_stay_finite() -> None:
    assert numeric(pd.DataFrame({"a": [1e12] * 5}), "a").encode({"a": [1e12, 1e12 + 3]})[:, 0].tolist() == [0.0, 3.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, "abc"], r"log: row 2, column 'a' \(feature 'f'\): 'abc' is not a finite number"),
        ([1.0, 2.0, float("inf")], r"row 3, column 'a' \(feature 'f'\): inf is not a finite number"),
        ([1.0, -1e300], "row 2, column 'a' .*: -1e\\+300 is larger than 1e\\+15"),
        ([None, None], "column 'a' has no numbers"),
    ],
)
def test_what_is_not_a_number_is_refused(values: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        numeric(pd.DataFrame({"a": values}), "a")


def test_a_missing_column_of_numbers_is_named() -> None:
    with pytest.raises(InputError, match="column 'b' of feature 'f' is missing"):
        numeric(pd.DataFrame({"a": [1.0]}), "a", "b")
    with pytest.raises(InputError, match="size is 2, but it has 1 columns"):
        FeatureCoding("f", 2, "a", "numeric", numbers=(NumberColumn("a"),))


def test_numbers_and_signals_come_back_from_the_file(tmp_path: Path) -> None:
    log = pd.DataFrame({"a": [1.0, None, 4.0], "c": ["x", "y", "x"]})
    f = FeatureCoder([*numeric(log, "a").codings, FeatureCoding("c", 4, "c")], [NumberColumn("s", 5.0, 2.0)])
    f.save(tmp_path / "features.json")
    again = FeatureCoder.load(tmp_path)
    assert again.codings == f.codings
    np.testing.assert_array_equal(again.encode(log), f.encode(log))
    assert again.encode_signals({"s": [7.0, None, 1e9]}).tolist() == [[1.0], [0.0], [10.0]]
    (tmp_path / "features.json").write_text(
        (tmp_path / "features.json").read_text().replace('"std": 2.0', '"std": 0.0')
    )
    with pytest.raises(InputError, match=r"std is 0\.0; it must be positive"):
        FeatureCoder.load(tmp_path)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"size": 2, "columns": ["a"], "coding": "hash"}, "columns belong to coding 'numeric'"),
        ({"columns": ["a"], "column": "b", "coding": "numeric"}, "use one of the two"),
        ({"coding": "hash"}, "no size; add 'size'"),
        ({"size": 3, "columns": ["a", "b"], "coding": "numeric"}, "size is 3, but it has 2 columns"),
    ],
)
def test_mappings_of_features_that_do_not_fit_are_refused(feature: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FeatureMap("f", **feature)


@pytest.mark.parametrize(
    ("feature", "columns"),
    [
        ({}, ["f"]),
        ({"column": "x"}, ["x"]),
        ({"size": 3}, ["f_0", "f_1", "f_2"]),
        ({"size": 2, "column": "x"}, ["x_0", "x_1"]),
        ({"columns": ("u", "v")}, ["u", "v"]),
    ],
)
def test_mapping_names_the_columns_of_numbers(feature: dict, columns: list[str]) -> None:
    assert [n.column for n in FeatureMap("f", coding="numeric", **feature).to_coding().numbers] == columns
