"""The nine published sample files through every command that takes a file: used, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cli.main import main
from tests.helpers.paths import SAMPLES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not here"),
]

FILES = (
    "requests.csv",
    "costs.csv",
    "system.csv",
    "predictions.tsv",
    "action_quota.csv",
    "state_counts.csv",
    "expert_scores.csv",
    "allocation_dqn.csv",
    "allocation_marca.csv",
)
SCORED = "{samples}/expert_scores.csv"
QUOTAS = "--quotas", "{samples}/action_quota.csv"
COUNTS = "--counts", "{samples}/state_counts.csv"
COMMANDS = {
    "score": ["score", "{file}"],
    "values": ["allocate", "{file}", *QUOTAS, *COUNTS],
    "quotas": ["allocate", SCORED, "--quotas", "{file}", *COUNTS],
    "counts": ["allocate", SCORED, *QUOTAS, "--counts", "{file}"],
    "compare": ["allocate", SCORED, *QUOTAS, *COUNTS, "--compare", "{file}"],
    "trace": ["traces", "--check", "{file}"],
    "cost log": ["headroom", "--requests", "20", "--costs", "{file}"],
    "system log": ["balance", "--days", "1", "--methods", "mpc", "--log", "{file}"],
    "requests to fit": ["fit", "--mapping", "published", "--out", "out", "--requests", "{file}"],
    "system to fit": [
        *("fit", "--mapping", "published", "--out", "out", "--requests", "{samples}/requests.csv"),
        *("--costs", "{samples}/costs.csv", "--system", "{file}"),
    ],
    "policy": ["evaluate", "{file}"],
    "experiments": ["train", "file", "{file}"],
    "mapping": ["fit", "--mapping", "{file}", "--requests", "{samples}/requests.csv", "--out", "out"],
    "scenario": ["headroom", "--scenario", "{file}"],
    "target": ["testbench", "--target", "{file}", "--out", "out"],
}
SCORES = {"expert_scores.csv", "allocation_dqn.csv", "allocation_marca.csv"}
USED = {
    "score": {"predictions.tsv"},
    "values": SCORES,
    "compare": SCORES,
    "quotas": {"action_quota.csv"},
    "counts": {"state_counts.csv"},
    "system to fit": {"system.csv"},
}
"""Command → the files that it can take; it refuses the others."""


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("file", FILES)
def test_a_sample_is_used_or_refused_in_one_line(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [word.format(file=SAMPLES / file, samples=SAMPLES) for word in COMMANDS[name]]
    status = main(arguments)
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == (0 if file in USED.get(name, ()) else 2), lines
    if status == 2:
        errors = [line for line in lines if "error" in line]
        assert len(errors) == 1
        assert errors[0].startswith("marca: error: ")
        assert len(errors[0]) < 1500
