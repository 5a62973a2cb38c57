"""Models on disk: weights as safetensors beside a JSON description. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import atomic_path, write_json

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
ANALYTIC_KIND = "Law"
"""Kind of an analytic model: a description without weights."""
_REMEDY = "fit and save the model again, or copy the whole folder"


def write_pair(
    folder: str | Path, names: tuple[str, str], tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]
) -> None:
    """Write weights and their description (plain JSON values) into ``folder`` under ``names``.

    The old description is removed first and the new one written last, so that a kill never leaves a description beside
    another model's weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, text = (folder / name for name in names)
    text.unlink(missing_ok=True)
    with atomic_path(weights) as temporary:
        temporary.write_bytes(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))
    write_json(text, description)


def read_pair(
    folder: str | Path, names: tuple[str, str], device: str = "cpu", remedy: str = _REMEDY
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the (tensors, description) that :func:`write_pair` wrote.

    Raises:
        InputError: a file is missing or cut short, or the device cannot be used.
    """
    check_device(device)
    weights = Path(folder) / names[0]
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; {remedy}")
    description = read_description(folder, names[1], remedy)
    try:
        return load_file(weights, device=device), description
    except (SafetensorError, OSError) as error:
        raise InputError(f"{weights}: cannot be read ({one_line(error)}); {remedy}") from None


def read_description(folder: str | Path, name: str = DESCRIPTION, remedy: str = _REMEDY) -> dict[str, Any]:
    """Read the description of a model, without its weights.

    Raises:
        InputError: the file is missing or cut short.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({one_line(error)}); {remedy}") from None
    if not isinstance(description, dict):
        raise InputError(f"{path}: not a description of a model; {remedy}")
    return description


def save_model(
    folder: str | Path, kind: str, tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into ``folder``."""
    write_pair(folder, (WEIGHTS, DESCRIPTION), tensors, {"kind": kind, **description})


def load_model(folder: str | Path, kind: str, device: str = "cpu") -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the (tensors, description) that :func:`save_model` wrote.

    Raises:
        InputError: a file is missing, cut short or of another kind of model, or the device cannot be used.
    """
    tensors, description = read_pair(folder, (WEIGHTS, DESCRIPTION), device)
    stored_kind = description.get("kind")
    if stored_kind != kind:
        path = Path(folder) / DESCRIPTION
        raise InputError(f"{path}: holds a {stored_kind!r}, not a {kind!r}; give the folder of a {kind}")
    return tensors, description


def is_analytic_model(folder: str | Path) -> bool:
    """Return whether the folder holds an analytic model instead of a fitted one."""
    has_description_only = (Path(folder) / DESCRIPTION).is_file() and not (Path(folder) / WEIGHTS).is_file()
    return has_description_only and read_description(folder).get("kind") == ANALYTIC_KIND


@contextmanager
def explain_model_faults(folder: str | Path) -> Iterator[None]:
    """Turn any error while a model is rebuilt from its two files into one InputError."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{folder}: its two files do not belong together ({one_line(error)[:200]}); {_REMEDY}"
        ) from None


def check_device(device: str) -> str:
    """Return the name of a torch device after checking that it can be used.

    Raises:
        InputError: the device is not available on this machine.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here ({one_line(error)[:120]}); use 'cpu'") from None
    return device
