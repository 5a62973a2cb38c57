"""Synthetic tables of ratings: users and items of a few kinds, with taste that a factorisation can find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

KINDS = 4
USERS, ITEMS = 80, 60


def make_ratings(noise: float = 0.3, taste: float = 1.0, seed: int = 0, per_user: int = 24) -> pd.DataFrame:
    """Return ratings (columns userId, itemId, rating, timestamp); item k is of kind k mod :data:`KINDS`.

    A rating is 3, plus the user's and the item's bias, plus ``taste`` if the user likes the kind of the item and minus
    it if not, plus noise.
    """
    rng = np.random.default_rng(seed)
    user_bias, item_bias = 0.3 * rng.standard_normal(USERS), 0.3 * rng.standard_normal(ITEMS)
    likes = rng.random((USERS, KINDS)) < 0.5
    rows = []
    for user in range(USERS):
        items = rng.choice(ITEMS - 2, size=per_user, replace=False)  # the last two have no ratings
        liked = np.where(likes[user, items % KINDS], taste, -taste)
        rating = 3 + user_bias[user] + item_bias[items] + liked + noise * rng.standard_normal(per_user)
        rows.append(pd.DataFrame({"userId": user, "itemId": items, "rating": rating.round(3)}))
    table = pd.concat(rows, ignore_index=True)
    return table.assign(timestamp=rng.permutation(len(table)) + 1_000_000)


def make_events(seed: int = 0, per_user: int = 12) -> pd.DataFrame:
    """Return events (columns user, item, plays): each user plays items of two kinds."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        kinds = rng.choice(KINDS, 2, replace=False)
        offered = np.flatnonzero(np.isin(np.arange(ITEMS) % KINDS, kinds))
        items = rng.choice(offered, size=per_user, replace=False)
        rows.append(pd.DataFrame({"user": user, "item": items, "plays": rng.integers(1, 20, per_user)}))
    return pd.concat(rows, ignore_index=True)


def make_attributes() -> pd.DataFrame:
    """Return item attributes (columns itemId, genres): the kind, and a category that all items have."""
    items = np.arange(ITEMS)
    return pd.DataFrame({"itemId": items, "genres": [f"all|kind {k}" for k in items % KINDS]})


def write_tables(folder: Path) -> tuple[Path, Path]:
    """Write ratings and attributes as CSV, compressed and not; return their paths."""
    ratings, items = folder / "ratings.csv.gz", folder / "items.csv"
    make_ratings().to_csv(ratings, index=False)
    make_attributes().to_csv(items, index=False)
    return ratings, items
