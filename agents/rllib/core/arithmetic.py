"""Arithmetic of updates: precision of matrix products, mixed precision, compilation of the loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic

from marca_env.utils.errors import one_line

logger = logging.getLogger(__name__)

MATMUL_PRECISIONS = ("auto", "highest", "high", "medium")
"""Precision of float32 matrix products, by torch's names: full, TF32, bfloat16; ``auto``: ``high`` on CUDA."""
AMP_DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16}
"""Name → type in which networks and mixers multiply."""
COMPILE_MODES = ("auto", "off", "loss", "graph", "both")
"""``loss``: ``torch.compile`` of the loss; ``graph``: one CUDA graph of the update; ``auto``: ``graph`` on CUDA."""
MOST_COMPILED = 64
"""Compiled forms of the loss in a process: one for each algorithm, batch shape and pattern of turns."""
_DETERMINISM: Any = torch.utils.deterministic


def resolve_precision(precision: str, device: Any) -> str:
    """Return torch's name of a precision on a device."""
    if precision != "auto":
        return precision
    return "high" if torch.device(device).type == "cuda" else "highest"


def compiles_loss(mode: str) -> bool:
    """Return whether a mode compiles the loss."""
    return mode in ("loss", "both")


def captures_graph(mode: str, device: Any) -> bool:
    """Return whether a mode captures the update as a CUDA graph on a device."""
    return torch.device(device).type == "cuda" and mode in ("auto", "graph", "both")


@contextmanager
def update_arithmetic(precision: str) -> Iterator[None]:
    """Set the precision of float32 matrix products, by torch's names, inside the block.

    New tensors are not filled: with RLlib's deterministic algorithms torch would write to every one of them first.
    """
    before, fills = torch.get_float32_matmul_precision(), _DETERMINISM.fill_uninitialized_memory
    torch.set_float32_matmul_precision(precision)
    _DETERMINISM.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        _DETERMINISM.fill_uninitialized_memory = fills


def compiled(function: Callable[..., Any], backend: str = "inductor") -> Callable[..., Any]:
    """Return a function under ``torch.compile``, which runs as it is, with one logged line, if it cannot be compiled.

    Every batch shape and pattern of turns is compiled separately.
    """
    compiled_function: Any = torch.compile(function, fullgraph=True, dynamic=False, backend=backend)
    failed = False

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal failed
        if not failed:
            try:
                with torch._dynamo.config.patch(recompile_limit=MOST_COMPILED):
                    return compiled_function(*args, **kwargs)
            except Exception as error:
                failed = True
                logger.warning("compile: the loss runs without torch.compile: %s", one_line(error))
        return function(*args, **kwargs)

    return call
