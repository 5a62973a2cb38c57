"""Build a scenario folder from a table of ratings: the world of its live cascade, and the report.

Shapes: U users, I items, E pairs of a user and an item, C categories, d dimensions.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from marca_env.cascade.cascade import STAGES
from marca_env.cascade.rated_world import FILE as WORLD_FILE
from marca_env.cascade.rated_world import RatedData
from marca_env.integration.ratings.categories import ItemCategories, cluster_items, read_categories
from marca_env.integration.ratings.factorisation import Factors, Judgement, event_strength, factorise, judge, random_pairs
from marca_env.integration.ratings.tables import Attributes, ColumnNames, Ratings, read_attributes, read_ratings
from marca_env.logs.log_files import write_table
from marca_env.scenario.scenario import FILE as SCENARIO_FILE
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.files import read_json, write_json

REPORT = "ratings.json"
"""Name of the report in the folder: sources, counts, and how well the factors predict."""
ITEMS = "items.parquet"
"""Name of the table in the folder that names the item of each row of the world."""
SHARES = (0.01, 0.75)
"""Least and most share of an interest that the factors are taken to explain, so that the world stays playable."""
FEW = 5
"""Users and items with fewer pairs are counted in the report."""
_LOGS = ("requests.parquet", "cost_log.csv")
_TWO_TOWER_SHARE = 4  # the two-tower model knows one dimension in so many
_REAL = "users, items, who rated what and in which order, histories, popularity, categories, taste (factors)"
_GENERATED = (
    "clicks, the errors of each model, bids, baskets, conversions, eligibility, the value of users, placements, data centres and time windows of requests"
)


@dataclass(frozen=True)
class RatedSources:
    """Files and choices from which a scenario is built."""

    ratings: Path
    items: Path | None = None
    """Table of item attributes."""
    columns: ColumnNames = ColumnNames()
    feedback: str | None = None
    """``explicit``, ``implicit``, or ``None``: by the columns."""
    factors: int | None = None
    """Dimensions of users and items; ``None``: those of the base scenario's catalogue."""
    seed: int = 0

    def describe(self, base: Scenario) -> dict[str, Any]:
        """Return what decides the world, as plain data."""
        files = {"ratings": self.ratings, "items": self.items}
        described = {key: value for key, value in base.to_dict().items() if key in ("catalogue", "features")}
        return {
            "files": {key: {"name": p.name, "sha256": _hash(p)} for key, p in files.items() if p is not None},
            "columns": {k: v for k, v in asdict(self.columns).items() if v is not None},
            "feedback": self.feedback,
            "factors": self.factors,
            "seed": self.seed,
            "base": {"name": base.name, **described},
        }


def build_rated_scenario(sources: RatedSources, out: Path, base: Scenario) -> tuple[Scenario, dict[str, Any]]:
    """Write ``scenario.yaml``, ``world.npz``, ``items.parquet`` and ``ratings.json``, unless the folder has them.

    Args:
        sources: the tables.
        out: the folder; made if it is missing.
        base: stages, decisions, clusters, features and all that is not in the tables. Its budgets hold until costs
            are measured.

    Returns:
        The scenario, read from its folder, and the report.

    Raises:
        InputError: a fault of the tables; a base scenario that the live cascade cannot serve; or a folder with logs of
            another world.
    """
    if base.stage_names != STAGES:
        raise InputError(
            f"--scenario {base.name}: stages {', '.join(base.stage_names)}; a world of ratings needs those of the live "
            f"cascade, {', '.join(STAGES)}: use default"
        )
    if sources.factors is not None and sources.factors < 2:
        raise InputError(f"--factors is {sources.factors}; it must be at least 2")
    inputs = sources.describe(base)
    if (report := _stored_report(out, inputs)) is not None:
        return Scenario.load(out), report
    attributes = None if sources.items is None else read_attributes(sources.items, sources.columns)
    extra = () if attributes is None else attributes.ids
    ratings = read_ratings(
        sources.ratings, sources.columns, feedback=sources.feedback, extra_items=extra, seed=sources.seed
    )
    dim = sources.factors or base.catalogue.dim
    judgement = judge(ratings, dim, sources.seed)
    factors = factorise(ratings, dim, judgement.strength, sources.seed)
    data, categories = rated_data(ratings, factors, judgement, attributes, base, sources.seed)
    scenario = _rated_scenario(base, out, data, sources.seed)
    report = {"inputs": inputs, **_report(ratings, attributes, judgement, data, categories)}
    out.mkdir(parents=True, exist_ok=True)
    data.save(out / WORLD_FILE)
    write_table(_item_table(ratings, data, categories), out / ITEMS)
    scenario.save(out / SCENARIO_FILE)
    write_json(out / REPORT, report)  # last: it marks a folder that is complete
    return Scenario.load(out), report


