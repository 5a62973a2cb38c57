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

from agents.algorithms.options import (
    GROUPS,
    OWNER,
    CreditOptions,
    MixerOptions,
    NetworkOptions,
    ObjectiveOptions,
    PresetError,
    check_given,
    check_together,
    check_values,
)
from marca_env.utils.errors import unknown_option

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
        check_values(self.name, self.options)
        check_together(self.name, self.options, joint=self.joint)

    @property
    def options(self) -> dict[str, Any]:
        """Every option and its value, flat."""
        return {name: getattr(getattr(self, group), name) for name, group in OWNER.items()}

    def replace(self, **options: Any) -> Preset:
        """A copy with some options changed, checked again; the three ablation switches of AWRQMixer included.

        Raises:
            PresetError: an unknown option, naming the nearest valid one, or two that contradict each other.
        """
        options = self._switch(dict(options))
        groups: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            if name not in OWNER:
                raise PresetError(f"{self.name}: {unknown_option('option', name, (*OWNER, *self._switches))}")
            groups.setdefault(OWNER[name], {})[name] = _listed(value)
        changed = {group: dataclasses.replace(getattr(self, group), **values) for group, values in groups.items()}
        made = dataclasses.replace(self, **changed)
        check_given(self.name, options, made.options)
        return made

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
            chosen = options.get(name, getattr(getattr(self, OWNER[name]), name))
            if on is (chosen != other):
                continue  # as it is wanted already, perhaps in another form
            if name in options:
                raise PresetError(f"{self.name}: {switch}={on} contradicts {name}={chosen!r}; give one of them")
            options[name] = value if on else other
        return options

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


_QMIX = MixerOptions(mixer="absolute", mixer_activation="elu")
_FLAT = NetworkOptions(gru=None)

PRESETS: dict[str, Preset] = {
    "VDN": Preset("VDN"),
    "QMIX": Preset("QMIX", mixer=_QMIX),
    # Rashid et al., 2020
    "WeightedQMIX": Preset("WeightedQMIX", mixer=_QMIX, objective=ObjectiveOptions(td_weighting="optimistic")),
    # Table 6
    "AWRQMixer": Preset(
        "AWRQMixer",
        network=NetworkOptions(heads=20, gru=256, hidden=(512, 256), dropout=0.2),
        mixer=MixerOptions(mixer="softplus"),
        objective=ObjectiveOptions(gamma=0.9, double_q=False, head_weighting="adaptive", agent_loss=1.0),
        credit=CreditOptions("variance"),
    ),
    "IQL": Preset("IQL", mixer=MixerOptions(mixer="none"), objective=ObjectiveOptions(agent_loss=1.0)),
    "JointDQN": Preset("JointDQN", network=_FLAT, objective=ObjectiveOptions(double_q=False), joint=True),
    "JointDDQN": Preset("JointDDQN", network=_FLAT, joint=True),
    "JointDRQN": Preset("JointDRQN", objective=ObjectiveOptions(double_q=False), joint=True),
    # Agarwal et al., 2020, after Anschel et al., 2017: the Bellman target of every head is the mean of all
    "AveragedDQN": Preset(
        "AveragedDQN",
        network=NetworkOptions(heads=20, gru=None),
        mixer=MixerOptions(mixer="none"),
        objective=ObjectiveOptions(double_q=False, agent_loss=1.0, head_target="mean"),
        joint=True,
    ),
    # Agarwal et al., 2020
    "REM": Preset(
        "REM",
        network=NetworkOptions(heads=20, gru=None),
        objective=ObjectiveOptions(double_q=False, head_weighting="random"),
        joint=True,
    ),
}
"""The published methods by name. Where a paper and its reference code differ, the default is the paper's; the options
say which of their values is whose (:mod:`agents.algorithms.options`)."""


def preset(name: str, **options: Any) -> Preset:
    """A preset by name, with options replaced.

    Raises:
        PresetError: unknown name or option; the message names the nearest valid one.
    """
    if name not in PRESETS:
        raise PresetError(unknown_option("algorithm", name, PRESETS))
    return PRESETS[name].replace(**options)
