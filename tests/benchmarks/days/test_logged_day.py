"""The end of a system log as traffic."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.days.compare_balancers import BalanceOptions
from benchmarks.days.logged_day import logged_day, rows_before
from marca_env.utils.errors import InputError
from tests.helpers.small_system import make_scenario


def log_of(days: int, first_minute: int = 0) -> pd.DataFrame:
    """Return a log whose rate counts its minutes."""
    at = np.arange(first_minute, first_minute + days * 1440)
    return pd.DataFrame({"day": at // 1440 + 19_000, "minute": at % 1440, "qps": at - first_minute + 1.0})


def test_the_last_minutes_are_replayed_and_those_before_are_history():
    log = log_of(3, first_minute=300)
    day = logged_day(log, make_scenario(), 1440, "log.csv")
    assert (len(day), day.traffic.first_minute) == (1440, 300)
    assert day.traffic.qps[[0, -1]].tolist() == [2881.0, 4320.0]
    assert day.traffic.history is not None
    assert len(day.traffic.history) == 2880
    assert day.traffic.history[-1] == 2880.0
    assert rows_before(log, 1440, "log.csv")["qps"].max() == 2880.0


def test_lost_minutes_are_interpolated():
    log = log_of(2).drop(index=[2000, 2001])
    assert logged_day(log, make_scenario(), 1440, "log.csv").traffic.qps[558:564].tolist() == [*range(1999, 2005)]


def test_a_log_that_is_too_short_says_what_to_give():
    with pytest.raises(InputError, match=r"log\.csv: 1440 minutes, and --minutes is 2000"):
        logged_day(log_of(1), make_scenario(), 2000, "log.csv")
    with pytest.raises(InputError, match="--model DIR"):
        rows_before(log_of(1), 1440, "log.csv")
    with pytest.raises(InputError, match="at most a year"):
        logged_day(pd.concat([log_of(1), log_of(1).assign(day=0)]), make_scenario(), 10, "log.csv")


def test_the_option_needs_a_log_and_takes_a_model_beside_it():
    with pytest.raises(InputError, match="--traffic log"):
        BalanceOptions(traffic="log")
    with pytest.raises(InputError, match="--traffic log"):
        BalanceOptions(traffic="log", log="a.csv", trace="b.csv")
    assert BalanceOptions(traffic="log", log="a.csv", model="model").model == "model"
    with pytest.raises(InputError, match="keep one of them"):
        BalanceOptions(log="a.csv", model="model")
