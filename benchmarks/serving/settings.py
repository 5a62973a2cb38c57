"""Settings of a decision server, as plain data that its processes share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.serving.guards import GuardLimits
from benchmarks.serving.prices import FRESH_SECONDS, HOLD_SECONDS
from benchmarks.serving.static_rule import BEST


@dataclass(frozen=True)
class ServeSettings:
    """What `marca serve` was asked for."""

    policy: str
    """Folder of a policy, a checkpoint or a run."""
    features: str | None = None
    """Coding of raw features; ``None``: that of the policy folder, if any."""
    static: str = BEST
    """The static rule."""
    allow_code: tuple[str, ...] = ()
    """Dotted paths of the code that the policy may name."""
    warm: bool = False
    """Whether the values of all states are computed before the server is ready."""
    mode: dict[str, Any] = field(default_factory=lambda: {"mode": "enforce", "percent": 100.0})
    """Mode without a saved one."""
    prices: str | None = None
    """Prices without saved ones, such as ``retrieval=1.5,ranking=2``."""
    state: str | None = None
    """Folder for prices and mode."""
    audit: str | None = None
    """Folder of the audit log."""
    audit_sample: float = 0.01
    """Share of the requests in it."""
    key_field: str = "request_id"
    """Field of a request by whose hash mode ``enforce`` chooses."""
    seconds: float = 0.25
    """Longest time of a decision."""
    fresh_seconds: float = FRESH_SECONDS
    """Age up to which prices are fresh."""
    hold_seconds: float = HOLD_SECONDS
    """Time after that for which they are used as the last good ones."""
    guards: dict[str, Any] = field(default_factory=lambda: asdict(GuardLimits()))
    """Limits of the guard rails."""
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    """Processes."""
    token_file: str | None = None
    """File with the bearer token."""
    most_requests: int = 1_000
    """Requests of a call."""
    most_bytes: int = 1_048_576
    """Size of a body."""
    drain_seconds: float = 1.0
    """Time after SIGTERM in which /readyz says that the server drains, before it takes no more calls."""
    grace_seconds: int = 30
    """Time for running calls after that."""

    def to_json(self) -> str:
        """Return the settings as JSON; :meth:`from_json` is the inverse."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ServeSettings:
        """Return the settings of :meth:`to_json`."""
        data = json.loads(text)
        return cls(**{**data, "allow_code": tuple(data["allow_code"])})
