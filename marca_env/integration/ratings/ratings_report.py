"""Report of a world of ratings: what the tables hold, and how well the factors predict pairs that were held out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from marca_env.cascade.rated_world import RatedData
from marca_env.integration.ratings.categories import ItemCategories
from marca_env.integration.ratings.factorisation import Judgement
from marca_env.integration.ratings.tables import Attributes, Ratings

FEW = 5
"""Users and items with fewer pairs are counted."""
_REAL = "users, items, who rated what and in which order, histories, popularity, categories, taste (factors)"
_GENERATED = (
    "clicks, the errors of each model, bids, baskets, conversions, eligibility, the value of users, and the "
    "placements, data centres and time windows of requests"
)


def make_ratings_report(
    ratings: Ratings, attributes: Attributes | None, judgement: Judgement, data: RatedData, categories: ItemCategories
) -> dict[str, Any]:
    """Return the report as plain data."""
    user_count = np.bincount(ratings.user, minlength=ratings.n_users)
    known = 0 if attributes is None else len(set(ratings.item_ids) - set(attributes.ids))
    return {
        "feedback": ratings.feedback,
        "columns": ratings.columns,
        "order": f"column {ratings.columns['time']!r}" if ratings.has_time else "random: no column of time",
        "counts": {
            "pairs": len(ratings.user),
            "users": ratings.n_users,
            "items": len(ratings.item_ids),
            "repeated_rows": ratings.repeated,
            "rows_without_events": ratings.without_events,
            f"users_with_fewer_than_{FEW}": int((user_count < FEW).sum()),
            f"items_with_fewer_than_{FEW}": int(((data.popularity > 0) & (data.popularity < FEW)).sum()),
            "items_without_ratings": int((data.popularity == 0).sum()),
            "items_without_attributes": known,
        },
        "factorisation": {
            "dimensions": data.item.shape[1],
            "metric": judgement.metric,
            "held_out": judgement.held_out,
            "factors": judgement.factors,
            "baselines": judgement.baselines,
            "best_baseline": judgement.best_baseline,
            "beats_baselines": judgement.beats_baselines,
            "strength": judgement.strength,
            "signal_share": judgement.signal_share,
        },
        "categories": {"source": categories.source, "count": len(categories.names)},
        "history_edges": data.history_edges.tolist(),
        "real": _REAL,
        "generated": _GENERATED,
    }


def rated_report_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that ``marca fit`` prints about the ratings."""
    counts, fit = report["counts"], report["factorisation"]
    what = "ratings" if report["feedback"] == "explicit" else "pairs with events"
    yield (
        f"{report['feedback']} feedback: {counts['pairs']:,} {what} of {counts['users']:,} users and "
        f"{counts['items']:,} items (columns {', '.join(report['columns'].values())}); order: {report['order']}"
    )
    users, items = (counts[f"{name}_with_fewer_than_{FEW}"] for name in ("users", "items"))
    yield (
        f"few or none: {users:,} users and {items:,} items with fewer than {FEW}, {counts['items_without_ratings']:,} "
        f"items without any, which get the mean of their category; {counts['repeated_rows']:,} rows repeat a pair"
    )
    baselines = ", ".join(f"{name} {value:.4f}" for name, value in fit["baselines"].items())
    yield (
        f"{fit['metric']} on {fit['held_out']:,} held-out pairs: factors {fit['factors']:.4f}; {baselines} "
        f"(factors explain {fit['signal_share']:.0%} of an interest)"
    )
    if not fit["beats_baselines"]:
        yield (
            f"warning: the factors are no better than {fit['best_baseline']}: these ratings say little about the taste "
            "of single users; pass more of them, fewer --factors, or another --feedback"
        )
    yield f"categories: {report['categories']['count']} from {report['categories']['source']}"
