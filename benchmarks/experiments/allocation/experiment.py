"""Allocation under quotas: the speed of the greedy rule beside a plain loop, and what it leaves to the optimum.

Pairs are requests × joint actions of the default scenario, quotas those of its request log; values are the fitted
revenue model's or random. The published samples of quotas and scores run through the same rule where their folder is
given: see :func:`benchmarks.suite.public_data.sample_folder`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.evaluation.published_samples import sample_returns
from benchmarks.evaluation.quota_allocation import action_quotas, best_allocation, quota_allocation, quota_bound
from benchmarks.suite.api import Case, Row
from benchmarks.suite.public_data import sample_folder
from marca_env.logs.log_files import read_request_log
from marca_env.models.engine import Engine, artefact_folder

ALONE = True
SEEDS = (0, 1, 2)
GREEDY, PUBLISHED = "quota-greedy", "published samples"
REQUESTS = (100, 1_000, 3_000)
"""Of 1,000 joint actions each: a tenth of a million pairs, a million, three millions."""
VALUES = ("model", "random")
PROGRAM_REQUESTS = 100
"""Up to so many requests the linear program is solved beside the assignment; it takes a second."""
REPEATS = 7


def cases(*, quick: bool, seeds: Sequence[int]) -> list[Case]:
    """Every size with both kinds of values, then the published samples."""
    sizes, timing = ((20, 60), {"repeats": 3}) if quick else (REQUESTS, {"repeats": REPEATS})
    found = [
        Case(GREEDY, seed, task=f"{n} requests, {values}", budget={"requests": n}, config={"values": values} | timing)
        for seed in seeds
        for n in sizes
        for values in VALUES
    ]
    given = sample_folder().is_dir()  # part of the case, so that they are read once somebody gives them
    return [*found, Case(PUBLISHED, 0, scenario="published", task="ten rows", config={"given": given})]


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Seconds of the rule and of the loop, by turns; value of the greedy allocation over the optimum's."""
    if case.method == PUBLISHED:
        return _published()
    values, quotas = _problem(case)
    fast, slow, alike = _timed(values, quotas, int(case.config["repeats"]))
    return {
        "pairs": values.size,
        "greedy_seconds": fast,
        "loop_seconds": slow,
        "ratio": statistics.median(b / a for a, b in zip(fast, slow, strict=True)),
        "identical": alike,
        **_optimum(values, quotas),
    }


