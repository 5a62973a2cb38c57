"""Mixers, which compute the team's value Q_tot from the agents' values Q_1 … Q_N.

VDN, QMIX and the softplus mixer of AWRQ-Mixer differ only here. A mixer with a constrained hypernetwork is
non-decreasing in every Q_n. The agents' own argmaxes are then the team's argmax (IGM, individual-global-max).

Mixers that know the joint action are in :mod:`agents.networks.joint_action_mixers`.

To add a mixer here, write its class, name it in :data:`MIXERS` and build it in :func:`make_mixer`; a mixer that differs
only in how its weights are constrained needs no more than an entry in :data:`CONSTRAINTS`. A mixer outside this package
is passed as a class or as its dotted path (:class:`UserMixer`).
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from agents.networks.joint_action_mixers import DuplexMixer, ResidualMixer, two_layers
from marca_env.utils.errors import InputError, one_line, shown, unknown_option

CONSTRAINTS: dict[str, Callable[[Tensor], Tensor]] = {
    "absolute": torch.abs,
    "softplus": nn.functional.softplus,
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "elu": nn.functional.elu,
    "leaky_relu": nn.functional.leaky_relu,
    "tanh": torch.tanh,
}
"""Activations of a mixer's hidden layer; all are non-decreasing, which the mixer's monotonicity needs."""
MIXER_INPUTS = ("state", "state+actions")
JOINT_ACTION_MIXERS = ("qplex", "resq", "residual")
"""Mixers that take the joint action and the agents' best values."""
MIXERS = ("none", "sum", "additive", *CONSTRAINTS, *JOINT_ACTION_MIXERS)


