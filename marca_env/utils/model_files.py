"""Models on disk: weights as safetensors beside a JSON description. Nothing is unpickled.

The description names the SHA-256 sum of its weights. Loading while another process saves therefore gives one model or
the other, never the weights of one with the description of the other, and damaged weights are found.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from marca_env.utils.errors import InputError, one_line, shown
from marca_env.utils.files import atomic_path, parse_json, read_json

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
ANALYTIC_KIND = "Law"
"""Kind of an analytic model: a description without weights."""
WEIGHTS_SUM = "weights_sha256"
"""Entry of a description: the sum of its weights. Folders of earlier versions have none."""
_REMEDY = "fit and save the model again, or copy the whole folder"
_MOST_WEIGHTS, _MOST_DESCRIPTION = 1024**3, 64 * 1024**2  # bytes
_ATTEMPTS, _PAUSE_SECONDS = 20, 0.025  # until another process has replaced both files


class NotFiniteError(InputError):
    """Weights that are not numbers, such as those of a training that has diverged."""


def write_pair(
    folder: str | Path, names: tuple[str, str], tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]
) -> None:
    """Write weights and their description (plain JSON values) into ``folder`` under ``names``.

    Both files are complete before the first one replaces its predecessor: a kill or a full disk leaves the old model.
    A kill between the two replacements leaves a folder that :func:`read_pair` refuses.

    Raises:
        WriteError: the folder cannot be written.
    """
    folder = Path(folder)
    data = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    text = json.dumps({**description, WEIGHTS_SUM: hashlib.sha256(data).hexdigest()}, indent=1) + "\n"
    with atomic_path(folder / names[1]) as temporary_text, atomic_path(folder / names[0]) as temporary_weights:
        temporary_weights.write_bytes(data)
        temporary_text.write_text(text, encoding="utf-8")


def read_pair(
    folder: str | Path, names: tuple[str, str], device: str = "cpu", remedy: str = _REMEDY
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the (tensors, description) that :func:`write_pair` wrote.

    Raises:
        InputError: a file is missing or cut short, the two do not belong together, a weight is not finite, or the
            device cannot be used.
    """
    check_device(device)
    path = Path(folder) / names[0]
    data, description = _read_together(Path(folder), names, remedy)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error, 200)}); {remedy}") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise NotFiniteError(f"{path}: tensor {name!r} has values that are not finite; {remedy}")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, description


def _read_together(folder: Path, names: tuple[str, str], remedy: str) -> tuple[bytes, dict[str, Any]]:
    """Read both files of one save; wait a second if another process is between its two replacements."""
    weights, text = (folder / name for name in names)
    for attempt in range(_ATTEMPTS):
        for path in (weights, text):
            if not path.is_file():
                raise InputError(f"{path}: no such file; {remedy}")
        try:
            with text.open("rb") as text_file, weights.open("rb") as weights_file:  # a replaced file stays readable
                if (size := os.fstat(weights_file.fileno()).st_size) > _MOST_WEIGHTS:
                    raise InputError(f"{weights}: {size / 1024**3:.1f} GiB, too large for a model; {remedy}")
                described, data = text_file.read(_MOST_DESCRIPTION), weights_file.read()
        except OSError as error:
            raise InputError(f"{weights}: cannot be read ({one_line(error, 200)}); {remedy}") from None
        description = _as_description(parse_json(described, str(text), remedy, finite=True), text, remedy)
        expected = description.pop(WEIGHTS_SUM, None)
        if expected is None or expected == hashlib.sha256(data).hexdigest():
            return data, description
        if attempt + 1 < _ATTEMPTS:
            time.sleep(_PAUSE_SECONDS)
    raise InputError(f"{weights}: cannot be read: cut short, damaged, or of another model than {names[1]}; {remedy}")


def read_description(folder: str | Path, name: str = DESCRIPTION, remedy: str = _REMEDY) -> dict[str, Any]:
    """Read the description of a model, without its weights.

    Raises:
        InputError: the file is missing or cut short.
    """
    path = Path(folder) / name
    description = _as_description(read_json(path, remedy, finite=True), path, remedy)
    description.pop(WEIGHTS_SUM, None)
    return description


def _as_description(data: Any, path: Path, remedy: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a description of a model; {remedy}")
    return data


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
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{folder}: its two files do not belong together ({one_line(error, 200)}); {_REMEDY}"
        ) from None


def check_device(device: str) -> str:
    """Return the name of a torch device after checking that it can be used.

    Raises:
        InputError: the device is not available on this machine.
    """
    if not isinstance(device, str):
        raise InputError(f"device is {shown(device)}; pass the name of a torch device, such as 'cpu'")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise InputError(f"device {shown(device)} cannot be used here ({one_line(error)[:120]}); use 'cpu'") from None
    return device
