"""Decide files of requests in this process or, with Ray Data, in several processes or on a cluster."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents.policy.allocation_policy import COSTS, DESCRIPTION, WEIGHTS, AllocationPolicy, policy_folder
from benchmarks.serving.batch import BatchDecider
from benchmarks.serving.batch_files import FileResult, FileTask, decide_file
from benchmarks.serving.request_states import RequestStates
from marca_env.integration.feature_coding import FILE as FEATURES
from marca_env.models.engine import artefact_folder
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, SystemFaultError
from marca_env.utils.files import remove_leftovers

_MOST_BLOCKS = 10_000  # of Ray Data; more files share blocks
Advance = Callable[[int], object]


@dataclass(frozen=True)
class BatchJob:
    """Everything that decisions of files depend on, and how they are made; workers rebuild the decider from it."""

    policy: str
    """Policy folder; workers on other machines need it at the same path."""
    policy_sum: str
    """SHA-256 sum of its files (:func:`policy_sum`)."""
    prices: tuple[float, ...]
    static_action: tuple[int, ...]
    features: str | None = None
    """Coding of raw features; ``None``: requests hold codes."""
    features_sum: str = ""
    keys: tuple[str, ...] = ()
    with_values: bool = False
    batch_size: int = 65_536
    trust: tuple[str, ...] = ()
    device: str = "cpu"
    """Device of the policy, of every worker."""

    def settings(self) -> dict[str, Any]:
        """Return what the decisions depend on, as JSON; the cutting into batches is no part of it."""
        return {
            "policy": self.policy_sum,
            "prices": list(self.prices),
            "static action": list(self.static_action),
            "features": self.features_sum,
            "keys": list(self.keys),
            "values": self.with_values,
        }

    def build(self, policy: AllocationPolicy | None = None) -> BatchDecider:
        """Build the decider; ``policy``: the loaded policy, ``None``: load it.

        Raises:
            InputError: the policy or the coding has changed since the job was made, or cannot be loaded.
        """
        if policy is None:
            policy = AllocationPolicy.load(self.policy, trust=self.trust, device=self.device)
        if policy_sum(self.policy, policy.scenario) != self.policy_sum or file_sum(self.features) != self.features_sum:
            raise InputError(f"{self.policy}: the policy or its features.json changed meanwhile; run the command again")
        states = RequestStates.load(policy.scenario, self.features)
        return BatchDecider(policy, states, self.prices, self.static_action, self.keys, with_values=self.with_values)


def policy_sum(path: str | Path, scenario: Scenario) -> str:
    """Return the SHA-256 sum of the files of a policy, of its cost model or, without one, of the shipped one."""
    folder = policy_folder(path)
    costs = folder / COSTS if (folder / COSTS).is_dir() else artefact_folder(scenario) / COSTS
    files = [folder / DESCRIPTION, folder / WEIGHTS, *sorted(p for p in costs.rglob("*") if p.is_file())]
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name}:{file_sum(file)}\n".encode())
    return total.hexdigest()


def file_sum(path: str | Path | None) -> str:
    """Return the SHA-256 sum of a file, or of the coding in a folder; "" of ``None``."""
    if path is None:
        return ""
    path = Path(path)
    with (path / FEATURES if path.is_dir() else path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class JobResult:
    """Sums over the files that a run decided, and the files that could not be."""

    files: int = 0
    rows: int = 0
    status: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def add(self, outcome: FileResult | InputError) -> None:
        """Count a file.

        Raises:
            SystemFaultError: a fault that the other files would meet, too.
        """
        if isinstance(outcome, SystemFaultError):
            raise outcome
        if isinstance(outcome, InputError):
            self.errors.append(str(outcome))
            return
        self.files += 1
        self.rows += outcome.rows
        self.status.update(outcome.status)


def run_here(job: BatchJob, tasks: Sequence[FileTask], decider: BatchDecider, advance: Advance) -> JobResult:
    """Decide the files one after the other in this process."""
    result = JobResult()
    for task in tasks:
        result.add(_attempt(decider, task, job, advance))
    return result


def run_on_ray(job: BatchJob, tasks: Sequence[FileTask], workers: int | None, advance: Advance) -> JobResult:
    """Decide the files with Ray Data on the ray that runs, each file in one process.

    A file is the unit of work: it is decided again elsewhere if its node is lost.

    Args:
        job: the job.
        tasks: the files; all nodes need them, and the folder of the results, at the same paths.
        workers: files decided at a time; ``None``: as many as there are CPUs.
        advance: called with the number of rows of each file that is done.

    Raises:
        InputError: more workers than CPUs.
    """
    import ray
    from ray.data import DataContext, TaskPoolStrategy

    available = int(ray.cluster_resources().get("CPU", 0))
    if workers is not None and workers > available:
        raise InputError(f"--workers is {workers}, but ray has {available} CPUs; give at most that many, or add nodes")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    items = [{"source": str(task.source), "target": str(task.target)} for task in tasks]
    files = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS))
    decided = files.map_batches(
        functools.partial(_decide_rows, job=job),
        batch_size=1,
        num_cpus=1,
        compute=TaskPoolStrategy(size=workers or max(available, 1)),
    )
    result = JobResult()
    for outcome in _outcomes(decided.iter_rows()):
        result.add(outcome)
        if isinstance(outcome, FileResult):
            advance(outcome.rows)
    for folder in {task.target.parent for task in tasks}:
        remove_leftovers(folder)  # of nodes that were lost half-way through a file
    return result


def _outcomes(rows: Iterator[Mapping[str, Any]]) -> Iterator[FileResult | InputError]:
    for row in rows:
        if row["error"]:
            yield (SystemFaultError if row["is_fatal"] else InputError)(row["error"])
        else:
            yield FileResult(int(row["rows"]), Counter(json.loads(row["status"])))


def _decide_rows(batch: dict[str, np.ndarray], job: BatchJob) -> dict[str, list[Any]]:
    """Decide files in a worker; a fault of a file is part of the result, so that the others go on."""
    out: dict[str, list[Any]] = {"rows": [], "status": [], "error": [], "is_fatal": []}
    for source, target in zip(batch["source"], batch["target"], strict=True):
        outcome = _attempt(_worker_decider(job), FileTask(Path(source), Path(target)), job, lambda rows: None)
        done = FileResult() if isinstance(outcome, InputError) else outcome
        out["rows"].append(done.rows)
        out["status"].append(json.dumps(done.status))
        out["error"].append(str(outcome) if isinstance(outcome, InputError) else "")
        out["is_fatal"].append(isinstance(outcome, SystemFaultError))
    return out


@functools.lru_cache(maxsize=1)
def _worker_decider(job: BatchJob) -> BatchDecider:
    """Return the decider of a worker, which lasts from file to file."""
    return job.build()


def _attempt(decider: BatchDecider, task: FileTask, job: BatchJob, advance: Advance) -> FileResult | InputError:
    try:
        return decide_file(decider, task, job.settings(), job.batch_size, advance)
    except SystemFaultError as error:
        return error
    except InputError as error:  # such as a value that is not finite: the policy knows no file
        places = str(task.source), str(task.target)
        return error if str(error).startswith(places) else InputError(f"{task.source}: {error}")
