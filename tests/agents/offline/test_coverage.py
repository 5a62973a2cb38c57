"""A log without coverage warns with a table of what it never or hardly tried."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents.offline.coverage import LogCoverage
from marca_env.logs.log_files import write_request_log
from marca_env.scenario.scenario import Scenario
from tests.helpers.factories import make_requests

AGENTS = ("retrieval",) * 9


def random_actions(scenario: Scenario, n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, scenario.action_shape, (n, len(scenario.action_shape)))


def test_a_log_of_random_actions_is_covered() -> None:
    scenario = Scenario.load("default")
    for n in (2_000, 50_000):
        assert LogCoverage.of(random_actions(scenario, n), scenario).warning("log", AGENTS) is None


def test_a_log_of_one_joint_action_is_a_table() -> None:
    scenario = Scenario.load("default")
    text = LogCoverage.of(np.zeros((3_000, 5), int), scenario).warning("log.csv", AGENTS)
    assert text is not None
    lines = text.splitlines()
    assert lines[0].startswith("log.csv: some actions were never or hardly tried; their learnt values are guesses")
    assert lines[1].split() == ["agent", "decision", "option", "rows", "share"]
    assert len(lines) == 2 + sum(scenario.action_shape) - 5 + 1
    assert lines[-1] == "joint actions tried: 1 of 1,000 possible"


def test_a_rare_option_has_its_rows_and_share() -> None:
    scenario = Scenario.load("default")
    actions = random_actions(scenario, 10_000)
    actions[actions[:, 1] == 3, 1] = 0
    actions[:12, 1] = 3
    coverage = LogCoverage.of(actions, scenario)
    assert coverage.rare() == [(1, 3, 12)]
    text = coverage.warning("log", AGENTS, total=90_000)
    assert text is not None
    assert "(counted in 10,000 of 90,000 rows)" in text
    decision = scenario.decisions[1]
    row = f"retrieval  {decision.name}  3 ({decision.options[3]})  12    0.12 %"
    assert row.split() == text.splitlines()[2].split()


def test_joint_actions_count_even_if_all_options_were_tried() -> None:
    """A behaviour policy that moves all decisions together tries five of a thousand joint actions."""
    scenario = Scenario.load("default")
    level = np.random.default_rng(1).integers(0, 5, 4_000)
    actions = np.minimum(level[:, None], np.array(scenario.action_shape) - 1)
    coverage = LogCoverage.of(actions, scenario)
    assert coverage.rare() == []
    text = coverage.warning("log", AGENTS)
    assert text is not None
    assert text.endswith("joint actions tried: 5 of 1,000 possible")


def test_a_scenario_of_very_many_joint_actions_is_compared_with_what_its_rows_could_cover() -> None:
    scenario = Scenario.load("stages-10-v0")
    assert LogCoverage.of(random_actions(scenario, 3_000), scenario).warning("log", ("a",) * 99) is None
    assert LogCoverage.of(random_actions(scenario, 50).repeat(60, axis=0), scenario).is_thin()


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_training_warns_once(
    streaming: bool,
    tiny_scenario: Scenario,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    one_cpu_ray: None,
) -> None:
    from agents.rllib import CONFIGS

    log = make_requests(tiny_scenario, 4_000)
    one = log[list(tiny_scenario.decision_names)].iloc[0]
    narrow = pd.DataFrame(log[(log[list(tiny_scenario.decision_names)] == one).all(axis=1)])
    tiny_scenario.save(tmp_path / "tiny.yaml")
    for name, frame in (("all", log), ("narrow", narrow)):
        write_request_log(frame, tmp_path / f"{name}.parquet", tiny_scenario)
        config = CONFIGS["VDN"]().offline_data(input_=[str(tmp_path / f"{name}.parquet")])
        config.training(scenario=str(tmp_path / "tiny.yaml"), streaming=streaming, gru=None, hidden=(8,))
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="agents"):
            config.build_algo().stop()
        tables = [r.getMessage() for r in caplog.records if "hardly tried" in r.getMessage()]
        assert len(tables) == (name == "narrow")
    assert f"joint actions tried: 1 of {tiny_scenario.n_joint_actions}" in tables[0]
