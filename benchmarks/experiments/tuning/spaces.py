"""Search spaces of the methods, read from ``search_spaces.yaml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.user_methods import user_config, user_options
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.yaml import read_mapping

SPACES = Path(__file__).parent / "search_spaces.yaml"
DRAWS = ("loguniform", "uniform", "choice")


def read_spaces(path: Path = SPACES) -> dict[str, Any]:
    """Read budgets and search spaces.

    Returns:
        ``trials``, ``updates``, ``batch`` and ``finals``; ``start``, the settings of every first trial; ``fixed``,
        settings that are not searched; ``methods``: method → option → one draw.

    Raises:
        InputError: a draw is invalid; the message names file, method and option.
    """
    spaces = read_mapping(path)
    for method, options in spaces["methods"].items():
        for option, draw in options.items():
            place = f"{path}: method {method}, option {option}"
            if not isinstance(draw, Mapping) or len(draw) != 1:
                raise InputError(f"{place}: {draw!r}; give one draw, such as {{choice: [1, 2]}}")
            kind, values = next(iter(draw.items()))
            if kind not in DRAWS:
                raise InputError(f"{place}: {unknown_option('draw', kind, DRAWS)}")
            if not isinstance(values, list) or (kind != "choice" and len(values) != 2):
                raise InputError(f"{place}: {kind} of {values!r}; give a list, of two bounds unless it is a choice")
    return spaces


def search_space(method: str, spaces: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what of a method is searched.

    A user's method has the space of its preset, without the options that it sets itself and without those that have no
    effect beside them.

    Args:
        method: a preset, or the dotted path of a configuration that derives from a preset's.
        spaces: see :func:`read_spaces`.

    Returns:
        ``space``: option → draw; ``start``: settings of the first trial; of a user's method also ``own``: the options
        that it sets itself.

    Raises:
        InputError: the method is unknown, or has nothing left to search.
    """
    config = user_config(method) if "." in method else None
    preset = getattr(config, "preset_name", method)
    if preset not in spaces["methods"]:
        message = unknown_option("method of the tuning", method, spaces["methods"])
        raise InputError(f"{message}; or use the dotted path of a configuration that derives from one of theirs")
    search: dict[str, dict[str, Any]] = {
        "space": spaces["methods"][preset],
        "start": {**spaces["fixed"].get(preset, {}), **spaces["start"]},
    }
    if config is not None:
        own = search["own"] = user_options(method)
        search["space"] = {
            option: draw
            for option, draw in search["space"].items()
            if option not in own and _has_effect(config, option, _values(draw))
        }
        search["start"] = {
            option: value
            for option, value in search["start"].items()
            if option not in own and _has_effect(config, option, [value])
        }
    if not search["space"]:
        raise InputError(f"method {method} sets all that {preset} is searched for; remove an option from its defaults")
    return search


def _has_effect(config: Any, option: str, values: Sequence[Any]) -> bool:
    """Return whether a configuration accepts all values: it refuses an option without effect beside the others."""
    try:
        for value in values:
            config.copy(copy_frozen=False).training(**{option: value}).preset()
    except InputError:
        return False
    return True


def _values(draw: Mapping[str, Any]) -> list[Any]:
    """Return the values to choose from, or the bounds."""
    return next(iter(draw.values()))
