"""Checks of settings and arguments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from marca_env.utils.errors import InputError
from mpc.balancers.feedback import FeedbackSettings
from mpc.controller.adaptive import AdaptationSettings
from mpc.controller.settings import MPCSettings
from mpc.controller.traffic_forecast import ForecastSettings
from mpc.validation import (
    FINITE_POSITIVE,
    FRACTION,
    POSITIVE_OR_INFINITE,
    at_least,
    check_fields,
    check_values,
    whole_number,
)


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


@pytest.mark.parametrize("rule", [POSITIVE_OR_INFINITE, FINITE_POSITIVE, FRACTION, at_least(1)])
def test_nan_breaks_every_rule(rule):
    with pytest.raises(InputError, match="rate is nan"):
        check_fields(Settings(rate=np.nan), {"rate": rule})


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeedbackSettings(step_limit=np.inf),
        lambda: FeedbackSettings(integral_limit=np.inf),
        lambda: MPCSettings(price_reach=np.inf),
        lambda: MPCSettings(range_slack=np.inf),
        lambda: MPCSettings(rate_limit=np.inf),
        lambda: MPCSettings(rate_limit=np.nan),
        lambda: MPCSettings(release_margin=np.nan),
        lambda: MPCSettings(hold_band=np.inf),
        lambda: AdaptationSettings(threshold=np.inf),
        lambda: AdaptationSettings(growth=np.inf),
        lambda: AdaptationSettings(epochs=np.inf),
    ],
)
def test_limits_of_infinity_are_refused(make):
    with pytest.raises(InputError, match=r"is (inf|nan); (it must|pass)"):
        make()


def test_infinity_is_a_value_where_the_settings_say_so():
    assert AdaptationSettings(seconds=np.inf).seconds == np.inf
    assert ForecastSettings(jump=np.inf).jump == np.inf
