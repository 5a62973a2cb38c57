"""Read the three logs of a system (requests, costs, system) into the shape that the fitted models take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marca_env.integration.feature_coding import FILE as CODING_FILE
from marca_env.integration.feature_coding import FeatureCoder, read_numbers, to_text
from marca_env.integration.mapping import ClusterMap, CostSource, Mapping
from marca_env.integration.number_columns import NumberColumn
from marca_env.logs.log_files import read_cost_log
from marca_env.logs.published_samples import ACTIONS, RESULTS, is_system_sample, read_requests, request_sample
from marca_env.logs.raw_tables import read_raw
from marca_env.logs.schema import COST_COLUMNS, Column, check_table, decision_columns, feature_columns
from marca_env.models.cost_map import CostMap
from marca_env.models.cost_regression import fit_cost_map
from marca_env.models.nominal_results import nominal_results
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

BUDGET_QUANTILE = 0.95
"""Quantile of the logged loads that becomes the budget of a cluster without one."""
HEADROOM = 1.25
"""Least cores per budget of a cluster whose capacity is not given."""


@dataclass(frozen=True)
class SystemLoads:
    """Traffic and load of each period of a system log. T periods, G clusters."""

    qps: np.ndarray
    """(T,) requests per second."""
    load: np.ndarray
    """(T, G) core-seconds per second; nan for a cluster whose load is not logged."""

    @property
    def cost(self) -> np.ndarray:
        """Mean core-seconds per request, Σ load / Σ qps; (G,)."""
        return self.load.sum(axis=0) / self.qps.sum()


@dataclass(frozen=True)
class LoggedSystem:
    """A scenario with the logs of its system. M requests, N rows of results, S stages, G clusters."""

    scenario: Scenario
    coder: FeatureCoder | None
    """Coder of a user's raw features; ``None``: the live cascade, whose logs hold codes."""
    requests: pd.DataFrame
    """States, option indices, revenue, clicks, and results and signals of stages as far as logged; (M rows)."""
    results: pd.DataFrame
    """States, option indices, and the results and signals of every stage, for the cost model; (N rows)."""
    costs: np.ndarray | None
    """Core-seconds of each row of ``results``, (N, G); ``None``: not measured for each request."""
    buckets: pd.DataFrame | None
    """Cost log of a TestBench; ``None``: not available."""
    system: SystemLoads | None
    source: CostSource
    fixed_share: float

    def cost_map(self, rows: np.ndarray | None = None) -> CostMap:
        """Fit the cost map to the logs.

        Args:
            rows: mask of the rows of ``results`` to use, bool (N,); default: all. A TestBench's log is used in full.
        """
        if self.buckets is not None:
            return CostMap.from_log(self.scenario, self.buckets)
        mask = np.ones(len(self.results), dtype=bool) if rows is None else rows
        log = self.results[mask]
        actions = log[list(self.scenario.decision_names)].to_numpy()
        results = log[[f"result_{name}" for name in self.scenario.stage_names]].to_numpy(float)
        costs = self._proportional_costs(results) if self.costs is None else self.costs[mask]
        return fit_cost_map(self.scenario, actions, results, costs)

    def _proportional_costs(self, results: np.ndarray) -> np.ndarray:
        """Spread the mean cost of the system log over requests, (N, G).

        A fixed share of the mean is the same for every request; the rest is in proportion to its candidates.
        """
        assert self.system is not None
        costs = np.empty((len(results), len(self.scenario.clusters)))
        for g, mean in enumerate(self.system.cost):
            processed = results[:, self.scenario.stage_clusters[0] == g].sum(axis=1)
            relative = processed / processed.mean() if processed.any() else np.ones(len(results))
            costs[:, g] = mean * (self.fixed_share + (1.0 - self.fixed_share) * relative)
        return costs


