"""The options of the algorithms, in groups, with what each value must be and which of them exclude each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from agents.algorithms.credit import CREDITS
from agents.algorithms.td_targets import HEAD_TARGETS, HEAD_WEIGHTINGS, LEVELS, LOSSES, TD_WEIGHTINGS
from agents.networks.mixers import ACTIVATIONS as MIXER_ACTIVATIONS
from agents.networks.mixers import CONDITIONS, MIXERS, mixer_name, own_mixer
from agents.networks.q_network import ACTIVATIONS, INITIALIZERS, NORMALIZATIONS
from marca_env.utils.errors import InputError, unknown_option

OPTIMIZERS = ("adam", "sgd", "rmsprop")


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
    """Chance that a hidden unit is dropped in a gradient step; targets and decisions drop none."""
    activation: str = "relu"
    """Of the hidden layers: ``relu``, ``elu``, ``leaky_relu``, ``tanh`` or ``gelu``."""
    normalization: str = "none"
    """Of the hidden layers: ``none``, ``layer`` or ``batch``. Batch statistics are those of the decisions in the batch;
    the target network and decisions use the running ones."""
    initializer: str = "glorot_uniform"
    """Of the weights: ``glorot_uniform`` (Table 6), ``glorot_normal``, ``he_uniform`` or ``orthogonal``."""
    share_parameters: bool = False
    """One network for all agents with equal spaces, told apart by a one-hot behind their observations
    (:mod:`agents.team.parameter_sharing`)."""


@dataclass(frozen=True)
class MixerOptions:
    """How the agents' values become the team's."""

    mixer: str = "sum"
    """``sum``, ``absolute``, ``softplus``, or ``none``: every agent learns by itself from the team's reward. Or a class
    of your own, as it is or by its dotted path (:class:`agents.networks.mixers.OwnMixer`)."""
    mixer_activation: str = "relu"
    """``relu`` (paper), ``elu`` (QMIX), ``leaky_relu`` or ``tanh``."""
    mixer_width: int = 32
    hypernet: int = 64
    """Hidden units of the hypernetworks."""
    mixer_input: str = "state"
    """``state`` (Eq. 12) or ``state+actions`` (Algorithm 1 and the paper's reference code; gives IGM up)."""
    central_width: int = 256
    """Units of each of the three hidden layers of Q*'s mixer, which ``td_weighting`` brings with it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixer", mixer_name(self.mixer))


@dataclass(frozen=True)
class ObjectiveOptions:
    """TD targets, losses, and how they are minimised."""

    gamma: float = 0.99
    double_q: bool = True
    """The online network chooses the next action, the target network values it."""
    loss: str = "mse"
    """Of a TD error δ: ``mse`` δ², ``mae`` |δ|, or ``huber`` δ²/2 up to ``huber_delta``, linear beyond. The last two do
    not estimate the mean: a revenue that is mostly zero is then underrated."""
    huber_delta: float = 1.0
    """In units of ``reward_scale``."""
    head_weighting: str = "mean"
    """Weights of the heads in training: ``mean``, ``random`` (REM) or ``adaptive`` (AW, Eq. 8–10)."""
    weighting_level: str = "sample"
    """Adaptive weights per ``sample`` and step (paper, Eq. 9) or per ``batch``, one per head (its reference code).
    A sample's own errors contain its reward, so that weights per sample tell the mixer the label: without VGCA, which
    keeps the agents' rewards small, the heads drift apart to tell it better; take ``batch`` there."""
    head_target: str = "own"
    """An agent's k-th head learns from the ``own`` head of the target network (Eq. 8), or from the ``mean`` of all."""
    td_weighting: str = "none"
    """Weights of the mixer's TD errors: ``none``, or Weighted QMIX's, ``optimistic`` (OW) or ``central`` (CW)."""
    td_alpha: float = 0.5
    """Weight of the errors that ``td_weighting`` plays down. Rashid et al. (2020) take 0.5 (OW) and 0.75 (CW) in
    StarCraft and 0.1 where miscoordination is punished."""
    agent_loss: float = 0.0
    """Coefficient of the agents' own TD losses beside the mixer's (Eq. 15)."""
    target_update: int = 100
    """Gradient steps between hard updates of the target network."""
    tau: float | None = None
    """Polyak coefficient; if given, the target network follows at every gradient step instead."""
    optimizer: str = "adam"
    """``adam`` (Table 6), ``sgd`` or ``rmsprop``."""
    momentum: float = 0.0
    """Of ``sgd`` and ``rmsprop``."""
    weight_decay: float = 0.0
    """Times the weights, added to their gradient (L2 regularisation)."""


@dataclass(frozen=True)
class CreditOptions:
    """Which reward an agent's own TD target sees."""

    credit: str = "none"
    """``none``: the team's reward; ``variance``: w_t·R (VGCA, Eq. 16); ``cumulative``: as in its reference code."""


GROUPS = {"network": NetworkOptions, "mixer": MixerOptions, "objective": ObjectiveOptions, "credit": CreditOptions}
OWNER = {f.name: group for group, cls in GROUPS.items() for f in fields(cls)}
"""Option → its group."""

CHOICES: dict[str, tuple[str, ...]] = {
    "activation": tuple(ACTIVATIONS),
    "normalization": NORMALIZATIONS,
    "initializer": tuple(INITIALIZERS),
    "mixer": MIXERS,
    "mixer_activation": tuple(MIXER_ACTIVATIONS),
    "mixer_input": CONDITIONS,
    "loss": LOSSES,
    "head_weighting": HEAD_WEIGHTINGS,
    "weighting_level": LEVELS,
    "head_target": HEAD_TARGETS,
    "td_weighting": TD_WEIGHTINGS,
    "optimizer": OPTIMIZERS,
    "credit": CREDITS,
}

_MIXING = ("mixer_activation", "mixer_width", "hypernet", "mixer_input")
_NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(_MIXING, ("mixer", ("absolute", "softplus"))),
    "weighting_level": ("head_weighting", ("adaptive",)),
    "td_alpha": ("td_weighting", ("optimistic", "central")),
    "central_width": ("td_weighting", ("optimistic", "central")),
    "huber_delta": ("loss", ("huber",)),
    "momentum": ("optimizer", ("sgd", "rmsprop")),
}
"""Option → another one and the values of it without which the first has no effect."""


