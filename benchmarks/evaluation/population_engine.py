"""Policies judged on a whole population: every state once, weighed by its share of the requests."""

from __future__ import annotations

from typing import Any

import numpy as np

from marca_env.models.engine import Engine
from marca_env.models.population import Population
from marca_env.utils.errors import InputError


class EveryState(Engine):
    """Its requests are the states of its population in their order, each once: U environments side by side serve all.

    Raises:
        InputError: another number of requests is asked for.
    """

    def sample_states(self, rng: Any, n: int) -> np.ndarray:
        """The states (U,F)."""
        if n != len(self.population.states):
            raise InputError(f"{n} requests of a population of {len(self.population.states)} states; serve each once")
        return self.population.states

    @classmethod
    def of(cls, engine: Engine, count: int | None = None) -> EveryState:
        """The same system, without noise, with the first ``count`` states of its population; ``None``: with all."""
        people = Population(engine.population.states[:count], engine.population.counts[:count])
        return cls(engine.scenario, engine.cost_model, engine.revenue_model, people)

    @property
    def shares(self) -> np.ndarray:
        """(U,) of each state among the requests, 1 in all."""
        return self.population.counts / self.population.counts.sum()
