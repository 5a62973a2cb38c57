"""One way to check settings: rules for single values, applied to arguments or to the fields of a dataclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from marca_env.utils.errors import InputError, shown

_MOST_SHOWN = 10


class ValueRule(NamedTuple):
    """A condition on one value."""

    holds: Callable[[Any], bool]
    requirement: str
    """Completes the sentence "it must …"."""


def _all_finite(value: Any) -> bool:
    return bool(np.all(np.isfinite(value)))


POSITIVE_OR_INFINITE = ValueRule(lambda value: value > 0, "be positive")
ABOVE_ONE = ValueRule(lambda value: _all_finite(value) and value > 1, "be finite and exceed 1")
FINITE_POSITIVE = ValueRule(
    lambda value: _all_finite(value) and bool(np.all(np.asarray(value) > 0)), "be finite and positive"
)
FINITE_NOT_NEGATIVE = ValueRule(lambda value: _all_finite(value) and value >= 0, "be finite and not negative")
FRACTION = ValueRule(lambda value: 0 <= value <= 1, "lie in [0, 1]")
FRACTION_ABOVE_ZERO = ValueRule(lambda value: 0 < value <= 1, "lie in (0, 1]")
FRACTION_BELOW_ONE = ValueRule(lambda value: 0 <= value < 1, "lie in [0, 1)")
OPEN_FRACTION = ValueRule(lambda value: 0 < value < 1, "lie in (0, 1)")
MARGIN = ValueRule(FRACTION_BELOW_ONE.holds, "lie in [0, 1), a share of the budget")


def at_least(least: float) -> ValueRule:
    """Return the rule that a value is finite and at least ``least``."""
    return ValueRule(lambda value: _all_finite(value) and value >= least, f"be finite and at least {least}")


def whole_number(least: int, most: float = np.inf, unit: str = "") -> ValueRule:
    """Return the rule that a value is an integer (not a bool) from ``least`` to ``most``."""
    amount = f"whole number of {unit}" if unit else "whole number"
    span = f"at least {least}" if most == np.inf else f"{least} to {most}"

    def holds(value: Any) -> bool:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(least <= value <= most)

    return ValueRule(holds, f"be a {amount}, {span}")


def check_values(values: Mapping[str, Any], rules: Mapping[str, ValueRule], prefix: str = "") -> None:
    """Check the values that ``rules`` names.

    Args:
        values: values by name.
        rules: the rule of each name.
        prefix: beginning of the error message, such as "feedback: ".

    Raises:
        InputError: a value breaks its rule; the message names it and the rule.
    """
    for name, rule in rules.items():
        value = values[name]
        try:
            holds = bool(rule.holds(value))
        except Exception:  # text, an object, or an array where a number belongs
            holds = False
        if not holds:
            plain = value.tolist() if isinstance(value, np.ndarray) and value.size <= _MOST_SHOWN else value
            raise InputError(f"{prefix}{name} is {shown(plain)}; it must {rule.requirement}")


def check_fields(settings: object, rules: Mapping[str, ValueRule], prefix: str = "") -> None:
    """Check the fields of ``settings`` that ``rules`` names; see :func:`check_values`.

    Raises:
        InputError: a value breaks its rule.
    """
    check_values({name: getattr(settings, name) for name in rules}, rules, prefix)
