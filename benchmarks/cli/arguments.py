"""Arguments that several commands read: ``key=value`` options, the user's own modules, a Ray cluster."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from marca_env.utils.errors import InputError
from marca_env.utils.yaml import parse_mapping, parse_yaml, read_mapping

SCENARIO_HELP = "preset, .yaml file, or folder of marca fit (default: %(default)s)"


def parse_pairs(items: Iterable[str], flag: str) -> dict[str, Any]:
    """Read options from files, JSON objects and ``key=value`` pairs; later ones win.

    Args:
        items: arguments of the option.
        flag: the option, for error messages.

    Raises:
        InputError: an item that is none of these.
    """
    options: dict[str, Any] = {}
    for item in items:
        if item.endswith((".json", ".yaml", ".yml")) and "=" not in item:
            options |= read_mapping(Path(item).expanduser())
        elif item.lstrip().startswith("{"):
            options |= parse_mapping(item, flag)
        elif "=" in item and item.partition("=")[0].strip():
            key, _, value = item.partition("=")
            options[key.strip()] = _value(value, f"{flag} {key.strip()}")
        else:
            raise InputError(f"{flag} {item!r}: give key=value, a JSON object, or a .json or .yaml file")
    return options


def _value(text: str, where: str) -> Any:
    if text.lstrip()[:1] in ("{", "["):
        return parse_yaml(text, where)
    try:
        return json.loads(text)
    except ValueError:
        words: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None}
        return words.get(text.strip().lower(), text)


def make_current_folder_importable() -> None:
    """Let dotted paths name modules of the current folder, here and in worker processes."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != here]
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *others])


def join_cluster(address: str) -> None:
    """Connect to a running Ray cluster.

    Raises:
        InputError: the address is malformed, or nothing answers there.
    """
    from agents.rllib.core.cluster import start_ray

    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and not (host and port.isdigit()):
        raise InputError(f"--address {address!r}: give host:port of the cluster's head, or auto")
    start_ray(address=address)


def check_output_folder(out: Path | None) -> None:
    """Check that ``--out`` is not a file.

    Raises:
        InputError: it is one.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: a file; give a folder")
