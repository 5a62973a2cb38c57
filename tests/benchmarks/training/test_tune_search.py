"""Searches of Ray Tune after which Ctrl-C works as before."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")

from ray import tune

from benchmarks.training.tune_search import fit

pytestmark = [pytest.mark.usefixtures("one_cpu_ray"), pytest.mark.distributed]


def _trial(config: dict[str, Any], *, interrupted: int | None) -> dict[str, float]:
    if interrupted is not None and config["number"] == 1:
        os.kill(interrupted, signal.SIGINT)
    return {"score": config["number"]}


def _tuner(folder: Path, interrupted: int | None) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(partial(_trial, interrupted=interrupted), {"cpu": 1}),
        param_space={"number": tune.grid_search([0, 1, 2])},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(verbose=0, storage_path=str(folder)),
    )


@pytest.mark.slow
def test_a_search_restores_the_handlers_of_signals(tmp_path: Path) -> None:
    results = fit(_tuner(tmp_path, None))
    assert sorted(result.metrics["score"] for result in results) == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.slow
def test_ctrl_c_during_a_search_ends_it(tmp_path: Path) -> None:
    """Tune alone returns the trials that had finished as if the search were whole."""
    with pytest.raises(KeyboardInterrupt):
        fit(_tuner(tmp_path, os.getpid()))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert list(tmp_path.rglob("experiment_state*"))  # its state is saved
