"""The static rule: the joint action of every request that the policy does not or must not decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.policy.allocation_policy import AllocationPolicy
from marca_env.models.engine import get_engine
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, shown, unknown_option

BEST = "best-static"
SAMPLE = 400
"""Requests on which the mean revenue and cost of the actions are estimated."""
_FEW = 50  # requests are enough to describe an action that need not be found


@dataclass(frozen=True)
class StaticRule:
    """A joint action with what it is expected to earn and cost on average."""

    action: tuple[int, ...]
    """(D,) option indices."""
    value: float
    """Mean revenue, currency per request."""
    costs: tuple[float, ...]
    """(G,) mean cost, core-seconds per request."""


def sample_states(scenario: Scenario, count: int = SAMPLE, seed: int = 0) -> np.ndarray:
    """Return states (count, W) like those of the scenario's requests.

    They come from the population of the fitted models; without these, categories are drawn evenly and numbers from a
    standard normal distribution.
    """
    rng = np.random.default_rng(seed)
    try:
        return get_engine(scenario).sample_states(rng, count)
    except InputError:  # such as a policy whose scenario was fitted on another machine
        columns: list[np.ndarray] = []
        for feature in scenario.features:
            if feature.kind == "category":
                columns.append(rng.integers(0, feature.size, (count, 1)))
            else:
                columns.append(rng.standard_normal((count, len(feature.columns))))
        return np.concatenate(columns, axis=1).astype(np.int64 if scenario.is_categorical else np.float64)


def make_static_rule(policy: AllocationPolicy, text: str = BEST, sample: int = SAMPLE) -> StaticRule:
    """Return the static rule that a user names.

    Args:
        policy: its values and costs describe the actions.
        text: ``best-static``, the joint action of the greatest mean revenue among those that fit the budgets at the
            peak; option indices such as ``0,2,1``; or options by name such as ``truncation=60,rescoring=off``, where
            decisions that are left out keep their first option.
        sample: requests on which means are taken.

    Raises:
        InputError: an unknown decision or option, or no joint action fits the budgets at the peak.
    """
    scenario = policy.scenario
    states = sample_states(scenario, sample if text == BEST else min(sample, _FEW))
    values, costs = policy.values(states).mean(axis=0), policy.costs(states).mean(axis=0)
    row = _best_row(scenario, values, costs) if text == BEST else _row(scenario, parse_action(scenario, text))
    action = tuple(int(k) for k in scenario.joint_actions[row])
    return StaticRule(action, float(values[row]), tuple(float(c) for c in costs[row]))


def parse_action(scenario: Scenario, text: str) -> tuple[int, ...]:
    """Return option indices (D,) from ``0,2,1`` or ``decision=option,…``.

    Raises:
        InputError: an unknown decision or option, or another number of indices than decisions.
    """
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdigit() for part in parts):
        if len(parts) != len(scenario.decisions):
            raise InputError(
                f"--static {text!r}: {len(parts)} indices; give one for each of {', '.join(scenario.decision_names)}"
            )
        indices = tuple(int(part) for part in parts)
        for decision, index in zip(scenario.decisions, indices, strict=True):
            if index >= len(decision.options):
                raise InputError(
                    f"--static: option {index} of {decision.name}; it has options 0 to {len(decision.options) - 1}"
                )
        return indices
    action = [0] * len(scenario.decisions)
    for part in parts:
        name, equals, option = part.partition("=")
        if not equals:
            raise InputError(f"--static {shown(part)}: give {BEST}, indices such as 0,2,1, or decision=option,…")
        if name not in scenario.decision_names:
            raise InputError(f"--static: {unknown_option('decision', name, scenario.decision_names)}")
        d = scenario.decision_names.index(name)
        names = [option_name(o) for o in scenario.decisions[d].options]
        if option not in names:
            raise InputError(f"--static: {unknown_option(f'option of {name}', option, names)}")
        action[d] = names.index(option)
    return tuple(action)


def option_name(option: Any) -> str:
    """Return the name of an option: a list of channels is joined by ``+``."""
    if isinstance(option, (tuple, list)):
        return "+".join(str(part) for part in option)
    return str(option)


def options_of(scenario: Scenario, action: tuple[int, ...]) -> Mapping[str, Any]:
    """Return the option that each decision takes, by its name."""
    return {d.name: d.options[k] for d, k in zip(scenario.decisions, action, strict=True)}


def _row(scenario: Scenario, action: tuple[int, ...]) -> int:
    return int(scenario.joint_index(np.array(action)))


def _best_row(scenario: Scenario, values: np.ndarray, costs: np.ndarray) -> int:
    """Return the row of the greatest mean revenue (J,) whose mean cost (J, G) fits the budgets at the peak."""
    used = costs * scenario.peak_qps / scenario.budgets
    fits = (used <= 1.0).all(axis=1)
    if not fits.any():
        raise InputError(
            f"scenario {scenario.name!r}: at {scenario.peak_qps:g} requests per second even the cheapest joint action "
            f"needs {used.max(axis=1).min():.2f} times the budget; raise the budgets, or name an action with --static"
        )
    return int(np.where(fits, values, -np.inf).argmax())
