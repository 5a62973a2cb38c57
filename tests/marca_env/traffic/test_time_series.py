"""Traces as people have them: layouts, encodings, clocks, and how samples become minutes."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marca_env.traffic.time_series import TraceOptions, read_series
from marca_env.traffic.workload import read_trace
from marca_env.utils.errors import InputError
from tests.helpers.factories import make_tiny_scenario

TINY = make_tiny_scenario()
PUBLIC = Path(__file__).resolve().parents[4] / "shared" / "data" / "traces"
BERLIN = "Europe/Berlin"


def write(folder, text, name="t.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def series(path, **options):
    return read_series(path, TraceOptions(**options))


def day(step="5min", start="2021-05-03", value=lambda k: 10 + k % 7, days=1):
    times = pd.date_range(start, periods=int(pd.Timedelta(days=days) / pd.Timedelta(step)), freq=step)
    return pd.DataFrame({"timestamp": times, "value": [value(k) for k in range(len(times))]})


EXPECTED = [1577836800, 1577840400, 1577844000]  # 2020-01-01 00:00, 01:00 and 02:00
PLAIN = "timestamp,value\n2020-01-01 00:00,1\n2020-01-01 01:00,2500.5\n2020-01-01 02:00,3\n"
LAYOUTS = {
    "plain": PLAIN,
    "header in capitals with blanks": PLAIN.replace("timestamp,value", " Time Stamp , Value "),
    "any name of the values": PLAIN.replace("value", "http.requests{code=200}"),
    "other columns": PLAIN.replace("value", "Value,Label").replace("0,1\n", "0,1,x\n").replace("5\n", "5,\n"),
    "semicolons and decimal commas": PLAIN.replace(",", ";").replace(".", ","),
    "thousands and decimal commas": PLAIN.replace(",", ";").replace("2500.5", "2.500,5"),
    "quoted thousands": PLAIN.replace("2500.5", '"2,500.5"'),
    "Swiss thousands": PLAIN.replace("2500.5", "2’500.5"),
    "tabs": PLAIN.replace(",", "\t"),
    "vertical bars": PLAIN.replace(",", " | "),
    "comments first": "# exported 2020\n# by hand\n\n" + PLAIN,
    "a title first": "Category: All\n\n" + PLAIN,
    "Excel's separator line": "sep=;\n" + PLAIN.replace(",", ";"),
    "header in a comment": "# " + PLAIN,
    "no header": PLAIN.partition("\n")[2],
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "Windows line ends": PLAIN.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + PLAIN,
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-16 of big ends": PLAIN.encode("utf-16-be"),
    "UTF-32": PLAIN.encode("utf-32"),
    "Windows-1252": ("# für Köln\n" + PLAIN).encode("cp1252"),
    "gzip": gzip.compress(PLAIN.encode()),
    "epoch seconds": "time,value\n1577836800,1\n1577840400,2500.5\n1577844000,3\n",
    "epoch milliseconds": "time,value\n1577836800000,1\n1577840400000,2500.5\n1577844000000,3\n",
    "epoch microseconds": "ts,value\n1577836800000000,1\n1577840400000000,2500.5\n1577844000000000,3\n",
    "epoch nanoseconds": "ts,value\n1577836800000000000,1\n1577840400000000000,2500.5\n1577844000000000000,3\n",
    "epoch with a fraction": "ts,value\n1577836800.0,1\n1577840400.0,2500.5\n1577844000.0,3\n",
    "German dates": "Datum;Anfragen\n01.01.2020 00:00;1\n01.01.2020 01:00;2500,5\n01.01.2020 02:00;3\n",
    "American dates": "Date,Hits\n1/1/2020 12:00 AM,1\n1/1/2020 1:00 AM,2500.5\n1/1/2020 2:00 AM,3\n",
    "slashes, year first": "Date,Hits\n2020/01/01 0:00,1\n2020/01/01 1:00,2500.5\n2020/01/01 2:00,3\n",
    "months by name": "Date,Hits\n01-Jan-2020 00:00,1\n01-Jan-2020 01:00,2500.5\n01-Jan-2020 02:00,3\n",
    "date and time apart": "Date,Time,Hits\n2020-01-01,00:00,1\n2020-01-01,01:00,2500.5\n2020-01-01,02:00,3\n",
    "digits": "when,value\n202001010000,1\n202001010100,2500.5\n202001010200,3\n",
    "UTC": PLAIN.replace(":00,", ":00Z,"),
    "comma of the seconds": 'time,value\n"2020-01-01 00:00:00,0",1\n"2020-01-01 01:00:00,0",2500.5\n'
    '"2020-01-01 02:00:00,0",3\n',
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_usual_layout_is_the_same_series(name, tmp_path):
    read = series(write(tmp_path, LAYOUTS[name]))
    assert (read.instants // 1_000_000).tolist() == EXPECTED
    assert read.values.tolist() == [1.0, 2500.5, 3.0]


def test_thousands_without_decimals_are_told_from_decimals(tmp_path):
    rows = "t;value\n2020-01-01 00:00;{}\n2020-01-01 01:00;{}\n2020-01-01 02:00;{}\n"
    assert series(write(tmp_path, rows.format("950", "1.050", "2.200"))).values.tolist() == [950, 1050, 2200]
    assert series(write(tmp_path, rows.format("0,950", "1,05", "2,2"))).values.tolist() == [0.95, 1.05, 2.2]
    assert series(write(tmp_path, rows.format("1,234,567", "950", "1,000"))).values.tolist() == [1234567, 950, 1000]
    assert series(write(tmp_path, rows.format("0.950", "1.050", "2.200"))).values.tolist() == [0.95, 1.05, 2.2]


def test_parquet_is_read_with_its_types(tmp_path):
    frame = day(step="1h", start="2020-01-01")
    frame.to_parquet(tmp_path / "t.parquet")
    frame.set_index("timestamp").to_parquet(tmp_path / "i.parquet")
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(BERLIN)).to_parquet(tmp_path / "z.parquet")
    plain = series(tmp_path / "t.parquet")
    assert (plain.instants[:3] // 1_000_000).tolist() == EXPECTED
    assert np.array_equal(series(tmp_path / "i.parquet").instants, plain.instants)
    zoned = series(tmp_path / "z.parquet")
    assert np.array_equal(zoned.clock.to_local(zoned.instants), plain.instants)


def test_columns_are_named_by_option_in_any_case(tmp_path):
    path = write(
        tmp_path, "day,seen at,in,out\n1,2020-01-01 00:00,1,5\n2,2020-01-01 01:00,2,6\n3,2020-01-01 02:00,3,7\n"
    )
    read = series(path, time_column="Seen At", value_column="OUT")
    assert read.values.tolist() == [5, 6, 7]
    with pytest.raises(InputError, match=r"t\.csv: --value-column: unknown column 'ouch'; did you mean 'out'"):
        series(path, time_column="seen at", value_column="ouch")


# -- clocks --------------------------------------------------------------------------------------------------------
def test_offsets_that_change_with_summer_time_are_one_series(tmp_path):
    """Every hour of the local clock counts once, and the instants are an hour apart."""
    stamps = pd.date_range("2021-10-30", "2021-11-01", freq="h", tz=BERLIN)
    text = "timestamp,value\n" + "".join(f"{t.isoformat()},{10 + t.hour}\n" for t in stamps)
    read = series(write(tmp_path, text))
    assert set(np.diff(read.instants)) == {3_600_000_000}
    assert np.array_equal(read.instants, stamps.tz_convert("UTC").tz_localize(None).as_unit("us").asi8)
    traffic = read_trace(write(tmp_path, text), TINY, minutes=600, start="2021-10-31T12:00")
    assert traffic.first_minute == 720
    assert traffic.qps[0] / traffic.qps[540] == pytest.approx(22 / 31)  # 12 and 21 o'clock


@pytest.mark.parametrize("freq", ["h", "15min"])
def test_local_stamps_with_a_repeated_hour_need_the_time_zone(freq, tmp_path):
    stamps = pd.date_range("2021-10-30", "2021-11-02", freq=freq, tz=BERLIN)
    path = write(tmp_path, "t,value\n" + "".join(f"{t:%Y-%m-%d %H:%M},{k % 9}\n" for k, t in enumerate(stamps)))
    with pytest.raises(InputError, match=r"line \d+: t '2021-10-31 02:00' (repeats|is earlier .* --timezone)"):
        series(path)
    read = series(path, timezone=BERLIN)
    assert np.array_equal(read.instants, stamps.tz_convert("UTC").tz_localize(None).as_unit("us").asi8)


def test_local_stamps_with_a_missing_hour_have_no_gap(tmp_path):
    stamps = pd.date_range("2021-03-27", "2021-03-30", freq="h", tz=BERLIN)
    path = write(tmp_path, "t,value\n" + "".join(f"{t:%Y-%m-%d %H:%M},1\n" for t in stamps))
    read = series(path, timezone=BERLIN)
    assert set(np.diff(read.instants)) == {3_600_000_000}
    impossible = write(tmp_path, "t,value\n2021-03-28 01:00,1\n2021-03-28 02:30,1\n2021-03-28 04:00,1\n")
    with pytest.raises(InputError, match="line 3: t '2021-03-28 02:30' does not exist in Europe/Berlin"):
        series(impossible, timezone=BERLIN)


def test_instants_are_shown_in_the_time_zone(tmp_path):
    path = write(tmp_path, "t,value\n" + "".join(f"{1625097600 + 3600 * k},{k + 1}\n" for k in range(48)))
    assert read_trace(path, TINY, minutes=60, start="2021-07-01T06:00").first_minute == 360
    traffic = read_trace(path, TINY, minutes=60, start="2021-07-01T06:00", timezone=BERLIN)  # 04:00 UTC
    assert traffic.first_minute == 360
    assert traffic.qps[0] / traffic.qps[-1] == pytest.approx(5 / (5 + 59 / 60))


def test_history_follows_the_local_clock_over_a_change_of_summer_time(tmp_path):
    """The busiest hour is 18 o'clock of the local clock on every day, also before the change."""
    stamps = pd.date_range("2021-03-22", "2021-04-02", freq="h", tz=BERLIN)
    rows = "".join(f"{t.tz_convert('UTC'):%Y-%m-%dT%H:%M}Z,{100 if t.hour == 18 else 1}\n" for t in stamps)
    traffic = read_trace(write(tmp_path, "t,value\n" + rows), TINY, start="2021-03-31", timezone=BERLIN)
    assert traffic.history_days().argmax(axis=1).tolist() == [18 * 60] * 9
    assert traffic.qps.argmax() == 18 * 60


