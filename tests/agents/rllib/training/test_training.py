"""A resumed run equals an uninterrupted run exactly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marca_env.scenario.scenario import Scenario
from tests.helpers.paths import HELPERS
from tests.helpers.restart_runs import CASES, make_config, run

PROGRAM = HELPERS / "restart_runs.py"


pytestmark = pytest.mark.usefixtures("one_cpu_ray")


@pytest.fixture(scope="module")
def runs(tiny_scenario: Scenario, tiny_artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Return case → (20 iterations without a break, iterations 11 to 20 repeated in another process)."""
    folder = tmp_path_factory.mktemp("runs")
    scenario = tmp_path_factory.mktemp("scenario") / "tiny.yaml"
    tiny_scenario.save(scenario)
    unbroken = {}
    for case in CASES:
        config = make_config(case, tiny_artefacts / "requests.parquet", scenario)
        unbroken[case] = run(config, 20, out=folder / case, checkpoint_freq=10)
        shutil.rmtree(folder / case / "checkpoint_000020")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "resume", str(folder), "20"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    broken = json.loads(done.stdout.rpartition("RESULT")[2])
    return {case: (unbroken[case], broken[case]) for case in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_resumed_in_a_new_process_equals_an_uninterrupted_one(case: str, runs: dict) -> None:
    (state, numbers_of), (resumed_state, resumed_numbers) = runs[case]
    assert resumed_state == state
    assert sorted(resumed_numbers, key=int) == [str(k) for k in range(11, 21)]
    for iteration, numbers in resumed_numbers.items():
        assert numbers == numbers_of[iteration]
    assert numbers_of["20"]["gradient_steps"] >= 50
    assert numbers_of["20"]["loss"] != numbers_of["19"]["loss"]
    if case != "log":
        assert numbers_of["20"]["env_steps"] == 20 * 8 * (4 if case == "REM" else 2)


@pytest.mark.slow
def test_a_run_interrupted_before_its_first_update_resumes_exactly(tmp_path: Path) -> None:
    unbroken = run(make_config("dropout"), 4, out=tmp_path / "run", checkpoint_freq=1, keep=9)
    for later in (2, 3, 4):
        shutil.rmtree(tmp_path / "run" / f"checkpoint_{later:06d}")
    state, numbers_of = run(None, 4, resume=tmp_path / "run", out=tmp_path / "run")
    assert "loss" not in unbroken[1]["1"]
    assert state == unbroken[0]
    assert numbers_of == {k: unbroken[1][k] for k in ("2", "3", "4")}
