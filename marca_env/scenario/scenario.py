"""Scenario: a recommender's stages and their decisions, its clusters and budgets, features and traffic.

A :class:`Scenario` is plain, frozen data. It checks itself when it is built and reads and writes YAML. It is the only
thing that the live cascade, the fitted models and the environments share.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from marca_env.scenario.parts import (
    CHANNELS,
    Audience,
    Catalogue,
    Cluster,
    Decision,
    Display,
    Feature,
    Latency,
    Protection,
    ScenarioError,
    Stage,
    require,
)
from marca_env.scenario.request_window import RequestWindow
from marca_env.utils.argument_types import check_type, checked_arguments, checked_fields, checked_path
from marca_env.utils.dataclass_schema import EXCLUDED, UNLESS_DEFAULT, from_plain, to_plain
from marca_env.utils.errors import InputError, shown, unknown_option
from marca_env.utils.files import atomic_path
from marca_env.utils.validation import as_array, as_whole_number, check_codes
from marca_env.utils.yaml import parse_mapping, read_mapping

__all__ = [
    "CHANNELS",
    "Audience",
    "Catalogue",
    "Cluster",
    "Decision",
    "Display",
    "Feature",
    "Latency",
    "Protection",
    "Scenario",
    "ScenarioError",
    "Stage",
    "presets",
]


AgentKind = Literal["stage", "site"]

FILE = "scenario.yaml"
"""Name of the scenario file in a folder that `marca fit` writes."""


@dataclass(frozen=True)
@checked_fields
class Scenario:
    """Complete recommender system; :mod:`marca_env.scenario.parts` explains its parts."""

    name: str
    stages: tuple[Stage, ...]
    clusters: tuple[Cluster, ...]
    features: tuple[Feature, ...]
    peak_qps: float
    """Requests per second at the peak of a day; traces are rescaled to it."""
    version: int = 0
    protection: Protection = field(default_factory=Protection)
    catalogue: Catalogue = field(default_factory=Catalogue)
    audience: Audience = field(default_factory=Audience)
    display: Display = field(default_factory=Display)
    control_period: int = 1
    """Minutes between two updates of the prices."""
    channels: tuple[str, ...] = CHANNELS
    """Retrieval channels that decisions may name: those of the live cascade, or of your own system."""
    traffic: tuple[float, ...] = ()
    """Rate of each minute, relative to ``peak_qps``, repeated where traffic is drawn. Empty: a smooth day, and request
    windows at the peak. A series of a multiple of 1,440 minutes begins at midnight."""
    site: str | None = None
    """Feature whose code is the data centre (site) of a request; ``None``: one site. Stages may have a cluster at each
    site; a request then uses, loads and pays for the clusters of its site only."""
    window: RequestWindow | None = field(default=None, metadata=UNLESS_DEFAULT)
    """Episode of several requests in which environments of this scenario run unless they are given another one;
    ``None``: one request."""
    prices: tuple[float, ...] = field(default=(), metadata=UNLESS_DEFAULT)
    """λ of each cluster, currency per core-second, at which the scenario is posed as a task: the prices of the reward
    ``lagrangian`` where none are given."""
    agent_kind: AgentKind = field(default="stage", metadata=UNLESS_DEFAULT)
    """Who the agents are. ``stage``: the stages, which decide for one request one after the other. ``site``: the data
    centres of :attr:`site`, which decide in the same step, each for a request of its own."""
    latency: Latency | None = field(default=None, metadata=UNLESS_DEFAULT)
    """Time within which requests must be answered, and what late ones earn; ``None``: no limit."""
    home: Path | None = field(default=None, compare=False, repr=False, metadata=EXCLUDED)
    """Folder that it was read from and that holds its fitted models; ``None``: the models of the package."""
    source: Path | None = field(default=None, compare=False, repr=False, metadata=EXCLUDED)
    """YAML file that it was read from; ``None``: a preset, or not read from a file."""

    def __post_init__(self) -> None:
        self._check_names()
        self._check_sites()
        self._check_references()
        require(all(0 <= x < np.inf for x in self.traffic), f"traffic {self.traffic[:5]}: rates must not be negative")
        require(
            not self.traffic or max(self.traffic) > 0, "traffic is zero in every minute; add traffic, or leave it out"
        )
        kinds = typing.get_args(AgentKind)
        require(self.agent_kind in kinds, unknown_option("agent_kind", self.agent_kind, kinds))
        require(
            self.agent_kind == "stage" or self.site is not None,
            "agent_kind is 'site', but the scenario has no sites; name the feature of the data centre in 'site'",
        )
        require(
            self.agent_kind == "stage" or self.latency is None,
            "agent_kind is 'site', but there is a latency limit, which environments of sites do not know; remove one",
        )
        require(self.peak_qps > 0, f"peak_qps is {self.peak_qps}; it must be positive")
        require(self.control_period >= 1, f"control_period is {self.control_period} minutes; it must be at least 1")
        require(
            len(self.prices) in (0, len(self.clusters)) and all(0 <= x < np.inf for x in self.prices),
            f"prices are {self.prices}; give one for each of the {len(self.clusters)} clusters, not negative",
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cached properties out of pickles: the list of joint actions can take megabytes."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def _check_names(self) -> None:
        """Check that parts exist, have unique names, and name known channels."""
        for kind in ("stages", "clusters", "features"):
            names = [x.name for x in getattr(self, kind)]
            require(len(names) > 0, f"scenario {self.name!r}: no {kind}; add at least one")
            require(len(set(names)) == len(names), f"scenario {self.name!r}: two {kind} share a name: {names}")
        names = [d.name for d in self.decisions]
        require(len(set(names)) == len(names), f"scenario {self.name!r}: two decisions share a name: {names}")
        require(len(names) > 0, f"scenario {self.name!r}: no stage has a decision; add at least one")
        columns = [*self.state_columns, *names, *self.result_columns]
        repeated = next((name for k, name in enumerate(columns) if name in columns[:k]), None)
        require(repeated is None, f"scenario {self.name!r}: two columns of its log are named {repeated!r}; rename one")
        for decision in self.decisions:
            for name in decision.channels:
                if name not in self.channels:
                    raise ScenarioError(f"decision {decision.name!r}: {unknown_option('channel', name, self.channels)}")

    def _check_references(self) -> None:
        """Check that stages name known clusters, clusters are used, and features name known stages."""
        for stage in self.stages:
            for cluster in stage.clusters:
                if cluster not in self.cluster_names:
                    problem = unknown_option("cluster", cluster, self.cluster_names)
                    raise ScenarioError(f"stage {stage.name!r}: {problem}")
        for cluster in self.cluster_names:
            used = any(cluster in stage.clusters for stage in self.stages)
            require(used, f"cluster {cluster!r} runs no stage; remove it, or name it in a stage")
        for feature in self.features:
            for name in feature.seen_by:
                if name not in self.stage_names:
                    raise ScenarioError(f"feature {feature.name!r}: {unknown_option('stage', name, self.stage_names)}")

    def _check_sites(self) -> None:
        """Check that a stage's list of clusters has one for each code of the site feature."""
        lists = [stage for stage in self.stages if not isinstance(stage.cluster, str)]
        if self.site is None:
            for stage in lists:
                raise ScenarioError(
                    f"stage {stage.name!r}: clusters {list(stage.cluster)}, one per data centre; name the feature of "
                    "the data centre in 'site', or use one cluster"
                )
            return
        if self.site not in self.feature_names:
            raise ScenarioError(f"site: {unknown_option('feature', self.site, self.feature_names)}")
        require(len(lists) > 0, f"site is {self.site!r}, but no stage has a list of clusters; add one, or remove site")
        feature = self.features[self.feature_names.index(self.site)]
        require(feature.kind == "category", f"site: feature {self.site!r} is a number; name a category")
        size = feature.size
        for stage in lists:
            require(
                len(stage.cluster) == size,
                f"stage {stage.name!r}: {len(stage.cluster)} clusters for the {size} codes of site feature "
                f"{self.site!r}; name one for each code",
            )

    # -- shape ---------------------------------------------------------------------------------------------
    @cached_property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, in pipeline order."""
        return tuple(s.name for s in self.stages)

    @cached_property
    def cluster_names(self) -> tuple[str, ...]:
        """Names of the clusters."""
        return tuple(c.name for c in self.clusters)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of a state's columns."""
        return tuple(f.name for f in self.features)

    @cached_property
    def state_columns(self) -> tuple[str, ...]:
        """Names of the W columns of a state and of a log: one of each category, ``size`` of each vector of numbers."""
        return tuple(column for feature in self.features for column in feature.columns)

    @cached_property
    def feature_slices(self) -> tuple[slice, ...]:
        """Columns of each feature in a state."""
        ends = np.cumsum([len(feature.columns) for feature in self.features]).tolist()
        return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))

    @cached_property
    def is_categorical(self) -> bool:
        """Whether all features are categories: states are codes then, and finitely many."""
        return all(feature.kind == "category" for feature in self.features)

    @cached_property
    def category_columns(self) -> np.ndarray:
        """Columns of a state that hold codes; int64."""
        pairs = zip(self.features, self.feature_slices, strict=True)
        return np.array([part.start for feature, part in pairs if feature.kind == "category"], dtype=np.int64)

    @cached_property
    def number_columns(self) -> np.ndarray:
        """Columns of a state that hold numbers; int64."""
        return np.setdiff1d(np.arange(len(self.state_columns)), self.category_columns)

    @cached_property
    def observable_columns(self) -> np.ndarray:
        """Columns of a state whose feature is not hidden; int64."""
        pairs = zip(self.features, self.feature_slices, strict=True)
        columns = [range(part.start, part.stop) for feature, part in pairs if not feature.hidden]
        return np.array([column for part in columns for column in part], dtype=np.int64)

    @cached_property
    def signals(self) -> tuple[tuple[int, str], ...]:
        """Every signal: index of its stage, and its name; N of them, in pipeline order."""
        return tuple((k, name) for k, stage in enumerate(self.stages) for name in stage.signals)

    @cached_property
    def result_stages(self) -> np.ndarray:
        """Index of the stage of each result: the counts of the S stages, then the N signals; int64 (S+N,)."""
        return np.array([*range(len(self.stages)), *(k for k, _ in self.signals)])

    @cached_property
    def result_columns(self) -> tuple[str, ...]:
        """Names of the columns of the results in a log, in the order of :attr:`result_stages`."""
        signals = [f"signal_{self.stages[k].name}_{name}" for k, name in self.signals]
        return (*(f"result_{name}" for name in self.stage_names), *signals)

    @cached_property
    def agents(self) -> tuple[Stage, ...]:
        """Stages with decisions, in pipeline order."""
        return tuple(s for s in self.stages if s.decisions)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions of a request, in pipeline order."""
        return tuple(d for s in self.stages for d in s.decisions)

    @cached_property
    def decision_names(self) -> tuple[str, ...]:
        """Names of the decisions, in the order of an action's columns."""
        return tuple(d.name for d in self.decisions)

    @cached_property
    def action_shape(self) -> tuple[int, ...]:
        """Number of options of each decision."""
        return tuple(len(d.options) for d in self.decisions)

    @property
    def n_joint_actions(self) -> int:
        """Number of joint actions, J."""
        return int(np.prod(self.action_shape))

    @cached_property
    def n_sites(self) -> int:
        """Number of data centres; 1 without a site feature."""
        return 1 if self.site is None else self.features[self.feature_names.index(self.site)].size

    def site_of(self, states: np.ndarray) -> np.ndarray | None:
        """Return the site of each request: ``states`` (…, F) → int (…); ``None`` in a scenario with one site."""
        if self.site is None:
            return None
        column = np.asarray(states)[..., self.state_columns.index(self.site)]
        return column if self.is_categorical else column.astype(np.int64)

    def check_states(self, states: np.ndarray) -> np.ndarray:
        """Return states (…, W) after a check: codes as they are, or float64 where features are numbers.

        Raises:
            InputError: a wrong shape, a code out of range, or a number that is not finite; names row and column.
        """
        if self.is_categorical:
            return check_codes("state", states, self.feature_names, self.feature_sizes)
        states = as_array(states)
        if states.ndim == 0 or states.shape[-1] != len(self.state_columns) or states.dtype.kind not in "iuf":
            raise InputError(
                f"states are {states.dtype} of shape {states.shape}; give numbers, one column per name: "
                f"{', '.join(self.state_columns)}"
            )
        checked = states.astype(np.float64)
        flat, codes = checked.reshape(-1, checked.shape[-1]), self.category_columns
        if not np.isfinite(flat).all():
            row, column = np.argwhere(~np.isfinite(flat))[0]
            raise InputError(f"state {row}: {self.state_columns[column]} is {flat[row, column]}; pass finite numbers")
        sizes = np.array([f.size for f in self.features if f.kind == "category"])
        wrong = (flat[:, codes] < 0) | (flat[:, codes] >= sizes) | (flat[:, codes] % 1 != 0)
        if wrong.any():
            row, k = np.argwhere(wrong)[0]
            name, value = self.state_columns[codes[k]], shown(float(flat[row, codes[k]]))
            raise InputError(f"state {row}: {name} is {value}; it must be a whole number in 0 to {sizes[k] - 1}")
        return checked

    @cached_property
    def stage_clusters(self) -> np.ndarray:
        """Index of the cluster of each stage at each site; shape (sites, stages)."""
        names = [[s.cluster] * self.n_sites if isinstance(s.cluster, str) else s.cluster for s in self.stages]
        return np.array([[self.cluster_names.index(name) for name in row] for row in names]).T

    @cached_property
    def site_clusters(self) -> np.ndarray:
        """Mask of the clusters that requests of each site use; bool, shape (sites, clusters)."""
        return (self.stage_clusters[:, :, None] == np.arange(len(self.clusters))).any(axis=1)

    @cached_property
    def decision_stage(self) -> np.ndarray:
        """Index of the stage of each decision; shape (decisions,)."""
        return np.array([k for k, s in enumerate(self.stages) for _ in s.decisions])

    @cached_property
    def budgets(self) -> np.ndarray:
        """Budget of each cluster, core-seconds per second; shape (clusters,)."""
        return np.array([c.budget for c in self.clusters])

    @cached_property
    def cores(self) -> np.ndarray:
        """Capacity of each cluster, core-seconds per second; shape (clusters,)."""
        return np.array([c.cores for c in self.clusters])

    @cached_property
    def feature_sizes(self) -> np.ndarray:
        """Number of categories, or of numbers, of each feature; shape (features,)."""
        return np.array([f.size for f in self.features])

    @cached_property
    def joint_actions(self) -> np.ndarray:
        """All joint actions, the last decision varying fastest; int64, shape (J, D)."""
        return np.indices(self.action_shape).reshape(len(self.action_shape), -1).T.copy()

    def joint_index(self, actions: np.ndarray) -> np.ndarray:
        """Return the row of each action in :attr:`joint_actions`: ``actions`` (…, D) → (…)."""
        actions = check_codes("action", actions, self.decision_names, self.action_shape)
        return np.ravel_multi_index(tuple(np.moveaxis(actions, -1, 0)), self.action_shape)

    def named_options(self, actions: np.ndarray) -> list[dict[str, Any]]:
        """Return the option that each decision takes, by its name: ``actions`` (B, D) → B mappings.

        Raises:
            InputError: another shape, or an option that does not exist.
        """
        actions = check_codes("action", actions, self.decision_names, self.action_shape).reshape(
            -1, len(self.decisions)
        )
        return [{d.name: d.options[k] for d, k in zip(self.decisions, row, strict=True)} for row in actions]

    def degraded(self, cluster: int, level: int, site: int = 0) -> np.ndarray:
        """Return the joint action that runs for each joint action while ``cluster`` is degraded to ``level``; (J,).

        Args:
            cluster: index of the degraded cluster.
            level: level of degradation; 0: none.
            site: site of the requests.
        """
        as_whole_number("cluster", cluster, 0, len(self.clusters) - 1)
        as_whole_number("level", level, 0, len(self.protection.levels))
        as_whole_number("site", site, 0, self.n_sites - 1)
        capped = self.joint_actions.copy()
        if level > 0:
            share = self.protection.levels[level - 1]
            for k, size in enumerate(self.action_shape):
                if self.stage_clusters[site, self.decision_stage[k]] == cluster:
                    capped[:, k] = np.minimum(capped[:, k], int(share * (size - 1)))
        return self.joint_index(capped)

    def replace(self, **changes: Any) -> Scenario:
        """Return a copy with some fields changed, checked again.

        Raises:
            ScenarioError: an unknown field, or values that do not fit.
        """
        for name in changes:
            if name not in self.__dataclass_fields__:
                raise ScenarioError(unknown_option("field of a scenario", name, self.__dataclass_fields__))
        return dataclasses.replace(self, **changes)

    @checked_arguments
    def differs_from(self, other: Scenario) -> tuple[str, ...]:
        """Return the names of the fields whose difference makes models of this scenario wrong for ``other``.

        Names, budgets, traffic and protection may differ.
        """
        names = ("stages", "features", "cluster_names", "site", "catalogue", "audience", "display")
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))

    # -- in and out ----------------------------------------------------------------------------------------
    @classmethod
    def load(cls, source: str | Path | Scenario = "default") -> Scenario:
        """Read a preset by name, a YAML file, or a folder that `marca fit` wrote; return a Scenario unchanged.

        Raises:
            ScenarioError: none of these, an unknown field, or an invalid value.
        """
        if isinstance(source, Scenario):
            return source
        check_type("Scenario.load: source", source, str | Path)
        path = checked_path(source, "scenario")
        if str(source) in presets():
            text = (_presets_folder() / f"{source}.yaml").read_text(encoding="utf-8")
            return cls._checked(lambda: parse_mapping(text, f"preset {source!r}"), f"preset {source!r}")
        if path.is_dir():
            if not (path / FILE).is_file():
                raise ScenarioError(f"{path}: a folder without {FILE}; use one that `marca fit --out` wrote")
            path = path / FILE
        elif path.suffix not in (".yaml", ".yml"):
            what = "scenario preset" if path.name == str(source) else "scenario preset or folder"
            remedy = ", or use the path of a .yaml file or of a folder of `marca fit`"
            raise ScenarioError(unknown_option(what, str(source), presets()) + remedy)
        scenario = cls._checked(lambda: read_mapping(path, "scenario"), str(path))
        home = path.parent.resolve() if path.name == FILE else None
        return scenario.replace(home=home, source=path.resolve())

    @property
    def load_name(self) -> str:
        """What :meth:`load` takes to read the scenario again: its folder, its file, or the name of a preset."""
        return str(self.home or self.source or self.name)

    @classmethod
    def _checked(cls, read: Callable[[], Any], where: str) -> Scenario:
        """Build a scenario from the data that ``read`` returns; every fault is a ScenarioError that names ``where``."""
        try:
            data = read()
        except InputError as error:
            raise ScenarioError(str(error)) from None
        try:
            return cls.from_dict(data)
        except ScenarioError as error:
            raise ScenarioError(f"{where}: {error}") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scenario:
        """Build a scenario from plain data; the inverse of :meth:`to_dict`.

        Raises:
            ScenarioError: an unknown or missing field, or an invalid value.
        """
        try:
            return from_plain(cls, data, "scenario")
        except InputError as error:
            raise error if isinstance(error, ScenarioError) else ScenarioError(str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """Convert to lists, dicts and scalars; :meth:`from_dict` is the inverse."""
        return to_plain(self)

    def save(self, path: str | Path) -> None:
        """Write as YAML, atomically."""
        path = checked_path(path, "scenario")
        with atomic_path(path) as temporary:
            text = yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110)
            temporary.write_text(text, encoding="utf-8")


def _presets_folder() -> Any:
    return resources.files(__package__) / "presets"


def presets() -> tuple[str, ...]:
    """Return the names of the scenarios that come with the package."""
    return tuple(sorted(p.name.removesuffix(".yaml") for p in _presets_folder().iterdir() if p.name.endswith(".yaml")))
