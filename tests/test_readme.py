"""The README's Python runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.algorithms.presets import preset
from agents.offline.episodes import team_encoder
from agents.policy.allocation_policy import AllocationPolicy
from agents.team.team import Team, TeamSpec
from marca_env.models.engine import get_engine
from tests.helpers.paths import ROOT

README = ROOT / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run(block: str, **given: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "readme", **given}
    exec(compile(block, "README.md", "exec"), namespace)
    return namespace


def save_untrained_policy(folder: Path) -> None:
    engine = get_engine("default")
    chosen = preset("AWRQMixer", heads=2, gru=8, hidden=(8,))
    team = Team(TeamSpec.of(team_encoder(engine.scenario)), chosen)
    AllocationPolicy(team, engine.scenario, engine.cost_model).save(folder)  # type: ignore[arg-type]


def test_the_first_block_runs_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a revenue, and what the request cost on each cluster."""
    found = run(BLOCKS[0])
    printed = capsys.readouterr().out.splitlines()
    assert float(printed[0]) == found["rewards"]["retrieval"] >= 0
    assert list(found["infos"]["retrieval"]["cost"]) == ["retrieval", "ranking"]
    assert all(cost > 0 for cost in found["infos"]["retrieval"]["cost"].values())


@pytest.mark.parametrize("block", BLOCKS[1:], ids=lambda block: block.splitlines()[0])
def test_the_other_blocks_run_beside_a_trained_policy(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_untrained_policy(tmp_path / "results" / "awrq")
    monkeypatch.chdir(tmp_path)
    scenario = get_engine("default").scenario
    states = get_engine("default").sample_states(np.random.default_rng(0), 3)
    found = run(block, states=states)
    if "actions" in found and isinstance(found["actions"], np.ndarray):
        assert scenario.joint_index(found["actions"]).shape == (3,)


def test_the_blocks_that_are_run_are_those_that_decide() -> None:
    assert len(BLOCKS) >= 2
    assert any("AllocationPolicy.load" in block for block in BLOCKS[1:])