def cascade_system(scenario: Scenario, requests: pd.DataFrame, cost_log: pd.DataFrame) -> LoggedSystem:
    """Combine a request log and a TestBench's cost log, both in our schema."""
    return LoggedSystem(scenario, None, requests, requests, None, cost_log, None, "buckets", 0.0)


def read_logged_system(
    mapping: Mapping, requests: str | Path, costs: str | Path | None = None, system: str | Path | None = None
) -> LoggedSystem:
    """Read a user's logs through a column mapping.

    Args:
        mapping: meaning of the columns.
        requests: the request log; each log is CSV, TSV or Parquet.
        costs: the cost log; not needed if the request log has the candidates of every stage, or of none.
        system: the system log; not needed if budgets, the peak and costs are known without it.

    Raises:
        InputError: a log has a fault, or a log or column that is needed is missing; names file, row, column and remedy.
    """
    table = read_raw(requests, mapping.requests.columns)
    coder = FeatureCoder.fit([f.to_coding() for f in mapping.features], table, requests)
    loads = None if system is None else _read_system_loads(mapping, system)
    scenario = mapping.scenario(_budgets_and_cores(mapping, loads), _peak_qps(mapping, loads), coder)
    buckets, cost_table, source = _read_cost_table(mapping, costs)
    coder = _with_signals(mapping, coder, *((table, requests) if cost_table is None else (cost_table, costs)))
    logged = _Logs(mapping, scenario, coder)
    log = logged.encode(table, requests)
    log["revenue"] = _numbers(table, mapping.requests.revenue, "revenue of a request", requests)
    if mapping.requests.clicks is not None:
        log["clicks"] = _numbers(table, mapping.requests.clicks, "clicks of a request", requests)
    results, request_costs = log, None
    if cost_table is not None:
        assert costs is not None
        results = logged.encode(cost_table, costs)
        if source == "requests":
            request_costs = _request_costs(mapping, cost_table, costs)
    if source == "system":
        for cluster in mapping.clusters:
            _require_load(cluster, loads is not None and cluster.load is not None, "cost of requests")
    results = _with_all_results(scenario, mapping, results, requests if cost_table is None else costs)
    return LoggedSystem(scenario, coder, log, results, request_costs, buckets, loads, source, mapping.costs.fixed_share)


def headerless_requests(path: str | Path, scenario: Scenario) -> tuple[pd.DataFrame, tuple[Column, ...]]:
    """Return table and schema of a log without a header: state, actions, and revenue or action results.

    The features are coded as the scenario's own folder says. A scenario without such a folder takes codes only.

    Raises:
        InputError: another number of columns, or values that are not codes of the scenario.
    """
    home = scenario.home
    if home is None or not (home / CODING_FILE).is_file():
        return request_sample(path, scenario)
    frame, coder = read_requests(path), FeatureCoder.load(home)
    if len(scenario.decisions) != len(ACTIONS):
        raise InputError(
            f"{path}: {len(ACTIONS)} decisions and no header, but scenario {scenario.name!r} has "
            f"{len(scenario.decisions)}; pass the log that `marca fit` wrote, {home / 'requests.parquet'}"
        )
    states = _state_frame(scenario, coder.encode(frame, path))
    actions = frame[list(ACTIONS)].set_axis(list(scenario.decision_names), axis=1)
    outcome = tuple(Column(name) for name in ("revenue", *RESULTS) if name in frame.columns)
    table = pd.concat([states, actions, frame[[c.name for c in outcome]]], axis=1)
    return table, feature_columns(scenario) + decision_columns(scenario) + outcome


def complete_request_log(system: LoggedSystem, results: np.ndarray) -> pd.DataFrame:
    """Return the request log in our own schema.

    Candidates and signals that are not logged come from ``results`` (M, R); other outcomes that are not logged are 0.
    """
    log = system.requests
    columns: dict[str, Any] = {name: results[:, k] for k, name in enumerate(system.scenario.result_columns)}
    columns |= dict.fromkeys(("impressions", "clicks", "gmv"), 0.0)
    return log.assign(**{name: values for name, values in columns.items() if name not in log.columns})


