"""Column mapping of a user's logs: the YAML file of `marca fit --mapping`.

A mapping describes your own system: its features, stages, decisions and clusters, and the columns of its three logs
that hold them. Every field is documented below; ``examples/own_system/mapping.yaml`` is a complete example.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from marca_env.integration.feature_coding import NUMERIC, FeatureCoder, FeatureCoding
from marca_env.integration.number_columns import NumberColumn
from marca_env.models.request_pool import TIME_FEATURE
from marca_env.scenario.scenario import Cluster, Decision, Feature, Scenario, Stage
from marca_env.utils.dataclass_schema import from_plain
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.yaml import parse_mapping, read_mapping

INDEX = "index"
CostSource = Literal["buckets", "requests", "system"]


@dataclass(frozen=True)
class FeatureMap:
    """Feature of a request."""

    name: str
    size: int | None = None
    """Number of codes; with coding ``numeric`` number of columns, by default 1 or that of ``columns``."""
    column: str | None = None
    """Column of the request log; by default the feature's name. With coding ``numeric`` and several columns their
    common beginning: ``text`` for ``text_0``, ``text_1``, …"""
    coding: str = "hash"
    """``hash``, ``frequency``, ``quantile``, ``time``, ``code`` or ``numeric``: see
    :mod:`marca_env.integration.feature_coding`."""
    seen_by: tuple[str, ...] = ()
    """Stages that observe it; empty: all stages."""
    columns: tuple[str, ...] | None = None
    """Columns of the request log, with coding ``numeric``; in place of ``column``."""

    def __post_init__(self) -> None:
        if self.columns is not None and (self.coding != NUMERIC or self.column is not None):
            raise InputError(
                f"feature {self.name!r}: columns belong to coding 'numeric' without 'column'; use one of the two"
            )
        if self.size is None and self.coding != NUMERIC:
            raise InputError(f"feature {self.name!r}: no size; add 'size', the number of codes")
        self.to_coding()
        if self.name == TIME_FEATURE and self.coding != "time":
            raise InputError(
                f"feature {TIME_FEATURE!r} is the time of day, but its coding is {self.coding!r}; use coding 'time', "
                "or another name"
            )

    def to_coding(self) -> FeatureCoding:
        """Return the coding to fit to the log."""
        column = self.column or self.name
        if self.coding != NUMERIC:
            return FeatureCoding(self.name, self.size or 0, column, self.coding)
        names = self.columns
        if names is None:
            names = (column,) if self.size in (None, 1) else tuple(f"{column}_{k}" for k in range(self.size or 0))
        numbers = tuple(NumberColumn(name) for name in names)
        return FeatureCoding(
            self.name, len(names) if self.size is None else self.size, column, NUMERIC, numbers=numbers
        )


@dataclass(frozen=True)
class DecisionMap:
    """Decision and its column; see :class:`marca_env.scenario.parts.Decision` for kind, options and channel."""

    name: str
    kind: str
    options: tuple[Any, ...]
    """Options, from the cheapest to the most expensive."""
    channel: str | None = None
    column: str | None = None
    """Column of the logs; by default the decision's name."""
    values: Any = None
    """Value of the column for each option; default: the option itself; ``index``: the option's number from 0."""

    def __post_init__(self) -> None:
        if self.values not in (None, INDEX) and (
            not isinstance(self.values, tuple) or len(self.values) != len(self.options)
        ):
            raise InputError(
                f"decision {self.name!r}: values are {self.values!r}; give one for each of the {len(self.options)} "
                f"options, or '{INDEX}'"
            )
        if self.values is None and self.kind == "channel":
            raise InputError(
                f"decision {self.name!r}: no values for its sets of channels; add 'values' with the log's value of each"
            )

    def logged_values(self) -> tuple[Any, ...]:
        """Return the value of the column for each option."""
        if self.values == INDEX:
            return tuple(range(len(self.options)))
        return self.options if self.values is None else self.values


@dataclass(frozen=True)
class SignalMap:
    """Number that a stage reports beside its candidates, which later stages observe, such as its best score."""

    name: str
    column: str | None = None
    """Column of the cost log, or else the request log; by default the signal's name."""

    @property
    def source(self) -> str:
        """Name of its column."""
        return self.column or self.name


@dataclass(frozen=True)
class StageMap:
    """Stage; a stage with decisions is an agent."""

    name: str
    cluster: str
    decisions: tuple[DecisionMap, ...] = ()
    queue_limit: int | None = None
    """Maximum of candidates that it hands on; ``None``: no limit."""
    result: str | None = None
    """Column with the candidates that it processed, in the cost log or else the request log. Default: as many as the
    decisions before it let through."""
    signals: tuple[SignalMap, ...] = ()
    """Numbers that it reports beside its candidates; they are standardised by the log."""


