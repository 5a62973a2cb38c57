"""Formulas of generated scenarios: exact models, for studies that need the true optimum.

Such a scenario is generated from a stated law; nothing about it was measured. For a request in state s under the joint
action a:

- candidates: stage 1 gets n_1 = recall · supply(s), rounded; each later stage gets the queue that the one before passes
  on, n_{k+1} = min(n_k, its queue option);
- cost of a stage, core-seconds: base + n_k · price of its model (linear, so non-decreasing in the queue);
- revenue: v(s) · Π_k (1 − δ_k · exp(−accuracy of its model · n_k / (τ_k · need(s)))). It rises in every queue and in
  every accuracy with diminishing returns, and the gain of each stage depends on the actions of the others.

``supply``, ``need`` and ``v`` are products over the features of one number per code. The models that use the formulas
are :class:`~marca_env.models.cost_model.AnalyticCostModel` and
:class:`~marca_env.models.revenue_model.AnalyticRevenueModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from marca_env.models.cost_map import CostMap, Curve, model_component
from marca_env.models.nominal_results import nominal_results
from marca_env.scenario.scenario import Scenario
from marca_env.utils.dataclass_schema import from_plain, to_plain
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import write_json
from marca_env.utils.model_files import ANALYTIC_KIND, DESCRIPTION, read_description
from marca_env.utils.validation import check_codes


@dataclass(frozen=True)
class StageLaw:
    """Parameters of one stage."""

    loss: float
    """δ: share of the revenue that is lost if the stage has an empty queue, in [0, 1]."""
    scale: float
    """τ: candidates at which a model of accuracy 1 wins back all but 1/e of the loss."""
    base: float
    """Core-seconds of a request, independent of its queue."""
    price: float
    """Core-seconds of a candidate under a model of price 1."""


@dataclass(frozen=True)
class Law:
    """Parameters of a scenario's formulas. Features and options without an entry have no effect."""

    stages: tuple[StageLaw, ...]
    models: Mapping[str, float] = field(default_factory=dict)
    """Option of a model decision → its relative price; its accuracy is the square root of the price."""
    value: Mapping[str, float] = field(default_factory=dict)
    """Feature → log ratio of a request's value at the feature's last code to that at its first."""
    supply: Mapping[str, float] = field(default_factory=dict)
    """Feature → the same log ratio for the number of candidates that exist."""
    need: Mapping[str, float] = field(default_factory=dict)
    """Feature → the same log ratio for the number of candidates that are needed."""
    revenue: float = 0.05
    """Currency per request without any loss, at the middle code of every feature."""


class LawFormulas:
    """The formulas of a law for one scenario. Shapes: B requests, F features, D decisions, S stages.

    Raises:
        InputError: the law has another number of stages than the scenario, or the scenario has numbers or signals.
    """

    def __init__(self, scenario: Scenario, law: Law) -> None:
        if len(law.stages) != len(scenario.stages):
            raise InputError(
                f"law has {len(law.stages)} stages and scenario {scenario.name!r} has {len(scenario.stages)}; "
                "give one StageLaw per stage"
            )
        if not scenario.is_categorical or scenario.signals:
            raise InputError(
                f"a law gives neither numbers nor signals, which scenario {scenario.name!r} has; fit models to its logs"
            )
        self.scenario, self.law = scenario, law

    def factor(self, log_ratios: Mapping[str, float], states: np.ndarray) -> np.ndarray:
        """Return (B,) the product over features of exp(log ratio · (position − ½)).

        The position runs from 0 at a feature's first code to 1 at its last.
        """
        total = np.zeros(len(states))
        for k, feature in enumerate(self.scenario.features):
            position = states[:, k] / max(feature.size - 1, 1) - 0.5
            total += log_ratios.get(feature.name, 0.0) * position
        return np.exp(total)

    def candidates(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return (B,S) candidates that each stage processes."""
        full = nominal_results(self.scenario, actions)
        most = nominal_results(self.scenario, np.array([self.scenario.action_shape]) - 1)[0, 0]
        existing = np.round(np.minimum(full[:, 0], most * np.minimum(1.0, self.factor(self.law.supply, states))))
        return np.minimum(full, np.maximum(existing, 1.0)[:, None])

    def model_price(self, stage: int, actions: np.ndarray) -> np.ndarray:
        """Return (B,) the relative price of the model that the stage runs."""
        price = np.ones(len(actions))
        for d, decision in enumerate(self.scenario.decisions):
            if decision.kind == "model" and self.scenario.decision_stage[d] == stage:
                price = price * np.array([self.law.models.get(o, 1.0) for o in decision.options])[actions[:, d]]
        return price

    def revenue(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return (B,) expected revenue, currency per request."""
        candidates, need = self.candidates(states, actions), self.factor(self.law.need, states)
        revenue = self.law.revenue * self.factor(self.law.value, states)
        for k, stage in enumerate(self.law.stages):
            accuracy = np.sqrt(self.model_price(k, actions))
            revenue = revenue * (1.0 - stage.loss * np.exp(-accuracy * candidates[:, k] / (stage.scale * need)))
        return revenue

    def cost_map(self) -> CostMap:
        """Return the cost map of the law; all its curves are straight.

        Raises:
            InputError: a stage has channels or two model decisions.
        """
        scenario, law = self.scenario, self.law
        curves: dict[tuple[str, str], Curve] = {}
        most = float(nominal_results(scenario, np.array([scenario.action_shape]) - 1).max())
        ends = np.array([0.0, most])
        for stage, stage_law in zip(scenario.stages, law.stages, strict=True):
            switches = [d for d in stage.decisions if d.kind == "model"]
            if any(d.channels for d in stage.decisions) or len(switches) > 1:
                raise InputError(
                    f"law: stage {stage.name!r} has channels or two model decisions; use a stage with neither"
                )
            curves[stage.name, "base"] = Curve(np.zeros(1), np.array([stage_law.base]))
            curves[stage.name, "queue"] = Curve(ends, ends * (0.0 if switches else stage_law.price))
            for decision in switches:
                for option in decision.options:
                    price = stage_law.price * law.models.get(option, 1.0)
                    curves[stage.name, model_component(decision, option)] = Curve(ends, ends * price)
        return CostMap(scenario, curves)

    def check(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return states (B,F) and actions (B,D) as arrays.

        Raises:
            InputError: a wrong shape or a code out of range.
        """
        scenario = self.scenario
        states = check_codes("state", states, scenario.feature_names, scenario.feature_sizes)
        return states, check_codes("action", actions, scenario.decision_names, scenario.action_shape)

    def save(self, folder: str | Path) -> None:
        """Write the scenario and the law to ``model.json`` in ``folder``."""
        description = {"kind": ANALYTIC_KIND, "scenario": self.scenario.to_dict(), "law": to_plain(self.law)}
        write_json(Path(folder) / DESCRIPTION, description)


def load_law(folder: str | Path) -> tuple[Scenario, Law]:
    """Read what :meth:`LawFormulas.save` wrote.

    Raises:
        InputError: a file is missing, incomplete, or of another kind.
    """
    description = read_description(folder)
    path = Path(folder) / DESCRIPTION
    try:
        return Scenario.from_dict(description["scenario"]), from_plain(Law, description["law"], "law")
    except (InputError, KeyError) as error:
        raise InputError(f"{path}: not a law ({one_line(error)}); copy the complete folder again") from None