def test_an_unknown_time_zone_is_refused():
    with pytest.raises(InputError, match="--timezone 'Berlin': unknown; use a name such as Europe/Berlin"):
        TraceOptions(timezone="Berlin")


# -- minutes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seconds", [1, 15])
def test_samples_within_a_minute_are_averaged(seconds, tmp_path):
    rng = np.random.default_rng(0)
    frame = day(step=f"{seconds}s", value=lambda k: int(rng.poisson(20)), days=0.25)
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    traffic = read_trace(path, TINY, minutes=360)
    means = frame["value"].to_numpy().reshape(360, -1).mean(axis=1)
    assert traffic.qps == pytest.approx(means * 50 / means.max())


@pytest.mark.parametrize("step", ["1min", "5min", "30min", "1h"])
def test_a_day_of_samples_is_a_day(step, tmp_path):
    path = tmp_path / "t.csv"
    frame = day(step=step)
    frame.to_csv(path, index=False)
    traffic = read_trace(path, TINY)
    assert len(traffic) == 1440
    assert traffic.qps[-1] / traffic.qps.max() == pytest.approx(frame["value"].iloc[-1] / frame["value"].max())


def test_scrapes_that_begin_within_a_minute_are_a_day(tmp_path):
    frame = day(step="15s", start="2021-05-03 00:00:07")
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert len(read_trace(tmp_path / "t.csv", TINY)) == 1440


