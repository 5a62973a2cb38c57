"""The latency map: candidates of each stage to the service time of a request, on idle machines.

The channels of a stage run side by side, so that the slowest one counts; the stages run one after the other. What a
loaded cluster adds is in :mod:`marca_env.traffic.waiting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marca_env.logs.schema import COST_COLUMNS, LATENCY_COLUMNS, WHOLE_REQUESTS, check_table
from marca_env.models.cost_map import REMEDY, CostMap, Curve, has_channels, model_component
from marca_env.models.latency import Duration
from marca_env.scenario.scenario import Scenario, Stage
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

FILE = "latency.json"
"""Name of a latency map in a scenario's folder."""
TAIL = 1.6
"""p99 over p50 of a component whose latency was not measured: the mean over the components of the default cascade."""
_CHUNK = 200  # requests whose joint actions are evaluated together
_REMEDY = "write it again with `marca fit`, from a cost log of `marca testbench`"
Component = tuple[str, str]
"""Stage and component, as a cost log names them."""


@dataclass(frozen=True)
class QuantileCurves:
    """Median and 99 % quantile of a component's service time over the length of its work."""

    p50: Curve
    """Seconds."""
    p99: Curve
    """Seconds, at least the median."""

    @classmethod
    def isotonic(cls, lengths: np.ndarray, p50: np.ndarray, p99: np.ndarray) -> QuantileCurves:
        """Fit non-decreasing curves to measurements.

        Repeats at a length count by their median, which resists bursts of other work on the machine.
        """
        knots = np.unique(lengths)
        medians = [np.array([np.median(x[lengths == knot]) for knot in knots]) for x in (p50, p99)]
        return cls(Curve.isotonic(knots, medians[0]), Curve.isotonic(knots, np.maximum(*medians)))

    @classmethod
    def from_cost(cls, curve: Curve) -> QuantileCurves:
        """Return the curves of a component that was not measured: a second for each core-second, and :data:`TAIL`."""
        return cls(curve, Curve(curve.lengths, TAIL * curve.costs))

    def __call__(self, lengths: np.ndarray) -> Duration:
        """Return the durations at ``lengths`` of any shape."""
        return Duration.from_quantiles(self.p50(lengths), self.p99(lengths))


