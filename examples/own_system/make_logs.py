"""Write three small logs of an invented search engine, as input for `marca fit --mapping`.

    python examples/own_system/make_logs.py --out results/shop_logs
    marca fit --mapping examples/own_system/mapping.yaml --requests results/shop_logs/requests.csv \
        --costs results/shop_logs/costs.parquet --system results/shop_logs/system.csv --out results/shop

The numbers are drawn from the formulas below; they are not measurements.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

DEPTHS, KEEPS = np.array([100, 200, 400]), np.array([20, 50, 100])
DEVICES = ("phone", "desktop", "tablet", "tv", "watch")


def traffic(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw requests with random options; returns the log and the option indices (n, 4)."""
    options = rng.integers(0, (2, 3, 3, 2), (n, 4))
    frame = pd.DataFrame(
        {
            "time": pd.Timestamp("2025-03-03") + pd.to_timedelta(rng.integers(0, 1440, n), unit="min"),
            "customer_value": rng.lognormal(3.0, 0.6, n).round(2),
            "city": [f"city-{k}" for k in rng.zipf(1.5, n) % 5000],
            "device": rng.choice(DEVICES, n, p=(0.55, 0.3, 0.1, 0.03, 0.02)),
            "sources": np.array(["basic", "full"])[options[:, 0]],
            "depth": DEPTHS[options[:, 1]],
            "keep": KEEPS[options[:, 2]],
            "model": np.array(["small", "large"])[options[:, 3]],
        }
    )
    return frame, options


def candidates(rng: np.random.Generator, options: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw the candidates recalled and ranked: about 60 by terms, and more by vectors."""
    recalled = rng.poisson(60, len(options)) + options[:, 0] * rng.binomial(DEPTHS[options[:, 1]], 0.8)
    return recalled, np.minimum(recalled, KEEPS[options[:, 2]])


def milliseconds(recalled: np.ndarray, ranked: np.ndarray, options: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the CPU time on each cluster, in milliseconds."""
    recall = 1.5 + options[:, 0] * (2.0 + 0.01 * DEPTHS[options[:, 1]])
    return recall, 0.8 + np.where(options[:, 3] == 1, 0.09, 0.02) * ranked


def main() -> None:
    """Write requests.csv, costs.parquet and system.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/shop_logs"))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)

    requests, options = traffic(rng, args.rows)
    recalled, ranked = candidates(rng, options)
    quality = np.log1p(ranked) * (1.0 + 0.25 * options[:, 3]) * np.log1p(recalled) / 20.0
    rate = 0.3 * quality * np.where(requests["device"] == "phone", 0.8, 1.3)
    clicks = rng.poisson(rate)
    spent = clicks * rng.exponential(0.02 * requests["customer_value"])
    requests.assign(clicks=clicks, revenue_eur=spent.round(4)).to_csv(args.out / "requests.csv", index=False)

    costs, options = traffic(rng, args.rows // 4)
    recalled, ranked = candidates(rng, options)
    recall_ms, rank_ms = milliseconds(recalled, ranked, options)
    noise = rng.lognormal(0.0, 0.1, (2, len(costs)))
    costs = costs.assign(recalled=recalled, ranked=ranked, recall_ms=recall_ms * noise[0], rank_ms=rank_ms * noise[1])
    costs.to_parquet(args.out / "costs.parquet", index=False)

    minute = np.arange(1440)
    qps = rng.poisson(60.0 * (2000.0 - 1500.0 * np.cos(2 * np.pi * minute / 1440.0))) / 60.0
    share = [qps * ms.mean() / 1000.0 / cores * 100.0 for ms, cores in ((recall_ms, 32), (rank_ms, 64))]
    system = pd.DataFrame({"minute": minute, "requests_per_second": qps.round(2)})
    system["recall_cpu_percent"], system["rank_cpu_percent"] = (np.round(x, 3) for x in share)
    system.to_csv(args.out / "system.csv", index=False)
    print(f"wrote requests.csv, costs.parquet and system.csv in {args.out}")


if __name__ == "__main__":
    main()
