"""Who asks, and how sparse the revenue of a single request is: what an engine takes from a request log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import gammaincinv

from marca_env.logs.log_files import read_table, write_table
from marca_env.logs.schema import Column, check_table, feature_columns
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Population:
    """The requests that come: distinct states and how often each was seen."""

    states: np.ndarray
    """(U,F) int64, columns in the scenario's order of features."""
    counts: np.ndarray
    """(U,) positive."""

    def __post_init__(self) -> None:
        if len(self.states) == 0 or len(self.states) != len(self.counts) or np.any(self.counts <= 0):
            raise InputError("population: needs at least one state, and one positive count for each")

    @classmethod
    def from_log(cls, scenario: Scenario, requests: pd.DataFrame) -> Population:
        """Distinct states of a request log, with their counts."""
        columns = requests[list(scenario.feature_names)].to_numpy(dtype=np.int64)
        states, counts = np.unique(columns, axis=0, return_counts=True)
        return cls(states, counts.astype(np.float64))

    @classmethod
    def load(cls, path: str | Path, scenario: Scenario) -> Population:
        """Read the table that :meth:`save` wrote.

        Raises:
            InputError: no such file, or values that the scenario does not have.
        """

        columns = (*feature_columns(scenario), Column("count", "int", low=1))
        frame = check_table(read_table(path), columns, path)
        states = frame[list(scenario.feature_names)].to_numpy(dtype=np.int64)
        return cls(states, frame["count"].to_numpy(dtype=np.float64))

    def shares(self, scenario: Scenario) -> np.ndarray:
        """Share of the requests that each site serves; (sites,), 1 where there is one."""
        site = scenario.site_of(self.states)
        if site is None:
            return np.ones(1)
        return np.bincount(site, weights=self.counts, minlength=scenario.n_sites) / self.counts.sum()

    def save(self, path: str | Path, scenario: Scenario) -> None:
        """Write as a table (CSV or Parquet by suffix): one column per feature, and ``count``."""

        frame = pd.DataFrame(self.states, columns=list(scenario.feature_names))
        write_table(frame.assign(count=self.counts.astype(np.int64)), path)


@dataclass(frozen=True)
class Sparsity:
    """How the revenue of single requests scatters: mostly zeros, and gamma-distributed sales."""

    mean_sale: float
    """Mean revenue of the requests that brought any, currency."""
    shape: float
    """Shape of the gamma distribution of a sale around its mean; 1 is exponential."""

    @classmethod
    def from_log(cls, requests: pd.DataFrame) -> Sparsity:
        """By the method of moments from the log's ``revenue``.

        Raises:
            InputError: the log has no revenue at all.
        """
        revenue = requests["revenue"].to_numpy(dtype=np.float64)
        sales = revenue[revenue > 0]
        if len(sales) == 0:
            raise InputError("request log: column 'revenue' has no positive value; noise 'gamma' cannot be fitted")
        variance = max(float(sales.var()), 1e-12)
        return cls(mean_sale=float(sales.mean()), shape=float(np.clip(sales.mean() ** 2 / variance, 0.05, 100.0)))

    def sample(self, mean: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Revenue with the given ``mean`` (B,) from one uniform number per request (B,).

        A sale comes with probability ``mean / mean_sale`` (at most 1), so that the share of zeros over the
        population is that of the log wherever the means are; its size is gamma-distributed.
        """

        chance = np.clip(mean / self.mean_sale, 0.0, 1.0)
        sold = uniform < chance
        size = np.divide(mean, chance, out=np.zeros_like(mean), where=sold)
        # given a sale, uniform / chance is again uniform: one number per request serves both draws
        quantile = np.divide(uniform, chance, out=np.zeros_like(mean), where=sold)
        return size * gammaincinv(self.shape, quantile) / self.shape
