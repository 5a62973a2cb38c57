"""Malformed traces: whatever is in a file, it is read or refused in one line."""

from __future__ import annotations

import gzip
import random
import warnings

import pandas as pd
import pytest

from marca_env.traffic.workload import read_trace
from marca_env.utils.errors import InputError
from tests.helpers.factories import make_tiny_scenario

TINY = make_tiny_scenario()
STAMPS = (
    *("2020-01-01 00:00", "2020-01-01T01:00Z", "2020-01-01T00:00+02:00", "2020-01-01T00:00+99:99", "2020-01-01T25:00"),
    *("1577836800", "1577836800000", "1577836800.5", "-1577836800", "9" * 30, "1e5", "1e400", "1_000", "5e-324", "-5"),
    *("01/02/2020 3:00", "31.12.2020 23:59", "20200101", "2020-02-30", "0000-00-00", "2262-04-12", "1677-01-01"),
    *("nan", "", "inf", "NaT", "None", "True", "now", "today", "12:00", "Jan 5 2020", "2020-W05-1", "2020-03-29 02:30"),
    *("'", '"', "2020-01-01\x00", "2020-01-01 00:00 PM", "\u0661\u0662"),
)
VALUES = (
    *("1", "0", "2.5", "1,5", "1.234,5", "1,234.5", "1 000", "1'000", "1__0", "+5", "--5", "-0", "0x10", "1e5"),
    *("1e308", "1e16", "1e-320", "9" * 400, "nan", "inf", "-inf", "", "None", "True", "e5", ".", ",", "1e"),
    *("x", "12 req/s", "50%", "\u00bd", "\u0663", "'", '"', '""'),
)
HEADERS = ("timestamp,value", "Time,Wert", "a,b,c", "", "value", "timestamp,timestamp", "date,time,value", ",,", '"a,b')
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32")


def malformed(rng: random.Random) -> bytes:
    """Return the bytes of a random file."""
    separator, clean, rows = rng.choice(",;\t|"), rng.random(), []
    for k in range(rng.choice((0, 1, 2, 3, 30))):
        whole = rng.random() < clean
        stamp = str(pd.Timestamp("2020-01-01") + pd.Timedelta(minutes=30 * k)) if whole else rng.choice(STAMPS)
        rows.append(separator.join([stamp, str(k) if whole else rng.choice(VALUES)]))
    text = "\n".join([rng.choice(HEADERS).replace(",", separator), *rows])
    data = bytearray(text.encode(rng.choice(ENCODINGS)))
    if rng.random() < 0.15:
        for _ in range(5):
            data[rng.randrange(len(data) or 1) : 1] = bytes([rng.randrange(256)])
    return gzip.compress(data)[: rng.choice((None, None, -3, -10))] if rng.random() < 0.15 else bytes(data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_thousand_malformed_traces_are_read_or_refused_in_one_line(tmp_path):
    rng, messages, accepted = random.Random(0), [], 0
    for _ in range(1000):
        (tmp_path / "t.csv").write_bytes(malformed(rng))
        options = {
            "timezone": rng.choice((None, "Europe/Berlin", "Pacific/Apia")),
            "fill": rng.choice(("interpolate", "previous", "zero", "error")),
            "outliers": rng.choice(("drop", "keep", "error")),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                traffic = read_trace(tmp_path / "t.csv", TINY, rng.choice((1, 60, 1440)), **options)
            except InputError as error:
                messages.append(str(error))
            else:
                accepted += 1
                assert traffic.qps.max() == pytest.approx(50.0)
    assert accepted > 15
    assert len({message.partition(": ")[2][:20] for message in messages}) > 15
    assert all("\n" not in message and len(message) < 600 for message in messages)
    assert all(message.startswith(str(tmp_path)) or "--" in message[:3] for message in messages)