def plain_loop(values: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """What :func:`benchmarks.evaluation.quota_allocation.quota_allocation` does, as a loop over the sorted pairs; stops when all
    requests are served.
    """
    requests, n_actions = values.shape
    chosen, left, free = [-1] * requests, quotas.tolist(), requests
    for pair in np.argsort(-values, axis=None, kind="stable").tolist():
        request, action = divmod(pair, n_actions)
        if chosen[request] < 0 and left[action] > 0:
            chosen[request] = action
            left[action] -= 1
            free -= 1
            if not free:
                break
    return np.array(chosen)


def _problem(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Values (M, J) and quotas (J,)."""
    requests = int(case.budget["requests"])
    engine = Engine.load(case.scenario)
    scenario, rng = engine.scenario, np.random.default_rng([case.seed, 41])
    log = read_request_log(artefact_folder(scenario) / "requests.parquet", scenario)
    actions = scenario.joint_index(log[list(scenario.decision_names)].to_numpy())
    quotas = action_quotas(actions, scenario.n_joint_actions, requests)
    if case.config["values"] == "random":
        return rng.random((requests, scenario.n_joint_actions), dtype=np.float32), quotas
    return engine.table(engine.sample_states(rng, requests))[0], quotas


def _timed(values: np.ndarray, quotas: np.ndarray, repeats: int) -> tuple[list[float], list[float], bool]:
    rules: tuple[Callable[..., np.ndarray], ...] = (quota_allocation, plain_loop)
    taken: tuple[list[float], list[float]] = ([], [])
    found = [rule(values, quotas) for rule in rules]  # warms caches, too
    for _ in range(repeats):
        for rule, seconds in zip(rules, taken, strict=True):
            start = time.perf_counter()
            rule(values, quotas)
            seconds.append(time.perf_counter() - start)
    return *taken, bool((found[0] == found[1]).all())


def _optimum(values: np.ndarray, quotas: np.ndarray) -> dict[str, Any]:
    """Shares of the optimum, and how far the dual bound, which no allocation passes, is above it."""
    exact = values.astype(np.float64)

    def worth(chosen: np.ndarray) -> float:
        return float(exact[np.arange(len(exact)), chosen].sum())

    start = time.perf_counter()
    chosen = best_allocation(exact, quotas, method="assignment")
    found: dict[str, Any] = {"assignment_seconds": time.perf_counter() - start}
    best, bound = worth(chosen), quota_bound(exact, quotas, chosen)
    if len(values) <= PROGRAM_REQUESTS:
        start = time.perf_counter()
        program = best_allocation(exact, quotas, method="program")
        found |= {"program_seconds": time.perf_counter() - start, "program_share": worth(program) / best}
    greedy = worth(quota_allocation(values, quotas))
    return {**found, "share_of_optimum": greedy / best, "share_of_bound": greedy / bound, "bound_gap": bound / best - 1}


def _published() -> dict[str, Any]:
    folder = sample_folder()
    if not folder.is_dir():
        return {"skipped": "skipped: no published samples; MARCA_SAMPLES names their folder"}
    return {"return_percent": sample_returns(folder)}


# -- tables ---------------------------------------------------------------------------------------------------------
def tables(rows: Sequence[Row]) -> Iterable[Any]:
    """Speed, value, and Return% of the published samples."""
    measured = [row for row in rows if row.case.method == GREEDY]
    by_task = {
        t: [r.numbers for r in measured if r.case.task == t] for t in dict.fromkeys(r.case.task for r in measured)
    }
    if by_task:
        yield _filled(
            Table(title="greedy allocation within quotas: medians over repeats and seeds", title_justify="left"),
            ("pairs", "this rule, s", "plain loop, s", "ratio", "the same"),
            {task: _speed(found) for task, found in by_task.items()},
        )
        yield _filled(
            Table(
                title="its value, and what the optimum takes: mean shares, largest gap, median times",
                title_justify="left",
            ),
            ("of the optimum", "of the dual bound", "bound over optimum", "assignment, s", "linear program, s"),
            {task: _value(found) for task, found in by_task.items()},
        )
    for row in rows:
        if row.case.method == PUBLISHED:
            yield _samples(row.numbers)


def _filled(table: Any, columns: Sequence[str], cells: Mapping[str, Sequence[str]]) -> Any:
    table.add_column("problem", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in cells.items():
        table.add_row(name, *row)
    return table


def _speed(found: Sequence[Mapping[str, Any]]) -> list[str]:
    fast, slow = (statistics.median(x for f in found for x in f[k]) for k in ("greedy_seconds", "loop_seconds"))
    ratio = statistics.median(f["ratio"] for f in found)
    alike = "yes" if all(f["identical"] for f in found) else "NO"
    return [f"{found[0]['pairs']:,}", f"{fast:.3f}", f"{slow:.3f}", f"{ratio:.1f}", alike]


def _value(found: Sequence[Mapping[str, Any]]) -> list[str]:
    shares = [f"{statistics.mean(f[k] for f in found):.2%}" for k in ("share_of_optimum", "share_of_bound")]
    gap = max(f["bound_gap"] for f in found)
    program = [f["program_seconds"] for f in found if "program_seconds" in f]
    seconds = statistics.median(f["assignment_seconds"] for f in found)
    return [*shares, f"{gap:.0e}", f"{seconds:.2f}", f"{statistics.median(program):.2f}" if program else "–"]


def _samples(numbers: Mapping[str, Any]) -> Any:
    table = Table(title="published samples (ten rows, published with the method, other data)", title_justify="left")
    table.add_column("allocation")
    table.add_column("Return%", justify="right")
    if "skipped" in numbers:
        table.add_row(str(numbers["skipped"]), "–")
    for name, value in numbers.get("return_percent", {}).items():
        table.add_row(name, f"{value:.1f}")
    return table