class SumMixer(nn.Module):
    """Q_tot = Σ_n Q_n (VDN); for a single agent this is its own value.

    ``share`` multiplies the sum. Agents that learn without a mixer each estimate the whole team's return. Their mean
    (share 1/N), not their sum, is therefore in currency.
    """

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.share = share

    def weights(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Return no weights: the sum does not depend on the state."""
        return ()

    def mix(self, utilities: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """Return Q_tot of M candidates per state; ``utilities`` (B, M, N) → (B, M)."""
        return utilities.sum(-1) * self.share

    def forward(self, utilities: Tensor, condition: Tensor) -> Tensor:
        """Return Q_tot; ``utilities`` (B, N) → (B,)."""
        return utilities.sum(-1) * self.share


class AdditiveMixer(nn.Module):
    """Q_tot = Σ_n Q_n + b(s): a sum whose baseline follows the state, so that agents learn what their actions add.

    Args:
        condition_size: S.
        hypernet: hidden units of b.
    """

    def __init__(self, condition_size: int, *, hypernet: int = 64) -> None:
        super().__init__()
        self.baseline = two_layers(condition_size, hypernet, 1)

    def weights(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Return b (B, 1) for ``condition`` (B, S)."""
        return (self.baseline(condition),)

    def mix(self, utilities: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """Return Q_tot of M candidates per state; ``utilities`` (B, M, N) → (B, M)."""
        (baseline,) = weights
        return utilities.sum(-1) + baseline

    def forward(self, utilities: Tensor, condition: Tensor) -> Tensor:
        """Return Q_tot; ``utilities`` (B, N), ``condition`` (B, S) → (B,)."""
        return self.mix(utilities[:, None], self.weights(condition)).squeeze(1)


class MonotoneMixer(nn.Module):
    """Q_tot = act([Q_1 … Q_N] W1 + b1) W2 + b2, with W1, b1, W2, b2 from hypernetworks of the state (Eq. 11–14).

    ``absolute`` weights with an ELU are QMIX; ``softplus`` weights with a ReLU are the paper's mixer. The ReLU has
    dead zones in which Q_tot no longer follows the agents; ``activation`` replaces it. The paper conditions on the
    state alone. ``condition_size`` may include the one-hot joint action, as in the paper's reference code; the
    agents' argmaxes then need not agree with the team's.
    """

    def __init__(
        self,
        n_agents: int,
        condition_size: int,
        *,
        constraint: str = "softplus",
        activation: str = "relu",
        width: int = 32,
        hypernet: int = 64,
    ) -> None:
        super().__init__()
        if constraint not in CONSTRAINTS:
            raise InputError(unknown_option("mixer constraint", constraint, CONSTRAINTS))
        if activation not in ACTIVATIONS:
            raise InputError(unknown_option("mixer activation", activation, ACTIVATIONS))
        self.n_agents, self.width = n_agents, width
        self.constrain, self.activate = CONSTRAINTS[constraint], ACTIVATIONS[activation]
        self.w1 = two_layers(condition_size, hypernet, n_agents * width)
        self.b1 = nn.Linear(condition_size, width)
        self.w2 = two_layers(condition_size, hypernet, width)
        self.b2 = two_layers(condition_size, width, 1)
        # Torch's default initialisation, as in QMIX's published code. With Glorot's, Q_tot would start at tens of
        # times the agents' values where the state has many or large entries: absolute weights then diverge, and
        # softplus weights learn far more slowly.
        if constraint == "softplus":
            # softplus(0) = 0.69 in every weight would multiply the agents' values by about width / 2 at the start,
            # and the first steps would drive the ReLU into its dead zone. Start with a gain of one instead.
            initial_bias = math.log(math.expm1(width**-0.5))
            for net in (self.w1, self.w2):
                nn.init.constant_(net[-1].bias, initial_bias)  # type: ignore[arg-type]

    def weights(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Return W1 (B, N, E), b1 (B, 1, E), W2 (B, E, 1) and b2 (B, 1) for ``condition`` (B, S)."""
        nets: Any = (self.w1, self.w2, self.b2)
        first = [net[0] for net in nets] + [self.b1]  # they read the same input: one product
        joined = nn.functional.linear(
            condition, torch.cat([layer.weight for layer in first]), torch.cat([layer.bias for layer in first])
        )
        units, b1 = joined.split([joined.shape[1] - self.width, self.width], 1)
        parts = torch.relu(units).split([net[0].out_features for net in nets], 1)
        w1, w2, b2 = (net[2](part) for net, part in zip(nets, parts, strict=True))
        w1 = self.constrain(w1).view(-1, self.n_agents, self.width)
        return w1, b1[:, None], self.constrain(w2)[:, :, None], b2

    def mix(self, utilities: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """Return Q_tot of M candidates per state; ``utilities`` (B, M, N) → (B, M)."""
        w1, b1, w2, b2 = weights
        mixed = self.activate(torch.baddbmm(b1, utilities, w1))  # B M E
        return torch.bmm(mixed, w2).squeeze(-1) + b2

    def forward(self, utilities: Tensor, condition: Tensor) -> Tensor:
        """Return Q_tot; ``utilities`` (B, N), ``condition`` (B, S) → (B,)."""
        w1, b1, w2, b2 = self.weights(condition)
        # For a single candidate, products of vectors: batches of tiny matrices take several times as long.
        mixed = self.activate((utilities[:, :, None] * w1).sum(1) + b1[:, 0])
        return (mixed * w2[:, :, 0]).sum(1) + b2[:, 0]


class UnrestrictedMixer(nn.Module):
    """Feed-forward mixer without a monotonicity constraint, for the central value Q* of Weighted QMIX.

    It has three hidden layers with ReLU over the state and the agents' values (Rashid et al., 2020, with 256 units).
    Their reference code adds a second network of the state alone to the output. Their paper does not mention it, and
    it is left out here.
    """

    def __init__(self, n_agents: int, state_size: int, *, width: int = 256) -> None:
        super().__init__()
        sizes = [n_agents + state_size, width, width, width, 1]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])
        _glorot(self)

    def forward(self, utilities: Tensor, state: Tensor) -> Tensor:
        """Return Q*; ``utilities`` (B, N), ``state`` (B, S) → (B,)."""
        return self.net(torch.cat([state, utilities], -1)).squeeze(-1)


def _glorot(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


class UserMixer(nn.Module):
    """Adapter for a user-defined mixer, which only has ``forward(utilities (B, N), condition (B, S)) -> (B,)``.

    Monotonicity is not checked. If the mixer is not monotone, the agents' argmaxes need not be the team's.
    """

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def weights(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Return the condition itself, (B, S)."""
        return (condition,)

    def mix(self, utilities: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """Return Q_tot of M candidates per state; ``utilities`` (B, M, N) → (B, M)."""
        (condition,) = weights
        repeated = condition[:, None].expand(-1, utilities.shape[1], -1)
        return self.forward(utilities.flatten(0, 1), repeated.flatten(0, 1)).view(utilities.shape[:2])

    def forward(self, utilities: Tensor, condition: Tensor) -> Tensor:
        """Return Q_tot; ``utilities`` (B, N), ``condition`` (B, S) → (B,).

        Raises:
            InputError: the mixer returned a tensor of another shape.
        """
        mixed = self.mixer(utilities, condition)
        if mixed.shape != utilities.shape[:1]:
            raise InputError(
                f"mixer {type(self.mixer).__name__} returned shape {tuple(mixed.shape)} for {len(utilities)} rows; "
                "return one value for each row, shape (B,)"
            )
        return mixed


def mixer_name(kind: Any) -> Any:
    """Return a mixer's name as a preset stores it; for a class its dotted path, which worker processes can import."""
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else kind


def import_mixer(path: str) -> type[nn.Module]:
    """Import the mixer class at a dotted path.

    Raises:
        InputError: the module or name does not exist, or is not a ``torch.nn.Module``.
    """
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    try:
        mixer_class = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"mixer {shown(path)}: {one_line(error)}; define the class at the top level of an importable module"
        ) from None
    if not (isinstance(mixer_class, type) and issubclass(mixer_class, nn.Module)):
        raise InputError(f"mixer {path!r}: not a torch.nn.Module; pass a class with forward(utilities, condition)")
    return mixer_class


def make_mixer(kind: str, n_agents: int, condition_size: int, **options: Any) -> nn.Module:
    """Build a mixer by name: one of :data:`MIXERS`; ``none`` is the mean of the agents' values.

    For the dotted path of a user-defined class it builds ``Class(n_agents, condition_size)``.

    Args:
        kind: name of the mixer, or dotted path of a class.
        n_agents: N.
        condition_size: S, size of the hypernetworks' input.
        options: keyword arguments of :class:`MonotoneMixer`; ``additive`` takes ``hypernet`` alone. Mixers of joint
            actions need ``action_size``, the length of the one-hot joint action; besides it ``qplex`` takes
            ``hypernet`` and ``heads``, ``residual`` ``hypernet``.

    Raises:
        InputError: an unknown name.
    """
    if "." in kind:
        return UserMixer(import_mixer(kind)(n_agents, condition_size))
    if kind not in MIXERS:
        raise InputError(unknown_option("mixer", kind, MIXERS))
    if kind in ("none", "sum"):
        return SumMixer(1 / n_agents if kind == "none" else 1.0)
    if kind == "qplex":
        return DuplexMixer(n_agents, condition_size, **options)
    if kind == "additive":
        return AdditiveMixer(condition_size, **options)
    if kind == "residual":
        main = AdditiveMixer(condition_size, hypernet=options.get("hypernet", 64))
        return ResidualMixer(main, condition_size, shared_only=True, **options)
    if kind == "resq":
        action_size, hypernet = options.pop("action_size"), options.get("hypernet", 64)
        monotone = MonotoneMixer(n_agents, condition_size, constraint="softplus", **options)
        return ResidualMixer(monotone, condition_size, action_size, hypernet=hypernet)
    return MonotoneMixer(n_agents, condition_size, constraint=kind, **options)
