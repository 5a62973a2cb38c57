"""Training from the log and offline evaluation: settings, repeatability, convergence, variance of the gradient."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.offline.offline_runs import METHODS, convergence, gradient_variance, run_offline, tuned_settings
from benchmarks.training.trials import Trial
from tests.helpers.documents import USER_METHOD

pytest.importorskip("ray", reason="training needs ray: pip install 'marca-env[rllib]'")


@pytest.mark.parametrize("method", METHODS)
def test_the_tuned_settings_are_valid(method: str) -> None:
    settings = tuned_settings(method)
    assert 0 < settings["lr"] < 1
    config = Trial(run=method, config=settings).build()
    for name, value in settings.items():
        if name != "lr":
            found = getattr(config, name, config.preset().options.get(name))
            assert (list(found) if isinstance(found, tuple) else found) == value


def test_a_method_that_was_not_tuned_has_the_common_settings() -> None:
    assert tuned_settings("IQL") == tuned_settings("agents.rllib.AWRQMixerConfig") == {"lr": 0.003}


def test_convergence_is_the_first_validation_near_the_last() -> None:
    curve = [{"updates": u, "return_model": r} for u, r in [(10, 80.0), (20, 94.0), (30, 92.0), (40, 98.0)]]
    assert convergence(curve) == 20  # 0.95 × 98 = 93.1
    assert convergence(curve, share=0.99) == 40
    assert convergence([{"updates": u, "r": r} for u, r in [(10, -0.3), (20, -0.1), (30, -0.2)]], of="r") == 20
    assert convergence([{"updates": u, "r": r} for u, r in [(10, 0.5), (20, float("nan"))]], of="r") == 20


def test_variance_of_the_gradient_is_computed_within_windows() -> None:
    norms = [1.0, 3.0, 11.0, 13.0, 500.0]
    assert gradient_variance(norms, window=2) == pytest.approx(1.0)  # the last window is not full
    assert gradient_variance([1.0, 3.0], window=100) == pytest.approx(1.0)


@pytest.mark.slow
def test_a_run_repeats_and_its_seed_matters() -> None:
    runs = [run_offline("VDN", seed, 20, {"lr": 0.01, "gru": None}, batch=64, judge=False) for seed in (0, 0, 1)]
    first, again, other = [(run["validation"], run["grad_norm"]) for run in runs]
    assert first == again
    assert first[0]["spearman_model"] != other[0]["spearman_model"]


@pytest.mark.slow
def test_an_interrupted_run_raises_and_returns_nothing() -> None:
    def interrupted(numbers: dict[str, float]) -> None:
        raise KeyboardInterrupt

    settings = {"lr": 0.01, "gru": None}
    with pytest.raises(KeyboardInterrupt):
        run_offline("VDN", 0, 20, settings, batch=64, validate_every=10, judge=False, report=interrupted)


@pytest.mark.slow
def test_options_that_a_users_method_sets_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rate.py").write_text(USER_METHOD.replace("5e-4", "1e-9"))
    monkeypatch.syspath_prepend(tmp_path)
    first, last = (
        run_offline("own_rate.MyQMIX", 0, updates, tuned_settings("own_rate.MyQMIX"), batch=64, judge=False)[
            "validation"
        ]
        for updates in (10, 40)
    )
    assert first["spearman_model"] == pytest.approx(last["spearman_model"], abs=1e-3)  # its parameters hardly move
