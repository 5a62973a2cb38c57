"""`marca traces`: public traces, their conversions, and how a file is read."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pandas as pd
import pytest

from benchmarks.cli.main import main
from benchmarks.suite.public_traces import PUBLIC_TRACES
from marca_env.traffic.shipped_traces import shipped_traces
from marca_env.traffic.workload import read_trace


def test_every_public_trace_is_listed_and_described(capsys):
    assert main(["traces"]) == 0
    listed = capsys.readouterr().out
    assert all(trace.name in listed and trace.licence in listed for trace in PUBLIC_TRACES)
    assert main(["traces", *(trace.name for trace in PUBLIC_TRACES)]) == 0
    described = capsys.readouterr().out
    assert all(trace.source in described and trace.file in described for trace in PUBLIC_TRACES)


def test_an_unknown_public_trace_is_one_line(capsys):
    assert main(["traces", "nyc_tax"]) == 2
    assert "did you mean 'nyc_taxi'" in capsys.readouterr().err


def write_published(name: str) -> None:
    """Write a small file in the format of the publisher into the current folder."""
    if name == "azure_llm":
        times = pd.date_range("2024-05-10 00:00:07", periods=3000, freq="2s")
        frame = pd.DataFrame({"TIMESTAMP": times.strftime("%Y-%m-%d %H:%M:%S.%f+00:00"), "ContextTokens": 9})
        frame.assign(GeneratedTokens=1).to_csv("AzureLLMInferenceTrace_code_1week.csv", index=False)
    if name == "wikipedia":
        for hour in range(1, 25):
            stamp = pd.Timestamp("2024-05-01") + pd.Timedelta(hours=hour)
            text = f"de - {100 * hour} 0\nde.m - {hour} 0\nen - 7 0\n"
            pathlib.Path(f"projectviews-{stamp:%Y%m%d-%H%M%S}").write_text(text)


@pytest.mark.parametrize("trace", [t for t in PUBLIC_TRACES if t.convert], ids=lambda t: t.name)
def test_conversions_make_a_trace(trace, tmp_path, monkeypatch, tiny_scenario):
    monkeypatch.chdir(tmp_path)
    write_published(trace.name)
    exec(trace.convert, {"pd": pd, "pathlib": pathlib})
    (file,) = re.findall(r"--trace (\S+)", trace.use)
    traffic = read_trace(file, tiny_scenario, minutes=95)
    assert traffic.qps.max() == pytest.approx(50.0)
    if trace.name == "wikipedia":
        frame = pd.read_csv(file)
        assert frame["timestamp"].iloc[0] == "2024-05-01 00:00:00+00:00"
        assert frame["value"].tolist() == [101 * k for k in range(1, 25)]
    else:
        assert np.allclose(traffic.qps[1:], 50.0)


def test_a_file_is_described_before_it_is_replayed(tmp_path, capsys):
    times = pd.date_range("2021-03-27", "2021-03-29", freq="15s", tz="Europe/Berlin")
    frame = pd.DataFrame({"at": times.tz_localize(None), "hits": 5 + np.arange(len(times)) % 7})
    frame.loc[5000, "hits"] = 90_000
    frame[(frame.index < 100) | (frame.index > 400)].to_csv(tmp_path / "t.csv", index=False, sep=";")
    assert main(["traces", "--check", str(tmp_path / "t.csv"), "--timezone", "Europe/Berlin"]) == 0
    out = capsys.readouterr().out
    assert "2021-03-27 00:00:00 to 2021-03-29 00:00:00, UTC+01:00 and UTC+02:00" in out
    assert "15 seconds; averaged to minutes" in out
    assert "a gap of 75.5 minutes from 2021-03-27 00:24:45" in out
    assert "hits '90000' is 11,250 times the median" in out


def test_the_trace_options_reach_both_commands(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("t,a,b\n2021-05-03 00:00,1,2\n2021-05-03 12:00,1,2\n2021-05-04 00:00,1,2\n")
    trace = ["--trace", str(tmp_path / "t.csv")]
    for command in ("simulate", "balance"):
        assert main([command, *trace]) == 2
        assert "pass --value-column" in capsys.readouterr().err
        assert main([command, *trace, "--value-column", "c"]) == 2
        assert "--value-column: unknown column 'c'" in capsys.readouterr().err
        assert main([command, *trace, "--timezone", "Berlin"]) == 2
        assert "--timezone 'Berlin': unknown" in capsys.readouterr().err
        assert main([command, *trace, "--value-column", "a", "--fill", "guess"]) == 2
        assert "--fill: unknown choice 'guess'" in capsys.readouterr().err


@pytest.mark.parametrize("name", shipped_traces())
def test_shipped_traces_are_read_by_name(capsys, name):
    assert len(read_trace(name, minutes=1440)) == 1440
    assert main(["traces", "--check", name]) == 0
    assert "gaps:       none" in capsys.readouterr().out
    assert name in {trace.name for trace in PUBLIC_TRACES}


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("mongo-01").write_text("timestamp,value\n2024-01-01 00:00,1\n2024-01-01 00:01,3\n")
    assert read_trace("mongo-01", minutes=2).qps[0] < read_trace("mongo-01", minutes=2).qps[1]
