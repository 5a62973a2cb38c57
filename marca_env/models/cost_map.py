"""The cost map: candidates of each stage to core-seconds per request (arXiv 2512.24325, Part 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from marca_env.logs.schema import COST_COLUMNS, WHOLE_REQUESTS, check_table
from marca_env.scenario.scenario import Decision, Scenario, Stage
from marca_env.utils.errors import InputError, one_line, unknown_option

if TYPE_CHECKING:
    import pandas as pd

REMEDY = "measure it with `marca testbench`"


@dataclass(frozen=True)
class Curve:
    """A non-decreasing, non-negative, piecewise linear function; beyond its knots it continues at its mean slope."""

    lengths: np.ndarray
    """(n,) knots in increasing order: candidates, recall lengths or degradation levels."""
    costs: np.ndarray
    """(n,) value at each knot, non-decreasing; core-seconds per request."""

    def __post_init__(self) -> None:
        if self.lengths.ndim != 1 or len(self.lengths) == 0 or self.lengths.shape != self.costs.shape:
            raise ValueError(
                f"curve has knots of shape {self.lengths.shape} and costs {self.costs.shape}; give one cost per knot"
            )
        if not (np.isfinite(self.lengths).all() and np.isfinite(self.costs).all()):
            raise ValueError("curve has knots or costs that are not finite; give finite numbers")
        if (np.diff(self.lengths) <= 0).any() or (np.diff(self.costs) < 0).any() or self.costs[0] < 0:
            raise ValueError(
                "curve falls, is negative, or has knots out of order; give rising knots and costs from 0 up"
            )

    @classmethod
    def isotonic(cls, lengths: np.ndarray, costs: np.ndarray) -> Curve:
        """Fit the non-decreasing curve nearest to the measurements in least squares; repeats share a knot."""
        from sklearn.isotonic import IsotonicRegression  # takes longer to import than all of this package

        knots = np.unique(np.asarray(lengths, dtype=float))
        fitted = IsotonicRegression().fit(lengths, costs).predict(knots)
        return cls(knots, np.maximum(fitted, 0.0))

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """Return the value at ``lengths`` of any shape."""
        x = np.asarray(lengths, dtype=float)
        inside = np.interp(x, self.lengths, self.costs)
        first, last = self.lengths[0], self.lengths[-1]
        if last == first:
            return inside
        slope = (self.costs[-1] - self.costs[0]) / (last - first)
        outside = np.minimum(x - first, 0.0) + np.maximum(x - last, 0.0)
        return np.maximum(inside + slope * outside, 0.0)


class CostMap:
    """Cost of each cluster as a sum over its stages.

    Stage cost = base + Σ channels that are on (recall length) + queue (candidates scored)
    + Σ models that are on (candidates). Curves are isotonic in the length; each option of a model has its own curve.

    Args:
        scenario: the system.
        curves: (stage, component) → core-seconds per request; (cluster, "degradation") → f(D) of Eq. 1.

    Raises:
        InputError: a component that the scenario needs has no curve.
    """

    def __init__(self, scenario: Scenario, curves: Mapping[tuple[str, str], Curve]) -> None:
        self.scenario = scenario
        self.curves = dict(curves)
        self._check()

    @classmethod
    def from_log(cls, scenario: Scenario | str, cost_log: pd.DataFrame) -> CostMap:
        """Fit every curve of the scenario to the measurements of a cost log (Eq. 26).

        Raises:
            InputError: a component that the scenario needs was not measured, a row is invalid, or a row names a stage
                or cluster that the scenario does not have.
        """
        scenario = Scenario.load(scenario)
        log = check_table(cost_log, COST_COLUMNS, "cost log")
        for column, valid in (("stage", scenario.stage_names), ("cluster", scenario.cluster_names)):
            for name in set(log[column]) - set(valid):
                raise InputError(f"cost log: {unknown_option(column, name, valid)} in scenario {scenario.name!r}")
        log = log[
            ~log["component"].isin(WHOLE_REQUESTS)
        ]  # costs of complete requests check the map and are no part of it
        curves: dict[tuple[str, str], Curve] = {}
        for names, rows in log.groupby(["stage", "cluster", "component"]):
            stage, cluster, component = map(str, names)
            lengths, costs = rows["queue_length"].to_numpy(float), rows["cost"].to_numpy(float)
            key = (cluster, component) if component == "degradation" else (stage, component)
            if component in ("queue", "degradation"):  # an empty queue costs nothing, and level 0 saves nothing
                lengths, costs = np.append(lengths, np.zeros(len(rows))), np.append(costs, np.zeros(len(rows)))
            if component == "base":
                lengths = np.zeros_like(lengths)
            curves[key] = Curve.isotonic(lengths, costs)
        return cls(scenario, curves)

    def _check(self) -> None:
        """Raise an InputError if a component that the scenario needs has no curve."""
        for stage in self.scenario.stages:
            needed = ["base"]
            if not has_channels(stage):
                needed.append("queue")
            for decision in stage.decisions:
                if decision.kind == "channel":
                    needed += [f"channel:{c}" for option in decision.options for c in option]
                if decision.kind == "model":
                    needed += [model_component(decision, o) for o in decision.options if o != "off"]
                if decision.channel is not None:
                    needed.append(f"channel:{decision.channel}")
            for component in needed:
                if (stage.name, component) not in self.curves:
                    raise InputError(f"cost log: no rows for component {component!r} of stage {stage.name!r}; {REMEDY}")

    # -- use -----------------------------------------------------------------------------------------------
    def cost(self, actions: np.ndarray, results: np.ndarray, site: np.ndarray | None = None) -> np.ndarray:
        """Return core-seconds per request on each cluster, (…, G).

        Args:
            actions: (…, D) option indices.
            results: (…, S) candidates that each stage processed.
            site: (…) int, site of each request (:meth:`Scenario.site_of`). A request costs nothing on the clusters of
                other sites. Only needed if the scenario has several sites.

        Raises:
            InputError: the scenario has several sites and ``site`` is missing.
        """
        actions, results = np.asarray(actions), np.asarray(results)
        if site is None and self.scenario.n_sites > 1:
            raise InputError(
                f"scenario {self.scenario.name!r} has {self.scenario.n_sites} sites, by feature "
                f"{self.scenario.site!r}; pass the site of each request, scenario.site_of(states)"
            )
        total = np.zeros((*results.shape[:-1], len(self.scenario.clusters)))
        for k in range(len(self.scenario.stages)):
            cost = self.stage_cost(k, actions, results[..., k])
            for place, clusters in enumerate(self.scenario.stage_clusters):
                total[..., clusters[k]] += cost if site is None else cost * (site == place)
        return total

    def stage_cost(self, stage_index: int, actions: np.ndarray, processed: np.ndarray) -> np.ndarray:
        """Return core-seconds per request of one stage: ``actions`` (…, D), ``processed`` candidates (…) → (…)."""
        stage = self.scenario.stages[stage_index]
        cost = np.full(np.shape(processed), float(self.curves[stage.name, "base"](np.zeros(()))))
        if (stage.name, "queue") in self.curves:
            cost += self.curves[stage.name, "queue"](processed)
        if has_channels(stage):
            cost += self._channels(stage, actions)
        for decision in stage.decisions:
            if decision.kind == "model":
                option_index = actions[..., self.scenario.decision_names.index(decision.name)]
                for index, option in enumerate(decision.options):
                    if option != "off":
                        added = self.curves[stage.name, model_component(decision, option)](processed)
                        cost += np.where(option_index == index, added, 0.0)
        return cost

    def _channels(self, stage: Stage, actions: np.ndarray) -> np.ndarray:
        """Sum over the channels that are on; a channel without a switch is always on."""
        names = [c.removeprefix("channel:") for s, c in self.curves if s == stage.name and c.startswith("channel:")]
        cost = np.zeros(actions.shape[:-1])
        for name in names:
            curve = self.curves[stage.name, f"channel:{name}"]
            added: np.ndarray | float = float(curve(curve.lengths[-1]))
            for index, decision in enumerate(self.scenario.decisions):
                if decision.channel == name:
                    added = curve(np.array(decision.options))[actions[..., index]]
            for index, decision in enumerate(self.scenario.decisions):
                if decision.kind == "channel":
                    on = np.array([float(name in option) for option in decision.options])
                    added = added * on[actions[..., index]]
            cost = cost + added
        return cost

    def degradation(self, levels: np.ndarray) -> np.ndarray:
        """Return f(D) of Eq. 1, the core-seconds per request that degradation saves: ``levels`` (G,) → (G,).

        Raises:
            InputError: a cluster is degraded and its f(D) was not measured.
        """
        saved = np.zeros(len(self.scenario.clusters))
        for g, name in enumerate(self.scenario.cluster_names):
            if levels[g] > 0:
                if (name, "degradation") not in self.curves:
                    raise InputError(f"cost log: no rows for component 'degradation' of cluster {name!r}; {REMEDY}")
                saved[g] = self.curves[name, "degradation"](levels[g])
        return saved

    # -- in and out ----------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and scalars, for JSON."""
        curves = [
            {"of": of, "component": component, "lengths": curve.lengths.tolist(), "costs": curve.costs.tolist()}
            for (of, component), curve in self.curves.items()
        ]
        return {"curves": curves}

    @classmethod
    def from_dict(cls, scenario: Scenario, data: Mapping[str, Any]) -> CostMap:
        """Rebuild a map from the output of :meth:`to_dict`.

        Raises:
            InputError: a field is missing or of the wrong type.
        """
        try:
            curves = {
                (c["of"], c["component"]): Curve(np.array(c["lengths"], dtype=float), np.array(c["costs"], dtype=float))
                for c in data["curves"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"cost map: {_fault(error)}; fit and save the model again") from None
        return cls(scenario, curves)


def _fault(error: Exception) -> str:
    return f"field {error} is missing" if isinstance(error, KeyError) else one_line(error)


def model_component(decision: Decision, option: str) -> str:
    """Return the cost log's component name for an option of a model decision."""
    return f"model:{decision.name}={option}"


def has_channels(stage: Stage) -> bool:
    """Return whether the cost of a stage depends on its channels instead of on the queue that it processes."""
    return any(d.kind == "channel" or d.channel is not None for d in stage.decisions)
