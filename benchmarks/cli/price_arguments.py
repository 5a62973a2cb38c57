"""The option ``--prices``: numbers in the order of the clusters, ``cluster=number``, or a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.cli.arguments import parse_pairs
from marca_env.utils.errors import InputError
from marca_env.utils.validation import prices_by_cluster

_FLAG = "--prices"
_LARGEST = 1e15  # prices and costs are multiplied in float32


def add_prices_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option, which is required."""
    parser.add_argument(
        _FLAG,
        nargs="+",
        required=True,
        metavar="PRICE",
        help="currency per core-second of each cluster: numbers in the scenario's order of clusters, cluster=number, "
        "or a .json or .yaml file of these, such as the prices.json of marca serve",
    )


def parse_prices(items: Sequence[str], clusters: Sequence[str]) -> tuple[float, ...]:
    """Return the price of each cluster.

    Raises:
        InputError: a word that is no price, an unknown or missing cluster, or a price that is negative or too large.
    """
    try:
        given: Any = [float(item) for item in items]
    except ValueError:
        given = parse_pairs(items, _FLAG)
        if "prices" in given:  # a file of published prices
            numbers, names = given["prices"], given.get("clusters")
            is_listed = isinstance(names, list) and isinstance(numbers, list) and len(names) == len(numbers)
            given = dict(zip(names, numbers, strict=True)) if is_listed else numbers
    prices = prices_by_cluster(given, clusters, _FLAG)
    if (prices > _LARGEST).any():
        raise InputError(f"{_FLAG}: {prices.max():g} is more than {_LARGEST:g}; give a smaller price")
    return tuple(float(price) for price in prices)