# -- request log and cost log ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Logs:
    """Reader of the tables of a system."""

    mapping: Mapping
    scenario: Scenario
    coder: FeatureCoder

    def encode(self, table: pd.DataFrame, where: str | Path) -> pd.DataFrame:
        """Return states, option indices, and the results and signals of the stages whose columns the table has."""
        frame = _state_frame(self.scenario, self.coder.encode(table, where))
        frame = frame.assign(
            **_option_indices(self.mapping, table, where), **_logged_results(self.mapping, table, where)
        )
        if self.mapping.signals and all(signal.source in table.columns for signal in self.mapping.signals):
            names = self.scenario.result_columns[len(self.scenario.stages) :]
            values = self.coder.encode_signals(table, where)
            frame = frame.assign(**{name: values[:, k] for k, name in enumerate(names)})
        return frame


def _state_frame(scenario: Scenario, states: np.ndarray) -> pd.DataFrame:
    """Return states (M, W) as a table, in which the columns of categories are integers."""
    frame = pd.DataFrame(states, columns=list(scenario.state_columns))
    return frame.astype({scenario.state_columns[k]: np.int64 for k in scenario.category_columns})


def _with_signals(mapping: Mapping, coder: FeatureCoder, table: pd.DataFrame, where: str | Path | None) -> FeatureCoder:
    """Return the coder with the scales of the signals, learnt from the table that the cost model is fitted to."""
    scales = []
    for stage in mapping.stages:
        for signal in stage.signals:
            meaning = f"signal {signal.name!r} of stage {stage.name!r}"
            numbers = read_numbers(table, signal.source, str(where), meaning)
            scales.append(NumberColumn.fit(signal.source, numbers, str(where)))
    return FeatureCoder(coder.codings, scales)


def _option_indices(mapping: Mapping, table: pd.DataFrame, where: str | Path) -> dict[str, np.ndarray]:
    """Return the option that each decision took."""
    indices = {}
    for decision in mapping.decisions:
        column = decision.column or decision.name
        if column not in table.columns:
            raise InputError(
                f"{where}: column {column!r} of decision {decision.name!r} is missing (columns: "
                f"{', '.join(map(str, table.columns))}); name the right column in the mapping"
            )
        code_of = {to_text(v): k for k, v in enumerate(decision.logged_values())}
        texts = [to_text(v) for v in table[column]]
        codes = np.array([code_of.get(t, -1) for t in texts])
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise InputError(
                f"{where}: row {row + 1}, column {column!r}: {texts[row]!r} is not an option of decision "
                f"{decision.name!r} (its values: {', '.join(code_of)}); add it to the mapping, or drop the row"
            )
        indices[decision.name] = codes
    return indices


def _logged_results(mapping: Mapping, table: pd.DataFrame, where: str | Path) -> dict[str, np.ndarray]:
    """Return the candidates of the stages whose column the table has."""
    logged = [s for s in mapping.stages if s.result is not None and s.result in table.columns]
    return {
        f"result_{s.name}": _numbers(table, str(s.result), f"candidates of stage {s.name!r}", where) for s in logged
    }


def _with_all_results(
    scenario: Scenario, mapping: Mapping, log: pd.DataFrame, where: str | Path | None
) -> pd.DataFrame:
    """Add results of stages without a column in the mapping: as many candidates as fit."""
    nominal = nominal_results(scenario, log[list(scenario.decision_names)].to_numpy())
    for k, stage in enumerate(mapping.stages):
        name = f"result_{stage.name}"
        if name not in log.columns and stage.result is not None:
            raise InputError(
                f"{where}: column {stage.result!r} with the candidates of stage {stage.name!r} is missing; name the "
                "right column, or leave 'result' out of the mapping"
            )
        if name not in log.columns:
            log = log.assign(**{name: nominal[:, k]})
    return log


