"""Somebody's three logs, read as a mapping says, in the shape that the fitted models take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from marca_env.integration.feature_coding import FeatureCoder, to_text
from marca_env.integration.mapping import ClusterMap, CostSource, Mapping
from marca_env.logs.log_files import read_cost_log
from marca_env.logs.published_samples import is_system_sample
from marca_env.logs.raw_tables import read_raw
from marca_env.logs.schema import COST_COLUMNS, Column, check_table
from marca_env.models.cost_map import CostMap
from marca_env.models.cost_regression import fit_cost_map
from marca_env.models.nominal_results import nominal_results
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

BUDGET_QUANTILE, HEADROOM = 0.95, 1.25
"""Of the logged loads for a budget that is not given; least cores per budget."""


@dataclass(frozen=True)
class SystemLoads:
    """What the system log says of each period. T periods, G clusters."""

    qps: np.ndarray
    """(T,) requests per second."""
    load: np.ndarray
    """(T,G) core-seconds per second; nan for a cluster whose load is not logged."""

    @property
    def cost(self) -> np.ndarray:
        """(G,) mean core-seconds per request: Σ load / Σ qps."""
        return self.load.sum(axis=0) / self.qps.sum()


@dataclass(frozen=True)
class LoggedSystem:
    """A system of your own, as its logs show it. M requests, N rows of costs, S stages, G clusters."""

    scenario: Scenario
    coder: FeatureCoder
    requests: pd.DataFrame
    """Features and decisions as codes, revenue, perhaps clicks, and ``result_<stage>`` where it tells; (M rows)."""
    results: pd.DataFrame
    """Features and decisions as codes and ``result_<stage>`` of every stage: what the cost model learns; (N rows)."""
    costs: np.ndarray | None
    """(N,G) core-seconds of each row of ``results``, where they were measured."""
    buckets: pd.DataFrame | None
    """A TestBench's cost log, where there is one."""
    system: SystemLoads | None
    source: CostSource
    fixed_share: float

    def cost_map(self, rows: np.ndarray | None = None) -> CostMap:
        """The cost map of the logs; of some ``rows`` (bool, (N,)) of measured costs."""
        if self.buckets is not None:
            return CostMap.from_log(self.scenario, self.buckets)
        chosen = np.ones(len(self.results), dtype=bool) if rows is None else rows
        log = self.results[chosen]
        actions = log[list(self.scenario.decision_names)].to_numpy()
        results = log[[f"result_{name}" for name in self.scenario.stage_names]].to_numpy(float)
        costs = self._proportional(results) if self.costs is None else self.costs[chosen]
        return fit_cost_map(self.scenario, actions, results, costs)

    def _proportional(self, results: np.ndarray) -> np.ndarray:
        """(N,G) the mean cost of the system log, a share of it fixed and the rest in proportion to the candidates."""
        assert self.system is not None
        costs = np.empty((len(results), len(self.scenario.clusters)))
        for g, mean in enumerate(self.system.cost):
            processed = results[:, self.scenario.stage_clusters[0] == g].sum(axis=1)
            relative = processed / processed.mean() if processed.any() else np.ones(len(results))
            costs[:, g] = mean * (self.fixed_share + (1.0 - self.fixed_share) * relative)
        return costs


def read_logged_system(
    mapping: Mapping, requests: str | Path, costs: str | Path | None = None, system: str | Path | None = None
) -> LoggedSystem:
    """Read the logs of a system.

    Args:
        mapping: which columns are what.
        requests: the request log; every one is CSV, TSV or Parquet.
        costs: the cost log; not needed if the request log has the candidates of every stage, or none has.
        system: the system log; not needed if budgets, the peak and costs are known without it.

    Raises:
        InputError: something is wrong with a file, or is needed and nowhere; names the file, row, column and remedy.
    """
    table = read_raw(requests, mapping.requests.columns)
    coder = FeatureCoder.fit([f.coded() for f in mapping.features], table, requests)
    readings = None if system is None else _system(mapping, system)
    scenario = mapping.scenario(_clusters(mapping, readings), _peak(mapping, readings))
    buckets, measured, source = _cost_log(mapping, costs)
    log = _coded(mapping, coder, table, requests)
    log = log.assign(**_results(mapping, scenario, table, requests))
    log["revenue"] = _numbers(table, mapping.requests.revenue, "revenue of a request", requests)
    if mapping.requests.clicks is not None:
        log["clicks"] = _numbers(table, mapping.requests.clicks, "clicks of a request", requests)
    results, per_request = log, None
    if measured is not None:
        assert costs is not None
        results = _coded(mapping, coder, measured, costs).assign(**_results(mapping, scenario, measured, costs))
        if source == "requests":
            per_request = _costs(mapping, measured, costs)
    if source == "system":
        _require_loads(mapping, readings)
    results = _whole(scenario, mapping, results, requests if measured is None else costs)
    return LoggedSystem(
        scenario, coder, log, results, per_request, buckets, readings, source, mapping.costs.fixed_share
    )


# -- parts -------------------------------------------------------------------------------------------------------
def _coded(mapping: Mapping, coder: FeatureCoder, table: pd.DataFrame, where: str | Path) -> pd.DataFrame:
    """Features and decisions as codes."""

    states = coder.encode(table, where)
    frame = pd.DataFrame(states, columns=[f.name for f in mapping.features])
    for decision in mapping.decisions:
        column = decision.column or decision.name
        if column not in table.columns:
            raise InputError(
                f"{where}: column {column!r} of decision {decision.name!r} is missing "
                f"(found: {', '.join(map(str, table.columns))})"
            )
        known = {to_text(v): k for k, v in enumerate(decision.logged())}
        texts = [to_text(v) for v in table[column]]
        codes = np.array([known.get(t, -1) for t in texts])
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise InputError(
                f"{where}: row {row + 1}, column {column!r}: {texts[row]!r} is no option of decision "
                f"{decision.name!r} (its values: {', '.join(known)}); add it to the mapping, or drop the row"
            )
        frame[decision.name] = codes
    return frame


