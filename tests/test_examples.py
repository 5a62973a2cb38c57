"""The examples: scripts run for one iteration, the experiment file and the option file are valid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.training.experiment_files import read_experiments
from benchmarks.training.trials import Trial
from marca_env.utils.yaml import read_mapping
from tests.helpers.paths import EXAMPLES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo_independent", "ppo_shared", "dqn"])
def test_scripts_run_and_print_a_revenue(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < float(done.stdout.splitlines()[-1].removeprefix("revenue per request, currency: ")) < 1


def test_the_experiment_file_builds_three_algorithms() -> None:
    entries = read_experiments(EXAMPLES / "compare.yaml")
    assert [e.name for e in entries] == ["qmix", "ppo_independent", "ppo_shared"]
    for entry in entries:
        config = entry.trial.build()
        assert config.algo_class.__name__ == entry.trial.run
    policies = [sorted(entry.trial.build().policies) for entry in entries[1:]]
    assert policies == [["pre_ranking", "retrieval"], ["shared"]]


def test_the_option_file_is_valid() -> None:
    config = Trial(run="AWRQMixer", config=read_mapping(EXAMPLES / "awrq_small.yaml")).build()
    assert config.heads == 5
