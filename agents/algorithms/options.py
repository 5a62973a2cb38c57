"""The options of the algorithms: groups, defaults, valid values, and combinations that are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from agents.algorithms.credit import CREDIT_USES, CREDITS
from agents.algorithms.td_targets import (
    CENTRAL_WEIGHTINGS,
    ENSEMBLE_LOSSES,
    HEAD_ACTIONS,
    HEAD_TARGETS,
    HEAD_WEIGHTINGS,
    LOSSES,
    MIXER_TARGETS,
    POLICY_WEIGHTS,
    TD_WEIGHTINGS,
    TRACES,
    WAITING_VALUES,
    WEIGHTING_LEVELS,
)
from agents.networks.mixers import ACTIVATIONS as MIXER_ACTIVATIONS
from agents.networks.mixers import JOINT_ACTION_MIXERS, MIXER_INPUTS, MIXERS, import_mixer, mixer_name
from agents.networks.q_network import ACTIVATIONS, INITIALIZER_NAMES, NORMALIZATIONS
from marca_env.utils.errors import InputError, shown, unknown_option


class PresetError(InputError):
    """Unknown, invalid or contradictory options of an algorithm."""


@dataclass(frozen=True)
class OptionRule:
    """Rule for the values of an option: a check, and its wording in error messages."""

    is_valid: Callable[[Any], bool]
    text: str


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


COUNT = OptionRule(_is_count, "a whole number of at least 1")
WIDTH = OptionRule(lambda x: x is None or _is_count(x), "a width, or None for no recurrence")
WIDTHS = OptionRule(lambda x: isinstance(x, tuple) and all(map(_is_count, x)), "a list of layer widths")
SHARE = OptionRule(lambda x: _is_number(x) and 0 <= x < 1, "in [0, 1)")
UNIT = OptionRule(lambda x: _is_number(x) and 0 <= x <= 1, "in [0, 1]")
UNIT_OR_NONE = OptionRule(lambda x: x is None or (_is_number(x) and 0 < x <= 1), "in (0, 1], or None")
POSITIVE = OptionRule(lambda x: _is_number(x) and x > 0, "positive")
NOT_NEGATIVE = OptionRule(lambda x: _is_number(x) and x >= 0, "not negative")
FLAG = OptionRule(lambda x: isinstance(x, bool), "true or false")


def _option(default: Any, rule: OptionRule | Sequence[str]) -> Any:
    """Declare an option with its default and its valid values: a rule, or a list of names."""
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True)
class NetworkOptions:
    """The Q network of each agent."""

    heads: int = _option(1, COUNT)
    """K, size of the ensemble."""
    gru: int | None = _option(64, WIDTH)
    """H, width of the recurrent state; ``None``: a feed-forward network."""
    hidden: tuple[int, ...] = _option((64,), WIDTHS)
    """Widths of the hidden layers of each head."""
    dropout: float = _option(0.0, SHARE)
    """Probability that a hidden unit is dropped in a gradient step; targets and decisions use no dropout. With linear
    heads (``hidden=[]``) the units are the GRU's, as in the paper's reference code."""
    activation: str = _option("relu", tuple(ACTIVATIONS))
    """Activation of the hidden layers: ``relu``, ``elu``, ``leaky_relu``, ``tanh``, ``sigmoid`` or ``gelu``."""
    leaky_slope: float = _option(0.01, SHARE)
    """Slope of ``leaky_relu`` below zero."""
    normalization: str = _option("none", NORMALIZATIONS)
    """Normalisation of the hidden layers: ``none``, ``layer`` or ``batch``; with linear heads it is the GRU's output
    that is normalised. Batch statistics cover the decisions in the batch; the target network and decisions use the
    running statistics."""
    initializer: str = _option("glorot_uniform", INITIALIZER_NAMES)
    """Initialiser of the weights: ``glorot_uniform`` (Table 6), ``glorot_normal``, ``he_uniform``, ``he_normal``,
    ``lecun_uniform``, ``lecun_normal``, ``orthogonal``, ``random_uniform`` (±0.05, as in Keras), or ``torch``: torch's
    own start of weights and biases, which is smaller (the published team algorithms)."""
    own_mixing: bool = _option(False, FLAG)
    """Whether an agent's values pass through a mixing network with weights of what the agent sees
    (:class:`agents.networks.own_mixing.OwnMixing`)."""
    share_parameters: bool = _option(False, FLAG)
    """One network for all agents with equal spaces; a one-hot after the observation identifies the agent
    (:mod:`agents.team.parameter_sharing`)."""


@dataclass(frozen=True)
class MixerOptions:
    """The mixer, which combines the agents' values into the team's."""

    mixer: str = _option("sum", MIXERS)
    """``sum``, ``additive`` (a sum with a baseline that follows the state), ``absolute``, ``softplus``, ``qplex``
    (duplex dueling: every task in which the agents' argmaxes are the team's), ``resq`` (softplus with a negative
    residual away from the greedy team action), ``residual`` (additive with such a residual where several agents decide
    at once), or ``none``: every agent learns independently from the team's reward. A user-defined class is passed
    itself or by its dotted path (:class:`agents.networks.mixers.UserMixer`)."""
    mixer_activation: str = _option("relu", tuple(MIXER_ACTIVATIONS))
    """``relu`` (paper), ``elu`` (QMIX), ``leaky_relu`` or ``tanh``."""
    mixer_width: int = _option(32, COUNT)
    """Hidden units of the mixer."""
    hypernet: int = _option(64, COUNT)
    """Hidden units of the hypernetworks."""
    mixer_input: str = _option("state", MIXER_INPUTS)
    """``state`` (Eq. 12) or ``state+actions`` (Algorithm 1 and the paper's reference code). With ``state+actions`` the
    agents' argmaxes need not be the team's (no IGM)."""
    central_width: int = _option(256, COUNT)
    """Units of each of the three hidden layers of Q*'s mixer; ``td_weighting`` adds Q*."""
    waiting_values: str = _option("carried", WAITING_VALUES)
    """What the mixer takes from an agent that waits: the value of its latest decision (``carried``), the same until an
    agent decides again that has decided since (``round``, such as one request of a window), or ``zero``: a value then
    belongs to the step in which its agent decides, and the mixer's baseline says what led there."""
    attention_heads: int = _option(4, COUNT)
    """Heads of the attention with which ``qplex`` weights the agents' advantages."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixer", mixer_name(self.mixer))


@dataclass(frozen=True)
class ObjectiveOptions:
    """TD targets, losses, and the optimiser."""

    gamma: float = _option(0.99, UNIT)
    """γ, discount factor per step."""
    double_q: bool = _option(True, FLAG)
    """Double Q-learning: the online network chooses the next action, the target network values it."""
    loss: str = _option("mse", LOSSES)
    """Loss of a TD error δ: ``mse`` δ², ``mae`` |δ|, or ``huber`` δ²/2 up to ``huber_delta``, linear beyond. ``mae``
    and ``huber`` do not estimate the mean; they underestimate a revenue that is mostly zero."""
    huber_delta: float = _option(1.0, POSITIVE)
    """Threshold of the Huber loss, in units of ``reward_scale``."""
    head_weighting: str = _option("mean", HEAD_WEIGHTINGS)
    """Weights of the heads in training: ``mean``, ``random`` (REM), ``adaptive`` (AW, Eq. 8–10), or ``disagreement``:
    an agent's value is the heads' mean, as when it is served, and each head's share of the gradient grows with its
    squared distance from that mean over the legal actions, which reveals no label."""
    weighting_level: str = _option("sample", WEIGHTING_LEVELS)
    """Adaptive weights, also those by disagreement, per ``sample`` and step (paper, Eq. 9) or per ``batch``, one per
    head (its reference code).
    The errors of a sample contain its reward, so weights per sample reveal the label to the mixer. Without VGCA, which
    keeps the agents' rewards small, the heads drift apart to reveal it better; use ``batch`` in that case."""
    head_target: str = _option("own", HEAD_TARGETS)
    """An agent's k-th head learns from the ``own`` head of the target network (Eq. 8), or from the ``mean`` of all."""
    head_action: str = _option("mean", HEAD_ACTIONS)
    """The next action with which an agent's k-th head bootstraps: the best by the ``mean`` of the heads, which is the
    action that is served (Algorithm 2), or the best by the ``own`` head, as in the paper's reference code."""
    ensemble_loss: str = _option("weighted", ENSEMBLE_LOSSES)
    """An agent's own loss: ``weighted`` Σ_k η_k L_k, or ``heads_and_mixture`` (Σ_k L_k + L(Σ_k η_k δ_k)) / (K + 1), as
    in the paper's reference code."""
    weighting_gradient: bool = _option(False, FLAG)
    """Whether the gradient also flows through the adaptive weights, as in the paper's reference code."""
    mixer_target: str = _option("td", MIXER_TARGETS)
    """Target of Q_tot: ``td`` r + γ·Q'_tot at every step (Eq. 15), or ``return``: the episode's reward R, at its last
    step alone, as in the paper's reference code."""
    td_weighting: str = _option("none", TD_WEIGHTINGS)
    """Weights of the mixer's TD errors: ``none``, Weighted QMIX's ``optimistic`` (OW) or ``central`` (CW), which add
    Q*, or ``advantage``: joint actions whose value is near the best count most, whatever reward they met."""
    td_alpha: float = _option(0.5, UNIT)
    """Weight of the errors that ``td_weighting`` reduces; with ``advantage`` the least weight. Rashid et al. (2020) use
    0.5 (OW) and 0.75 (CW) in StarCraft, and 0.1 where miscoordination is punished."""
    agent_loss: float = _option(0.0, NOT_NEGATIVE)
    """Coefficient of the agents' own TD losses, added to the mixer's (Eq. 15)."""
    td_lambda: float = _option(0.0, UNIT)
    """λ of the TD targets of the mixer and of the agents: 0 bootstraps after one step, 1 takes the whole return that
    followed, as far as ``trace`` keeps it."""
    trace: str = _option("greedy", TRACES)
    """Steps through which ``td_lambda`` follows the return: ``greedy`` until the first action that the target policy
    would not take (Watkins's Q(λ), the tree backup of a greedy policy); ``all`` (Peng's Q(λ)), which is faster and
    biased towards the behaviour policy; or ``better``: as ``greedy``, and through other actions where their return
    exceeds the value of the greedy one, which overestimates where returns are noisy."""
    target_update: int = _option(100, COUNT)
    """Gradient steps between hard updates of the target network."""
    tau: float | None = _option(None, UNIT_OR_NONE)
    """Polyak coefficient; if set, the target network moves towards the online network at every gradient step."""
    policy_weights: str = _option("online", POLICY_WEIGHTS)
    """Weights with which the team samples, is evaluated and is served: the ``online`` network's, or the ``average``:
    the target network's, which with ``tau`` are a moving average of the online ones."""
    optimizer: str = _option("adam", ("adam", "sgd", "rmsprop"))
    """``adam`` (Table 6), ``sgd`` or ``rmsprop``."""
    momentum: float = _option(0.0, SHARE)
    """Momentum of ``sgd`` and ``rmsprop``."""
    rmsprop_alpha: float = _option(0.99, SHARE)
    """Smoothing of ``rmsprop``'s mean square of the gradients."""
    weight_decay: float = _option(0.0, NOT_NEGATIVE)
    """Factor of the weights that is added to their gradient (L2 regularisation)."""


@dataclass(frozen=True)
class CreditOptions:
    """Which decisions matter: VGCA's weights w_t."""

    credit: str = _option("none", CREDITS)
    """``none``: the team's reward; ``variance``: w_t·R (VGCA, Eq. 16); ``cumulative``: w_t is the running share of an
    agent's variance, as in the paper's reference code."""
    credit_use: str = _option("reward", CREDIT_USES)
    """``reward``: w_t·R is the reward in an agent's own TD target, which is then no longer the return (paper);
    ``weight``: w_t, scaled to a mean of 1, weights the losses of the agents and of the mixer, whose targets stay."""
    credit_share: float = _option(0.5, UNIT)
    """Part of a loss's weight that follows w_t with ``credit_use`` ``weight``; the rest is the same at all turns."""


GROUPS = {"network": NetworkOptions, "mixer": MixerOptions, "objective": ObjectiveOptions, "credit": CreditOptions}
GROUP_OF = {f.name: group for group, cls in GROUPS.items() for f in fields(cls)}
"""Option → name of its group."""

RULES: dict[str, OptionRule | Sequence[str]] = {
    f.name: f.metadata["rule"] for cls in GROUPS.values() for f in fields(cls)
}
"""Option → its valid values."""

_MIXING = ("mixer_activation", "mixer_width")
_ENSEMBLE_WEIGHTS = ("adaptive", "disagreement")
_NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(_MIXING, ("mixer", ("absolute", "softplus", "resq"))),
    "hypernet": ("mixer", ("additive", "absolute", "softplus", "qplex", "resq", "residual")),
    "mixer_input": ("mixer", ("absolute", "softplus")),
    "waiting_values": ("mixer", tuple(mixer for mixer in MIXERS if mixer != "none")),
    "attention_heads": ("mixer", ("qplex",)),
    "weighting_level": ("head_weighting", _ENSEMBLE_WEIGHTS),
    "td_alpha": ("td_weighting", (*CENTRAL_WEIGHTINGS, "advantage")),
    "central_width": ("td_weighting", CENTRAL_WEIGHTINGS),
    "huber_delta": ("loss", ("huber",)),
    "weighting_gradient": ("head_weighting", ("adaptive",)),
    "leaky_slope": ("activation", ("leaky_relu",)),
    "momentum": ("optimizer", ("sgd", "rmsprop")),
    "rmsprop_alpha": ("optimizer", ("rmsprop",)),
    "credit_share": ("credit_use", ("weight",)),
}
"""Option → the option that it depends on, and the values of that option with which it has an effect."""


