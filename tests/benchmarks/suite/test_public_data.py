"""Public data: a missing trace is named with the command that says where to get it, and without a folder."""

from __future__ import annotations

from benchmarks.suite.public_data import available_traces


def test_missing_traces_are_named_without_a_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MARCA_TRACES", str(tmp_path))
    (tmp_path / "here.csv").write_text("timestamp,value\n")
    assert available_traces({"here": "here.csv", "gone": "gone.csv"}) == ["here"]
    (record,) = caplog.records
    assert "no traces gone" in record.message
    assert "`marca traces`" in record.message
    assert "/" not in record.message
