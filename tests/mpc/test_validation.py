"""Checks of settings and arguments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from marca_env.utils.errors import InputError
from mpc.validation import FINITE_POSITIVE, FRACTION, POSITIVE, at_least, check_fields, check_values, whole_number


@dataclass
class Settings:
    rate: object = 0.5
    count: object = 3


def test_a_broken_rule_names_the_field_the_value_and_the_rule():
    check_fields(Settings(), {"rate": FRACTION, "count": whole_number(1)})
    with pytest.raises(InputError, match=r"^search: rate is 1\.5; it must lie in \[0, 1\]$"):
        check_fields(Settings(rate=1.5), {"rate": FRACTION}, prefix="search: ")
    with pytest.raises(InputError, match=r"scale is \[1.0, 0.0\]; it must be finite and positive"):
        check_values({"scale": np.array([1.0, 0.0])}, {"scale": FINITE_POSITIVE})


@pytest.mark.parametrize("value", [0, 2.0, True, "2", 11])
def test_whole_numbers_exclude_floats_bools_and_values_out_of_range(value):
    with pytest.raises(InputError, match=r"count is .*; it must be a whole number of minutes, 1 to 10"):
        check_fields(Settings(count=value), {"count": whole_number(1, 10, unit="minutes")})


@pytest.mark.parametrize("rule", [POSITIVE, FINITE_POSITIVE, FRACTION, at_least(1)])
def test_nan_breaks_every_rule(rule):
    with pytest.raises(InputError, match="rate is nan"):
        check_fields(Settings(rate=np.nan), {"rate": rule})
