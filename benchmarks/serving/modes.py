"""Modes of a decision server: how many requests get the policy's action, and which ones.

Which requests these are depends on a hash of their key alone, so that a user or a session always gets the same side,
on every server and after a restart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from marca_env.integration.feature_coding import stable_hash
from marca_env.utils.errors import InputError, shown, unknown_option
from marca_env.utils.validation import as_number

ModeName = Literal["shadow", "enforce", "static"]
"""``shadow``: decide, count and log, but apply the static action; ``enforce``: apply the policy's action to a share of
the requests; ``static``: apply the static action and decide nothing."""
MODES: tuple[ModeName, ...] = get_args(ModeName)
_BUCKETS = 2**32


@dataclass(frozen=True)
class Mode:
    """A mode and the share of requests that get the policy's action."""

    name: ModeName
    percent: float = 100.0
    """Percentage of the requests in mode ``enforce``."""

    @classmethod
    def from_data(cls, data: Any, where: str = "mode") -> Mode:
        """Read ``"static"``, ``{"mode": "static"}`` or ``{"mode": "enforce", "percent": 5}``.

        Raises:
            InputError: an unknown field or mode, or a percentage that is not from 0 to 100.
        """
        if isinstance(data, str):
            data = {"mode": data}
        if not isinstance(data, Mapping):
            raise InputError(f'{where}: {shown(data)}; give an object such as {{"mode": "enforce", "percent": 5}}')
        for field in data:
            if field not in ("mode", "percent"):
                raise InputError(f"{where}: {unknown_option('field', field, ('mode', 'percent'))}")
        name = data.get("mode")
        if name not in MODES:
            raise InputError(f"{where}: {unknown_option('mode', name, MODES)}")
        if name != "enforce" and data.get("percent") is not None:
            raise InputError(f"{where}: mode {name!r} has no percent; leave it out, or use mode 'enforce'")
        percent = data.get("percent")
        return cls(name, 100.0 if percent is None else as_number(f"{where}: percent", percent, 0.0, 100.0))

    def to_data(self) -> dict[str, Any]:
        """Return the inverse of :meth:`from_data`."""
        return {"mode": self.name} | ({"percent": self.percent} if self.name == "enforce" else {})

    @property
    def share(self) -> float:
        """Share of the requests that get the policy's action."""
        return self.percent / 100.0 if self.name == "enforce" else 0.0

    def __str__(self) -> str:
        return f"enforce {self.percent:g}%" if self.name == "enforce" else self.name


def parse_percent(text: str) -> float:
    """Return the number of ``5%`` or ``5``.

    Raises:
        InputError: something else, or not from 0 to 100.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%?", text.strip())
    if match is None or not 0 <= float(match[1]) <= 100:
        raise InputError(f"--enforce {text!r}: give a percentage from 0% to 100%, such as 5%")
    return float(match[1])


def request_key(request: Any, field: str) -> str:
    """Return the key of a request: its field, or all its values where it has none."""
    if isinstance(request, Mapping) and request.get(field) is not None:
        return str(request[field])
    return json.dumps(request, sort_keys=True, default=str)


def in_share(keys: Sequence[str], share: float) -> np.ndarray:
    """Return which keys lie in a share of all, bool (B,); a greater share has all of a smaller one, and more."""
    if share >= 1.0 or share <= 0.0:
        return np.full(len(keys), share >= 1.0)
    return np.array([stable_hash(f"enforce:{key}") % _BUCKETS < share * _BUCKETS for key in keys], dtype=bool)
