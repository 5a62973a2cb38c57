"""Parts of a scenario: features, decisions, stages, clusters, protection, and settings of the generated world.

Each part is a frozen dataclass that checks itself when it is built.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from marca_env.utils.argument_types import checked_fields
from marca_env.utils.dataclass_schema import UNLESS_DEFAULT
from marca_env.utils.errors import InputError, unknown_option

Kind = Literal["channel", "queue", "model"]
FeatureKind = Literal["category", "number"]
CHANNELS = ("popularity", "category", "two_tower", "item_to_item")
NOISE = {"two_tower": 2.5, "item_to_item": 1.0, "rescoring": 0.7, "pre_ranking": 2.0, "ranking": 0.3}
"""Models of the live cascade, and the default error of each."""


class ScenarioError(InputError):
    """Invalid scenario; the message names the field and the remedy."""


def require(condition: bool, message: str) -> None:
    """Raise a :class:`ScenarioError` unless the condition holds."""
    if not condition:
        raise ScenarioError(message)


@dataclass(frozen=True)
@checked_fields
class Feature:
    """Feature of a request: a category, coded 0 … size − 1, or a vector of ``size`` numbers."""

    name: str
    size: int
    """Number of categories, or of numbers."""
    seen_by: tuple[str, ...] = ()
    """Stages that observe it; empty: all stages."""
    kind: FeatureKind = field(default="category", metadata=UNLESS_DEFAULT)
    """``category``, or ``number``: standardised numbers (mean 0 and standard deviation 1 in the log)."""
    hidden: bool = field(default=False, metadata=UNLESS_DEFAULT)
    """Whether it is the environment's own: no stage observes it, and the state for centralised training leaves it
    out. Outcomes may depend on it."""

    def __post_init__(self) -> None:
        where = f"feature {self.name!r}"
        kinds = typing.get_args(FeatureKind)
        if self.kind not in kinds:
            raise ScenarioError(f"{where}: {unknown_option('kind', self.kind, kinds)}")
        least = "one category" if self.kind == "category" else "one number"
        require(self.size >= 1, f"{where}: size is {self.size}; it needs at least {least}")
        require(not (self.hidden and self.seen_by), f"{where}: hidden, but seen_by names stages; use one of the two")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns in a state and in a log: its name, numbered for a vector of several numbers."""
        if self.kind == "category" or self.size == 1:
            return (self.name,)
        return tuple(f"{self.name}_{k}" for k in range(self.size))


@dataclass(frozen=True)
@checked_fields
class Decision:
    """Decision of a stage (a knob); its options are ordered from the cheapest to the most expensive.

    ``kind`` is ``channel`` (an option is a tuple of retrieval channels that run), ``queue`` (an option is a
    number of candidates) or ``model`` (an option is the name of a model, ``off`` for none).
    """

    name: str
    kind: Kind
    options: tuple[Any, ...]
    channel: str | None = None
    """Retrieval channel whose recall length this decision sets; ``None``: it sets the queue that the stage hands on."""

    def __post_init__(self) -> None:
        where = f"decision {self.name!r}"
        kinds = typing.get_args(Kind)
        if self.kind not in kinds:
            raise ScenarioError(f"{where}: {unknown_option('kind', self.kind, kinds)}")
        require(len(self.options) >= 1, f"{where}: no options; give at least one")
        distinct = set(map(repr, self.options))  # options of a wrong type may have no hash
        require(len(distinct) == len(self.options), f"{where}: options repeat: {list(self.options)}")
        if self.kind == "queue":
            self._check_lengths(where)
        if self.kind == "channel":
            for option in self.options:
                is_list = isinstance(option, tuple) and all(isinstance(name, str) for name in option)
                require(is_list, f"{where}: option {option!r} must be a list of channels")
        if self.kind == "model":
            for option in self.options:
                text = isinstance(option, str)
                require(text, f"{where}: option {option!r} must be the name of a model (in YAML, quote 'off')")
        if self.channel is not None and self.kind != "queue":
            raise ScenarioError(f"{where}: channel belongs to a queue (a recall length); remove it from a {self.kind}")

    @property
    def channels(self) -> tuple[str, ...]:
        """Retrieval channels that it switches on or off, or whose recall length it sets."""
        if self.kind == "channel":
            return tuple(dict.fromkeys(name for option in self.options for name in option))
        return () if self.channel is None else (self.channel,)

    def _check_lengths(self, where: str) -> None:
        for option in self.options:
            is_integer = isinstance(option, int) and not isinstance(option, bool)
            require(is_integer and option > 0, f"{where}: queue length {option!r} must be a positive whole number")
        rising = all(a < b for a, b in zip(self.options, self.options[1:], strict=False))
        require(rising, f"{where}: queue lengths {list(self.options)} must rise")


@dataclass(frozen=True)
@checked_fields
class Stage:
    """Stage of the cascade; a stage with decisions is an agent."""

    name: str
    cluster: str | tuple[str, ...]
    """Name of the cluster whose cores it uses; in a scenario with sites one name for each site, by its code."""
    decisions: tuple[Decision, ...] = ()
    queue_limit: int | None = None
    """Maximum of candidates that it hands on; ``None``: no limit."""
    signals: tuple[str, ...] = field(default=(), metadata=UNLESS_DEFAULT)
    """Numbers that it reports beside its count of candidates, such as the best score, the spread of the scores or the
    gap at the cut. Later stages observe them."""

    def __post_init__(self) -> None:
        distinct = len(set(self.signals)) == len(self.signals)
        require(distinct, f"stage {self.name!r}: signals repeat: {list(self.signals)}")
        require(
            self.queue_limit is None or self.queue_limit > 0,
            f"stage {self.name!r}: queue_limit is {self.queue_limit}; it must be positive (or left out)",
        )

    @property
    def clusters(self) -> tuple[str, ...]:
        """Every cluster that it may use."""
        return (self.cluster,) if isinstance(self.cluster, str) else self.cluster


