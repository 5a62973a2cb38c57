"""Images as the networks read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_LARGEST = 255.0


def as_float(values: Any) -> Any:
    """Return uint8 values, those of images, as float32 in [0, 1]; other arrays and tensors unchanged.

    Observations and states keep their dtype up to this point, because float32 takes four times the memory.
    """
    if isinstance(values, torch.Tensor):
        return values.float() / _LARGEST if values.dtype == torch.uint8 else values
    return values.astype(np.float32) / np.float32(_LARGEST) if values.dtype == np.uint8 else values
