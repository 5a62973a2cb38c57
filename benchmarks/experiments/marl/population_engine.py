"""Engine that serves a whole population: every state once, weighted by its share of the requests."""

from __future__ import annotations

from typing import Any

import numpy as np

from marca_env.models.engine import Engine
from marca_env.models.population import Population
from marca_env.utils.errors import InputError


class PopulationEngine(Engine):
    """Engine whose requests are the states of its population in order, each once.

    U environments side by side, one for each state, serve all of them.
    """

    def sample_states(self, rng: Any, n: int) -> np.ndarray:
        """Return the states (U, F).

        Raises:
            InputError: ``n`` is not the number of states.
        """
        states = self.population.states
        if n != len(states):
            raise InputError(f"{n} requests of a population of {len(states)} states; use {len(states)} environments")
        return states

    @classmethod
    def from_engine(cls, engine: Engine, count: int | None = None) -> PopulationEngine:
        """Return the same system, without noise, with the first ``count`` states of its population; ``None``: all."""
        return cls.of_population(engine, engine.population, count)

    @classmethod
    def of_population(cls, engine: Engine, population: Population, count: int | None = None) -> PopulationEngine:
        """Return the same system, without noise, with the first ``count`` states of a population; ``None``: all."""
        judge = cls.__new__(cls)
        judge.__dict__ |= vars(engine)  # whatever serves its requests: models, records, latency
        judge.noise = "none"
        judge.population = Population(population.states[:count], population.counts[:count])
        return judge

    @property
    def shares(self) -> np.ndarray:
        """Return (U,): the share of each state among the requests; they sum to 1."""
        return self.population.counts / self.population.counts.sum()
