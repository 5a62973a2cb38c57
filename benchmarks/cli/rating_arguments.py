"""Options of `marca fit` that describe a table of ratings."""

from __future__ import annotations

import argparse
from pathlib import Path

from marca_env.integration.ratings.rated_scenario import RatedSources
from marca_env.integration.ratings.tables import FEEDBACK, ColumnNames
from marca_env.utils.errors import InputError

_ONLY_WITH_RATINGS = (
    *("items", "feedback", "factors"),
    *("user_column", "item_column", "rating_column", "time_column", "category_column"),
)
_NOT_WITH_RATINGS = ("mapping", "requests", "system")


def add_rating_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("a world of your own users and items")
    group.add_argument(
        "--ratings",
        type=Path,
        metavar="FILE",
        help="table of ratings or events (user, item, optional rating or count, optional time); makes a scenario "
        "whose live cascade serves these users and items",
    )
    group.add_argument("--items", type=Path, metavar="FILE", help="table of item attributes (item, category)")
    group.add_argument(
        "--feedback",
        metavar="NAME",
        help=f"{' or '.join(FEEDBACK)} (default: explicit if there is a column of ratings)",
    )
    group.add_argument(
        "--factors", type=int, metavar="N", help="dimensions of users and items (default: the scenario's catalogue.dim)"
    )
    for role, what in (
        ("user", "the user"),
        ("item", "the item, in both tables"),
        ("rating", "the rating or number of events"),
        ("time", "the time"),
        ("category", "an item's categories, separated by |"),
    ):
        group.add_argument(f"--{role}-column", metavar="NAME", help=f"column of {what} (default: found by its name)")


def rated_sources(args: argparse.Namespace) -> RatedSources | None:
    """Return the tables that the options describe; ``None`` without ``--ratings``.

    Raises:
        InputError: options that do not go together, or a missing file.
    """
    if args.ratings is None:
        for name in _ONLY_WITH_RATINGS:
            if getattr(args, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} describes a table of ratings; pass --ratings FILE")
        return None
    for name in _NOT_WITH_RATINGS:
        if getattr(args, name) is not None:
            raise InputError(
                f"--{name} describes logs of your own system, --ratings users and items of the live cascade, which "
                "makes its own logs; pass one of them"
            )
    for path in (args.ratings, args.items):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; check the path")
    columns = ColumnNames(
        args.user_column, args.item_column, args.rating_column, args.time_column, args.category_column
    )
    return RatedSources(args.ratings, args.items, columns, args.feedback, args.factors, args.seed)