def check_values(name: str, options: Mapping[str, Any]) -> None:
    """Refuse invalid values; ``name`` is the algorithm's name.

    Raises:
        PresetError: an invalid value; the message names the option, its value and the rule.
    """
    for option, rule in RULES.items():
        value = options[option]
        if option == "mixer" and isinstance(value, str) and "." in value:
            import_mixer(value)
        elif isinstance(rule, OptionRule):
            if not rule.is_valid(value):
                raise PresetError(f"{name}: {option} is {shown(value)}; it must be {rule.text}")
        elif not isinstance(value, (str, bool, int, float, type(None))) or value not in rule:
            raise PresetError(f"{name}: {unknown_option(option, value, rule)}")


def check_together(name: str, options: Mapping[str, Any], *, joint: bool) -> None:
    """Refuse combinations of options with which the algorithm could not learn.

    Raises:
        PresetError: contradictory options; the message names them.
    """
    mixer, weighting, agent_loss = options["mixer"], options["td_weighting"], options["agent_loss"]
    if joint and mixer not in ("sum", "none"):
        raise PresetError(f"{name}: a joint controller has nothing to mix; leave mixer at 'sum'")
    if joint and options["share_parameters"]:
        raise PresetError(f"{name}: share_parameters is for teams; remove it, a joint controller is a single agent")
    if joint and weighting != "none":
        raise PresetError(f"{name}: td_weighting {weighting!r} is for teams; set it to 'none' for a joint controller")
    if mixer == "none" and agent_loss == 0:
        raise PresetError(f"{name}: with mixer 'none' only agent_loss is left to learn from, and it is 0; raise it")
    if options["mixer_target"] != "td" and (mixer == "none" or weighting != "none"):
        raise PresetError(
            f"{name}: mixer_target {options['mixer_target']!r} needs a mixer and no td_weighting; set it to 'td'"
        )
    if mixer == "none" and weighting != "none":
        raise PresetError(f"{name}: td_weighting {weighting!r} weights the mixer's errors; choose a mixer, not 'none'")
    if mixer == "none" and options["head_weighting"] == "random":
        raise PresetError(
            f"{name}: head_weighting 'random' mixes heads in the team's value; choose a mixer, not 'none'"
        )
    if mixer in JOINT_ACTION_MIXERS and options["mixer_input"] != "state":
        raise PresetError(f"{name}: mixer {mixer!r} knows the joint action already; set mixer_input to 'state'")
    _check_credit(name, options)


