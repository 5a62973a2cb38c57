"""Behaviour policy of the live cascade, and the request logs that it makes (sparse, sampled revenue)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from marca_env.cascade.cascade import LiveCascade
from marca_env.cascade.parallel import map_on_cascade
from marca_env.logs.schema import OUTCOMES
from marca_env.scenario.scenario import Scenario
from marca_env.utils.progress import ProgressCallback

EXPLORATION = 0.5
"""Share of requests with uniformly random actions; the others follow a rule that favours valuable users."""
_CHUNK = 500


def behaviour_actions(scenario: Scenario, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the actions (B, D) of the behaviour policy in ``states`` (B, F).

    The rule draws a binomial level for each decision, whose mean rises with the user-value bucket ``uv``, like a
    hand-tuned production system. Every action has a positive probability in every state.
    """
    sizes = np.array(scenario.action_shape)
    mean_level = np.full(len(states), 0.5)
    if "uv" in scenario.feature_names:
        bucket = scenario.feature_names.index("uv")
        mean_level = 0.2 + 0.6 * states[:, bucket] / max(scenario.features[bucket].size - 1, 1)
    rule = rng.binomial(sizes - 1, mean_level[:, None])
    uniform = rng.integers(sizes, size=(len(states), len(sizes)))
    return np.where(rng.random((len(states), 1)) < EXPLORATION, uniform, rule)


def behaviour_log(
    scenario: Scenario | str, n: int, seed: int, *, workers: int | None = None, progress: ProgressCallback | None = None
) -> pd.DataFrame:
    """Serve ``n`` requests with the behaviour policy and log them.

    The log does not depend on ``workers`` (default: one process per core).

    Returns:
        One row per request: features, decisions (option index), ``result_<stage>``, and sampled impressions,
        clicks, revenue and gmv (currency).
    """
    scenario = Scenario.load(scenario)
    jobs = [(min(_CHUNK, n - start), [seed, start]) for start in range(0, n, _CHUNK)]
    parts: list[np.ndarray] = []
    for part in map_on_cascade(_serve_chunk, scenario, jobs, workers):
        parts.append(part)
        if progress:
            progress(sum(map(len, parts)), n)
    results = [f"result_{stage}" for stage in scenario.stage_names]
    integers = [*scenario.feature_names, *scenario.decision_names, *results, "impressions", "clicks"]
    frame = pd.DataFrame(np.concatenate(parts), columns=[*integers, *OUTCOMES[2:]])
    return frame.astype(dict.fromkeys(integers, np.int16) | dict.fromkeys(OUTCOMES[2:], np.float32))


def _serve_chunk(cascade: LiveCascade, n: int, seed: list[int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    requests = cascade.sample_requests(rng, n)
    actions = behaviour_actions(cascade.scenario, requests.states, rng)
    rows = []
    for k in range(n):
        served = cascade.serve(requests.take([k]), actions[k], rng)
        rows.append(np.concatenate([requests.states[k], actions[k], served.results, served.sampled]))  # type: ignore[list-item]
    return np.stack(rows)
