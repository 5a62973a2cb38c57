"""The requests of a scenario and the sparsity of their revenue: what an engine takes from a request log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import gammaincinv

from marca_env.logs.log_files import read_table, write_table
from marca_env.logs.schema import Column, check_table, feature_columns, state_table
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from marca_env.utils.packed_arrays import PackedArray


@dataclass(frozen=True)
class Population:
    """Distinct states of requests and how often each occurred. U states, W columns."""

    states: np.ndarray
    """(U,W) int64, or float64 where features are numbers; columns as :attr:`Scenario.state_columns`."""
    counts: np.ndarray
    """(U,) positive."""

    def __post_init__(self) -> None:
        if len(self.states) == 0 or len(self.states) != len(self.counts):
            raise InputError(
                f"population: {len(self.states)} states and {len(self.counts)} counts; "
                "give at least one state, and one count per state"
            )
        if np.any(self.counts <= 0):
            row = int(np.argmax(self.counts <= 0))
            raise InputError(f"population: count {self.counts[row]} of state {row}; give positive counts only")

    def __reduce__(self) -> tuple[Callable[..., Population], tuple[Any, ...]]:
        """Pickle the tables packed: with many requests they take megabytes."""
        return _unpacked, (PackedArray.pack(self.states), PackedArray.pack(self.counts))

    @classmethod
    def from_log(cls, scenario: Scenario, requests: pd.DataFrame) -> Population:
        """Count the distinct states of a request log."""
        states, counts = np.unique(state_table(scenario, requests), axis=0, return_counts=True)
        return cls(states, counts.astype(np.float64))

    @classmethod
    def load(cls, path: str | Path, scenario: Scenario) -> Population:
        """Read the table that :meth:`save` wrote.

        Raises:
            InputError: the file does not exist, or has values that the scenario does not have.
        """
        columns = (*feature_columns(scenario), Column("count", "int", low=1))
        frame = check_table(read_table(path), columns, path)
        return cls(state_table(scenario, frame), frame["count"].to_numpy(dtype=np.float64))

    def site_shares(self, scenario: Scenario) -> np.ndarray:
        """Return the share of the requests that each site serves, (sites,)."""
        site = scenario.site_of(self.states)
        if site is None:
            return np.ones(1)
        return np.bincount(site, weights=self.counts, minlength=scenario.n_sites) / self.counts.sum()

    def save(self, path: str | Path, scenario: Scenario) -> None:
        """Write a table with one column per feature and ``count``; the suffix selects CSV or Parquet."""
        frame = pd.DataFrame(self.states, columns=list(scenario.state_columns))
        write_table(frame.assign(count=self.counts.astype(np.int64)), path)


def _unpacked(states: PackedArray, counts: PackedArray) -> Population:
    """Return the population of a pickle."""
    return Population(states.unpack(), counts.unpack())


@dataclass(frozen=True)
class Sparsity:
    """Distribution of the revenue of single requests: mostly zero, else a gamma-distributed sale."""

    mean_sale: float
    """Mean revenue of the requests with revenue, currency."""
    shape: float
    """Shape of the gamma distribution of a sale; 1 is exponential."""

    @classmethod
    def from_log(cls, requests: pd.DataFrame) -> Sparsity:
        """Fit the distribution to the log's ``revenue`` by the method of moments.

        Raises:
            InputError: the log has no revenue.
        """
        revenue = requests["revenue"].to_numpy(dtype=np.float64)
        sales = revenue[revenue > 0]
        if len(sales) == 0:
            raise InputError(
                "request log: column 'revenue' has no positive value; pass a log with revenue, or use noise 'none'"
            )
        variance = max(float(sales.var()), 1e-12)
        return cls(mean_sale=float(sales.mean()), shape=float(np.clip(sales.mean() ** 2 / variance, 0.05, 100.0)))

    def sample(self, mean: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Draw revenue with the given ``mean`` (B,) from one uniform number per request (B,).

        A sale occurs with probability ``mean / mean_sale`` (at most 1), which reproduces the log's share of zeros. Its
        size is gamma-distributed.
        """
        probability = np.clip(mean / self.mean_sale, 0.0, 1.0)
        sold = uniform < probability
        size = np.divide(mean, probability, out=np.zeros_like(mean), where=sold)
        # given a sale, uniform / probability is uniform again: one number per request serves both draws
        quantile = np.divide(uniform, probability, out=np.zeros_like(mean), where=sold)
        return size * gammaincinv(self.shape, quantile) / self.shape
