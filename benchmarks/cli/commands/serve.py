"""`marca serve`: decide for live traffic over HTTP."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.cli.arguments import (
    ALLOW_CODE_HELP,
    FEATURES_HELP,
    join_cluster,
    make_current_folder_importable,
    names_code,
)
from benchmarks.serving.guards import GUARDS, GuardLimits
from benchmarks.serving.modes import parse_percent
from benchmarks.serving.settings import ServeSettings
from benchmarks.serving.static_rule import BEST
from marca_env.utils.errors import InputError
from marca_env.utils.validation import as_number, as_whole_number

_PACKAGES = ("fastapi", "prometheus_client", "ray", "starlette", "uvicorn")
_MOST_WORKERS, _MOST_PORT = 256, 65535
_MODE, _PRICES, _GUARDS, _RECORDS, _NETWORK = (
    "mode, where none was saved (default: --enforce 100%)",
    "prices",
    "guard rails: fall back to the static action by themselves",
    "state and records",
    "network",
)


@dataclass(frozen=True)
class _Option:
    """An option of a value: its default is that of the field of :class:`ServeSettings`."""

    group: str
    """Title of its group; empty: none."""
    flag: str
    field: str
    """Field of the settings."""
    metavar: str
    help: str
    kind: Callable[[str], Any] = str
    low: float = -math.inf
    high: float = math.inf


_OPTIONS = (
    _Option("", "--features", "features", "FILE", FEATURES_HELP),
    _Option(
        "",
        "--static",
        "static",
        "ACTION",
        f"fallback: {BEST}, option indices such as 0,2,1, or decision=option,… (default: %(default)s)",
    ),
    _Option(
        _MODE,
        "--key",
        "key_field",
        "NAME",
        "field whose hash says who belongs to the N%%; without it, all values (default: %(default)s)",
    ),
    _Option(
        _PRICES,
        "--prices",
        "prices",
        "C=P,…",
        "price of each cluster at the first start, such as retrieval=1.5,ranking=2 (default: the scenario's, if "
        "it has any; else the static action until prices are put)",
    ),
    _Option(
        _PRICES,
        "--fresh",
        "fresh_seconds",
        "S",
        "seconds for which prices are fresh (default: %(default)g)",
        float,
        0.0,
    ),
    _Option(
        _PRICES,
        "--hold",
        "hold_seconds",
        "S",
        "seconds after that for which the last good ones are used; then the static action (default: %(default)g)",
        float,
        0.0,
    ),
    _Option(_RECORDS, "--state", "state", "DIR", "folder that keeps prices and mode over restarts"),
    _Option(_RECORDS, "--audit", "audit", "DIR", "folder of the audit log"),
    _Option(
        _RECORDS,
        "--audit-sample",
        "audit_sample",
        "SHARE",
        "share of the requests in it (default: %(default)s)",
        float,
        0.0,
        1.0,
    ),
    _Option(_NETWORK, "--host", "host", "HOST", "address to listen on (default: %(default)s)"),
    _Option(_NETWORK, "--port", "port", "N", "port; 0: any free one (default: %(default)s)", int, 0, _MOST_PORT),
    _Option(
        _NETWORK,
        "--workers",
        "workers",
        "N",
        "processes that share the port (default: %(default)s)",
        int,
        1,
        _MOST_WORKERS,
    ),
    _Option(
        _NETWORK, "--token-file", "token_file", "FILE", "file with a token; clients send 'Authorization: Bearer TOKEN'"
    ),
    _Option(
        _NETWORK,
        "--timeout",
        "seconds",
        "S",
        "seconds after which a request gets the static action (default: %(default)g)",
        float,
        1e-3,
    ),
    _Option(
        _NETWORK,
        "--drain",
        "drain_seconds",
        "S",
        "seconds after SIGTERM in which /readyz says that no more calls should be sent, before the port is closed "
        "(default: %(default)g)",
        float,
        0.0,
        3600.0,
    ),
    _Option(
        _NETWORK,
        "--max-requests",
        "most_requests",
        "N",
        "requests of one call (default: %(default)s)",
        int,
        1,
        math.inf,
    ),
    _Option(
        _NETWORK, "--max-bytes", "most_bytes", "N", "size of one call (default: %(default)s)", int, 1_000, math.inf
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--policy", required=True, metavar="DIR", help="folder of a policy, a checkpoint or a run")
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    for title in (_MODE, _PRICES, _GUARDS, _RECORDS, _NETWORK):
        groups[title] = parser.add_argument_group(title)
    parser.add_argument("--allow-code", nargs="+", action="extend", default=[], metavar="PATH", help=ALLOW_CODE_HELP)
    parser.add_argument(
        "--warm", action="store_true", help="compute the values of all states before the server answers"
    )
    one = groups[_MODE].add_mutually_exclusive_group()
    one.add_argument("--shadow", action="store_true", help="decide, count and log, but apply the static action")
    one.add_argument("--enforce", metavar="N%", help="apply the policy's action to N%% of the requests, by their key")
    defaults = ServeSettings("")
    for o in _OPTIONS:
        groups[o.group].add_argument(
            o.flag, type=o.kind, default=getattr(defaults, o.field), metavar=o.metavar, help=o.help
        )
    for flag, metavar, text in (
        ("--max-load", "F", "greatest load, as a fraction of the budget"),
        ("--max-late", "F", "greatest share of late requests"),
        ("--min-revenue", "R", "smallest revenue per request"),
    ):
        groups[_GUARDS].add_argument(flag, type=float, metavar=metavar, help=text)
    network = groups[_NETWORK]
    network.add_argument("--ray", action="store_true", help="serve with replicas of Ray Serve in place of processes")
    network.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="replicas of --ray (default: %(default)s)"
    )
    network.add_argument("--address", metavar="HOST:PORT", help="Ray cluster of --ray; auto finds one (default: local)")


def run(args: argparse.Namespace) -> int:
    """Run the command until it is stopped; return exit status 0."""
    settings = _settings(args)
    if names_code(*args.allow_code):
        make_current_folder_importable()
    try:
        if args.ray:
            from benchmarks.serving.ray_server import serve_on_ray

            start: Callable[[ServeSettings], None] = partial(serve_on_ray, replicas=args.replicas, address=args.address)
        else:
            from benchmarks.serving.server import serve as start
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _PACKAGES:
            raise
        extra = "serve-ray" if args.ray else "serve"
        raise ImportError(f"marca serve needs {error.name}: pip install 'marca-env[{extra}]'") from None
    if args.address is not None:
        join_cluster(args.address)
    start(settings)
    return 0


def _settings(args: argparse.Namespace) -> ServeSettings:
    """Return the checked settings.

    Raises:
        InputError: an option out of range.
    """
    mode: dict[str, Any] = {
        "mode": "enforce",
        "percent": 100.0 if args.enforce is None else parse_percent(args.enforce),
    }
    guards = dict(zip(GUARDS, (args.max_load, args.max_late, args.min_revenue), strict=True))
    GuardLimits(**guards)
    if not args.ray and (args.replicas != 1 or args.address is not None):
        raise InputError("--replicas and --address belong to --ray; add it, or use --workers for processes")
    as_whole_number("--replicas", args.replicas, 1, _MOST_WORKERS)
    if args.ray and args.workers != 1:
        raise InputError("--workers are processes of one server; with --ray, use --replicas")
    if not args.host:
        raise InputError("--host is empty; give an address, such as 127.0.0.1")
    return ServeSettings(
        policy=args.policy,
        allow_code=tuple(args.allow_code),
        warm=args.warm,
        mode={"mode": "shadow"} if args.shadow else mode,
        guards=guards,
        **{option.field: _checked(option, args) for option in _OPTIONS},
    )


def _checked(option: _Option, args: argparse.Namespace) -> Any:
    """Return the value of an option.

    Raises:
        InputError: a number out of range.
    """
    value = getattr(args, option.flag[2:].replace("-", "_"))
    if option.kind is int:
        return as_whole_number(option.flag, value, int(option.low), option.high)
    return as_number(option.flag, value, option.low, option.high) if option.kind is float else value
