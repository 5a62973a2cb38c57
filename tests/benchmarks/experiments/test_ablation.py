"""Experiment ``ablation``: every variant is a valid algorithm of its own."""

from __future__ import annotations

import pytest

from benchmarks.experiments.ablation import experiment as ablation
from benchmarks.training.trials import Trial

pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")


def test_every_ablation_is_a_valid_algorithm() -> None:
    cases = ablation.cases(quick=False, seeds=(0,))
    assert [case.task for case in cases] == list(ablation.PARTS)
    full = Trial(run="AWRQMixer", config=cases[0].config["settings"]).build().preset()
    for case in cases[1:]:
        preset = Trial(run=case.method, config=case.config["settings"]).build().preset()
        assert preset != full
    assert len({case.key for case in cases}) == len(cases)
