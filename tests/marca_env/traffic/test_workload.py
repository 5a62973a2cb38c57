"""Traffic from trace files and from the generator."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.traffic.workload import daily_traffic, read_trace
from marca_env.utils.errors import InputError


def write(path, rows, header="timestamp,value"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def hours(n, value=lambda k: 10 + k % 7):
    return [f"2020-01-{1 + k // 24:02d} {k % 24:02d}:00:00,{value(k)}" for k in range(n)]


def test_values_are_interpolated_to_minutes_and_scaled_to_the_peak(tmp_path, tiny_scenario):
    trace = write(tmp_path / "t.csv", ["2020-01-01 00:00:00,0", "2020-01-01 01:00:00,60", "2020-01-01 02:00:00,0"])
    traffic = read_trace(trace, tiny_scenario, minutes=100)
    assert traffic.qps.max() == pytest.approx(50.0)
    assert traffic.qps[30] == pytest.approx(25.0)
    assert traffic.qps[90] == pytest.approx(25.0)
    assert traffic.first_minute == 0


def test_the_window_starts_where_asked_and_keeps_its_history(tmp_path, tiny_scenario):
    trace = write(tmp_path / "t.csv", hours(24 * 9))
    traffic = read_trace(trace, tiny_scenario, minutes=60, start="2020-01-05T06:30")
    assert traffic.first_minute == 390
    assert len(traffic.history) == 4 * 1440 + 390
    assert traffic.minute_of_day(-1) == 389
    default = read_trace(trace, tiny_scenario)
    assert default.first_minute == 0
    assert len(default.history) == 7 * 1440


def test_stamps_with_a_time_zone_are_read_as_local_time(tmp_path, tiny_scenario):
    trace = write(tmp_path / "t.csv", [row.replace(":00,", ":00+02:00,") for row in hours(48)])
    traffic = read_trace(trace, tiny_scenario, minutes=60, start="2020-01-01T06:30")
    assert traffic.first_minute == 390


def test_a_generated_day_needs_at_least_one_minute(tiny_scenario):
    with pytest.raises(InputError, match="minutes is 0"):
        daily_traffic(tiny_scenario, np.random.default_rng(0), 0)


@pytest.mark.parametrize(
    ("rows", "header", "expected"),
    [
        ([f"{row},7" for row in hours(3)], "timestamp,a,b", "several columns could be the values .* --value-column"),
        ([f"x{row}" for row in hours(3)], "a,value", "no column of dates .found: a 'x2020-01-01 .*pass --time-column"),
        ([f"{row}q" for row in hours(3)], "timestamp,a", "line 2: a '10q' is not a number; keep the number alone"),
        ([hours(3)[0]], "timestamp,value", "at least two"),
        ([*hours(3), hours(3)[2]], "timestamp,value", "line 5: timestamp .* repeats"),
        (hours(3)[::-1], "timestamp,value", "line 3: timestamp .* earlier"),
        (hours(3, lambda k: "nan"), "timestamp,value", "column 'value' has 0 rows with a value"),
        (hours(3, lambda k: ""), "timestamp,value", "column 'value' has 0 rows with a value"),
        (hours(3, lambda k: "many"), "timestamp,value", "line 2: value 'many'"),
        (hours(3, lambda k: 1 - k), "timestamp,value", "line 4: value '-1' is negative"),
        (["yesterday,3", *hours(2)], "timestamp,value", "line 2: timestamp 'yesterday' is not a date"),
        (hours(3, lambda k: 0), "timestamp,value", "is zero"),
        ([f"{row},7" for row in hours(3)], "timestamp,value", "more fields than its header .*decimal commas"),
        ([hours(3)[0], f"{hours(3)[1]},7", hours(3)[2]], "timestamp,value", r"not a readable CSV file: [^\n]+$"),
        (["2020-01-01T00:00Z,1", "2020-01-01T01:00,1"], "timestamp,value", "line 3: timestamp .* has no offset"),
        (hours(3, lambda k: "inf"), "timestamp,value", "line 2: value 'inf' is not a finite number"),
        (hours(3, lambda k: "1e308"), "timestamp,value", "line 2: value '1e308' is above 1e.15.* .and 2 more"),
        (["9999-01-01,1", "9999-01-02,1"], "timestamp,value", "line 2: timestamp '9999-01-01' .* years 1970 to 2099"),
        (["0001-01-01,1", "2020-01-02,1"], "timestamp,value", "line 2: timestamp '0001-01-01' .* years 1970 to 2099"),
        (["2020-01-01,1", "2999-01-02,1"], "timestamp,value", "line 3: timestamp '2999-01-02' .* years 1970 to 2099"),
        (["1577836800,1", "99999999999,1"], "timestamp,value", "line 3: timestamp .* years 1970 to 2099"),
        (["1577836800,1", "inf,1"], "timestamp,value", "line 3: timestamp .inf. is not finite"),
        (["1,1", "2,1", "3,1"], "timestamp,value", "line 2: timestamp '1' looks like a counter"),
        ([hours(3)[0], ",4", hours(3)[2]], "timestamp,value", "line 3: timestamp '' is empty"),
        (
            ["2020-01-01 00:00 CEST,1", "2020-01-01 01:00 CEST,1"],
            "timestamp,value",
            "name of a time zone",
        ),
        (["2020-01-01 00:00 1", "2020-01-01 01:00 1"], "timestamp value", "looks like one column"),
    ],
)
def test_errors_in_a_trace_name_the_line(tmp_path, tiny_scenario, rows, header, expected):
    with pytest.raises(InputError, match=expected):
        read_trace(write(tmp_path / "t.csv", rows, header), tiny_scenario, minutes=30)


def test_impossible_windows_are_refused(tmp_path, tiny_scenario):
    trace = write(tmp_path / "t.csv", hours(24))
    with pytest.raises(InputError, match="covers 1440 minutes, fewer than the 1441"):
        read_trace(trace, tiny_scenario, minutes=1441)
    with pytest.raises(InputError, match="use a time in"):
        read_trace(trace, tiny_scenario, minutes=60, start="2021-01-01")
    with pytest.raises(InputError, match="is not a date"):
        read_trace(trace, tiny_scenario, minutes=60, start="soon")
    with pytest.raises(InputError, match="no such trace"):
        read_trace(tmp_path / "none.csv", tiny_scenario)
    with pytest.raises(InputError, match="use at least 1"):
        read_trace(trace, tiny_scenario, minutes=0)
    with pytest.raises(InputError, match="at most 527040, a year"):
        read_trace(trace, tiny_scenario, minutes=10**12)
    with pytest.raises(InputError, match="did you mean 'timezone'"):
        read_trace(trace, tiny_scenario, timezome="Europe/Berlin")


def test_generated_days_are_seeded_and_peak_at_the_scenarios_peak(tiny_scenario):
    one = daily_traffic(tiny_scenario, np.random.default_rng(1))
    assert np.array_equal(one.qps, daily_traffic(tiny_scenario, np.random.default_rng(1)).qps)
    assert not np.array_equal(one.qps, daily_traffic(tiny_scenario, np.random.default_rng(2)).qps)
    assert one.qps.max() == pytest.approx(50.0)
    assert one.qps.min() > 0
    assert one.qps.min() < 20.0