@dataclass(frozen=True)
@checked_fields
class Cluster:
    """Group of machines that share a budget of computation."""

    name: str
    cores: float
    """Physical capacity, core-seconds per second."""
    budget: float
    """Computation that may be used (C_m in the paper), core-seconds per second; at most ``cores``."""

    def __post_init__(self) -> None:
        where = f"cluster {self.name!r}"
        require(self.budget > 0, f"{where}: budget is {self.budget} core-seconds per second; it must be positive")
        require(
            self.cores >= self.budget,
            f"{where}: budget {self.budget} exceeds its {self.cores} cores; lower the budget or add cores",
        )


@dataclass(frozen=True)
@checked_fields
class Protection:
    """Overload protection: degradation of a cluster and time-out of its backlog."""

    levels: tuple[float, ...] = (0.75, 0.5, 0.25)
    """Share of each decision's range that level D = 1, 2, … allows; higher options become the highest allowed one."""
    trigger: float = 1.02
    """Load, as a share of the budget, above which the level rises by one at the next minute."""
    release: float = 0.98
    """Undegraded load C = Ĉ + f(D) (Eq. 1: measured load plus the saving at level D), as a share of the budget, below
    which the level falls by one."""
    timeout: float = 10.0
    """Backlog, in seconds of all the cluster's cores, beyond which requests are dropped."""

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.levels, self.levels[1:], strict=False))
        require(
            falling and all(0 <= x < 1 for x in self.levels), f"protection.levels {self.levels} must fall within [0, 1)"
        )
        require(
            0 < self.release <= self.trigger,
            f"protection: release {self.release} must be positive and at most trigger {self.trigger}",
        )
        require(self.timeout > 0, f"protection.timeout is {self.timeout} s; it must be positive")


@dataclass(frozen=True)
@checked_fields
class Latency:
    """Time within which a request must be answered."""

    limit: float
    """Seconds from its arrival."""
    fallback: float = 0.5
    """What a late request earns, as a share of what it would have earned under the cheapest joint action."""
    hard: bool = False
    """Whether the fallback is shown at the limit, so that no answer takes longer; otherwise the answer comes late."""

    def __post_init__(self) -> None:
        require(0 < self.limit < math.inf, f"latency.limit is {self.limit} s; it must be positive")
        require(0 <= self.fallback <= 1, f"latency.fallback is {self.fallback}; it must lie in [0, 1]")


@dataclass(frozen=True)
@checked_fields
class Catalogue:
    """Items of the live cascade, and how precisely each of its models estimates affinity."""

    items: int = 50_000
    dim: int = 32
    """Dimensions of users' interests and items' embeddings."""
    categories: int = 64
    max_history: int = 12
    """Maximum of items in a user's history."""
    noise: Mapping[str, float] = field(default_factory=lambda: dict(NOISE))
    """Standard deviation of each model's error, relative to that of an item's embedding; missing models: ``NOISE``."""
    seed: int = 0
    world: str | None = field(default=None, metadata=UNLESS_DEFAULT)
    """Fingerprint of the users and items in the scenario's folder that `marca fit --ratings` built from a table of
    ratings; ``None``: they are generated from ``seed``."""

    def __post_init__(self) -> None:
        for name in ("items", "dim", "categories", "max_history"):
            require(getattr(self, name) > 0, f"catalogue.{name} is {getattr(self, name)}; it must be positive")
        for name, value in self.noise.items():
            if name not in NOISE:
                raise ScenarioError(f"catalogue.noise: {unknown_option('model', name, NOISE)}")
            require(value >= 0, f"catalogue.noise.{name} is {value}; it must not be negative")
        object.__setattr__(self, "noise", {**NOISE, **self.noise})


@dataclass(frozen=True)
@checked_fields
class Audience:
    """Users of the generated world: their value, clicks and purchases."""

    value_sigma: float = 1.0
    """σ of the log-normal value of a user to advertisers."""
    affinity_scale: float = 1.0
    """Scale of the affinity in the click logit."""
    click_bias: float = -7.0
    """Click logit of an item of mean affinity."""
    conversion: float = 0.04
    """Mean conversions per click."""
    basket: float = 30.0
    """Mean basket value of a conversion, currency."""
    bid: float = 0.1
    """Median bid for a click, currency."""

    def __post_init__(self) -> None:
        for name in ("value_sigma", "affinity_scale", "conversion", "basket", "bid"):
            value = getattr(self, name)
            require(value >= 0, f"audience.{name} is {value}; it must not be negative")


@dataclass(frozen=True)
@checked_fields
class Display:
    """Items that the user sees."""

    slots: tuple[int, ...] = (1, 3, 5, 8)
    """Slots of each placement group."""
    decay: float = 0.7
    """Probability that a user who examined slot k also examines slot k + 1."""

    def __post_init__(self) -> None:
        require(len(self.slots) > 0 and min(self.slots) > 0, f"display.slots {self.slots} must be positive numbers")
        require(0 < self.decay <= 1, f"display.decay is {self.decay}; it must lie in (0, 1]")
