"""Images are scaled to [0, 1] where the networks read them; other numbers stay as they are."""

from __future__ import annotations

import numpy as np
import torch

from agents.team.images import as_float
from agents.team.team import TeamSpec, states

SPEC = TeamSpec(("a", "b"), (2, 3), (2, 2), 5, 1)


def test_only_bytes_are_scaled() -> None:
    for make in (np.array, torch.tensor):
        scaled = as_float(make([0, 51, 255], dtype=torch.uint8 if make is torch.tensor else np.uint8))
        assert str(scaled.dtype).endswith("float32")
        np.testing.assert_allclose(scaled, [0, 0.2, 1], rtol=1e-6)
        plain = make([0.0, 51.0])
        assert as_float(plain) is plain


def test_a_missing_state_is_the_concatenated_observations() -> None:
    batch = {"obs:a": torch.rand(4, 2, 2), "obs:b": torch.full((4, 2, 3), 51, dtype=torch.uint8)}
    expected = torch.cat([batch["obs:a"], torch.full((4, 2, 3), 0.2)], -1)
    torch.testing.assert_close(states(SPEC, batch), expected)
    assert states(SPEC, {**batch, "state": expected}) is expected