class LatencyMap:
    """Service time of a request as a sum over its stages.

    Stage = base + slowest of the channels that are on (recall length) + queue (candidates scored) + models that are on
    (candidates). The slowest channel is the one with the largest mean.

    Args:
        scenario: the system.
        curves: curves of each stage and component; the same components as in the scenario's cost map.
    """

    def __init__(self, scenario: Scenario, curves: Mapping[Component, QuantileCurves]) -> None:
        self.scenario = scenario
        self.curves = dict(curves)

    @classmethod
    @checked_arguments
    def from_log(
        cls, scenario: Scenario | str | Path, cost_log: pd.DataFrame, cost_map: CostMap | None = None
    ) -> LatencyMap:
        """Fit the map to the columns ``latency_p50`` and ``latency_p99`` of a cost log.

        Args:
            scenario: the system.
            cost_log: measurements of the TestBench. A component without a measured latency takes a second for each
                core-second, and its p99 is :data:`TAIL` times that.
            cost_map: the map of those components; ``None``: fitted to the same log.

        Raises:
            InputError: a row is invalid, its p99 is below its p50, or the log does not fit the scenario.
        """
        scenario = Scenario.load(scenario)
        cost_map = CostMap.from_log(scenario, cost_log) if cost_map is None else cost_map
        curves = cls.from_cost_map(cost_map).curves
        if all(column.name in cost_log for column in LATENCY_COLUMNS):
            log = check_table(cost_log, (*COST_COLUMNS, *LATENCY_COLUMNS), "cost log")
            log = log[log["latency_p50"].notna() & log["latency_p99"].notna()]
            log = log[~log["component"].isin((*WHOLE_REQUESTS, "degradation"))]
            _check_order(log)
            for (stage, component), rows in log.groupby(["stage", "component"]):
                curves[str(stage), str(component)] = _fit_curves(str(component), rows)
        return cls(scenario, curves)

    @classmethod
    def from_cost_map(cls, cost_map: CostMap) -> LatencyMap:
        """Return the map of a system whose latency was not measured.

        A component takes a second for each core-second, as it does on one core, and its p99 is :data:`TAIL` times that.
        """
        costs = {key: curve for key, curve in cost_map.curves.items() if key[1] != "degradation"}
        return cls(cost_map.scenario, {key: QuantileCurves.from_cost(curve) for key, curve in costs.items()})

    # -- use -----------------------------------------------------------------------------------------------
    def total(self, actions: np.ndarray, results: np.ndarray) -> Duration:
        """Return the service time of requests, (…).

        Args:
            actions: (…, D) option indices.
            results: (…, S) candidates that each stage processed.
        """
        actions, results = np.asarray(actions), np.asarray(results)
        total = Duration.none(np.broadcast_shapes(actions.shape[:-1], results.shape[:-1]))
        for k in range(len(self.scenario.stages)):
            total = total + self.stage(k, actions, results[..., k])
        return total

    def of_joint_actions(self, results: np.ndarray) -> Duration:
        """Return the service time under every joint action, (M,J) float32, from the candidates ``results`` (M,J,S)."""
        mean, variance = (np.empty(results.shape[:2], dtype=np.float32) for _ in range(2))
        for start in range(0, len(results), _CHUNK):
            part = slice(start, start + _CHUNK)
            time = self.total(self.scenario.joint_actions, results[part])
            mean[part], variance[part] = time.mean, time.variance
        return Duration(mean, variance)

    def stage(
        self, stage_index: int, actions: np.ndarray, processed: np.ndarray, *, side_by_side: bool = True
    ) -> Duration:
        """Return the service time of one stage, (…).

        Args:
            stage_index: number of the stage.
            actions: (…, D) option indices.
            processed: (…) candidates that it processed.
            side_by_side: whether its channels run at the same time; ``False``: one after the other, as in the single
                thread that the TestBench measures.
        """
        stage, actions = self.scenario.stages[stage_index], np.asarray(actions)
        time = Duration.none(np.broadcast_shapes(actions.shape[:-1], np.shape(processed)))
        time = time + self._component(stage, "base")(np.zeros(()))
        if (stage.name, "queue") in self.curves:
            time = time + self.curves[stage.name, "queue"](processed)
        if has_channels(stage):
            time = time + self._channels(stage, actions, side_by_side)
        for decision in stage.decisions:
            if decision.kind == "model":
                option_index = actions[..., self.scenario.decision_names.index(decision.name)]
                for index, option in enumerate(decision.options):
                    if option != "off":
                        added = self._component(stage, model_component(decision, option))(processed)
                        is_on = option_index == index
                        time = time + Duration(added.mean * is_on, added.variance * is_on)
        return time

    def _component(self, stage: Stage, component: str) -> QuantileCurves:
        if (stage.name, component) not in self.curves:
            raise InputError(f"latency map: no curves for component {component!r} of stage {stage.name!r}; {REMEDY}")
        return self.curves[stage.name, component]

    def _channels(self, stage: Stage, actions: np.ndarray, side_by_side: bool) -> Duration:
        """Return the time of the channels that are on, (…); a channel without a switch is always on."""
        names = [c.removeprefix("channel:") for s, c in self.curves if s == stage.name and c.startswith("channel:")]
        time = Duration.none(actions.shape[:-1])
        for name in names:
            channel = self._channel(stage, name, actions)
            if side_by_side:
                is_slower = channel.mean > time.mean
                time = Duration(
                    np.where(is_slower, channel.mean, time.mean), np.where(is_slower, channel.variance, time.variance)
                )
            else:
                time = time + channel
        return time

    def _channel(self, stage: Stage, name: str, actions: np.ndarray) -> Duration:
        """Return the time of one channel, (…), zero where it is off."""
        curves, shape = self.curves[stage.name, f"channel:{name}"], actions.shape[:-1]
        lengths = np.full(shape, curves.p50.lengths[-1])
        is_on = np.ones(shape)
        for index, decision in enumerate(self.scenario.decisions):
            if decision.channel == name:
                lengths = np.array(decision.options, dtype=float)[actions[..., index]]
            if decision.kind == "channel":
                is_on = is_on * np.array([float(name in option) for option in decision.options])[actions[..., index]]
        time = curves(lengths)
        return Duration(time.mean * is_on, time.variance * is_on)

    # -- in and out ----------------------------------------------------------------------------------------
    @checked_arguments
    def save(self, folder: str | Path) -> None:
        """Write ``latency.json`` into a scenario's folder."""
        curves = [
            {
                "stage": stage,
                "component": component,
                "lengths": curve.p50.lengths.tolist(),
                "p50": curve.p50.costs.tolist(),
                "p99": curve.p99.costs.tolist(),
            }
            for (stage, component), curve in self.curves.items()
        ]
        write_json(Path(folder) / FILE, {"curves": curves})

    @classmethod
    @checked_arguments
    def load(cls, folder: str | Path, scenario: Scenario) -> LatencyMap:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing, incomplete, or of another system than the scenario.
        """
        path = Path(folder) / FILE
        data = read_json(path, _REMEDY, finite=True)
        try:
            curves = {(c["stage"], c["component"]): _read_curves(c) for c in data["curves"]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fault = f"field {error} is missing" if isinstance(error, KeyError) else one_line(error)
            raise InputError(f"{path}: {fault}; {_REMEDY}") from None
        latency_map = cls(scenario, curves)
        try:
            first = scenario.joint_actions[:1]
            latency_map.total(first, np.zeros((1, len(scenario.stages))))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return latency_map


def _read_curves(data: Mapping[str, Any]) -> QuantileCurves:
    lengths, p50, p99 = (np.array(data[name], dtype=float) for name in ("lengths", "p50", "p99"))
    if np.any(p99 < p50):
        raise ValueError(f"component {data['component']!r} has a p99 below its p50; give quantiles that rise")
    return QuantileCurves(Curve(lengths, p50), Curve(lengths, p99))


def _check_order(log: pd.DataFrame) -> None:
    """Raise an InputError if a row's p99 is below its p50."""
    wrong = log.index[log["latency_p99"] < log["latency_p50"]]
    if len(wrong):
        row = log.loc[wrong[0]]
        raise InputError(
            f"cost log: row {wrong[0] + 1}, column 'latency_p99': {row['latency_p99']:g} s is below its latency_p50 "
            f"{row['latency_p50']:g} s; correct it"
        )


def _fit_curves(component: str, rows: pd.DataFrame) -> QuantileCurves:
    lengths, p50, p99 = (rows[name].to_numpy(float) for name in ("queue_length", "latency_p50", "latency_p99"))
    if component == "base":
        lengths = np.zeros_like(lengths)
    if component == "queue":  # an empty queue takes no time
        lengths, p50, p99 = (np.append(x, 0.0) for x in (lengths, p50, p99))
    return QuantileCurves.isotonic(lengths, p50, p99)
