"""A small recommender with numbers and a signal, and its logs; the law that they are drawn from is known.

Two stages: retrieval sees a taste vector and a segment, and reports how good its best candidate is. Ranking sees the
segment and that signal, which decides what its large model earns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

NUMERIC_MAPPING: dict[str, Any] = {
    "name": "numeric",
    "requests": {"revenue": "euros"},
    "peak_qps": 100.0,
    "features": [
        {"name": "taste", "coding": "numeric", "columns": ["age", "spend", "visits"], "seen_by": ["retrieval"]},
        {"name": "segment", "coding": "code", "size": 3},
    ],
    "stages": [
        {
            "name": "retrieval",
            "cluster": "search",
            "result": "found",
            "signals": [{"name": "best", "column": "top_score"}],
            "decisions": [{"name": "depth", "kind": "queue", "options": [10, 20, 40]}],
        },
        {
            "name": "ranking",
            "cluster": "rank",
            "result": "ranked",
            "decisions": [{"name": "model", "kind": "model", "options": ["small", "large"]}],
        },
    ],
    "clusters": [
        {"name": "search", "cost": "search_s", "budget": 1.0},
        {"name": "rank", "cost": "rank_s", "budget": 1.5},
    ],
}
"""Mapping of :func:`make_logs`; a quarter of the visits are missing, so that the state has four numbers and a code."""


def make_logs(n: int = 600, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the request log and the cost log of uniformly random decisions."""
    rng = np.random.default_rng(seed)
    age, spend, visits = rng.normal(40, 12, n), rng.exponential(50, n), rng.poisson(3, n).astype(float)
    visits[rng.random(n) < 0.25] = np.nan
    segment, depth, model = rng.integers(3, size=n), rng.integers(3, size=n), rng.integers(2, size=n)
    length = np.array([10, 20, 40])[depth]
    best = 0.2 * np.log(length) + 0.3 * (age - 40) / 12 + rng.normal(0, 0.5, n)
    earned = np.exp(0.4 * best * (0.5 + model) + 0.2 * segment - 2.0)
    frame = pd.DataFrame({"age": age, "spend": spend, "visits": visits, "segment": segment, "depth": length})
    frame["model"] = np.array(["small", "large"])[model]
    frame = frame.assign(found=length, ranked=length, top_score=100 + 20 * best)
    costs = frame.assign(search_s=1e-3 + 2e-5 * length, rank_s=1e-3 + 3e-5 * length * (1 + 2 * model))
    return frame.assign(euros=np.where(rng.random(n) < 0.5, 2 * earned, 0.0)), costs


def write_system(folder: Path, n: int = 600, seed: int = 0) -> dict[str, Path]:
    """Write mapping and logs; return the paths by the option of ``marca fit`` that takes them."""
    requests, costs = make_logs(n, seed)
    paths = {"mapping": folder / "mapping.yaml", "requests": folder / "requests.csv", "costs": folder / "costs.parquet"}
    paths["mapping"].write_text(yaml.safe_dump(NUMERIC_MAPPING, sort_keys=False), encoding="utf-8")
    requests.to_csv(paths["requests"], index=False)
    costs.to_parquet(paths["costs"], index=False)
    return paths
