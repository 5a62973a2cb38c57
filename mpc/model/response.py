"""The network of the system model: log cost per request as a monotone function of prices and time of day."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


class Response(nn.Module):
    """The function r(u, z): log cost per request of each cluster, from the log prices u and the time features z.

    A cluster's cost never rises with its own price: the weights on this price are never positive, and all later weights
    are never negative. A linear term keeps the slope beyond the prices of the training log, where the cost then falls
    as a power of the price. The K members of an ensemble, and the G clusters of a member, are separate networks
    computed as batched tensors.

    Args:
        n_clusters: G.
        n_context: F, number of time features z besides the G log prices.
        hidden: H, units of each of the two hidden layers.
        generator: source of the initial weights.
        members: K.
    """

    def __init__(
        self, n_clusters: int, n_context: int, hidden: int, generator: torch.Generator, members: int = 1
    ) -> None:
        super().__init__()
        n_inputs = n_clusters + n_context

        def normal(*shape: int, scale: float, shift: float = 0.0) -> nn.Parameter:
            drawn = torch.randn(members, *shape, generator=generator, dtype=torch.float64)
            return nn.Parameter(shift + scale * drawn)

        small = math.log(math.expm1(1.0 / hidden))  # softplus of it is 1/hidden
        self.first = normal(n_clusters, hidden, n_inputs, scale=n_inputs**-0.5)  # (K,G,H,I)
        self.first_bias = normal(n_clusters, hidden, scale=1.0)  # (K,G,H)
        self.second = normal(n_clusters, hidden, hidden, scale=0.5, shift=small)  # (K,G,H,H)
        self.second_bias = normal(n_clusters, hidden, scale=0.5)
        self.third = normal(n_clusters, hidden, scale=0.5, shift=small)
        self.level = nn.Parameter(torch.zeros(members, n_clusters, dtype=torch.float64))
        self.slope = nn.Parameter(torch.full((members, n_clusters), -2.0, dtype=torch.float64))
        own = torch.zeros(n_clusters, 1, n_inputs, dtype=torch.float64)
        own[torch.arange(n_clusters), 0, torch.arange(n_clusters)] = 1.0
        self.register_buffer("own", own, persistent=False)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights as they enter the network, with their sign constraints applied."""
        own = self.get_buffer("own")
        return {
            "first": torch.where(own > 0, -softplus(self.first), self.first),
            "first_bias": self.first_bias,
            "second": softplus(self.second),
            "second_bias": self.second_bias,
            "third": softplus(self.third),
            "level": self.level,
            "slope": softplus(self.slope),
        }

    def forward(self, prices: Tensor, context: Tensor) -> Tensor:
        """Return the scaled log cost (K,M,G) of M minutes.

        Args:
            prices: (K,M,G) scaled log prices; K may be 1 if the members share them.
            context: (K,M,F) time features; K may be 1 if the members share them.
        """
        w = self.weights()
        inputs = torch.cat([prices, context], dim=-1)[:, None]  # (K,1,M,I)
        x = torch.tanh(inputs @ w["first"].mT + w["first_bias"][:, :, None])  # (K,G,M,H)
        x = torch.tanh(x @ w["second"].mT + w["second_bias"][:, :, None])
        shaped = (x * w["third"][:, :, None]).sum(-1).mT  # (K,M,G)
        return shaped + w["level"][:, None] - w["slope"][:, None] * prices
