"""Build a scenario folder from a table of ratings: the world of its live cascade, and the report."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marca_env.cascade.cascade import STAGES
from marca_env.cascade.rated_world import FILE as WORLD_FILE
from marca_env.cascade.rated_world import RatedData
from marca_env.integration.ratings.categories import ItemCategories
from marca_env.integration.ratings.factorisation import factorise, judge
from marca_env.integration.ratings.ratings_report import make_ratings_report
from marca_env.integration.ratings.tables import ColumnNames, Ratings, read_attributes, read_ratings
from marca_env.integration.ratings.world_data import rated_data
from marca_env.logs.log_files import write_table
from marca_env.scenario.scenario import FILE as SCENARIO_FILE
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.files import read_json, write_json
from marca_env.utils.validation import as_seed

REPORT = "ratings.json"
"""Name of the report in the folder: sources, counts, and how well the factors predict."""
ITEMS = "items.parquet"
"""Name of the table in the folder that names the item of each row of the world."""
_LOGS = ("requests.parquet", "cost_log.csv")


@dataclass(frozen=True)
class RatedSources:
    """Files and choices from which a scenario is built."""

    ratings: Path
    items: Path | None = None
    """Table of item attributes."""
    columns: ColumnNames = field(default_factory=ColumnNames)
    feedback: str | None = None
    """``explicit``, ``implicit``, or ``None``: by the columns."""
    factors: int | None = None
    """Dimensions of users and items; ``None``: those of the base scenario's catalogue."""
    seed: int = 0

    def describe(self, base: Scenario) -> dict[str, Any]:
        """Return what decides the world, as plain data."""
        files = {"ratings": self.ratings, "items": self.items}
        described = json.dumps(base.to_dict(), sort_keys=True).encode()
        return {
            "files": {key: {"name": p.name, "sha256": _hash(p)} for key, p in files.items() if p is not None},
            "columns": {k: v for k, v in asdict(self.columns).items() if v is not None},
            "feedback": self.feedback,
            "factors": self.factors,
            "seed": self.seed,
            "base": {"name": base.name, "sha256": hashlib.sha256(described).hexdigest()},
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
    if base.catalogue.world is not None:
        raise InputError(f"--scenario {base.name}: its users and items come from ratings; use the scenario below it")
    if sources.factors is not None and sources.factors < 2:
        raise InputError(f"--factors is {sources.factors}; it must be at least 2")
    as_seed(sources.seed, "--seed")
    inputs = sources.describe(base)
    if (report := _stored_report(out, inputs)) is not None:
        return Scenario.load(out), report
    attributes = None if sources.items is None else read_attributes(sources.items, sources.columns)
    extra = () if attributes is None else attributes.ids
    ratings = read_ratings(
        sources.ratings, sources.columns, feedback=sources.feedback, extra_items=extra, seed=sources.seed
    )
    if attributes is not None and not np.isin(ratings.item_ids[np.unique(ratings.item)], attributes.ids).any():
        raise InputError(
            f"{sources.items}: describes no item of {sources.ratings}; check the ids, or "
            "name the right column with --item-column"
        )
    dim = sources.factors or base.catalogue.dim
    judgement = judge(ratings, dim, sources.seed)
    factors = factorise(ratings, dim, judgement.strength, sources.seed)
    data, categories = rated_data(ratings, factors, judgement, attributes, base, sources.seed)
    scenario = _rated_scenario(base, out, data, sources.seed)
    report = {"inputs": inputs, **make_ratings_report(ratings, attributes, judgement, data, categories)}
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


def _item_table(ratings: Ratings, data: RatedData, categories: ItemCategories) -> pd.DataFrame:
    names = np.array(categories.names, dtype=object)
    return pd.DataFrame(
        {"item": ratings.item_ids.astype(object), "category": names[data.category], "ratings": data.popularity}
    )


def _hash(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