# -- gaps and outliers -----------------------------------------------------------------------------------------------
def with_gap(folder):
    """Write a day of minutes at 10, but 20 before the gap from 6 to 8 o'clock."""
    frame = day(step="1min", value=lambda k: 20 if k < 361 else 10)
    hour = frame["timestamp"].dt.hour + frame["timestamp"].dt.minute / 60
    frame[(hour <= 6) | (hour >= 8)].to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


@pytest.mark.parametrize(("fill", "middle"), [("interpolate", 37.5), ("previous", 50.0), ("zero", 0.0)])
def test_gaps_are_reported_and_filled_as_asked(fill, middle, tmp_path):
    traffic = read_trace(with_gap(tmp_path), TINY, fill=fill)
    assert traffic.qps[420] == pytest.approx(middle)
    assert (traffic.qps[359], traffic.qps[481]) == pytest.approx((50.0, 25.0))
    (note,) = traffic.notes
    assert note.endswith(f"t.csv: a gap of 120 minutes from 2021-05-03 06:00:00; filled by --fill {fill}")


def test_gaps_can_be_errors(tmp_path):
    path = with_gap(tmp_path)
    with pytest.raises(
        InputError, match="a gap of 120 minutes from 2021-05-03 06:00:00; use another --start, or --fill"
    ):
        read_trace(path, TINY, fill="error")
    assert read_trace(path, TINY, minutes=300, fill="error").notes == ()
    with pytest.raises(InputError, match="--fill: unknown choice 'guess'"):
        TraceOptions(fill="guess")


def test_missing_values_are_gaps(tmp_path):
    frame = day(step="1min").astype({"value": object})
    frame.loc[100:101, "value"] = "NaN"
    frame.to_csv(tmp_path / "short.csv", index=False)
    assert read_trace(tmp_path / "short.csv", TINY).notes == ()
    frame.loc[100:160, "value"] = ""
    frame.to_csv(tmp_path / "long.csv", index=False)
    assert "a gap of 62 minutes" in read_trace(tmp_path / "long.csv", TINY).notes[0]


