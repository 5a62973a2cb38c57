"""Mixers: the team's value Q_tot from the agents' values Q_1 … Q_n.

VDN, QMIX and the softplus mixer of AWRQ differ only here. Those with a constrained hypernetwork are
non-decreasing in every Q_g, so that the agents' own argmaxes are the team's (IGM).
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from marca_env.utils.errors import InputError, one_line, unknown_option

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
"""Non-decreasing ones alone: the mixer's monotonicity needs it."""
CONDITIONS = ("state", "state+actions")
MIXERS = ("none", "sum", *CONSTRAINTS)


class SumMixer(nn.Module):
    """Q_tot = Σ_g Q_g (VDN); of a single agent, its own value.

    ``share`` multiplies the sum. Agents that learn without a mixer each estimate the whole team's return, so that
    their mean (share 1/N), not their sum, is in currency.
    """

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.share = share

    def weights(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Nothing depends on the state."""
        return ()

    def mix(self, utilities: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """``utilities`` (B, M, N) → (B, M)."""
        return utilities.sum(-1) * self.share

    def forward(self, utilities: Tensor, condition: Tensor) -> Tensor:
        """``utilities`` (B, N) → (B,)."""
        return utilities.sum(-1) * self.share


class MonotoneMixer(nn.Module):
    """Q_tot = act([Q_1 … Q_n] W1 + b1) W2 + b2, all four from hypernetworks of the state (Eq. 11–14).

    ``absolute`` weights with an ELU are QMIX, ``softplus`` weights with a ReLU the paper's mixer. The ReLU
    makes dead zones, in which Q_tot no longer follows the agents; ``activation`` replaces it. The paper
    conditions on the state alone; ``condition_size`` may include the one-hot joint action, as in its
    reference code, at the price of the agreement between the agents' argmaxes and the team's.
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
        self.w1 = _hypernet(condition_size, hypernet, n_agents * width)
        self.b1 = nn.Linear(condition_size, width)
        self.w2 = _hypernet(condition_size, hypernet, width)
        self.b2 = _hypernet(condition_size, width, 1)
        # Torch's initialisation, as in QMIX's published code. With Glorot's, Q_tot starts at tens of times the agents'
        # values where the state has many or large entries: absolute ones diverge, softplus ones learn far slower.
        if constraint == "softplus":
            # softplus(0) = 0.69 in every weight would multiply the agents' values by about width / 2 at the start,
            # and the first steps would drive the ReLU into its dead zone: start with a gain of one instead.
            start = math.log(math.expm1(width**-0.5))
            for net in (self.w1, self.w2):
                nn.init.constant_(net[-1].bias, start)  # type: ignore[arg-type]

    def weights(self, condition: Tensor) -> tuple[Tensor, ...]:
        """W1 (B, N, E), b1 (B, 1, E), W2 (B, E, 1) and b2 (B, 1) of ``condition`` (B, S)."""
        w1 = self.constrain(self.w1(condition)).view(-1, self.n_agents, self.width)
        b1 = self.b1(condition)[:, None]
        w2 = self.constrain(self.w2(condition))[:, :, None]
        return w1, b1, w2, self.b2(condition)

    def mix(self, utilities: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """Q_tot of M candidates per state; ``utilities`` (B, M, N) → (B, M)."""
        w1, b1, w2, b2 = weights
        mixed = self.activate(torch.baddbmm(b1, utilities, w1))  # B M E
        return torch.bmm(mixed, w2).squeeze(-1) + b2

    def forward(self, utilities: Tensor, condition: Tensor) -> Tensor:
        """``utilities`` (B, N), ``condition`` (B, S) → (B,)."""
        return self.mix(utilities[:, None], self.weights(condition)).squeeze(1)


def _hypernet(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class UnrestrictedMixer(nn.Module):
    """Q*'s mixer in Weighted QMIX: a feed-forward network of the state and the agents' values, free to fall in them.

    Three hidden layers with ReLU (Rashid et al., 2020; 256 units there). Their reference code adds a second network
    of the state alone to the output; the paper does not name it and it is left out.
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
        """``utilities`` (B, N), ``state`` (B, S) → (B,)."""
        return self.net(torch.cat([state, utilities], -1)).squeeze(-1)


def _glorot(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


class OwnMixer(nn.Module):
    """A user's mixer, which has ``forward(utilities (B, N), condition (B, S)) -> (B,)`` alone, as one of ours.

    Nobody checks that it is monotone: where it is not, the agents' argmaxes need not be the team's.
    """

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def weights(self, condition: Tensor) -> tuple[Tensor, ...]:
        """The condition itself, (B, S)."""
        return (condition,)

    def mix(self, utilities: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        """``utilities`` (B, M, N) → (B, M)."""
        (condition,) = weights
        several = condition[:, None].expand(-1, utilities.shape[1], -1)
        return self.forward(utilities.flatten(0, 1), several.flatten(0, 1)).view(utilities.shape[:2])

    def forward(self, utilities: Tensor, condition: Tensor) -> Tensor:
        """``utilities`` (B, N), ``condition`` (B, S) → (B,)."""
        mixed = self.mixer(utilities, condition)
        if mixed.shape != utilities.shape[:1]:
            raise InputError(
                f"mixer {type(self.mixer).__name__} returned shape {tuple(mixed.shape)} for {len(utilities)} rows; "
                "return one value for each, (B,)"
            )
        return mixed


def mixer_name(kind: Any) -> Any:
    """A mixer's name as a preset keeps it: of a class its dotted path, which worker processes can import."""
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else kind


def own_mixer(path: str) -> type[nn.Module]:
    """The class at a dotted path.

    Raises:
        InputError: no such module or name, or no ``torch.nn.Module``.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"mixer {path!r}: {one_line(error)}; define the class at the top of a module that can be imported"
        ) from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"mixer {path!r}: not a torch.nn.Module; give a class with forward(utilities, condition)")
    return found


def make_mixer(kind: str, n_agents: int, condition_size: int, **options: Any) -> nn.Module:
    """Mixer by name: ``sum``, ``absolute`` or ``softplus``; ``none``: the mean, for what serves.

    The dotted path of a user's class makes ``Class(n_agents, condition_size)``.

    Raises:
        InputError: unknown name.
    """
    if "." in kind:
        return OwnMixer(own_mixer(kind)(n_agents, condition_size))
    if kind not in MIXERS:
        raise InputError(unknown_option("mixer", kind, MIXERS))
    if kind in ("none", "sum"):
        return SumMixer(1 / n_agents if kind == "none" else 1.0)
    return MonotoneMixer(n_agents, condition_size, constraint=kind, **options)
