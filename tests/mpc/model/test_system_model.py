"""The system model: fit, predictions, derivatives, files, ensembles."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from marca_env.logs.log_files import read_system_log
from marca_env.utils.errors import InputError
from mpc import SystemModel
from mpc.model.conditions import Conditions, PriceScale
from mpc.model.fitting import Trainer, training_scales
from mpc.model.transitions import Transitions
from tests.helpers.paths import SAMPLES
from tests.helpers.small_system import fitted


@pytest.fixture(scope="module")
def trained():
    return fitted()


def untrained(n_clusters=2, seed=0, **options) -> SystemModel:
    ones, zeros = [1.0] * n_clusters, [0.0] * n_clusters
    scaling = {"price_mean": ones, "price_std": ones, "cost_mean": zeros, "cost_std": ones}
    return SystemModel([f"c{k}" for k in range(n_clusters)], ones, [9.0] * n_clusters, scaling, seed=seed, **options)


def conditions(rng, *shape, n_clusters=2) -> Conditions:
    return Conditions(
        qps=rng.uniform(50, 400, shape),
        minute=rng.integers(0, 1440, shape),
        degradation=rng.integers(0, 3, (*shape, n_clusters)),
    )


def known_law_log(days=2, seed=0) -> pd.DataFrame:
    """Return a log with noise of 0.5 %.

    The costs per request are 0.01 · (1 + λ/2)^-0.6 and 0.02 · (1 + λ_2/2)^-0.4 · (1 + λ_1/2)^-0.1.
    """
    rng = np.random.default_rng(seed)
    n = 1440 * days
    prices = np.exp(rng.normal(1.0, 1.0, (n, 2))) * (rng.random((n, 2)) > 0.02)
    u = np.log1p(prices / 2)
    logs = np.stack([np.log(0.01) - 0.6 * u[:, 0], np.log(0.02) - 0.4 * u[:, 1] - 0.1 * u[:, 0]], axis=1)
    qps = 200 + 100 * np.sin(2 * np.pi * np.arange(n) / 1440)
    load = qps[:, None] * np.exp(logs + rng.normal(0, 0.005, (n, 2)))
    frame = pd.DataFrame({"day": np.arange(n) // 1440, "minute": np.arange(n) % 1440, "qps": qps})
    for k, name in enumerate(("a", "b")):
        frame[f"load_{name}"], frame[f"price_{name}"], frame[f"degradation_{name}"] = load[:, k], prices[:, k], 0
    return frame


@pytest.fixture(scope="module")
def law_model():
    return SystemModel.fit(known_law_log(), epochs=40, seed=1)


def test_price_scale_is_invertible_and_reaches_zero():
    scale, prices = PriceScale(np.array([0.5, 3.0])), np.array([[0.0, 0.0], [1e-6, 7.0], [1e5, 1e-3]])
    assert scale.to_price(scale.to_log(prices)) == pytest.approx(prices, rel=1e-9)
    assert scale.to_log(np.array([0.5, -1.0])) == pytest.approx([np.log(2), 0.0])


def test_fit_recovers_a_known_law_and_its_elasticities(law_model):
    step = law_model.report["steps"]["1"]
    assert max(step["rmse"]) < 0.03
    assert max(step["median_relative"]) < 0.015
    at = Conditions(np.array(100.0), np.array(300), np.zeros(2))
    prices = np.array([4.0, 4.0])
    load = 100 * np.array([0.01 * 3**-0.6, 0.02 * 3**-0.5])
    by_price, _ = law_model.jacobian(load, at, prices, at, prices)
    # d log c / dλ = −exponent / (2 + λ)
    assert by_price / load[:, None] == pytest.approx(np.array([[-0.6, 0.0], [-0.1, -0.4]]) / 6, abs=0.012)


@pytest.mark.slow
def test_held_out_errors_beat_persistence_and_linear_models(trained):
    _, _, model = trained
    for steps in ("1", "5", "10"):
        errors = model.report["steps"][steps]
        for baseline, share in (
            ("persistence", 0.3),
            ("persistence_per_request", 0.3),
            ("linear", 0.5),
            ("linear_in_logs", 0.7),
        ):
            assert np.all(np.array(errors["rmse"]) < share * np.array(errors[baseline])), (steps, baseline)


def test_the_linear_baseline_fits_a_linear_log_as_well_as_the_noise_allows():
    """Fit a log that is linear in logarithms: the linear model in logarithms reaches the noise."""
    errors = SystemModel.fit(known_law_log(), epochs=1).report["steps"]["1"]
    assert max(errors["linear_in_logs"]) < 0.03
    assert max(errors["linear"]) > 2 * max(errors["linear_in_logs"])


def test_scaling_comes_from_the_training_split_alone():
    log = known_law_log(days=1)
    changed = log.copy()
    late = changed.index >= int(0.75 * len(log))
    changed.loc[late, ["load_a", "load_b"]] *= 5
    changed.loc[late, ["price_a", "price_b"]] += 50
    first, second = (SystemModel.fit(x, epochs=1) for x in (log, changed))
    assert first.scaling == second.scaling
    assert first.price_limit.tolist() == second.price_limit.tolist()
    assert first.prices.scale.tolist() == second.prices.scale.tolist()


def test_rows_of_different_days_are_not_transitions():
    log = known_law_log(days=1)
    log["day"] = np.arange(len(log)) // 2  # pairs: half as many transitions as rows, and no two-step horizon
    report = SystemModel.fit(log, epochs=1, horizons=(1, 2)).report
    assert sum(report["transitions"].values()) == len(log) // 2
    assert list(report["steps"]) == ["1"]


def test_the_same_seed_gives_the_same_model():
    log = known_law_log(days=1)
    models = [SystemModel.fit(log, epochs=3, seed=s) for s in (4, 4, 5)]
    slopes = [m.response.slope.detach().numpy().tolist() for m in models]
    assert slopes[0] == slopes[1] != slopes[2]


@pytest.mark.parametrize("seed", range(4))
def test_a_higher_own_price_never_raises_the_load(seed):
    model, rng = untrained(3, seed), np.random.default_rng(seed)
    prices = np.exp(rng.normal(0, 3, (200, 3)))
    minutes = conditions(rng, 200, n_clusters=3)
    load = rng.uniform(1, 9, (200, 3))
    before = model.predict(load, minutes, np.ones((200, 3)), minutes, prices)
    for g in range(3):
        raised = prices.copy()
        raised[:, g] *= 1.5
        assert np.all(model.predict(load, minutes, np.ones((200, 3)), minutes, raised)[:, g] < before[:, g])


def test_jacobian_matches_finite_differences():
    model, rng = untrained(), np.random.default_rng(1)
    last, coming = conditions(rng), conditions(rng)
    load, last_prices, prices = np.array([3.0, 5.0]), np.array([0.7, 2.0]), np.array([1.5, 0.0])

    def at(load, prices):
        return model.predict(load, last, last_prices, coming, prices)

    by_price, by_load = model.jacobian(load, last, last_prices, coming, prices)
    for g in range(2):
        h = np.zeros(2)
        h[g] = 1e-5
        assert by_price[:, g] == pytest.approx((at(load, prices + 2 * h) - at(load, prices)) / 2e-5, rel=1e-3)
        assert by_load[:, g] == pytest.approx((at(load + h, prices) - at(load - h, prices)) / 2e-5, rel=1e-5)


def test_rollout_equals_repeated_prediction_and_takes_batches():
    model, rng = untrained(), np.random.default_rng(2)
    last, horizon = conditions(rng), conditions(rng, 5)
    load, last_prices, prices = np.array([3.0, 5.0]), np.ones(2), rng.uniform(0, 5, (7, 5, 2))
    batch = model.rollout(load, last, last_prices, horizon, prices)
    assert batch.shape == (7, 5, 2)
    step, before, before_prices = load, last, last_prices
    for i in range(5):
        step = model.predict(step, before, before_prices, horizon.select(i), prices[3, i])
        before, before_prices = horizon.select(i), prices[3, i]
        assert batch[3, i] == pytest.approx(step)


def test_sensitivity_is_the_derivative_of_the_rollout_in_log_prices():
    model, rng = untrained(), np.random.default_rng(3)
    last, horizon = conditions(rng), conditions(rng, 4)
    arguments = (np.array([3.0, 5.0]), last, np.ones(2), horizon)
    prices = rng.uniform(0.1, 5, (4, 2))
    loads, slopes = model.sensitivity(*arguments, prices)
    assert loads == pytest.approx(model.rollout(*arguments, prices))
    for i, h in ((0, 1), (2, 0)):
        u = model.prices.to_log(prices)
        u[i, h] += 1e-6
        moved = (model.rollout(*arguments, model.prices.to_price(u)) - loads) / 1e-6
        assert moved[i] == pytest.approx(slopes[i, :, h], rel=1e-4)
        assert np.delete(moved, i, axis=0) == pytest.approx(0.0, abs=1e-6)


def test_a_loaded_model_equals_the_saved_one(trained, tmp_path):
    _, _, model = trained
    model.save(tmp_path / "m")
    loaded = SystemModel.load(tmp_path / "m")
    rng = np.random.default_rng(0)
    arguments = (np.array([3.0, 5.0]), conditions(rng), np.ones(2), conditions(rng, 6), rng.uniform(0, 50, (6, 2)))
    assert loaded.rollout(*arguments).tolist() == model.rollout(*arguments).tolist()
    assert loaded.report == model.report
    assert loaded.clusters == model.clusters
    assert loaded.price_limit.tolist() == model.price_limit.tolist()


def test_an_error_names_the_damaged_file(trained, tmp_path):
    _, _, model = trained
    model.save(tmp_path)
    weights, text = tmp_path / "model.safetensors", tmp_path / "model.json"
    intact, description = weights.read_bytes(), text.read_text()
    weights.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        SystemModel.load(tmp_path)
    weights.write_bytes(intact)
    text.write_text(description[: len(description) // 2])
    with pytest.raises(InputError, match="not valid JSON"):
        SystemModel.load(tmp_path)
    text.write_text(json.dumps({**json.loads(description), "hidden": 7}))
    with pytest.raises(InputError, match="do not fit"):
        SystemModel.load(tmp_path)
    text.unlink()
    with pytest.raises(InputError, match="no such file"):
        SystemModel.load(tmp_path)


def test_a_log_with_missing_columns_values_or_rows_is_refused():
    log = known_law_log(days=1)
    with pytest.raises(InputError, match="price_b"):
        SystemModel.fit(log.drop(columns="price_b"))
    incomplete = log.copy()
    incomplete.loc[7, "load_a"] = np.nan
    with pytest.raises(InputError, match=r"row 8, column 'load_a'"):
        SystemModel.fit(incomplete)
    with pytest.raises(InputError, match="log a longer run"):
        SystemModel.fit(log.head(6))


def test_minutes_without_traffic_are_left_out():
    log = known_law_log(days=1)
    log.loc[100:150, ["qps", "load_a", "load_b"]] = 0.0
    report = SystemModel.fit(log, epochs=1).report
    assert sum(report["transitions"].values()) == 1439 - 52


def test_a_degradation_level_absent_from_training_does_not_change_the_prediction(law_model):
    at = [Conditions(np.array(100.0), np.array(300), np.full(2, level)) for level in (0.0, 3.0)]
    loads = [law_model.predict(np.ones(2), at[0], np.ones(2), c, np.ones(2)) for c in at]
    assert loads[0] == pytest.approx(loads[1])


def test_a_degradation_level_shifts_the_load_by_the_error_of_its_assumed_saving():
    log = known_law_log(days=1)
    degraded = np.random.default_rng(3).random(len(log)) < 0.2
    log.loc[degraded, "degradation_b"] = 1
    log.loc[degraded, "load_b"] *= 1.25  # f(D) is 25 % too high
    model = SystemModel.fit(log, epochs=30)
    assert model.level_shift == pytest.approx(np.array([[0.0, 0.0], [0.0, np.log(1.25)]]), abs=0.03)


def test_fitting_leaves_the_global_generators_alone():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state().clone(), np.random.get_state()[2]  # noqa: NPY002
    SystemModel.fit(known_law_log(days=1).head(100), epochs=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[2]  # noqa: NPY002


def test_ensemble_members_differ_more_at_hours_outside_the_training_log_and_are_averaged():
    log = known_law_log(days=1)  # training ends before 17:00
    ensemble, single = SystemModel.fit(log, epochs=8, members=3), SystemModel.fit(log, epochs=8)
    near = np.full(2, 3.0)

    def at(minutes):
        return Conditions(np.full(minutes.shape, 100.0), minutes, np.zeros((*minutes.shape, 2)))

    inside, outside = (ensemble.disagreement(near, at(minutes)) for minutes in (np.arange(900), np.arange(1080, 1440)))
    assert np.all(inside > 0)
    assert outside.mean() > 1.5 * inside.mean()
    assert single.disagreement(near, at(np.array(300))).tolist() == [0.0, 0.0]
    assert len(ensemble.report["steps"]["1"]["spread"]) == 2
    costs = ensemble.array_response().horizon(
        np.ones(2), at(np.array(300)), near, conditions(np.random.default_rng(0), 4)
    )
    members = costs.members(np.full((4, 2), 0.5))
    assert members.shape == (3, 4, 2)
    assert members.mean(0) == pytest.approx(costs(np.full((4, 2), 0.5)))


def test_a_member_does_not_depend_on_how_many_others_there_are():
    """Gradients do not mix: losses are summed and Adam works on each weight alone."""
    table = Transitions(known_law_log(days=1), ("a", "b"))
    options = {"windows": 6, "hidden": 8, "seed": 3, "device": "cpu"}
    scales = training_scales(table, table.starts)
    many, one = (SystemModel(("a", "b"), **scales, members=k, **options) for k in (3, 1))
    for ours, theirs in zip(one.response.parameters(), many.response.parameters(), strict=True):
        ours.data = theirs.data[1:2].clone()
    rows = np.stack([np.roll(table.starts, k)[:64] for k in range(3)])
    for model, batch in ((many, rows), (one, rows[1:2])):
        trainer = Trainer(model, table, 0.02)
        for _ in range(5):
            trainer.optimiser.zero_grad()
            trainer.losses(batch).sum().backward()
            trainer.optimiser.step()
    for ours, theirs in zip(one.response.parameters(), many.response.parameters(), strict=True):
        assert ours.data[0] == pytest.approx(theirs.data[1], abs=1e-10)


def test_the_coverage_of_the_training_log_is_saved(tmp_path):
    log = known_law_log(days=1).head(600)  # training ends before 7:00
    model = SystemModel.fit(log, epochs=1)
    assert model.coverage["hours"].tolist() == [hour < 7 for hour in range(24)]
    logs = np.log(log[["load_a", "load_b"]].to_numpy() / log[["qps"]].to_numpy())[:420]
    assert model.coverage["log_cost"] == pytest.approx(np.stack([logs.min(0), logs.max(0)]), abs=0.02)
    model.save(tmp_path)
    loaded = SystemModel.load(tmp_path)
    assert loaded.coverage["hours"].tolist() == model.coverage["hours"].tolist()


@pytest.mark.skipif(not (SAMPLES / "system.csv").is_file(), reason="the published samples are not beside this checkout")
def test_the_published_log_can_be_fitted():
    model = SystemModel.fit(read_system_log(SAMPLES / "system.csv"), epochs=5, members=2)
    assert model.clusters == ("retrieval", "ranking")
    assert sum(model.report["transitions"].values()) == 9  # of ten; one has no traffic
    assert np.isfinite(model.report["steps"]["1"]["rmse"]).all()
