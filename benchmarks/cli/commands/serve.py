"""`marca serve`: decide for live traffic over HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Callable
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    defaults = ServeSettings("")
    parser.add_argument("--policy", required=True, metavar="DIR", help="folder of a policy, a checkpoint or a run")
    parser.add_argument("--features", metavar="FILE", help=FEATURES_HELP)
    parser.add_argument(
        "--static",
        default=BEST,
        metavar="ACTION",
        help=f"fallback: {BEST}, option indices such as 0,2,1, or decision=option,… (default: %(default)s)",
    )
    parser.add_argument("--allow-code", nargs="+", action="extend", default=[], metavar="PATH", help=ALLOW_CODE_HELP)
    parser.add_argument(
        "--warm", action="store_true", help="compute the values of all states before the server answers"
    )
    _add_mode(parser.add_argument_group("mode, where none was saved (default: --enforce 100%%)"))
    _add_prices(parser.add_argument_group("prices"), defaults)
    _add_guards(parser.add_argument_group("guard rails: fall back to the static action by themselves"))
    records = parser.add_argument_group("state and records")
    records.add_argument("--state", metavar="DIR", help="folder that keeps prices and mode over restarts")
    records.add_argument("--audit", metavar="DIR", help="folder of the audit log")
    records.add_argument(
        "--audit-sample",
        type=float,
        default=defaults.audit_sample,
        metavar="SHARE",
        help="share of the requests in it (default: %(default)s)",
    )
    _add_network(parser.add_argument_group("network"), defaults)


def _add_mode(group: argparse._ArgumentGroup) -> None:
    one = group.add_mutually_exclusive_group()
    one.add_argument("--shadow", action="store_true", help="decide, count and log, but apply the static action")
    one.add_argument("--enforce", metavar="N%", help="apply the policy's action to N%% of the requests, by their key")
    group.add_argument(
        "--key",
        default="request_id",
        metavar="NAME",
        help="field whose hash says who belongs to the N%%; without it, all values (default: %(default)s)",
    )


def _add_prices(group: argparse._ArgumentGroup, defaults: ServeSettings) -> None:
    group.add_argument(
        "--prices",
        metavar="C=P,…",
        help="price of each cluster at the first start, such as retrieval=1.5,ranking=2 (default: the scenario's, if "
        "it has any; else the static action until prices are put)",
    )
    group.add_argument(
        "--fresh",
        type=float,
        default=defaults.fresh_seconds,
        metavar="S",
        help="seconds for which prices are fresh (default: %(default)g)",
    )
    group.add_argument(
        "--hold",
        type=float,
        default=defaults.hold_seconds,
        metavar="S",
        help="seconds after that for which the last good ones are used; then the static action (default: %(default)g)",
    )


def _add_guards(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-load", type=float, metavar="F", help="greatest load, as a fraction of the budget")
    group.add_argument("--max-late", type=float, metavar="F", help="greatest share of late requests")
    group.add_argument("--min-revenue", type=float, metavar="R", help="smallest revenue per request")


def _add_network(group: argparse._ArgumentGroup, defaults: ServeSettings) -> None:
    group.add_argument("--host", default=defaults.host, help="address to listen on (default: %(default)s)")
    group.add_argument(
        "--port", type=int, default=defaults.port, metavar="N", help="port; 0: any free one (default: %(default)s)"
    )
    group.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that share the port (default: %(default)s)"
    )
    group.add_argument("--ray", action="store_true", help="serve with replicas of Ray Serve in place of processes")
    group.add_argument("--replicas", type=int, default=1, metavar="N", help="replicas of --ray (default: %(default)s)")
    group.add_argument("--address", metavar="HOST:PORT", help="Ray cluster of --ray; auto finds one (default: local)")
    group.add_argument(
        "--token-file", metavar="FILE", help="file with a token; clients send 'Authorization: Bearer TOKEN'"
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=defaults.seconds,
        metavar="S",
        help="seconds after which a request gets the static action (default: %(default)g)",
    )
    group.add_argument(
        "--max-requests",
        type=int,
        default=defaults.most_requests,
        metavar="N",
        help="requests of one call (default: %(default)s)",
    )
    group.add_argument(
        "--max-bytes",
        type=int,
        default=defaults.most_bytes,
        metavar="N",
        help="size of one call (default: %(default)s)",
    )


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
        features=args.features,
        static=args.static,
        allow_code=tuple(args.allow_code),
        warm=args.warm,
        mode={"mode": "shadow"} if args.shadow else mode,
        prices=args.prices,
        state=args.state,
        audit=args.audit,
        audit_sample=as_number("--audit-sample", args.audit_sample, 0.0, 1.0),
        key_field=args.key,
        seconds=as_number("--timeout", args.timeout, 1e-3),
        fresh_seconds=as_number("--fresh", args.fresh, 0.0),
        hold_seconds=as_number("--hold", args.hold, 0.0),
        guards=guards,
        host=args.host,
        port=as_whole_number("--port", args.port, 0, _MOST_PORT),
        workers=as_whole_number("--workers", args.workers, 1, _MOST_WORKERS),
        token_file=args.token_file,
        most_requests=as_whole_number("--max-requests", args.max_requests, 1),
        most_bytes=as_whole_number("--max-bytes", args.max_bytes, 1_000),
    )
