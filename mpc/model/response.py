"""The learned part of the system model: log cost per request as a monotone network of prices and time of day."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Response(nn.Module):
    """r(u, z): log of the cost per request of each cluster, non-increasing in the cluster's own price.

    A unit's weight on the own price is never positive and all later weights are never negative; the linear term
    keeps a slope beyond the prices seen in training (there, cost falls as a power of the price). The K members of an
    ensemble, and the clusters within a member, are networks side by side in batched tensors.
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
        """The weights as they enter the network, their signs in place."""
        own = self.get_buffer("own")
        return {
            "first": torch.where(own > 0, -F.softplus(self.first), self.first),
            "first_bias": self.first_bias,
            "second": F.softplus(self.second),
            "second_bias": self.second_bias,
            "third": F.softplus(self.third),
            "level": self.level,
            "slope": F.softplus(self.slope),
        }

    def forward(self, prices: Tensor, context: Tensor) -> Tensor:
        """Scaled log prices (K,M,G) and context (K,M,F), or with 1 for K where members share them → (K,M,G)."""
        w = self.weights()
        inputs = torch.cat([prices, context], dim=-1)[:, None]  # (K,1,M,I)
        x = torch.tanh(inputs @ w["first"].mT + w["first_bias"][:, :, None])  # (K,G,M,H)
        x = torch.tanh(x @ w["second"].mT + w["second_bias"][:, :, None])
        shaped = (x * w["third"][:, :, None]).sum(-1).mT  # (K,M,G)
        return shaped + w["level"][:, None] - w["slope"][:, None] * prices