def _check_credit(name: str, options: Mapping[str, Any]) -> None:
    """Refuse credit that reaches no loss, or that changes the reward which ``td_lambda`` sums up."""
    agent_loss, use = options["agent_loss"], options["credit_use"]
    if options["credit"] != "none" and agent_loss == 0 and (use == "reward" or options["mixer"] == "none"):
        raise PresetError(f"{name}: credit {options['credit']!r} acts through agent_loss, which is 0; raise it")
    if options["credit"] != "none" and use == "reward" and options["td_lambda"] > 0:
        raise PresetError(
            f"{name}: td_lambda {options['td_lambda']:g} sums rewards over steps, and credit puts the whole return "
            "into each of them; set credit_use to 'weight' or td_lambda to 0"
        )


def check_changed(name: str, changed: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse options that the user set and that have no effect with the other options.

    Args:
        name: name of the algorithm.
        changed: the options that the user set.
        options: every option with its resulting value.

    Raises:
        PresetError: an option without effect; the message names both options and the remedy.
    """
    for option in changed:
        needed, values = _NEEDS.get(option, ("", ()))
        user_mixer = option == "mixer_input" and "." in options["mixer"]
        if needed and options[needed] not in values and not user_mixer:
            raise PresetError(
                f"{name}: {option} has no effect with {needed} {options[needed]!r}; "
                f"remove it or set {needed} to {' or '.join(map(repr, values))}"
            )
        if option in ("dropout", "normalization", "activation", "leaky_slope") and not options["hidden"]:
            if option in ("dropout", "normalization") and options["gru"]:
                continue  # they act on the GRU's output
            raise PresetError(f"{name}: {option} has no effect without hidden layers; remove it or set hidden")
    if "target_update" in changed and options["tau"] is not None:
        raise PresetError(f"{name}: tau and target_update exclude each other; set only one of them")
    if "credit_use" in changed and options["credit"] == "none":
        raise PresetError(f"{name}: credit_use has no effect with credit 'none'; set credit to 'variance'")
    if "trace" in changed and options["td_lambda"] == 0:
        raise PresetError(f"{name}: trace has no effect with td_lambda 0; raise td_lambda or remove trace")
    if "td_lambda" in changed and options["td_lambda"] > 0 and options["mixer_target"] == "return":
        raise PresetError(f"{name}: td_lambda has no effect with mixer_target 'return'; set mixer_target to 'td'")
    uses_agent_errors = options["agent_loss"] > 0 or options["head_weighting"] == "adaptive"
    has_effect = {
        "head_target": uses_agent_errors,
        "head_action": uses_agent_errors,
        "ensemble_loss": options["agent_loss"] > 0,
    }
    for option in changed:
        if not has_effect.get(option, True):
            raise PresetError(f"{name}: {option} acts through agent_loss, which is 0; raise it or remove {option}")
