"""Files that are whole or absent: atomic writing, and models as safetensors beside a JSON description."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marca_env.errors import InputError

if TYPE_CHECKING:
    import torch

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it when the block ends well and removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, data: Any) -> None:
    """Write ``data`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def save_model(
    folder: str | Path, kind: str, tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]
) -> None:
    """Write ``model.safetensors`` and then ``model.json`` (plain JSON values) into ``folder``."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary)
    write_json(folder / DESCRIPTION, {"kind": kind, **description})


def load_model(folder: str | Path, kind: str, device: str = "cpu") -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what :func:`save_model` wrote: (tensors, description).

    Raises:
        InputError: a file is missing, cut short or of another kind of model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    remedy = "fit and save the model again, or copy the folder whole"
    for name in (WEIGHTS, DESCRIPTION):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; {remedy}")
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / DESCRIPTION}: not valid JSON ({error}); {remedy}") from None
    found = description.get("kind") if isinstance(description, dict) else None
    if found != kind:
        raise InputError(f"{folder / DESCRIPTION}: holds a {found!r}, not a {kind!r}; give the folder of a {kind}")
    try:
        return load_file(folder / WEIGHTS, device=device), description
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read ({error}); {remedy}") from None
