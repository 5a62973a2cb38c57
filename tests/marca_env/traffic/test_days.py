"""Generated days: they are seeded, and their events are as described."""

from __future__ import annotations

import numpy as np
import pytest

from marca_env.scenario.scenario import Scenario
from marca_env.traffic.days import GENERATED, SALE_FACTOR, flash_sale, generated
from tests.helpers.small_system import make_pool


@pytest.mark.parametrize("name", GENERATED)
def test_generated_days_are_seeded(name: str, tiny_scenario: Scenario) -> None:
    first, again, another = (generated(name, tiny_scenario, seed) for seed in (4, 4, 5))
    assert np.array_equal(first.traffic.qps, again.traffic.qps)
    assert not np.array_equal(first.traffic.qps, another.traffic.qps)
    assert first.traffic.qps.max() <= tiny_scenario.peak_qps * (1 + 1e-9)
    assert first.changes.capacity.shape == first.changes.cost.shape == (1440, 2)


def test_generated_days_have_their_sale_loss_and_drift(tiny_scenario: Scenario) -> None:
    sale, loss, drift = (generated(name, tiny_scenario, 2) for name in ("flash-sale", "machine-loss", "drift"))
    jump = sale.traffic.qps[1:] / sale.traffic.qps[:-1]
    start = int(jump.argmax()) + 1
    assert jump.max() == pytest.approx(SALE_FACTOR, rel=0.15)
    assert sale.announced is not None
    assert np.exp(sale.announced[start]) == pytest.approx(SALE_FACTOR)
    assert np.all(sale.announced[:start] == 0)
    lost = loss.changes.capacity[:, 0] < 1
    assert 60 <= lost.sum() <= 310
    assert np.allclose(loss.changes.capacity[lost], 2 / 3)
    assert not lost[[0, -1]].any()
    assert np.all(np.diff(drift.changes.cost, axis=0) > 0)
    assert np.all((drift.changes.cost[-1] >= 1.2) & (drift.changes.cost[-1] <= 1.5))


def test_a_flash_sale_steps_tenfold_and_fades() -> None:
    pool = make_pool(per_window=20)
    traffic = flash_sale(pool, seed=1)
    growth = traffic.qps[1:] / traffic.qps[:-1]
    start = int(growth.argmax()) + 1
    assert 650 < start < 790
    assert growth.max() > 8
    assert traffic.qps[start] / traffic.qps[start + 130] > 1.5
    assert traffic.qps.max() <= pool.scenario.peak_qps
