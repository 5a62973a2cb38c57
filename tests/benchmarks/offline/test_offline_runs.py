"""Experiments that train from the log: settings, runs, their tables; real trainings, as small as they can be."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.experiments.ablation import experiment as ablation
from benchmarks.experiments.ranking import experiment as ranking
from benchmarks.experiments.sensitivity import experiment as sensitivity
from benchmarks.experiments.tuning import experiment as tuning
from benchmarks.experiments.tuning.search import best_trials, read_spaces
from benchmarks.offline.offline_runs import (
    METHODS,
    REFERENCES,
    configuration,
    convergence,
    gradient_variance,
    run_offline,
    settings_of,
)
from benchmarks.offline.offline_tables import grouped
from benchmarks.suite import records
from benchmarks.suite.api import Case, Row
from benchmarks.suite.select_records import select_records
from benchmarks.training.trials import Trial
from marca_env.utils.errors import InputError
from tests.helpers.readme import TEN_LINES

pytest.importorskip("ray")

from agents.rllib import QMIXConfig


@pytest.mark.parametrize("method", METHODS)
def test_the_settings_in_the_repository_are_valid(method: str) -> None:
    settings = settings_of(method)
    assert 0 < settings["lr"] < 1
    config = Trial(run=method, config=settings).build()
    for name, value in settings.items():
        if name != "lr":
            found = getattr(config, name, config.preset().options.get(name))
            assert (list(found) if isinstance(found, tuple) else found) == value


def test_a_method_that_was_not_tuned_has_the_common_settings() -> None:
    assert settings_of("IQL") == settings_of("agents.rllib.AWRQMixerConfig") == {"lr": 0.003}


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


def test_settings_of_a_method_of_ones_own_are_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_settings.py").write_text(TEN_LINES + OWN)
    monkeypatch.syspath_prepend(tmp_path)
    mine = {"mixer": "own_settings.Attention", "lr": 5e-4, "gru": None}
    told = {"MyQMIX": mine, "Inherits": mine | {"hidden": [32]}, "SLOW": mine | {"lr": 1e-5}}
    keys = set()
    for name, expected in told.items():
        *_, case = ranking.cases(quick=True, seeds=(0,), methods=[f"own_settings.{name}"])
        assert case.config["settings"] == expected
        config = configuration(case.method, 0, settings=case.config["settings"], **case.budget)
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
        settings_of("own_settings.Faulty")


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


def test_finals_are_of_the_best_trials_and_no_seed_of_theirs_is_the_rankings() -> None:
    trials = [{"spearman_model": score} for score in (0.5, float("nan"), 0.9, -0.2)]
    assert [trial["spearman_model"] for trial in best_trials(trials, 3)] == [0.9, 0.5, -0.2]
    assert not set(read_spaces()["finals"]["seeds"]) & {*ranking.SEEDS, *tuning.SEEDS}
    assert read_spaces()["finals"]["updates"] == ranking.BUDGET["updates"]


def test_a_search_ends_with_finals_and_goes_on_from_its_state(one_cpu_ray: None, tmp_path: Path) -> None:
    (case,) = tuning.cases(quick=True, seeds=(0,))
    small = {"trials": 2, "updates": 10, "batch": 32, "finals": {"entrants": 1, "seeds": [100], "updates": 10}}
    row = _row(tuning, replace(case, budget=small), tmp_path)
    assert row.numbers["trials"][0]["settings"]["lr"] == case.config["start"]["lr"]
    (last,) = row.numbers["finals"]
    best = max(row.numbers["trials"], key=lambda trial: trial["spearman_model"])
    assert row.numbers["best"] == last["settings"] == best["settings"]
    assert _row(tuning, row.case, tmp_path).numbers == row.numbers  # nothing is trained twice
    (table,) = tuning.tables([row])
    assert table.row_count == 1


def test_a_method_of_ones_own_is_searched_in_the_space_of_its_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_search.py").write_text(TEN_LINES + SEARCHED)
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
def test_methods_without_a_search_are_named(
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
def test_faults_of_a_search_space_are_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "spaces.yaml"
    path.write_text(f"methods: {{QMIX: {text}}}\n")
    with pytest.raises(InputError, match=told) as caught:
        read_spaces(path)
    assert "method QMIX" in str(caught.value)


def test_convergence_is_the_first_validation_near_the_last() -> None:
    curve = [{"updates": u, "return_model": r} for u, r in [(10, 80.0), (20, 94.0), (30, 92.0), (40, 98.0)]]
    assert convergence(curve) == 20  # 0.95 × 98 = 93.1
    assert convergence(curve, share=0.99) == 40
    assert convergence([{"updates": u, "r": r} for u, r in [(10, -0.3), (20, -0.1), (30, -0.2)]], of="r") == 20
    assert convergence([{"updates": u, "r": r} for u, r in [(10, 0.5), (20, float("nan"))]], of="r") == 20


def test_variance_of_the_gradient_is_that_within_windows() -> None:
    norms = [1.0, 3.0, 11.0, 13.0, 500.0]
    assert gradient_variance(norms, window=2) == pytest.approx(1.0)  # the last window is not full
    assert gradient_variance([1.0, 3.0], window=100) == pytest.approx(1.0)


def test_a_run_repeats_and_its_seed_matters() -> None:
    runs = [run_offline("VDN", seed, 20, {"lr": 0.01, "gru": None}, batch=64, judge=False) for seed in (0, 0, 1)]
    first, again, other = [(run["validation"], run["grad_norm"]) for run in runs]
    assert first == again
    assert first[0]["spearman_model"] != other[0]["spearman_model"]


def test_an_interrupted_run_is_no_result() -> None:
    def interrupted(numbers: dict[str, float]) -> None:
        raise KeyboardInterrupt

    settings = {"lr": 0.01, "gru": None}
    with pytest.raises(KeyboardInterrupt):
        run_offline("VDN", 0, 20, settings, batch=64, validate_every=10, judge=False, report=interrupted)


def test_ranking_from_case_to_table(tmp_path: Path) -> None:
    rows = [_row(ranking, case, tmp_path) for case in ranking.cases(quick=True, seeds=(0, 1))]
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


def test_somebody_elses_method_is_ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_module.py").write_text(TEN_LINES)
    monkeypatch.syspath_prepend(tmp_path)
    *_, case = ranking.cases(quick=True, seeds=(0,), methods=["their_module.MyQMIX"])
    row = _row(ranking, case, tmp_path)
    assert -1 <= row.numbers["test"]["spearman_cascade"] <= 1
    assert list(grouped([row])) == ["their_module.MyQMIX"]


def test_a_method_of_ones_own_comes_after_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_comer.py").write_text(TEN_LINES)
    monkeypatch.syspath_prepend(tmp_path)
    usual = ranking.cases(quick=True, seeds=(0,))
    *_, own = ranking.cases(quick=True, seeds=(0,), methods=["late_comer.MyQMIX"])
    for case in (own, *reversed(usual)):
        records.append(tmp_path / "ranking", Row(case, {}, 1.0, {"quick": True}))
    assert [row.case for row in select_records("ranking", tmp_path / "ranking").rows] == [*usual, own]


def test_what_a_method_of_ones_own_sets_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rate.py").write_text(TEN_LINES.replace("5e-4", "1e-9"))
    monkeypatch.syspath_prepend(tmp_path)
    first, last = (
        run_offline("own_rate.MyQMIX", 0, updates, settings_of("own_rate.MyQMIX"), batch=64, judge=False)["validation"]
        for updates in (10, 40)
    )
    assert first["spearman_model"] == pytest.approx(last["spearman_model"], abs=1e-3)  # it hardly moves


def test_a_run_that_has_diverged_is_said_and_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "diverging.py").write_text(TEN_LINES.replace("5e-4", "1e30"))
    monkeypatch.syspath_prepend(tmp_path)
    *_, diverging = ranking.cases(quick=True, seeds=(0,), methods=["diverging.MyQMIX"])
    row = _row(ranking, diverging, tmp_path)
    assert row.numbers["test"]["spearman_model"] != row.numbers["test"]["spearman_model"]
    numbers = json.loads(json.dumps(row.numbers).replace("NaN", "0.5"))
    rows = [Row(case, numbers, 1.0) for case in ranking.cases(quick=True, seeds=(0, 1))[3:]]
    scores, difference, mine = ranking.tables([*rows, row])
    assert list(scores.columns[2].cells) == ["0.500 [0.500, 0.500]", "0.500 [0.500, 0.500]", "diverged: 1 of 1"]
    assert list(difference.columns[1].cells) == ["+0.000 [+0.000, +0.000]", "diverged"]
    assert list(mine.columns[1].cells) == ["diverged", "diverged"]
    assert all(path.is_file() for path in ranking.figures([*rows, row], tmp_path).values())
    assert all(path.is_file() for path in ranking.figures([row], tmp_path).values())


def test_every_ablation_is_a_valid_algorithm() -> None:
    cases = ablation.cases(quick=False, seeds=(0,))
    assert [case.task for case in cases] == list(ablation.PARTS)
    full = Trial(run="AWRQMixer", config=cases[0].config["settings"]).build().preset()
    for case in cases[1:]:
        preset = Trial(run=case.method, config=case.config["settings"]).build().preset()
        assert preset != full
    assert len({case.key for case in cases}) == len(cases)


def test_sensitivity_from_case_to_table(tmp_path: Path) -> None:
    cases = sensitivity.cases(quick=True, seeds=(0,))
    assert {case.method for case in cases} == {"AWRQMixer", "mpc"}
    rows = [_row(sensitivity, case, tmp_path) for case in cases if "heads" not in case.task]
    assert [table.row_count for table in sensitivity.tables(rows)] == [1, 1]


def _row(experiment: object, case: Case, folder: Path) -> Row:
    numbers = experiment.measure(case, folder)  # type: ignore[attr-defined]
    return Row(Case(**json.loads(json.dumps(case.to_dict()))), json.loads(json.dumps(numbers)), 1.0)