def check_values(name: str, options: Mapping[str, Any]) -> None:
    """Refuse values that no option may have; ``name`` is the algorithm's.

    Raises:
        PresetError: naming the option, its value and what it must be.
    """
    if "." in str(options["mixer"]):
        own_mixer(options["mixer"])
        options = {**options, "mixer": MIXERS[0]}
    for option, valid in CHOICES.items():
        if options[option] not in valid:
            raise PresetError(f"{name}: {unknown_option(option, options[option], valid)}")
    gru, hidden, tau = options["gru"], options["hidden"], options["tau"]
    widths = isinstance(hidden, tuple) and all(map(_count, hidden))
    wanted = {
        **{n: (_count(options[n]), "a whole number of at least 1") for n in _COUNTS},
        **{n: (_within(options[n], 0, 1) and options[n] < 1, "in [0, 1)") for n in ("dropout", "momentum")},
        **{n: (_within(options[n], 0, _INFINITE), "not negative") for n in ("agent_loss", "weight_decay")},
        "gru": (gru is None or _count(gru), "a width, or None for no recurrence"),
        "hidden": (widths, "a list of layer widths"),
        "gamma": (_within(options["gamma"], 0, 1), "in [0, 1]"),
        "td_alpha": (_within(options["td_alpha"], 0, 1), "in [0, 1]"),
        "huber_delta": (_within(options["huber_delta"], 0, _INFINITE) and options["huber_delta"] > 0, "positive"),
        "tau": (tau is None or (_within(tau, 0, 1) and tau > 0), "in (0, 1], or None"),
        **{n: (isinstance(options[n], bool), "true or false") for n in ("double_q", "share_parameters")},
    }
    for option, (right, rule) in wanted.items():
        if not right:
            raise PresetError(f"{name}: {option} is {options[option]!r}; it must be {rule}")


def check_together(name: str, options: Mapping[str, Any], *, joint: bool) -> None:
    """Refuse an algorithm that could not learn what it says, whoever chose its options.

    Raises:
        PresetError: naming the options that contradict each other.
    """
    mixer, weighting, own = options["mixer"], options["td_weighting"], options["agent_loss"]
    if joint and mixer not in ("sum", "none"):
        raise PresetError(f"{name}: a joint controller has nothing to mix; leave mixer at 'sum'")
    if joint and options["share_parameters"]:
        raise PresetError(f"{name}: share_parameters is for teams; a joint controller is alone, drop it")
    if joint and weighting != "none":
        raise PresetError(f"{name}: td_weighting {weighting!r} is for teams; a joint controller needs 'none'")
    if mixer == "none" and own == 0:
        raise PresetError(f"{name}: with mixer 'none' only agent_loss is left to learn from, and it is 0; raise it")
    if mixer == "none" and weighting != "none":
        raise PresetError(f"{name}: td_weighting {weighting!r} weights the mixer's errors; mixer 'none' has none")
    if mixer == "none" and options["head_weighting"] == "random":
        raise PresetError(f"{name}: head_weighting 'random' mixes heads in the team's value; mixer 'none' has none")
    if options["credit"] != "none" and own == 0:
        raise PresetError(f"{name}: credit {options['credit']!r} acts through agent_loss, which is 0; raise it")


def check_given(name: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse options that somebody gave and that have no effect beside the others.

    Args:
        name: the algorithm's.
        given: the options that were given.
        options: every option with the value that it then has.

    Raises:
        PresetError: naming both options and the remedy.
    """
    for option in given:
        other, values = _NEEDS.get(option, ("", ()))
        own = option == "mixer_input" and "." in options["mixer"]
        if other and options[other] not in values and not own:
            raise PresetError(
                f"{name}: {option} has no effect with {other} {options[other]!r}; "
                f"drop it or set {other} to {' or '.join(map(repr, values))}"
            )
        if option in ("dropout", "normalization", "activation") and not options["hidden"]:
            raise PresetError(f"{name}: {option} has no effect without hidden layers; drop it or set hidden")
    if "target_update" in given and options["tau"] is not None:
        raise PresetError(f"{name}: tau and target_update exclude each other; give one of them")
    own_errors = options["agent_loss"] > 0 or options["head_weighting"] == "adaptive"
    if "head_target" in given and not own_errors:
        raise PresetError(f"{name}: head_target acts through agent_loss, which is 0; raise it or drop head_target")


_COUNTS = ("heads", "mixer_width", "hypernet", "central_width", "target_update")
_INFINITE = float("inf")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _within(value: Any, low: float, high: float) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high and value < _INFINITE
    )
