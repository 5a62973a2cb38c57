"""Scenarios whose law is stated instead of measured: exact models, for studies that need to know the truth.

They are generated, not observed, and say so. The law, for a request in state s under the joint action a:

- candidates: stage 1 gets n_1 = recall · supply(s), rounded; each later stage as many as the one before hands on,
  n_{k+1} = min(n_k, its queue option);
- cost of a stage, core-seconds: base + n_k · price of its model (linear, so non-decreasing in the queue);
- revenue: v(s) · Π_k (1 − δ_k · exp(−accuracy of its model · n_k / (τ_k · need(s)))), which rises in every queue and
  every accuracy with diminishing returns, and in which each stage's gain depends on what the others do.

``supply``, ``need`` and ``v`` are products over the features of one number per code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from marca_env.models.cost_map import CostMap, Curve, model_component
from marca_env.models.cost_model import CostModel
from marca_env.models.cost_regression import nominal_results
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.encoding import InputEncoder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.dataclass_schema import build, to_plain
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import DESCRIPTION, LAW, read_description, write_json
from marca_env.utils.validation import check_codes


@dataclass(frozen=True)
class StageLaw:
    """The law of one stage."""

    loss: float
    """δ: share of the revenue that the stage loses at an empty queue, in [0, 1]."""
    scale: float
    """τ: candidates at which all but 1/e of that is won back by a model of accuracy 1."""
    base: float
    """Core-seconds of a request, whatever its queue."""
    price: float
    """Core-seconds of a candidate by a model of price 1."""


@dataclass(frozen=True)
class Law:
    """The whole law of a scenario; features and options that are not named do nothing."""

    stages: tuple[StageLaw, ...]
    models: Mapping[str, float] = field(default_factory=dict)
    """Option of a model decision → its price, relative; its accuracy is the root of it."""
    value: Mapping[str, float] = field(default_factory=dict)
    """``feature`` → how much more (as a log) a request is worth with its last code than with its first."""
    supply: Mapping[str, float] = field(default_factory=dict)
    """``feature`` → the same for the candidates that there are."""
    need: Mapping[str, float] = field(default_factory=dict)
    """``feature`` → the same for the candidates that it takes."""
    revenue: float = 0.05
    """Currency per request that is won by all stages, at the middle code of every feature."""


class _Known:
    """A law and its scenario, with what both models ask of them."""

    def __init__(self, scenario: Scenario, law: Law) -> None:
        if len(law.stages) != len(scenario.stages):
            raise InputError(
                f"law of {len(law.stages)} stages for {len(scenario.stages)} of scenario {scenario.name!r}"
            )
        self.scenario, self.law = scenario, law

    def factor(self, spread: Mapping[str, float], states: np.ndarray) -> np.ndarray:
        """Product over features of exp(spread · (place − ½)), place running from 0 to 1 with the code; (B,)."""
        total = np.zeros(len(states))
        for k, feature in enumerate(self.scenario.features):
            place = states[:, k] / max(feature.size - 1, 1) - 0.5
            total += spread.get(feature.name, 0.0) * place
        return np.exp(total)

    def candidates(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(B,S)."""
        full = nominal_results(self.scenario, actions)
        most = nominal_results(self.scenario, np.array([self.scenario.action_shape]) - 1)[0, 0]
        there = np.round(np.minimum(full[:, 0], most * np.minimum(1.0, self.factor(self.law.supply, states))))
        return np.minimum(full, np.maximum(there, 1.0)[:, None])

    def model_price(self, stage: int, actions: np.ndarray) -> np.ndarray:
        """Relative price of the model that the stage runs; (B,)."""
        price = np.ones(len(actions))
        for d, decision in enumerate(self.scenario.decisions):
            if decision.kind == "model" and self.scenario.decision_stage[d] == stage:
                price = price * np.array([self.law.models.get(o, 1.0) for o in decision.options])[actions[:, d]]
        return price

    def revenue(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(B,) currency."""
        candidates, need = self.candidates(states, actions), self.factor(self.law.need, states)
        won = self.law.revenue * self.factor(self.law.value, states)
        for k, stage in enumerate(self.law.stages):
            accuracy = np.sqrt(self.model_price(k, actions))
            won = won * (1.0 - stage.loss * np.exp(-accuracy * candidates[:, k] / (stage.scale * need)))
        return won


class LawCost(CostModel):
    """The cost model that knows the law; what :class:`~marca_env.models.cost_model.CostModel` fits, this states."""

    def __init__(self, scenario: Scenario, law: Law) -> None:
        self._known = _Known(scenario, law)
        self.scenario, self.cost_map, self.device = scenario, cost_map_of(scenario, law), "cpu"
        self._encoder = InputEncoder(scenario)

    def results(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Candidates processed by each stage: ``states`` (B, F), ``actions`` (B, D) → float32 (B, S)."""
        return self._known.candidates(*_checked(self.scenario, states, actions)).astype(np.float32)

    def save(self, folder: str | Path) -> None:
        """Write ``model.json``, which is all there is."""
        _save(folder, self._known)


class LawRevenue(RevenueModel):
    """The revenue model that knows the law."""

    def __init__(self, scenario: Scenario, law: Law) -> None:
        self._known = _Known(scenario, law)
        self.scenario, self.device, self.members = scenario, "cpu", 1
        self._encoder = InputEncoder(scenario)

    def predict_members(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The law's expected revenue: ``states`` (B, F), ``actions`` (B, D) → float32 (1, B)."""
        return self._known.revenue(*_checked(self.scenario, states, actions)).astype(np.float32)[None]

    def table(self, states: np.ndarray) -> np.ndarray:
        """Expected revenue of every joint action: ``states`` (B, F) → float32 (B, J)."""
        joint = self.scenario.joint_actions
        pairs = np.repeat(np.asarray(states), len(joint), axis=0), np.tile(joint, (len(states), 1))
        return self.predict(*pairs).reshape(len(states), len(joint))

    def save(self, folder: str | Path) -> None:
        """Write ``model.json``, which is all there is."""
        _save(folder, self._known)


def cost_map_of(scenario: Scenario, law: Law) -> CostMap:
    """The law's curves, which are straight."""
    curves: dict[tuple[str, str], Curve] = {}
    most = float(nominal_results(scenario, np.array([scenario.action_shape]) - 1).max())
    ends = np.array([0.0, most])
    for stage, of in zip(scenario.stages, law.stages, strict=True):
        switches = [d for d in stage.decisions if d.kind == "model"]
        if any(d.channels for d in stage.decisions) or len(switches) > 1:
            raise InputError(f"law: stage {stage.name!r} has channels or two model decisions; it may have neither")
        curves[stage.name, "base"] = Curve(np.zeros(1), np.array([of.base]))
        curves[stage.name, "queue"] = Curve(ends, ends * (0.0 if switches else of.price))
        for decision in switches:
            for option in decision.options:
                price = of.price * law.models.get(option, 1.0)
                curves[stage.name, model_component(decision, option)] = Curve(ends, ends * price)
    return CostMap(scenario, curves)


def load_law(folder: str | Path) -> tuple[Scenario, Law]:
    """Scenario and law of a folder that either model wrote.

    Raises:
        InputError: a file is missing, cut short, or of another kind.
    """
    description = read_description(folder)
    path = Path(folder) / DESCRIPTION
    try:
        return Scenario.from_dict(description["scenario"]), build(Law, description["law"], "law")
    except (InputError, KeyError) as error:
        raise InputError(f"{path}: not a law ({one_line(error)}); copy the folder whole") from None


def _save(folder: str | Path, known: _Known) -> None:
    description = {"kind": LAW, "scenario": known.scenario.to_dict(), "law": to_plain(known.law)}
    write_json(Path(folder) / DESCRIPTION, description)


def _checked(scenario: Scenario, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    states = check_codes("state", states, scenario.feature_names, scenario.feature_sizes)
    return states, check_codes("action", actions, scenario.decision_names, scenario.action_shape)
