"""Modes: the share of requests that get the policy's action is exact, stable and grows by adding."""

from __future__ import annotations

import pytest

from benchmarks.serving.modes import Mode, in_share, parse_percent, request_key
from marca_env.utils.errors import InputError

KEYS = [f"user-{k}" for k in range(100_000)]


@pytest.mark.parametrize("form", ["user-{}", "{}", "00{:08x}-0000-4000-8000-000000000000"])
def test_five_percent_of_any_keys_are_in_the_share(form):
    share = in_share([form.format(k) for k in range(100_000)], 0.05).mean()
    assert abs(share - 0.05) < 5 * (0.05 * 0.95 / 100_000) ** 0.5  # 0.34 %


def test_the_keys_of_a_share_stay_in_a_greater_one():
    five, twenty = in_share(KEYS, 0.05), in_share(KEYS, 0.2)
    assert abs(twenty.mean() - 0.2) < 0.01
    assert not (five & ~twenty).any()
    assert (in_share(list(reversed(KEYS)), 0.05)[::-1] == five).all()


def test_the_hash_is_the_same_in_every_version_and_process():
    assert [key for key in KEYS[:100] if in_share([key], 0.05)[0]] == ["user-37", "user-65"]


def test_none_and_all():
    assert not in_share(KEYS[:50], 0.0).any()
    assert in_share(KEYS[:50], 1.0).all()


def test_a_request_without_its_key_is_known_by_its_values():
    assert request_key({"request_id": 7, "a": 1}, "request_id") == "7"
    assert request_key({"b": 2, "a": 1}, "request_id") == request_key({"a": 1, "b": 2}, "request_id")


@pytest.mark.parametrize(
    ("data", "expected"),
    [("static", Mode("static")), ({"mode": "shadow"}, Mode("shadow")), ({"mode": "enforce", "percent": 5}, None)],
)
def test_modes_are_read_and_written(data, expected):
    mode = Mode.from_data(data)
    assert mode == (expected or Mode("enforce", 5.0))
    assert Mode.from_data(mode.to_data()) == mode


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ("statc", "did you mean 'static'"),
        ({"mode": "enforce", "percent": 101}, "percent is 101"),
        ({"mode": "enforce", "percent": True}, "percent is True"),
        ({"mode": "static", "percent": 5}, "leave it out"),
        ({"mod": "static"}, "did you mean 'mode'"),
        (5, "give an object"),
        ({}, "unknown mode None"),
    ],
)
def test_other_modes_are_refused(data, part):
    with pytest.raises(InputError, match=part):
        Mode.from_data(data)


def test_percentages_of_the_command_line():
    assert [parse_percent(text) for text in ("5%", "5", " 0.5 %", ".5", "100%")] == [5.0, 5.0, 0.5, 0.5, 100.0]
    for text in ("101%", "-1", "five", "nan", ""):
        with pytest.raises(InputError, match="give a percentage"):
            parse_percent(text)