def _stored_report(out: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Return the report of a folder that was built from the same inputs; ``None``: the folder is to be written.

    Raises:
        InputError: it holds logs of another scenario.
    """
    path = out / REPORT
    if path.is_file() and (out / WORLD_FILE).is_file():
        report = read_json(path)
        if isinstance(report, dict) and report.get("inputs") == inputs:
            return report
    for name in _LOGS:
        if (out / name).exists():
            raise InputError(
                f"{out}: holds {name} of another scenario or of other ratings; give another --out, or delete the folder"
            )
    return None


def copy_world(scenario: Scenario, out: Path) -> None:
    """Copy the world of a scenario to another folder, if its users and items come from ratings."""
    if scenario.catalogue.world is None or scenario.home is None or scenario.home.resolve() == out.resolve():
        return
    for name in (WORLD_FILE, ITEMS, REPORT):
        if (scenario.home / name).is_file():
            shutil.copyfile(scenario.home / name, out / name)


# -- world ---------------------------------------------------------------------------------------------------------
def rated_data(
    ratings: Ratings,
    factors: Factors,
    judgement: Judgement,
    attributes: Attributes | None,
    base: Scenario,
    seed: int,
) -> tuple[RatedData, ItemCategories]:
    """Return the world of ratings in the units of the live cascade, and the categories of its items."""
    rng = np.random.default_rng([seed, 11])
    count = np.bincount(ratings.item, minlength=len(ratings.item_ids))
    if attributes is None:
        categories = cluster_items(factors.item, count, base.catalogue.categories, seed)
    else:
        categories = read_categories(attributes, ratings.item_ids)
    item = _with_unrated_items(factors.item, count, categories.category)
    scaled = _scale(factors.user, item, ratings, judgement, rng)
    residual = _residual(ratings, factors, scaled.gain)
    liked = _liked(ratings)
    activity = np.bincount(ratings.user, minlength=ratings.n_users) / len(ratings.user)
    quality = scaled.item @ (activity @ scaled.user)
    size = next((f.size for f in base.features if f.name == "history"), 1)
    data = RatedData(
        user=scaled.user.astype(np.float32),
        item=scaled.item.astype(np.float32),
        quality=((quality - quality.mean()) / max(quality.std(), 1e-12)).astype(np.float32),
        popularity=count,
        category=categories.category,
        centres=_means(scaled.item, categories.category, len(categories.names)).astype(np.float32),
        starts=np.concatenate([[0], np.cumsum(np.bincount(ratings.user, minlength=ratings.n_users))]),
        event_item=ratings.item,
        event_liked=liked,
        event_residual=residual.astype(np.float32),
        shift=np.float64(scaled.shift),
        history_edges=_history_edges(ratings, liked, size),
        similarity_weight=scaled.weight,
        two_tower_rank=np.int64(max(2, item.shape[1] // _TWO_TOWER_SHARE)),
    )
    return data, categories


def _with_unrated_items(item: np.ndarray, count: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Return the factors (I, f) with those of items without ratings replaced by the mean of their category."""
    rated = count > 0
    if rated.all():
        return item
    n = int(category.max()) + 1
    means = _means(item[rated], category[rated], n)
    known = np.bincount(category[rated], minlength=n) > 0
    means[~known] = item[rated].mean(axis=0)
    return np.where(rated[:, None], item, means[category])


@dataclass(frozen=True)
class _Scaled:
    """Users and items in the units of the live cascade: ``user @ item / √d + shift`` is the explained affinity."""

    user: np.ndarray
    item: np.ndarray
    shift: float
    gain: float
    """Affinity for one unit of the predicted value."""
    weight: np.ndarray
    """Relative weight of each dimension of the items, (d,); its mean square is 1."""


def _scale(
    user: np.ndarray, item: np.ndarray, ratings: Ratings, judgement: Judgement, rng: np.random.Generator
) -> _Scaled:
    """Rotate the factors so that the first explain most, and scale items to unit mean square in each dimension.

    A model's error is then the same share of every dimension, as in the generated world.

    A click happens if the affinity plus logistic noise, of variance π²/3, exceeds a threshold. The noise stands for
    what the factors cannot know: their share of the sum's variance is that which the held-out pairs show.
    """
    d, n = item.shape[1], len(item)
    (left, r_user), (right, r_item) = np.linalg.qr(user), np.linalg.qr(item)
    u, singular, v = np.linalg.svd(r_user @ r_item.T, full_matrices=False)
    left, right = left @ u * singular, right @ v.T
    left, right = (np.pad(x, ((0, 0), (0, d - x.shape[1]))) for x in (left, right))
    item = right * np.sqrt(n)
    pair_user, pair_item = random_pairs(ratings, rng)
    value = (left[pair_user] * right[pair_item]).sum(axis=1)
    share = float(np.clip(judgement.signal_share, *SHARES))
    gain = np.pi * np.sqrt(share / (1.0 - share) / 3.0) / max(float(value.std()), 1e-12)
    root = np.sqrt(np.pad(singular, (0, d - len(singular))))
    weight = root / max(float(np.sqrt(np.mean(root**2))), 1e-12)
    return _Scaled(left * gain * np.sqrt(d / n), item, -gain * float(value.mean()), gain, weight)


def _residual(ratings: Ratings, factors: Factors, gain: float) -> np.ndarray:
    """Return what the rating, or the strength of its events, adds to the affinity of each pair, (E,).

    A rating says how much a user likes what was chosen, not that it was chosen. Pairs with ratings therefore get the
    same mean click probability as others (of small click probabilities: the mean of exp(residual) is 1).
    """
    if ratings.feedback == "implicit":
        return gain * (event_strength(ratings) - factors.predict(ratings.user, ratings.item))
    residual = gain * (ratings.value - factors.predict(ratings.user, ratings.item))
    return residual - logsumexp(residual) + np.log(len(residual))


def _liked(ratings: Ratings) -> np.ndarray:
    """Return the pairs that belong to histories: ratings of at least the user's mean, and all pairs with events."""
    if ratings.feedback == "implicit":
        return np.ones(len(ratings.user), dtype=bool)
    count = np.maximum(np.bincount(ratings.user, minlength=ratings.n_users), 1)
    mean = np.bincount(ratings.user, weights=ratings.value, minlength=ratings.n_users) / count
    return ratings.value >= mean[ratings.user] - 1e-9


def _history_edges(ratings: Ratings, liked: np.ndarray, buckets: int) -> np.ndarray:
    """Return the lengths of the history at which buckets begin, so that requests fill them evenly."""
    before = np.concatenate([[0], np.cumsum(liked)])
    starts = np.concatenate([[0], np.cumsum(np.bincount(ratings.user, minlength=ratings.n_users))])
    length = before[:-1] - before[starts[ratings.user]]
    shares = np.arange(1, buckets) / buckets
    return np.unique(np.maximum(np.ceil(np.quantile(length, shares)), 1)).astype(np.int64)


def _means(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Return the mean of the rows of each group, (groups, d); zero for an empty group."""
    count = np.maximum(np.bincount(group, minlength=groups), 1)
    return np.stack([np.bincount(group, weights=column, minlength=groups) for column in values.T], axis=1) / count[:, None]


# -- scenario and report -------------------------------------------------------------------------------------------
def _rated_scenario(base: Scenario, out: Path, data: RatedData, seed: int) -> Scenario:
    items, dim = data.item.shape
    catalogue = base.catalogue.__class__(
        items=items,
        dim=dim,
        categories=len(data.centres),
        max_history=base.catalogue.max_history,
        noise=base.catalogue.noise,
        seed=seed,
        world=data.fingerprint(),
    )
    return base.replace(name=out.resolve().name, catalogue=catalogue, home=None, source=None)


def _report(
    ratings: Ratings, attributes: Attributes | None, judgement: Judgement, data: RatedData, categories: ItemCategories
) -> dict[str, Any]:
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


def _item_table(ratings: Ratings, data: RatedData, categories: ItemCategories) -> Any:
    import pandas as pd

    names = np.array(categories.names, dtype=object)
    return pd.DataFrame(
        {"item": ratings.item_ids.astype(object), "category": names[data.category], "ratings": data.popularity}
    )


def _hash(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rated_report_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that ``marca fit`` prints about the ratings."""
    counts, fit = report["counts"], report["factorisation"]
    what = "ratings" if report["feedback"] == "explicit" else "pairs with events"
    yield (
        f"{report['feedback']} feedback: {counts['pairs']:,} {what} of {counts['users']:,} users and "
        f"{counts['items']:,} items (columns {', '.join(report['columns'].values())}); order: {report['order']}"
    )
    yield (
        f"few or none: {counts[f'users_with_fewer_than_{FEW}']:,} users and {counts[f'items_with_fewer_than_{FEW}']:,} "
        f"items with fewer than {FEW}, {counts['items_without_ratings']:,} items without ratings, which get the mean of "
        f"their category; {counts['repeated_rows']:,} rows repeat a pair"
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
