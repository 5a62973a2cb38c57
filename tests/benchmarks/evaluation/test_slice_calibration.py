"""Slices of the requests and their errors, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.evaluation.slice_calibration import request_slices, slice_errors, value_errors
from marca_env.scenario.scenario import Scenario


def test_slices_are_named_by_features_and_decisions(tiny_scenario: Scenario) -> None:
    groups = request_slices(tiny_scenario, np.array([[2, 3, 1, 0]]), np.array([[1, 0, 1, 2]]))
    assert {k: int(v[0]) for k, v in groups.items()} == {
        "all": 0,
        "uv": 2,
        "w×g": 7,
        **dict(zip(tiny_scenario.decision_names, (1, 0, 1, 2), strict=True)),
    }


def test_groups_are_weighed_by_what_they_spent() -> None:
    predicted, true = np.array([1.0, 1.0, 3.0, 5.0]), np.array([2.0, 2.0, 8.0, 8.0])
    errors = slice_errors(predicted, true, {"all": np.zeros(4, int), "uv": np.array([7, 7, 9, 9])})
    assert errors["all"]["pe"] == pytest.approx(1 - 10 / 20)
    assert errors["all"]["abs_pe"] == pytest.approx(1.0)
    assert errors["uv"]["abs_pe"] == pytest.approx((4 * 1.0 + 16 * 1.0) / 20)
    assert errors["uv"]["spearman"] == pytest.approx(1.0)


def test_opposite_errors_do_not_cancel_between_groups() -> None:
    """The total is right, every group is wrong; the mean of the signed PE is that of the total in any slicing."""
    predicted, true = np.array([3.0, 1.0]), np.array([1.0, 3.0])
    slices = {"all": np.zeros(2, int), "uv": np.array([0, 1])}
    errors = slice_errors(predicted, true, slices)
    assert errors["all"]["pe"] == pytest.approx(0.0)
    assert errors["uv"]["pe"] == pytest.approx((1 * 2.0 + 3 * 2 / 3) / 4)
    assert errors["uv"]["abs_pe"] == pytest.approx(2.0)
    assert errors["uv"]["spearman"] == pytest.approx(-1.0)
    rows = {(row["slice"], row["group"]): row for row in value_errors(predicted, true, slices)}
    assert [rows[key]["pe"] for key in (("all", 0), ("uv", 0), ("uv", 1))] == pytest.approx([0.0, 2.0, -2 / 3])
    assert rows["uv", 1] == {
        "slice": "uv",
        "group": 1,
        "requests": 1,
        "predicted": 1.0,
        "true": 3.0,
        "pe": pytest.approx(-2 / 3),
        "abs_pe": pytest.approx(2.0),
    }
