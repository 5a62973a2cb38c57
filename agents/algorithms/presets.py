"""The algorithms as data: network × mixer × objective × credit.

``PRESETS["QMIX"]`` and ``PRESETS["VDN"]`` differ only in their mixer. An ablation is a preset with one switch turned
off. Any option can be replaced by name::

    PRESETS["AWRQMixer"].replace(heads=5, gru=64, hidden=(64,))
    PRESETS["AWRQMixer"].replace(variance_credit=False)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.algorithms.options import (
    GROUP_OF,
    GROUPS,
    CreditOptions,
    MixerOptions,
    NetworkOptions,
    ObjectiveOptions,
    PresetError,
    check_changed,
    check_together,
    check_values,
)
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import unknown_option

Switch = tuple[str, Any, Any]
"""Option, its value where the switch is on, and where it is off."""
AWRQ_SWITCHES: dict[str, Switch] = {
    "adaptive_weighting": ("head_weighting", "adaptive", "mean"),
    "softplus_mixer": ("mixer", "softplus", "absolute"),
    "variance_credit": ("credit", "variance", "none"),
}
"""Ablation switches of AWRQMixer, the three parts of the paper."""
AWRQ_V2_SWITCHES: dict[str, Switch] = {
    "residual_mixer": ("mixer", "residual", "sum"),
    "own_information_mixing": ("own_mixing", True, False),
    "value_at_turn": ("waiting_values", "zero", "carried"),
    "advantage_weighting": ("td_weighting", "advantage", "none"),
    "lambda_returns": ("td_lambda", 0.8, 0.0),
    "averaged_policy": ("policy_weights", "average", "online"),
    "ensemble": ("heads", 5, 1),
    "disagreement_weighting": ("head_weighting", "disagreement", "mean"),
    "credit_weighting": ("credit", "variance", "none"),
}
"""Ablation switches of AWRQMixerV2. Without the first six, in which it differs from VDN, it is VDN; the last three,
parts of AWRQ-Mixer in a form that leaves the targets as they are, are off by default."""
SWITCHES: dict[str, dict[str, Switch]] = {"AWRQMixer": AWRQ_SWITCHES, "AWRQMixerV2": AWRQ_V2_SWITCHES}
"""Preset → its ablation switches."""


@dataclass(frozen=True)
class Preset:
    """An algorithm: its name and its options."""

    name: str
    """Name of the algorithm."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    mixer: MixerOptions = field(default_factory=MixerOptions)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    credit: CreditOptions = field(default_factory=CreditOptions)
    joint: bool = False
    """Whether one controller observes the whole state and takes every decision, in place of a team."""

    def __post_init__(self) -> None:
        check_values(self.name, self.options)
        check_together(self.name, self.options, joint=self.joint)

    @property
    def options(self) -> dict[str, Any]:
        """All options and their values, without their groups."""
        return {name: getattr(getattr(self, group), name) for name, group in GROUP_OF.items()}

    def replace(self, **options: Any) -> Preset:
        """Return a validated copy with some options changed; some presets also take their :data:`SWITCHES`.

        Raises:
            PresetError: an unknown option (the message names the nearest valid one), or contradictory options.
        """
        options = self._resolve_switches(dict(options))
        groups: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            if name not in GROUP_OF:
                raise PresetError(f"{self.name}: {unknown_option('option', name, (*GROUP_OF, *self._switches))}")
            groups.setdefault(GROUP_OF[name], {})[name] = _list_to_tuple(value)
        changed = {group: dataclasses.replace(getattr(self, group), **values) for group, values in groups.items()}
        preset = dataclasses.replace(self, **changed)
        check_changed(self.name, options, preset.options)
        return preset

    @property
    def _switches(self) -> dict[str, Switch]:
        own = SWITCHES.get(self.name, {})
        return AWRQ_SWITCHES if not own and self.objective.head_weighting == "adaptive" else own

    def _resolve_switches(self, options: dict[str, Any]) -> dict[str, Any]:
        """Replace the ablation switches by the options that they stand for."""
        for switch, (name, on_value, off_value) in self._switches.items():
            if switch not in options:
                continue
            on = options.pop(switch)
            if not isinstance(on, bool):
                raise PresetError(f"{self.name}: {switch} is {on!r}; pass true or false")
            current = options.get(name, getattr(getattr(self, GROUP_OF[name]), name))
            if on is (current != off_value):
                continue  # the option is on or off already, perhaps with another value than the paper's
            if name in options:
                raise PresetError(f"{self.name}: {switch}={on} contradicts {name}={current!r}; pass only one of them")
            options[name] = on_value if on else off_value
        return options

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, from which :meth:`from_dict` rebuilds the preset."""
        return dataclasses.asdict(self)

    @classmethod
    @checked_arguments
    def from_dict(cls, data: Mapping[str, Any]) -> Preset:
        """Rebuild a preset.

        Raises:
            PresetError: a missing or unknown field.
        """
        values: dict[str, Any] = dict(data)
        try:
            for group, group_cls in GROUPS.items():
                values[group] = group_cls(**{k: _list_to_tuple(v) for k, v in values[group].items()})
            return cls(**values)
        except (TypeError, KeyError, AttributeError) as error:
            raise PresetError(f"preset: {error}") from None


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_QMIX = MixerOptions(mixer="absolute", mixer_activation="elu")
_TEAM = NetworkOptions(initializer="torch")
"""Networks of the published team algorithms, which start as torch does (PyMARL, EPyMARL)."""
_FLAT = NetworkOptions(gru=None)

PRESETS: dict[str, Preset] = {
    "VDN": Preset("VDN", network=_TEAM),
    "QMIX": Preset("QMIX", network=_TEAM, mixer=_QMIX),
    # Rashid et al., 2020
    "WeightedQMIX": Preset(
        "WeightedQMIX", network=_TEAM, mixer=_QMIX, objective=ObjectiveOptions(td_weighting="optimistic")
    ),
    # Table 6
    "AWRQMixer": Preset(
        "AWRQMixer",
        network=NetworkOptions(heads=20, gru=256, hidden=(512, 256), dropout=0.2),
        mixer=MixerOptions(mixer="softplus"),
        objective=ObjectiveOptions(gamma=0.9, double_q=False, head_weighting="adaptive", agent_loss=1.0),
        credit=CreditOptions("variance"),
    ),
    # AWRQ-Mixer without its measured faults; docs/algorithms/awrq-mixer-v2.md
    "AWRQMixerV2": Preset(
        "AWRQMixerV2",
        network=dataclasses.replace(_TEAM, own_mixing=True),
        mixer=MixerOptions(mixer="residual", waiting_values="zero"),
        objective=ObjectiveOptions(
            td_weighting="advantage", td_alpha=0.1, td_lambda=0.8, policy_weights="average", tau=0.02
        ),
        credit=CreditOptions(credit_use="weight"),
    ),
    "IQL": Preset("IQL", network=_TEAM, mixer=MixerOptions(mixer="none"), objective=ObjectiveOptions(agent_loss=1.0)),
    "JointDQN": Preset("JointDQN", network=_FLAT, objective=ObjectiveOptions(double_q=False), joint=True),
    "JointDDQN": Preset("JointDDQN", network=_FLAT, joint=True),
    "JointDRQN": Preset("JointDRQN", objective=ObjectiveOptions(double_q=False), joint=True),
    # Agarwal et al., 2020, after Anschel et al., 2017: the Bellman target of every head is the mean of all heads
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
"""The published algorithms and AWRQMixerV2, which is ours, by name. Where a paper and its reference code differ, the
default is the paper's; :mod:`agents.algorithms.options` says which value comes from which."""


ALIASES = {
    "AWRQ": "AWRQMixer",
    "DDQN": "JointDDQN",
    "DRQN": "JointDRQN",
    "DoubleDQN": "JointDDQN",
    "EMDQN": "AveragedDQN",
    "REMDQN": "REM",
    "WEIGHTED_QMIX": "WeightedQMIX",
}
"""Names in the paper (arXiv 2512.24325) and in its reference code → name here. ``DQN`` is RLlib's; ours is JointDQN."""


def algorithm_name(name: str) -> str:
    """Return our name of an algorithm; names that are no alias are returned as they are."""
    return ALIASES.get(name, name)


@checked_arguments
def preset(name: str, **options: Any) -> Preset:
    """Return a preset by name or alias, with some options replaced.

    Raises:
        PresetError: an unknown name or option; the message names the nearest valid one.
    """
    name = algorithm_name(name)
    if name not in PRESETS:
        raise PresetError(unknown_option("algorithm", name, PRESETS))
    return PRESETS[name].replace(**options)
