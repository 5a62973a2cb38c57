"""Algorithms as data: network × mixer × objective × credit.

``PRESETS["QMIX"]`` and ``PRESETS["VDN"]`` differ by their mixer alone; an ablation is a preset with one switch
turned. Any option can be replaced by name::

    PRESETS["AWRQMixer"].replace(heads=5, gru=64, hidden=(64,))
    PRESETS["AWRQMixer"].replace(variance_credit=False)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.credit import CREDITS
from agents.mixers import ACTIVATIONS, CONDITIONS, MIXERS
from agents.objectives import HEAD_WEIGHTINGS, LEVELS
from marca_env.errors import InputError, unknown_option


class PresetError(InputError):
    """Options that no algorithm has, or that contradict each other."""


@dataclass(frozen=True)
class NetworkOptions:
    """The Q network of each agent."""

    heads: int = 1
    """K, size of the ensemble."""
    gru: int | None = 64
    """Width of the recurrent state; ``None``: a feed-forward network."""
    hidden: tuple[int, ...] = (64,)
    """Hidden layers of each head."""
    dropout: float = 0.0


@dataclass(frozen=True)
class MixerOptions:
    """How the agents' values become the team's."""

    mixer: str = "sum"
    """``sum``, ``absolute`` or ``softplus``."""
    mixer_activation: str = "relu"
    """``relu`` (paper), ``elu`` (QMIX) or ``leaky_relu``."""
    mixer_width: int = 32
    hypernet: int = 64
    """Hidden units of the hypernetworks."""
    mixer_input: str = "state"
    """``state`` (Eq. 12) or ``state+actions`` (the paper's reference code; gives IGM up)."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """TD targets and losses."""

    gamma: float = 0.99
    double_q: bool = True
    """The online network chooses the next action, the target network values it."""
    head_weighting: str = "mean"
    """Weights of the heads in training: ``mean``, ``random`` (REM) or ``adaptive`` (AW, Eq. 8–10)."""
    weighting_level: str = "sample"
    """Adaptive weights per ``sample`` and step (paper, Eq. 9) or per ``batch``, one per head (its reference code).
    A sample's own errors contain its reward, so that weights per sample tell the mixer the label: without VGCA, which
    keeps the agents' rewards small, the heads drift apart to tell it better; take ``batch`` there."""
    agent_loss: float = 0.0
    """Coefficient of the agents' own TD losses beside the mixer's (Eq. 15)."""
    target_update: int = 100
    """Gradient steps between hard updates of the target network."""
    tau: float | None = None
    """Polyak coefficient; if given, the target network follows at every gradient step instead."""


@dataclass(frozen=True)
class CreditOptions:
    """Which reward an agent's own TD target sees."""

    credit: str = "none"
    """``none``: the team's reward; ``variance``: w_t·R (VGCA, Eq. 16); ``cumulative``: as in its reference code."""


GROUPS = {"network": NetworkOptions, "mixer": MixerOptions, "objective": ObjectiveOptions, "credit": CreditOptions}
_OWNER = {f.name: group for group, cls in GROUPS.items() for f in dataclasses.fields(cls)}
SWITCHES = ("adaptive_weighting", "softplus_mixer", "variance_credit")


@dataclass(frozen=True)
class Preset:
    """An algorithm. ``joint``: a single controller that sees everything and takes every decision."""

    name: str
    network: NetworkOptions = field(default_factory=NetworkOptions)
    mixer: MixerOptions = field(default_factory=MixerOptions)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    credit: CreditOptions = field(default_factory=CreditOptions)
    joint: bool = False

    def __post_init__(self) -> None:
        _check_values(self)
        if self.joint and self.mixer.mixer != "sum":
            raise PresetError(f"{self.name}: a joint controller has nothing to mix; leave mixer at 'sum'")
        if self.credit.credit != "none" and self.objective.agent_loss == 0:
            raise PresetError(
                f"{self.name}: credit {self.credit.credit!r} acts through agent_loss, which is 0; raise it"
            )

    @property
    def options(self) -> dict[str, Any]:
        """Every option and its value, flat."""
        return {name: getattr(getattr(self, group), name) for name, group in _OWNER.items()}

    def replace(self, **options: Any) -> Preset:
        """A copy with some options changed, checked again; the three ablation switches of AWRQMixer included.

        Raises:
            PresetError: an unknown option, naming the nearest valid one, or two that contradict each other.
        """
        options = self._switch(dict(options))
        groups: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            if name not in _OWNER:
                raise PresetError(f"{self.name}: {unknown_option('option', name, (*_OWNER, *self._switches))}")
            groups.setdefault(_OWNER[name], {})[name] = _listed(value)
        self._contradictions(options)
        changed = {group: dataclasses.replace(getattr(self, group), **values) for group, values in groups.items()}
        return dataclasses.replace(self, **changed)

    @property
    def _switches(self) -> tuple[str, ...]:
        return SWITCHES if self.objective.head_weighting == "adaptive" or self.name == "AWRQMixer" else ()

    def _switch(self, options: dict[str, Any]) -> dict[str, Any]:
        """Turn the ablation switches into the options that they stand for."""
        means = {
            "adaptive_weighting": ("head_weighting", "adaptive", "mean"),
            "softplus_mixer": ("mixer", "softplus", "absolute"),
            "variance_credit": ("credit", "variance", "none"),
        }
        for switch in self._switches:
            if switch not in options:
                continue
            on = options.pop(switch)
            if not isinstance(on, bool):
                raise PresetError(f"{self.name}: {switch} is {on!r}; give true or false")
            name, value, other = means[switch]
            chosen = options.get(name, getattr(getattr(self, _OWNER[name]), name))
            if on is (chosen != other):
                continue  # as it is wanted already, perhaps in another form
            if name in options:
                raise PresetError(f"{self.name}: {switch}={on} contradicts {name}={chosen!r}; give one of them")
            options[name] = value if on else other
        return options

    def _contradictions(self, options: Mapping[str, Any]) -> None:
        mixer = options.get("mixer", self.mixer.mixer)
        for name in ("mixer_activation", "mixer_width", "hypernet", "mixer_input"):
            if name in options and mixer == "sum":
                raise PresetError(
                    f"{self.name}: {name} has no effect on the mixer 'sum'; drop it or choose another mixer"
                )
        if options.get("tau") is not None and "target_update" in options:
            raise PresetError(f"{self.name}: tau and target_update exclude each other; give one of them")
        weighting = options.get("head_weighting", self.objective.head_weighting)
        if "weighting_level" in options and weighting != "adaptive":
            raise PresetError(f"{self.name}: weighting_level needs head_weighting 'adaptive', not {weighting!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data; :meth:`from_dict` turns it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preset:
        """Rebuild a preset.

        Raises:
            PresetError: a missing or unknown field.
        """
        values: dict[str, Any] = dict(data)
        try:
            for group, group_cls in GROUPS.items():
                values[group] = group_cls(**{k: _listed(v) for k, v in values[group].items()})
            return cls(**values)
        except (TypeError, KeyError, AttributeError) as error:
            raise PresetError(f"preset: {error}") from None


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_values(preset: Preset) -> None:
    options = preset.options
    choices = {
        "mixer": MIXERS,
        "mixer_activation": tuple(ACTIVATIONS),
        "mixer_input": CONDITIONS,
        "head_weighting": HEAD_WEIGHTINGS,
        "weighting_level": LEVELS,
        "credit": CREDITS,
    }
    for name, valid in choices.items():
        if options[name] not in valid:
            raise PresetError(f"{preset.name}: {unknown_option(name, options[name], valid)}")
    for name in ("heads", "mixer_width", "hypernet", "target_update"):
        _require(preset, name, isinstance(options[name], int) and options[name] >= 1, "a whole number of at least 1")
    gru = options["gru"]
    _require(preset, "gru", gru is None or (isinstance(gru, int) and gru >= 1), "a width, or None for no recurrence")
    hidden = options["hidden"]
    widths = isinstance(hidden, tuple) and all(isinstance(x, int) and x >= 1 for x in hidden)
    _require(preset, "hidden", widths, "a list of layer widths")
    _require(preset, "dropout", _within(options["dropout"], 0, 1) and options["dropout"] < 1, "in [0, 1)")
    _require(preset, "gamma", _within(options["gamma"], 0, 1), "in [0, 1]")
    _require(preset, "agent_loss", _within(options["agent_loss"], 0, float("inf")), "not negative")
    tau = options["tau"]
    _require(preset, "tau", tau is None or (_within(tau, 0, 1) and tau > 0), "in (0, 1], or None")
    _require(preset, "double_q", isinstance(options["double_q"], bool), "true or false")


def _within(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _require(preset: Preset, name: str, condition: bool, wanted: str) -> None:
    if not condition:
        raise PresetError(f"{preset.name}: {name} is {preset.options[name]!r}; it must be {wanted}")


_QMIX = MixerOptions(mixer="absolute", mixer_activation="elu")

PRESETS: dict[str, Preset] = {
    "VDN": Preset("VDN"),
    "QMIX": Preset("QMIX", mixer=_QMIX),
    # Table 6
    "AWRQMixer": Preset(
        "AWRQMixer",
        network=NetworkOptions(heads=20, gru=256, hidden=(512, 256), dropout=0.2),
        mixer=MixerOptions(mixer="softplus"),
        objective=ObjectiveOptions(gamma=0.9, double_q=False, head_weighting="adaptive", agent_loss=1.0),
        credit=CreditOptions("variance"),
    ),
    "JointDRQN": Preset("JointDRQN", objective=ObjectiveOptions(double_q=False), joint=True),
}


def preset(name: str, **options: Any) -> Preset:
    """A preset by name, with options replaced.

    Raises:
        PresetError: unknown name or option; the message names the nearest valid one.
    """
    if name not in PRESETS:
        raise PresetError(unknown_option("algorithm", name, PRESETS))
    return PRESETS[name].replace(**options)
