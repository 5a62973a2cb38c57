"""A monotone transformation of an agent's values, with weights made from what the agent sees.

QMIX's mixer multiplies an agent's value by weights of the state, and learns fast where the same decision is worth much
in one state and nothing in the next, such as behind a deadline. But the state also says what the agent cannot see: its
value then fits each state instead of being the expectation over them. Here the same mixing network takes its weights
from the agent's own observations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, HYPERNET = 32, 64
"""Hidden units of the transformation and of the networks of its weights, as in QMIX."""


class OwnMixing(nn.Module):
    """Q̃_k(a) = Σ_e |w2_e(h)|·elu(|w1_e(h)|·Q_k(a) + b1_e(h)) + b2(h), increasing in Q_k: the order of actions stays.

    Args:
        inputs: H, size of the agent's recurrent state, or of its observation.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, HYPERNET), nn.ReLU(), nn.Linear(HYPERNET, size))
            for size in (WIDTH, WIDTH, 1)
        )
        self.b1 = nn.Linear(inputs, WIDTH)

    def forward(self, values: Tensor, seen: Tensor) -> Tensor:
        """Transform ``values`` (B, K, A), given ``seen`` (B, H); (B, K, A)."""
        w1, w2, b2 = (net(seen)[:, None, None] for net in self.weights)  # B 1 1 E
        hidden = nn.functional.elu(torch.addcmul(self.b1(seen)[:, None, None], w1.abs(), values[..., None]))
        return (hidden * w2.abs()).sum(-1) + b2.squeeze(-1)