@dataclass(frozen=True)
class ClusterMap:
    """Group of machines that share a budget."""

    name: str
    load: str | None = None
    """Column of the system log with its load."""
    load_scale: float = 1.0
    """Factor from a load to core-seconds per second: 0.01 · cores for a percentage."""
    cost: str | None = None
    """Column of the cost log with the cost of a request on this cluster."""
    cost_scale: float = 1.0
    """Factor from a cost to core-seconds per request: 0.001 for milliseconds of one core."""
    budget: float | None = None
    """Core-seconds per second that may be used; default: the 95th percentile of its load in the system log."""
    cores: float | None = None
    """Capacity, core-seconds per second; default: the greatest load in the system log, at least 1.25 budgets."""


@dataclass(frozen=True)
class RequestsMap:
    """Columns of the request log."""

    revenue: str = "revenue"
    """Column with the revenue of a request, currency."""
    clicks: str | None = None
    """Column with its clicks; ``None``: not logged."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a CSV file without a header."""


@dataclass(frozen=True)
class CostsMap:
    """Source and columns of the cost log."""

    source: CostSource | None = None
    """Source of costs. ``buckets``: a log of `marca testbench`. ``requests``: a row per request with measured costs
    (``cost`` of each cluster). ``system``: no measured costs; the mean is load over requests in the system log, and
    the cost of a request grows in proportion to its candidates. Default: the source that the columns fit."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a CSV file without a header."""
    fixed_share: float = 0.2
    """``system``: share of the mean cost that does not depend on the actions; the logs do not contain it."""

    def __post_init__(self) -> None:
        sources = typing.get_args(CostSource)
        if self.source is not None and self.source not in sources:
            raise InputError(f"costs: {unknown_option('source', self.source, sources)}")
        if not 0 <= self.fixed_share <= 1:
            raise InputError(f"costs: fixed_share is {self.fixed_share}; it must lie in [0, 1]")


@dataclass(frozen=True)
class SystemMap:
    """Columns of the system log, which has a row per period of time."""

    qps: str = "qps"
    """Column with the requests per second of the period."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a CSV file without a header."""


@dataclass(frozen=True)
class Mapping:
    """Your own system, and the columns of its logs."""

    name: str
    features: tuple[FeatureMap, ...]
    stages: tuple[StageMap, ...]
    clusters: tuple[ClusterMap, ...]
    requests: RequestsMap = RequestsMap()
    costs: CostsMap = CostsMap()
    system: SystemMap = SystemMap()
    peak_qps: float | None = None
    """Requests per second at the peak; default: the maximum of the system log."""

    @classmethod
    def load(cls, source: str | Path) -> Mapping:
        """Read a YAML file, or the mapping of that name that comes with the package (``published``).

        Raises:
            InputError: no such file, an unknown or missing field, or an invalid value.
        """
        folder = resources.files(__package__) / "mappings"
        names = sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))
        if str(source) in names:
            where = f"mapping {source!r}"
            data = parse_mapping((folder / f"{source}.yaml").read_text(encoding="utf-8"), where)
        elif Path(source).suffix in (".yaml", ".yml"):
            where, data = str(source), read_mapping(Path(source), "mapping")
        else:
            raise InputError(unknown_option("mapping", str(source), names) + ", or use the path of a .yaml file")
        try:
            mapping = from_plain(cls, data, "mapping")
            mapping.scenario(dict.fromkeys((c.name for c in mapping.clusters), (1.0, 1.0)), 1.0)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        return mapping

    @property
    def decisions(self) -> tuple[DecisionMap, ...]:
        """All decisions, in pipeline order."""
        return tuple(d for stage in self.stages for d in stage.decisions)

    @property
    def signals(self) -> tuple[SignalMap, ...]:
        """All signals, in pipeline order."""
        return tuple(signal for stage in self.stages for signal in stage.signals)

    def scenario(
        self, clusters: dict[str, tuple[float, float]], peak_qps: float, coder: FeatureCoder | None = None
    ) -> Scenario:
        """Build the scenario from (budget, cores) of each cluster, the rate at the peak and the fitted coder.

        Without a coder, a feature of numbers has no marks of missing ones.

        Raises:
            ScenarioError: the parts do not fit together.
        """
        stages = tuple(
            Stage(
                s.name,
                s.cluster,
                tuple(Decision(d.name, typing.cast(Any, d.kind), d.options, d.channel) for d in s.decisions),
                s.queue_limit,
                tuple(signal.name for signal in s.signals),
            )
            for s in self.stages
        )
        codings = [f.to_coding() for f in self.features] if coder is None else coder.codings
        pairs = zip(self.features, codings, strict=True)
        features = tuple(Feature(f.name, c.width, f.seen_by, "number" if c.is_number else "category") for f, c in pairs)
        return Scenario(
            name=self.name,
            stages=stages,
            clusters=tuple(
                Cluster(c.name, cores=clusters[c.name][1], budget=clusters[c.name][0]) for c in self.clusters
            ),
            features=features,
            peak_qps=peak_qps,
            channels=tuple(dict.fromkeys(c for s in stages for d in s.decisions for c in d.channels)),
        )
