"""Check of a latency map: predicted against measured quantiles of joint actions that the map was not fitted to.

A cost log holds such measurements in its rows of ``joint_action`` (``marca testbench --joint-actions N``): the stages
of a cluster, one after the other, under a single joint action. The map is fitted to the rows of single components.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from marca_env.models.latency import Duration, mixture_quantiles
from marca_env.models.latency_map import LatencyMap
from marca_env.testbench.cascade_service import CascadeService

SHARES = {"p50": 0.5, "p99": 0.99}


def compare_joint_actions(latency_map: LatencyMap, cost_log: pd.DataFrame, service: CascadeService) -> pd.DataFrame:
    """Compare the map's service times with the measured ones of the live cascade's process.

    Its single thread runs channels one after the other, so that their times are added here; in the environment they run
    side by side.

    Args:
        latency_map: the map to check.
        cost_log: log with rows of ``joint_action``; repeats are reduced to their median.
        service: the service that was measured; it names the requests of the replays.

    Returns:
        A row per cluster and joint action: cluster, joint_action, p50, p99 (measured, seconds), predicted_p50 and
        predicted_p99.
    """
    rows = cost_log[cost_log["component"] == "joint_action"].dropna(subset=["latency_p50", "latency_p99"])
    compared = []
    for key, repeats in rows.groupby(["cluster", "queue_length"], sort=True):
        cluster, joint = str(key[0]), int(float(str(key[1])))
        results = service.results_of(joint)
        kinds = _cluster_time(latency_map, cluster, joint, results)
        predicted = mixture_quantiles(kinds, np.ones(len(results)), tuple(SHARES.values()))
        measured = {name: float(repeats[f"latency_{name}"].median()) for name in SHARES}
        compared.append(
            {
                "cluster": cluster,
                "joint_action": joint,
                **measured,
                **{f"predicted_{name}": float(p) for name, p in zip(SHARES, predicted, strict=True)},
            }
        )
    names = ["cluster", "joint_action", *SHARES, *(f"predicted_{name}" for name in SHARES)]
    return pd.DataFrame(compared, columns=names)


def _cluster_time(latency_map: LatencyMap, cluster: str, joint: int, results: np.ndarray) -> Duration:
    """Return the time of a cluster's stages for every request of ``results`` (n, S), (n,)."""
    scenario = latency_map.scenario
    site = int(scenario.site_clusters[:, scenario.cluster_names.index(cluster)].argmax())
    actions = np.repeat(scenario.joint_actions[joint][None], len(results), axis=0)
    time = Duration.none((len(results),))
    for k in np.flatnonzero(scenario.stage_clusters[site] == scenario.cluster_names.index(cluster)):
        time = time + latency_map.stage(int(k), actions, results[:, k], side_by_side=False)
    return time


def mean_percentage_errors(compared: pd.DataFrame) -> dict[str, float]:
    """Return the mean absolute percentage error of each quantile, a fraction."""
    return {name: float((compared[f"predicted_{name}"] / compared[name] - 1.0).abs().mean()) for name in SHARES}