def _results(mapping: Mapping, scenario: Scenario, table: pd.DataFrame, where: str | Path) -> dict[str, np.ndarray]:
    """Candidates of the stages whose column the table has."""
    found = [s for s in mapping.stages if s.result is not None and s.result in table.columns]
    return {f"result_{s.name}": _numbers(table, str(s.result), f"candidates of stage {s.name!r}", where) for s in found}


def _whole(scenario: Scenario, mapping: Mapping, log: pd.DataFrame, where: str | Path | None) -> pd.DataFrame:
    """The log with a result for every stage: those that the mapping gives no column are as many as fit."""
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


def _cost_log(mapping: Mapping, path: str | Path | None) -> tuple[pd.DataFrame | None, pd.DataFrame | None, CostSource]:
    """(a TestBench's log, a row per request, where costs come from)."""
    source = mapping.costs.source
    if path is None:
        if source in ("buckets", "requests"):
            raise InputError(f"mapping: costs.source is {source!r}, but there is no cost log; pass --costs FILE")
        return None, None, "system"
    table = read_raw(path, mapping.costs.columns)
    if source is None:
        of_buckets = {c.name for c in COST_COLUMNS} <= set(table.columns)
        source = "buckets" if of_buckets else "requests" if any(c.cost for c in mapping.clusters) else "system"
    if source == "buckets":
        return read_cost_log(path), None, source
    return None, table, source


def _costs(mapping: Mapping, table: pd.DataFrame, where: str | Path) -> np.ndarray:
    columns = []
    for cluster in mapping.clusters:
        if cluster.cost is None:
            raise InputError(
                f"cluster {cluster.name!r}: no cost column; add 'cost: COLUMN' to the mapping, or take costs.source "
                "'system'"
            )
        what = f"cost on cluster {cluster.name!r}"
        columns.append(_numbers(table, cluster.cost, what, where) * cluster.cost_scale)
    return np.stack(columns, axis=1)


def _system(mapping: Mapping, path: str | Path) -> SystemLoads:
    table = read_raw(path, mapping.system.columns)
    if is_system_sample(table):  # noise was added to it before it was published: what fell below zero is zero
        used = [mapping.system.qps, *(c.load for c in mapping.clusters if c.load is not None)]
        table = table.assign(**{name: table[name].astype(float).clip(lower=0.0) for name in used if name in table})
    qps = _numbers(table, mapping.system.qps, "requests per second", path)
    if not qps.any():
        raise InputError(f"{path}: column {mapping.system.qps!r} is zero in every row; give periods with traffic")
    loads = [
        np.full(len(table), np.nan)
        if c.load is None
        else _numbers(table, c.load, f"load of cluster {c.name!r}", path) * c.load_scale
        for c in mapping.clusters
    ]
    return SystemLoads(qps, np.stack(loads, axis=1))


def _clusters(mapping: Mapping, system: SystemLoads | None) -> dict[str, tuple[float, float]]:
    """(budget, cores) of each cluster: given, or from its loads."""
    found = {}
    for g, cluster in enumerate(mapping.clusters):
        known = cluster.load is not None and system is not None
        load = system.load[:, g] if known and system is not None else np.zeros(0)
        budget = cluster.budget
        if budget is None:
            _require_load(cluster, len(load) > 0, "budget")
            budget = float(np.quantile(load, BUDGET_QUANTILE))
        cores = cluster.cores
        if cores is None:
            cores = max([HEADROOM * budget, *load])
        found[cluster.name] = (float(budget), float(cores))
    return found


def _peak(mapping: Mapping, system: SystemLoads | None) -> float:
    if mapping.peak_qps is not None:
        return mapping.peak_qps
    if system is None:
        raise InputError("mapping: no peak_qps and no system log to take it from; add peak_qps, or pass --system FILE")
    return float(system.qps.max())


def _require_loads(mapping: Mapping, system: SystemLoads | None) -> None:
    for cluster in mapping.clusters:
        _require_load(cluster, system is not None and cluster.load is not None, "cost of requests")


def _require_load(cluster: ClusterMap, there: bool, what: str) -> None:
    if not there:
        raise InputError(
            f"cluster {cluster.name!r}: its {what} is not given, and there is no load in a system log to derive it "
            "from; name the column in 'load' and pass --system FILE"
        )


def _numbers(table: pd.DataFrame, column: str, meaning: str, where: str | Path) -> np.ndarray:
    """A column of finite numbers that are not negative."""
    return check_table(table, [Column(column, meaning=meaning)], where)[column].to_numpy(float)


def request_log(system: LoggedSystem, results: np.ndarray) -> pd.DataFrame:
    """The request log in our own schema. What it does not tell: 0, and ``results`` (M,S) as the candidates."""
    log = system.requests
    columns: dict[str, Any] = {f"result_{name}": results[:, k] for k, name in enumerate(system.scenario.stage_names)}
    whole = log.assign(**{name: values for name, values in columns.items() if name not in log.columns})
    return whole.assign(**{name: 0.0 for name in ("impressions", "clicks", "gmv") if name not in whole.columns})