def _read_cost_table(
    mapping: Mapping, path: str | Path | None
) -> tuple[pd.DataFrame | None, pd.DataFrame | None, CostSource]:
    """Return (a TestBench's log, a table with a row per request, source of the costs)."""
    source = mapping.costs.source
    if path is None:
        if source in ("buckets", "requests"):
            raise InputError(f"mapping: costs.source is {source!r}, but there is no cost log; pass --costs FILE")
        return None, None, "system"
    table = read_raw(path, mapping.costs.columns)
    if source is None:
        has_buckets = {c.name for c in COST_COLUMNS} <= set(table.columns)
        source = "buckets" if has_buckets else "requests" if any(c.cost for c in mapping.clusters) else "system"
    if source == "buckets":
        return read_cost_log(path), None, source
    return None, table, source


def _request_costs(mapping: Mapping, table: pd.DataFrame, where: str | Path) -> np.ndarray:
    """Return the measured core-seconds of each request, (N, G)."""
    columns = []
    for cluster in mapping.clusters:
        if cluster.cost is None:
            raise InputError(
                f"cluster {cluster.name!r}: no cost column; add 'cost: COLUMN' to the mapping, or use costs.source "
                "'system'"
            )
        meaning = f"cost on cluster {cluster.name!r}"
        columns.append(_numbers(table, cluster.cost, meaning, where) * cluster.cost_scale)
    return np.stack(columns, axis=1)


# -- system log --------------------------------------------------------------------------------------------------
def _read_system_loads(mapping: Mapping, path: str | Path) -> SystemLoads:
    table = read_raw(path, mapping.system.columns)
    if is_system_sample(table):  # noise was added before publication; values that fell below zero become zero
        used = [mapping.system.qps, *(c.load for c in mapping.clusters if c.load is not None)]
        table = table.assign(**{name: table[name].astype(float).clip(lower=0.0) for name in used if name in table})
    qps = _numbers(table, mapping.system.qps, "requests per second", path)
    if not qps.any():
        raise InputError(f"{path}: column {mapping.system.qps!r} is zero in every row; use periods with traffic")
    loads = [
        np.full(len(table), np.nan)
        if c.load is None
        else _numbers(table, c.load, f"load of cluster {c.name!r}", path) * c.load_scale
        for c in mapping.clusters
    ]
    return SystemLoads(qps, np.stack(loads, axis=1))


def _budgets_and_cores(mapping: Mapping, loads: SystemLoads | None) -> dict[str, tuple[float, float]]:
    """Return (budget, cores) of each cluster, from the mapping or else from its logged loads."""
    limits = {}
    for g, cluster in enumerate(mapping.clusters):
        load = np.zeros(0) if loads is None or cluster.load is None else loads.load[:, g]
        budget, cores = cluster.budget, cluster.cores
        if budget is None:
            _require_load(cluster, len(load) > 0, "budget", "write 'budget: NUMBER' in the mapping, or ")
            budget = float(np.quantile(load, BUDGET_QUANTILE))
        if cores is None:
            cores = max([HEADROOM * budget, *load])
        limits[cluster.name] = (float(budget), float(cores))
    return limits


def _peak_qps(mapping: Mapping, loads: SystemLoads | None) -> float:
    if mapping.peak_qps is not None:
        return mapping.peak_qps
    if loads is None:
        raise InputError("mapping: no peak_qps and no system log to take it from; add peak_qps, or pass --system FILE")
    return float(loads.qps.max())


def _require_load(cluster: ClusterMap, has_load: bool, quantity: str, remedy: str = "") -> None:
    if not has_load:
        raise InputError(
            f"cluster {cluster.name!r} has no {quantity}; {remedy}name the column of its load in 'load' and pass "
            "--system FILE"
        )


def _numbers(table: pd.DataFrame, column: str, meaning: str, where: str | Path) -> np.ndarray:
    """Return a column of finite numbers ≥ 0."""
    return check_table(table, [Column(column, meaning=meaning)], where)[column].to_numpy(float)
