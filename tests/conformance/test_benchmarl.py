"""BenchMARL's QMIX trains on the example's task, agents of different sizes in one group."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("benchmarl", reason="needs benchmarl: pip install 'marca-env[conformance]'")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import benchmarl_qmix


@pytest.mark.library("benchmarl")
@pytest.mark.parametrize("options", [{}, {"scenario": "ranking-model-v0", "reward": "lagrangian", "prices": [1, 2, 3]}])
def test_qmix_trains(options: dict, tmp_path: Path) -> None:
    run = benchmarl_qmix.experiment(400, tmp_path, **options)
    before = {name: value.clone() for name, value in run.losses["agents"].named_parameters()}
    run.run()
    after = dict(run.losses["agents"].named_parameters())
    assert run.total_frames == 400
    assert np.isfinite(run.mean_return)
    assert all(value.isfinite().all() for value in after.values())
    assert any((value != after[name]).any() for name, value in before.items())
    if not options:
        assert 0 < run.mean_return < 1