def test_an_absurd_sample_is_named_and_does_not_set_the_peak(tmp_path):
    frame = day(step="1min")
    frame.loc[700, "value"] = 130_000
    frame.to_csv(tmp_path / "t.csv", index=False)
    traffic = read_trace(tmp_path / "t.csv", TINY)
    assert traffic.qps.max() == pytest.approx(50.0)
    assert np.median(traffic.qps) > 35
    assert "t.csv, line 702: value '130000' is 10,000 times the median" in traffic.notes[0]
    kept = read_trace(tmp_path / "t.csv", TINY, outliers="keep")
    assert kept.qps.argmax() == 700
    assert np.median(kept.qps) < 0.01
    with pytest.raises(InputError, match=r"line 702: value '130000' is 10,000 .* use --outliers drop"):
        read_trace(tmp_path / "t.csv", TINY, outliers="error")


def test_a_sale_that_lasts_is_no_outlier(tmp_path):
    frame = day(step="1min", value=lambda k: 5000 if 700 <= k < 730 else 10)
    frame.to_csv(tmp_path / "t.csv", index=False)
    traffic = read_trace(tmp_path / "t.csv", TINY)
    assert traffic.notes == ()
    assert (traffic.qps > 49).sum() == 30


# -- damaged files ---------------------------------------------------------------------------------------------------
def cut_zip(folder):
    with zipfile.ZipFile(folder / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", PLAIN * 200)
    return write(folder, (folder / "whole.zip").read_bytes()[:-30], "t.csv.zip")


def cut_parquet(folder, part):
    day().to_parquet(folder / "whole.parquet")
    whole = bytearray((folder / "whole.parquet").read_bytes())
    if part == "end":
        return write(folder, bytes(whole[: len(whole) // 2]), "t.parquet")
    whole[-200:-8] = bytes(192)
    return write(folder, bytes(whole), "t.parquet")


DAMAGES = {
    "gzip cut short": (lambda f: write(f, gzip.compress(PLAIN.encode() * 200)[:-40], "t.csv.gz"), "cut short"),
    "gzip of which little is left": (lambda f: write(f, gzip.compress(PLAIN.encode())[:12], "t.csv.gz"), "cut short"),
    "no gzip": (lambda f: write(f, "\x1f\x8bnothing".encode("latin-1"), "t.csv.gz"), "cannot be read"),
    "zip cut short": (cut_zip, "cut short"),
    "Parquet cut short": (lambda f: cut_parquet(f, "end"), "cut short"),
    "Parquet with damaged metadata": (lambda f: cut_parquet(f, "metadata"), "cut short"),
    "empty": (lambda f: write(f, ""), "is empty"),
    "blanks": (lambda f: write(f, " \n \n"), "is empty"),
    "header alone": (lambda f: write(f, "timestamp,value\n"), "no rows"),
    "a web page": (lambda f: write(f, "<!DOCTYPE html><html>"), "looks like a web page"),
    "JSON": (lambda f: write(f, '{"a": 1}'), "looks like JSON"),
    "a pointer": (lambda f: write(f, "version https://git-lfs.github.com/spec/v1\n"), "pointer of Git LFS"),
    "random bytes": (lambda f: write(f, np.random.default_rng(0).bytes(5000)), "cannot be read as text|not a text"),
    "a folder": (lambda f: f, "no such trace file"),
    "unbalanced quotes": (lambda f: write(f, PLAIN.replace("2020-01-01 01", '"2020-01-01 01')), "t.csv"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_one_line(name, tmp_path):
    make, expected = DAMAGES[name]
    with pytest.raises(InputError, match=expected) as error:
        read_trace(make(tmp_path), TINY)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("marca_env.logs.text_files.MOST_BYTES", 2**20)
    path = write(tmp_path, gzip.compress(b"0" * 2**23), "t.csv.gz")
    with pytest.raises(InputError, match="holds more than 1 MiB"):
        read_trace(path, TINY)


# -- public traces ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["ingress-01", "machine-01", "mongo-01", "mongo-03"])
def test_public_traces_of_services_are_read_as_published(name):
    path = PUBLIC / f"{name}.csv.gz"
    if not path.is_file():
        pytest.skip("the public traces are not beside this checkout; docs/how-to/your-traffic.md says where they are")
    traffic = read_trace(path, TINY)
    raw = pd.read_csv(path)["Value"].to_numpy()
    assert len(traffic.history) == 7 * 1440
    assert traffic.qps == pytest.approx(raw[7 * 1440 : 8 * 1440] * 50 / raw[7 * 1440 : 8 * 1440].max())
    assert traffic.notes == ()
