"""A day of traffic under several policies or balancers, from Python: what `marca simulate` and `marca balance` do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.days import balancer_report, compare_policies
from benchmarks.days.compare_balancers import BalanceOptions, BalancerComparison, means
from benchmarks.days.policies import POLICIES
from benchmarks.training.default_learner import ITERATIONS
from marca_env.scenario.scenario import Scenario
from marca_env.traffic.time_series import TraceOptions


def simulate_day(
    policies: Sequence[Any] = POLICIES,
    *,
    scenario: str | Path | Scenario = "default",
    trace: str | Path | None = None,
    minutes: int = 1440,
    start: str | None = None,
    trace_options: TraceOptions | None = None,
    seeds: Sequence[int] = (0,),
    requests: int = 3000,
    checkpoint: str | Path | None = None,
    single_checkpoint: str | Path | None = None,
    iterations: int = ITERATIONS,
    out: str | Path | None = None,
) -> pd.DataFrame:
    """Replay a day of traffic under several allocation policies, with true outcomes, as `marca simulate` does.

    Args:
        policies: names of :data:`benchmarks.days.policies.POLICIES`, or your own: a class, an object, or the dotted
            path of a class. It needs ``decide(states, prices) -> actions``
            (:class:`benchmarks.days.user_code.UserAllocation`).
        scenario: preset, YAML file, folder of `marca fit`, or a scenario.
        trace: file with the traffic, rescaled to the scenario's peak; ``None``: an embedded day.
        minutes: length of the replay.
        start: first minute of the trace, such as ``2014-07-08``.
        trace_options: columns, time zone, gaps and outliers of the trace.
        seeds: seeds of the arrivals; all policies meet the same.
        requests: test requests on which the policies are compared.
        checkpoint: policy folder of the marca policies; ``None``: train one and store it.
        single_checkpoint: policy folder of ``rl-mpca``; ``None``: train one and store it.
        iterations: training iterations where a checkpoint is missing.
        out: folder for the files of `marca simulate`, ``minutes.csv`` among them; ``None``: nothing is written.

    Returns:
        A row per policy: ``revenue`` (currency, mean over seeds), ``uplift`` over ``static`` with ``uplift_low`` and
        ``uplift_high`` (95 %), ``bound_share`` of the clairvoyant bound, ``gmv``, ``impressions``, ``clicks``, ``ctr``,
        ``roi``, and by cluster the utilisation ``mu_<cluster>`` and over-utilisation ``nu_<cluster>``.

    Raises:
        InputError: wrong input; a policy of yours failed, or returned something wrong.
    """
    day = compare_policies.Day.prepare(
        scenario=scenario,
        trace=None if trace is None else str(trace),
        minutes=minutes,
        start=start,
        trace_options=trace_options,
        policies=policies,
        seeds=seeds,
        checkpoint=None if checkpoint is None else str(checkpoint),
        single_checkpoint=None if single_checkpoint is None else str(single_checkpoint),
        requests=requests,
        iterations=iterations,
    )
    frame = day.run()
    report = compare_policies.summarise if out is None else partial(compare_policies.report, out=Path(out))
    summary = report(day, frame)
    rows = {}
    for name, row in summary["policies"].items():
        low, high = row["uplift_interval"] or (None, None)
        rows[name] = {
            **{k: row[k] for k in ("revenue", "uplift")},
            "uplift_low": low,
            "uplift_high": high,
            **{k: row[k] for k in ("bound_share", "gmv", "impressions", "clicks", "ctr", "roi")},
            **{f"mu_{c}": v for c, v in row["utilisation"].items()},
            **{f"nu_{c}": v for c, v in row["overutilisation"].items()},
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def balance_day(methods: Sequence[Any] | None = None, *, out: str | Path | None = None, **options: Any) -> pd.DataFrame:
    """Replay a day of traffic under several balancers of the price of computation, as `marca balance` does.

    Args:
        methods: names of :data:`benchmarks.days.balancers.METHODS`, or your own: a class, an object, or the dotted path
            of a class. It needs ``update(observation) -> prices``; ``reset()`` is called at the start of a day.
        out: folder for the files of `marca balance`, ``minutes.csv`` among them; ``None``: nothing is written.
        options: other fields of :class:`benchmarks.days.compare_balancers.BalanceOptions`, such as ``scenario``,
            ``trace``, ``minutes``, ``seeds`` and ``requests``.

    Returns:
        A row per method, means over seeds: ``revenue`` (currency), ``bound_share`` of the dual bound, by cluster and
        for ``all`` the utilisation ``mu_<cluster>`` and over-utilisation ``nu_<cluster>``; also ``priced_mu_…`` and
        ``priced_nu_…`` over the minutes in which computation has a price, ``travel``, ``degraded`` and ``lost``.

    Raises:
        InputError: wrong input; a balancer of yours failed, or returned something wrong.
    """
    given = options if methods is None else {"methods": methods, **options}
    comparison = BalancerComparison.prepare(BalanceOptions.of(given), None if out is None else Path(out))
    comparison.run()
    if out is not None:
        balancer_report.report(comparison, Path(out))
    rows: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["method"] for row in comparison.rows):
        mean = means([row for row in comparison.rows if row["method"] == name and not row["settings"]])
        rows[name] = {"revenue": mean["revenue"], "bound_share": mean["bound_share"]}
        for key in ("mu", "nu", "priced_mu", "priced_nu"):
            rows[name] |= {f"{key}_{cluster}": value for cluster, value in mean[key].items()}
        rows[name] |= {key: mean[key] for key in ("travel", "degraded", "lost")}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
