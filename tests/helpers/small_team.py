"""A small recommender with a known revenue function; illegal actions raise an error."""

from __future__ import annotations

import functools
from typing import Any

from marca_env.envs.pettingzoo_env import RecommenderParallel, parallel_env
from marca_env.models.engine import Engine
from marca_env.models.population import Population
from tests.helpers.factories import ExactLaw, make_requests, make_tiny_scenario


@functools.cache
def engine() -> Engine:
    """Return an engine with 36 joint actions over four decisions; the reward is the expected revenue."""
    scenario = make_tiny_scenario()
    law: Any = ExactLaw(scenario)
    return Engine(scenario, law, law, Population.from_log(scenario, make_requests(scenario, 2000)))


def make(render_mode: str | None = None) -> RecommenderParallel:
    """Build the PettingZoo environment of one request."""
    return parallel_env(engine=engine(), on_illegal="error", render_mode=render_mode)
