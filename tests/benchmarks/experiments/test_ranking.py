"""Experiment ``ranking``: real training runs, as small as possible, with presets and methods of users."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.experiments.ranking import experiment as ranking
from benchmarks.offline.offline_runs import REFERENCES, offline_config, tuned_settings
from benchmarks.offline.offline_tables import group_rows
from benchmarks.suite import records
from benchmarks.suite.api import Row
from benchmarks.suite.own_experiments import mark_own
from benchmarks.suite.select_records import select_records
from marca_env.utils.errors import InputError
from tests.helpers.documents import USER_METHOD
from tests.helpers.rows import measured_row

pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")

from agents.rllib import QMIXConfig

OWN = """
def slow():
    return MyQMIX().training(lr=1e-5, train_batch_size_per_learner=7)


class Inherits(MyQMIX):
    def __init__(self, algo_class=None):
        super().__init__(algo_class)
        self.hidden = (32,)


class Faulty(MyQMIX):
    def __init__(self, algo_class=None):
        self.lr = 1 / 0


SLOW = slow()
"""


def test_settings_of_a_users_method_are_used_by_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_settings.py").write_text(USER_METHOD + OWN)
    monkeypatch.syspath_prepend(tmp_path)
    mine = {"mixer": "own_settings.Attention", "lr": 5e-4, "gru": None}
    told = {"MyQMIX": mine, "Inherits": mine | {"hidden": [32]}, "SLOW": mine | {"lr": 1e-5}}
    keys = set()
    for name, expected in told.items():
        *_, case = ranking.cases(quick=True, seeds=(0,), methods=[f"own_settings.{name}"])
        assert case.config["settings"] == expected
        config = offline_config(case.method, 0, settings=case.config["settings"], **case.budget)
        assert config.lr[0] == [0, expected["lr"]]
        assert config.train_batch_size_per_learner == case.budget["batch"]
        assert {**mine, **{n: config.preset().options[n] for n in ("mixer", "gru")}} == mine
        assert list(config.hidden) == expected.get("hidden", list(QMIXConfig().hidden))
        keys.add(case.key)
    import own_settings

    monkeypatch.setattr(own_settings.MyQMIX, "defaults", own_settings.MyQMIX.defaults | {"lr": 6e-4})
    keys.add(ranking.cases(quick=True, seeds=(0,), methods=["own_settings.MyQMIX"])[-1].key)
    assert len(keys) == 4
    with pytest.raises(InputError, match=r"algorithm own_settings\.Faulty: ZeroDivisionError"):
        tuned_settings("own_settings.Faulty")


@pytest.mark.slow
def test_quick_run_from_case_to_table_and_figure(tmp_path: Path) -> None:
    rows = [measured_row(ranking, case, tmp_path) for case in ranking.cases(quick=True, seeds=(0, 1))]
    assert [row.case.method for row in rows] == [*REFERENCES, *["QMIX"] * 2, *["AWRQMixer"] * 2]
    for row in rows:
        assert set(row.numbers["test"]) == {f"{s}_{t}" for s in ("spearman", "return") for t in ("model", "cascade")}
    for row in rows[3:]:
        assert [point["updates"] for point in row.numbers["curve"]][-1] == row.case.budget["updates"]
    blind, means, ensemble = (row.numbers["test"] for row in rows[:3])
    assert abs(blind["spearman_model"]) < 0.05 < means["spearman_model"] < ensemble["spearman_model"]
    assert (ensemble["spearman_model"], ensemble["return_model"]) == pytest.approx((1.0, 100.0))
    assert ensemble["spearman_cascade"] < 1.0
    first, second = ranking.tables(rows)
    assert first.row_count == 5
    assert second.row_count == 1  # against the one other method
    assert all(path.stat().st_size > 10_000 for path in ranking.figures(rows, tmp_path).values())


def test_a_users_method_is_ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_module.py").write_text(USER_METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    *_, case = ranking.cases(quick=True, seeds=(0,), methods=["their_module.MyQMIX"])
    row = measured_row(ranking, case, tmp_path)
    assert -1 <= row.numbers["test"]["spearman_cascade"] <= 1
    assert list(group_rows([row])) == ["their_module.MyQMIX"]


def test_a_users_method_comes_after_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_comer.py").write_text(USER_METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    usual = ranking.cases(quick=True, seeds=(0,))
    *_, own = ranking.cases(quick=True, seeds=(0,), methods=["late_comer.MyQMIX"])
    for case in (own, *reversed(usual)):
        records.append(tmp_path / "ranking", Row(case, {}, 1.0, {"quick": True}))
    assert [row.case for row in select_records("ranking", tmp_path / "ranking").rows] == usual  # nobody has run it here
    mark_own(tmp_path / "ranking", "ranking", ["late_comer.MyQMIX"])
    assert [row.case for row in select_records("ranking", tmp_path / "ranking").rows] == [*usual, own]


@pytest.mark.slow
def test_a_diverged_run_is_marked_and_leaves_the_others_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "diverging.py").write_text(USER_METHOD.replace("5e-4", "1e30"))
    monkeypatch.syspath_prepend(tmp_path)
    *_, diverging = ranking.cases(quick=True, seeds=(0,), methods=["diverging.MyQMIX"])
    row = measured_row(ranking, diverging, tmp_path)
    assert row.numbers["test"]["spearman_model"] != row.numbers["test"]["spearman_model"]
    numbers = json.loads(json.dumps(row.numbers).replace("NaN", "0.5"))
    rows = [Row(case, numbers, 1.0) for case in ranking.cases(quick=True, seeds=(0, 1))[3:]]
    scores, difference, mine = ranking.tables([*rows, row])
    assert list(scores.columns[2].cells) == ["0.500 [0.500, 0.500]", "0.500 [0.500, 0.500]", "diverged: 1 of 1"]
    assert list(difference.columns[1].cells) == ["+0.000 [+0.000, +0.000]", "diverged"]
    assert list(mine.columns[1].cells) == ["diverged", "diverged"]
    assert all(path.is_file() for path in ranking.figures([*rows, row], tmp_path).values())
    assert all(path.is_file() for path in ranking.figures([row], tmp_path).values())
