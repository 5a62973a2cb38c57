"""Allocation under quotas: speed of the greedy rule beside a plain loop, and its value beside the optimum.

Pairs are requests × joint actions of the default scenario, quotas those of its request log; values are the fitted
revenue model's or random. The published samples of quotas and scores go through the same rule if their folder is
available: see :func:`benchmarks.suite.public_data.sample_folder`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.evaluation.allocation_files import sample_returns
from benchmarks.evaluation.quota_allocation import action_quotas, best_allocation, quota_allocation, quota_bound
from benchmarks.experiments.allocation import report_tables
from benchmarks.suite.api import Case, Row
from benchmarks.suite.public_data import sample_folder
from marca_env.logs.log_files import read_request_log
from marca_env.models.engine import Engine, artefact_folder

ALONE = True
SEEDS = (0, 1, 2)
GREEDY, PUBLISHED = "quota-greedy", "published samples"
REQUESTS = (100, 1_000, 3_000)
"""Numbers of requests; with 1,000 joint actions each, a tenth of a million to three million pairs."""
VALUES = ("model", "random")
PROGRAM_REQUESTS = 100
"""Up to this number of requests the linear program is solved beside the assignment; it takes a second."""
REPEATS = 7


def cases(*, quick: bool, seeds: Sequence[int]) -> list[Case]:
    """Return every size with both kinds of values, then the published samples."""
    sizes, timing = ((20, 60), {"repeats": 3}) if quick else (REQUESTS, {"repeats": REPEATS})
    greedy_cases = [
        Case(GREEDY, seed, task=f"{n} requests, {values}", budget={"requests": n}, config={"values": values} | timing)
        for seed in seeds
        for n in sizes
        for values in VALUES
    ]
    available = sample_folder().is_dir()  # part of the case, so that they are measured once they are available
    return [*greedy_cases, Case(PUBLISHED, 0, scenario="published", task="ten rows", config={"given": available})]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Return seconds of the rule and of the loop, measured in turn, and the value as a share of the optimum."""
    if case.method == PUBLISHED:
        return _published_returns()
    values, quotas = _problem(case)
    greedy, loop, identical = _time_rules(values, quotas, int(case.config["repeats"]))
    return {
        "pairs": values.size,
        "greedy_seconds": greedy,
        "loop_seconds": loop,
        "ratio": statistics.median(b / a for a, b in zip(greedy, loop, strict=True)),
        "identical": identical,
        **_optimum(values, quotas),
    }


def plain_loop(values: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Do the same as :func:`~benchmarks.evaluation.quota_allocation.quota_allocation` in a loop over the sorted pairs.

    It stops when all requests are served.

    Args:
        values: (M, J).
        quotas: (J,).

    Returns:
        (M,) joint actions; −1 without one.
    """
    requests, n_actions = values.shape
    actions, remaining, unserved = [-1] * requests, quotas.tolist(), requests
    for pair in np.argsort(-values, axis=None, kind="stable").tolist():
        request, action = divmod(pair, n_actions)
        if actions[request] < 0 and remaining[action] > 0:
            actions[request] = action
            remaining[action] -= 1
            unserved -= 1
            if not unserved:
                break
    return np.array(actions)


def _problem(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return values (M, J) and quotas (J,)."""
    requests = int(case.budget["requests"])
    engine = Engine.load(case.scenario)
    scenario, rng = engine.scenario, np.random.default_rng([case.seed, 41])
    log = read_request_log(artefact_folder(scenario) / "requests.parquet", scenario)
    actions = scenario.joint_index(log[list(scenario.decision_names)].to_numpy())
    quotas = action_quotas(actions, scenario.n_joint_actions, requests)
    if case.config["values"] == "random":
        return rng.random((requests, scenario.n_joint_actions), dtype=np.float32), quotas
    return engine.table(engine.sample_states(rng, requests))[0], quotas


def _time_rules(values: np.ndarray, quotas: np.ndarray, repeats: int) -> tuple[list[float], list[float], bool]:
    rules: tuple[Callable[..., np.ndarray], ...] = (quota_allocation, plain_loop)
    times: tuple[list[float], list[float]] = ([], [])
    allocations = [rule(values, quotas) for rule in rules]  # also warms up caches
    for _ in range(repeats):
        for rule, seconds in zip(rules, times, strict=True):
            start = time.perf_counter()
            rule(values, quotas)
            seconds.append(time.perf_counter() - start)
    return *times, bool((allocations[0] == allocations[1]).all())


def _optimum(values: np.ndarray, quotas: np.ndarray) -> dict[str, Any]:
    """Return shares of the optimum, and the gap from it to the dual bound, which no allocation exceeds."""
    exact = values.astype(np.float64)

    def total_value(actions: np.ndarray) -> float:
        return float(exact[np.arange(len(exact)), actions].sum())

    start = time.perf_counter()
    actions = best_allocation(exact, quotas, method="assignment")
    numbers: dict[str, Any] = {"assignment_seconds": time.perf_counter() - start}
    best, bound = total_value(actions), quota_bound(exact, quotas, actions)
    if len(values) <= PROGRAM_REQUESTS:
        start = time.perf_counter()
        program = best_allocation(exact, quotas, method="program")
        numbers |= {"program_seconds": time.perf_counter() - start, "program_share": total_value(program) / best}
    greedy = total_value(quota_allocation(values, quotas))
    return {
        **numbers,
        "share_of_optimum": greedy / best,
        "share_of_bound": greedy / bound,
        "bound_gap": bound / best - 1,
    }


def _published_returns() -> dict[str, Any]:
    folder = sample_folder()
    if not folder.is_dir():
        return {"skipped": "skipped: no published samples; set MARCA_SAMPLES to their folder"}
    return {"return_percent": sample_returns(folder)}


def tables(rows: Sequence[Row]) -> Iterable[Table]:
    """Return speed, value, and Return% of the published samples."""
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.case.method == GREEDY:
            by_task.setdefault(row.case.task, []).append(row.numbers)
    if by_task:
        yield from report_tables.greedy_tables(by_task)
    for row in rows:
        if row.case.method == PUBLISHED:
            yield report_tables.samples_table(row.numbers)
