"""Experiment ``task_ablation``: every variant is a preset of its own on every task, and tables are right by hand."""

from __future__ import annotations

import pytest

from benchmarks.experiments.task_ablation import experiment as ablation
from benchmarks.suite.api import Case, Row

pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")

from benchmarks.experiments.tasks.configuration import Budget, learner_config
from benchmarks.experiments.tasks.settings import REFERENCES
from benchmarks.experiments.tasks.task_games import TaskGame


def test_every_variant_is_another_preset_with_the_leaderboards_budget() -> None:
    cases = [c for c in ablation.cases(quick=False, seeds=(0,), tasks=["default-v0"]) if c.method not in REFERENCES]
    assert [case.config["variant"] for case in cases] == list(ablation.VARIANTS)
    game, presets = TaskGame("default-v0"), set()
    for case in cases:
        config = learner_config(case, game, Budget.from_case(case), case.config["options"], 0)
        presets.add(config.preset())
        assert case.budget["env_steps"] == 40_000
    assert len(presets) == len(cases)


def row(method: str, value: float, seed: int = 0, **config: object) -> Row:
    return Row(Case(method, seed, task="one", config=config), {"curve": [{"return": value, "seconds": 1.0}]}, 1.0)


def test_scores_and_comparisons_by_hand() -> None:
    """Without advantage weights one run of two is worse than both full runs and one is between them."""
    rows = [row("static", 1.0), row("joint", 3.0)]
    for variant, finals in (("full", (2.0, 3.0)), ("no advantage weights", (1.0, 2.5))):
        rows += [row(ablation.METHOD, x, seed, variant=variant) for seed, x in enumerate(finals)]
    (table,) = ablation.tables(rows)
    found = {name: list(rest) for name, *rest in zip(*(c.cells for c in table.columns), strict=True)}
    assert found["full"][0] == "0.750"
    assert found["full"][-2:] == ["–", "–"]
    assert found["no advantage weights"][0] == "0.375"
    assert found["no advantage weights"][-2] == "0.75"
