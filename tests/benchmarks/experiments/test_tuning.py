"""Experiment ``tuning``: search spaces, a small search with finals, methods of users."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.experiments.ranking import experiment as ranking
from benchmarks.experiments.tuning import experiment as tuning
from benchmarks.experiments.tuning.spaces import read_spaces
from benchmarks.offline.offline_runs import METHODS
from benchmarks.suite.api import Row
from marca_env.utils.errors import InputError
from tests.helpers.documents import USER_METHOD
from tests.helpers.rows import measured_row

pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")

from benchmarks.experiments.tuning.search import best_trials

SEARCHED = """
from agents.rllib import AWRQMixerConfig


class Plain(AWRQMixerConfig):
    defaults = {"variance_credit": False, "heads": 2}
"""
TRIAL = {"spearman_model": 0.5, "cpu_seconds": 1.0}


def test_every_method_has_the_same_search() -> None:
    spaces = read_spaces()
    assert set(spaces["methods"]) == set(METHODS)
    shared = {"lr", "gamma", "hidden", "dropout", "target_update"}
    assert all(shared <= set(space) for space in spaces["methods"].values())


def test_finals_take_the_best_trials_and_use_no_seed_of_the_ranking() -> None:
    trials = [{"spearman_model": score} for score in (0.5, float("nan"), 0.9, -0.2)]
    assert [trial["spearman_model"] for trial in best_trials(trials, 3)] == [0.9, 0.5, -0.2]
    assert not set(read_spaces()["finals"]["seeds"]) & {*ranking.SEEDS, *tuning.SEEDS}
    assert read_spaces()["finals"]["updates"] == ranking.BUDGET["updates"]


@pytest.mark.slow
def test_a_search_ends_with_finals_and_continues_from_its_state(one_cpu_ray: None, tmp_path: Path) -> None:
    (case,) = tuning.cases(quick=True, seeds=(0,))
    small = {"trials": 2, "updates": 10, "batch": 32, "finals": {"entrants": 1, "seeds": [100], "updates": 10}}
    row = measured_row(tuning, replace(case, budget=small), tmp_path)
    assert row.numbers["trials"][0]["settings"]["lr"] == case.config["start"]["lr"]
    (last,) = row.numbers["finals"]
    best = max(row.numbers["trials"], key=lambda trial: trial["spearman_model"])
    assert row.numbers["best"] == last["settings"] == best["settings"]
    assert measured_row(tuning, row.case, tmp_path).numbers == row.numbers  # nothing is trained twice
    (table,) = tuning.tables([row])
    assert table.row_count == 1
    for mark in tmp_path.rglob("own.json"):  # as in a folder from elsewhere: its state is pickles
        mark.unlink()
    with pytest.raises(InputError, match="a search that you have not run here"):
        measured_row(tuning, row.case, tmp_path)


def test_a_users_method_is_searched_in_the_space_of_its_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_search.py").write_text(USER_METHOD + SEARCHED)
    monkeypatch.syspath_prepend(tmp_path)
    names = ("own_search.MyQMIX", "own_search.Plain", "QMIX", "AWRQMixer")
    mine, plain, qmix, awrq = cases = tuning.cases(quick=True, seeds=(0,), methods=names)
    assert set(qmix.config["space"]) - set(mine.config["space"]) == {"lr", "gru", "mixer_activation"}
    assert mine.config["start"] == {}
    assert mine.config["own"] == {"mixer": "own_search.Attention", "lr": 5e-4, "gru": None}
    assert set(awrq.config["space"]) - set(plain.config["space"]) == {"heads", "credit"}  # without VGCA, credit is none
    assert plain.config["start"] == {"lr": 0.003, "gru": 64, "hidden": [64], "dropout": 0.0}
    for case in cases:
        tuning.check(case)
    best = {"gamma": 0.9, "dropout": 0.12345}
    rows = [Row(case, {"trials": [TRIAL], "finals": [], "best": best}, 1.0) for case in (mine, qmix)]
    (table,) = tuning.tables(rows)
    assert table.caption == "add to defaults of own_search.MyQMIX: {'dropout': 0.123, 'gamma': 0.9}"


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("QMX", "unknown method of the tuning 'QMX'; did you mean 'QMIX'?"),
        ("agents.rllib.IQLConfig", "unknown method of the tuning 'agents.rllib.IQLConfig'"),
        ("ray.rllib.algorithms.ppo.PPOConfig", "derives from one of theirs"),
        ("all_set.Whole", "sets all that VDN is searched for"),
    ],
)
def test_a_method_without_a_search_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, told: str
) -> None:
    options = "dict(lr=0.1, gamma=0.9, hidden=(8,), dropout=0.0, target_update=9, gru=None)"
    text = f"from agents.rllib import VDNConfig\nclass Whole(VDNConfig):\n    defaults = {options}\n"
    (tmp_path / "all_set.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=re.escape(told)):
        tuning.cases(quick=True, seeds=(0,), methods=(method,))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{lr: 3}", "option lr: 3; give one draw"),
        ("{lr: {loguniform: [1]}}", "two bounds"),
        ("{lr: {chioce: [1]}}", "choice"),
    ],
)
def test_a_fault_of_a_search_space_is_an_error_that_names_it(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "spaces.yaml"
    path.write_text(f"methods: {{QMIX: {text}}}\n")
    with pytest.raises(InputError, match=told) as caught:
        read_spaces(path)
    assert "method QMIX" in str(caught.value)
