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

TRUST_HELP = (
    "load a checkpoint that you did not write: this executes the code of its author (it holds pickles); without the "
    "option you are asked on a terminal, and refused elsewhere"
)
ALLOW_CODE_HELP = "code that the policy may name and that is then executed, such as my_module.MyMixer (default: none)"
FEATURES_HELP = (
    "features.json of `marca fit`, or its folder: requests hold raw features (default: that of the policy folder, else "
    "requests hold codes)"
)
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


def names_code(*words: Any) -> bool:
    """Return whether one of the words of a command may be the path of a user's code; other objects are code."""
    return any(not isinstance(word, str) or "." in word or ":" in word for word in words if word is not None)


def make_current_folder_importable() -> None:
    """Let dotted paths name modules of the current folder, here and in worker processes.

    Call it only if the user names code: in a folder that was downloaded, a ``scipy.py`` would otherwise be executed in
    place of the package that a command imports.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != here]
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *others])


def confirm_trust(path: Path) -> bool:
    """Return whether a checkpoint that the user did not write may be loaded; ask on a terminal.

    Args:
        path: checkpoint, or folder of a run.

    Returns:
        Whether it was confirmed; ``False`` for the user's own, which needs no trust.

    Raises:
        InputError: somebody else may have written it, and nobody confirms that it is trusted.
    """
    from agents.rllib.training.algorithm_checkpoints import latest_checkpoint, require_trust

    checkpoint = latest_checkpoint(path)
    try:
        require_trust(checkpoint, trust=False)
    except InputError:
        if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        print(
            f"{checkpoint}: not signed with your key, so somebody else may have written it.\n"
            "Loading it executes the code in its pickles, with all your rights.",
            file=sys.stderr,
        )
        print("Do you trust its author? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise
        return True
    return False


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
