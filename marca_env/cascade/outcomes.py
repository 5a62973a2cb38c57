"""Exact outcomes of every joint action for a pool of requests.

The joint actions of a request share their work: each channel runs once at its longest recall, each model scores a
candidate once, and the queues of the actions are masks over the same candidates.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from marca_env.cascade.cascade import LiveCascade, RequestPlan
from marca_env.cascade.parallel import map_on_cascade
from marca_env.cascade.world import RequestBatch
from marca_env.logs.schema import OUTCOMES
from marca_env.scenario.scenario import CHANNELS, Scenario
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import atomic_path
from marca_env.utils.progress import ProgressCallback

_VERSION = 5
_CHUNK = 64


@dataclass(frozen=True)
class OutcomeTable:
    """Results and true expected outcomes of every joint action for each of M requests."""

    scenario: Scenario
    states: np.ndarray
    """Observable features, int64 (M, F)."""
    results: np.ndarray
    """Candidates processed by each stage, float32 (M, J, S)."""
    outcomes: dict[str, np.ndarray]
    """True expected impressions, clicks, revenue and gmv (currency), float32 (M, J) each."""

    def __len__(self) -> int:
        return len(self.states)


class DistinctPlans:
    """Distinct retrieval plans (K heads) and truncations behind the joint actions.

    Joint actions that differ only in lengths of channels that are off share a plan.
    """

    def __init__(self, cascade: LiveCascade) -> None:
        plans = [cascade.plan(a) for a in cascade.scenario.joint_actions]
        heads = [self._head(p) for p in plans]
        self.heads = sorted(set(heads))
        self.truncations = np.array(sorted({p.truncation for p in plans}))
        index_of = {head: k for k, head in enumerate(self.heads)}
        self.head_of = np.array([index_of[h] for h in heads])
        """Retrieval plan of each joint action, (J,)."""
        self.truncation_of = np.searchsorted(self.truncations, [p.truncation for p in plans])
        """Truncation of each joint action, (J,)."""

    @staticmethod
    def _head(plan: RequestPlan) -> tuple[tuple[int, ...], bool]:
        """Return the recall length of each channel (0: off; −1: its fixed length) and whether re-scoring runs."""
        return tuple(plan.lengths.get(c, -1) if c in plan.channels else 0 for c in CHANNELS), plan.rescoring


def evaluate_joint_actions(
    cascade: LiveCascade, plans: DistinctPlans, request: RequestBatch
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate all joint actions for a batch of one request: results (J, S) and outcomes (J, 4)."""
    lists = {c: cascade.run_channel(c, request) for c in CHANNELS}
    items = np.unique(np.concatenate(list(lists.values())))
    rank = np.full((len(CHANNELS), len(items)), np.iinfo(np.int32).max)
    for k, c in enumerate(CHANNELS):
        rank[k, np.searchsorted(items, lists[c])[::-1]] = np.arange(len(lists[c]))[::-1]
    merged, passed = _retrieval(cascade, plans, request, items, rank)
    order = np.argsort(-cascade.run_pre_ranking(request, items), kind="stable")
    position = np.cumsum(passed[:, order], axis=1)
    ranked = passed[:, None, order] & (position[:, None, :] <= plans.truncations[:, None])  # (heads, L, n)
    ever_ranked = np.flatnonzero(ranked.any(axis=(0, 1)))
    ranked, finalists = ranked[:, :, ever_ranked], items[order[ever_ranked]]
    by_rank = np.argsort(-cascade.run_ranking(request, finalists), kind="stable")
    ranked = ranked[:, :, by_rank]
    slot = np.cumsum(ranked, axis=2, dtype=np.int16)
    slots = cascade.world.slots[request.placement[0]]
    examined = np.where(  # probability that the user examines the item
        ranked & (slot <= slots),
        (cascade.scenario.display.decay ** np.arange(-1, slots + 1))[np.minimum(slot, slots)],
        0.0,
    )
    shown = examined.any(axis=(0, 1))
    expected_value = cascade.expected_value(request, finalists[by_rank[shown]])
    outcome = np.concatenate([examined.sum(axis=2, keepdims=True), examined[:, :, shown] @ expected_value], axis=2)
    queue = passed.sum(axis=1)
    heads, cuts = plans.head_of, plans.truncation_of
    results = np.stack([merged[heads], queue[heads], np.minimum(queue[heads], plans.truncations[cuts])], axis=1)
    return results.astype(np.float32), outcome[heads, cuts].astype(np.float32)


def _retrieval(
    cascade: LiveCascade, plans: DistinctPlans, request: RequestBatch, items: np.ndarray, rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the merged candidates (heads,) and the mask of the queue (heads, n) of each retrieval plan."""
    eligible = cascade.world.eligible[request.placement[0], items]
    personal = -cascade.run_rescoring(request, items)
    turn = rank.astype(np.float64) * len(CHANNELS) + np.arange(len(CHANNELS))[:, None]
    merged = np.empty(len(plans.heads), dtype=np.int64)
    passed = np.empty((len(plans.heads), len(items)), dtype=bool)
    for k, (lengths, rescoring) in enumerate(plans.heads):
        limit = np.array([np.iinfo(np.int32).max if n < 0 else n for n in lengths])
        member = rank < limit[:, None]
        inside = member.any(axis=0)
        merged[k] = inside.sum()
        inside &= eligible
        passed[k] = inside
        if inside.sum() > cascade.queue_limit:
            key = personal if rescoring else np.where(member, turn, np.inf).min(axis=0)
            candidates = np.flatnonzero(inside)
            worst = candidates[np.argpartition(key[candidates], cascade.queue_limit - 1)[cascade.queue_limit :]]
            passed[k, worst] = False
    return merged, passed


# -- pools ------------------------------------------------------------------------------------------------
def _evaluate_chunk(cascade: LiveCascade, requests: RequestBatch) -> tuple[np.ndarray, np.ndarray]:
    plans = DistinctPlans(cascade)
    pairs = [evaluate_joint_actions(cascade, plans, requests.take([k])) for k in range(len(requests))]
    return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])


def outcome_table(
    scenario: Scenario | str,
    n: int,
    seed: int,
    *,
    workers: int | None = None,
    cache: Path | None = None,
    progress: ProgressCallback | None = None,
) -> OutcomeTable:
    """Compute the exact outcomes of all joint actions for ``n`` requests drawn with ``seed``.

    The result does not depend on ``workers`` (default: one process per core). It is stored in ``cache`` (default:
    :func:`cache_folder`) and read from there the next time.
    """
    scenario = Scenario.load(scenario)
    path = (cache or cache_folder()) / f"outcomes-{_fingerprint(scenario, n, seed)}.npz"
    if path.is_file():
        return _read(scenario, path)
    requests = LiveCascade(scenario).sample_requests(np.random.default_rng([seed, 2]), n)
    chunks = [(requests.take(slice(k, k + _CHUNK)),) for k in range(0, n, _CHUNK)]
    results, outcomes = [], []
    for part in map_on_cascade(_evaluate_chunk, scenario, chunks, workers):
        results.append(part[0])
        outcomes.append(part[1])
        if progress:
            progress(sum(map(len, results)), n)
    outcome = np.concatenate(outcomes)
    columns = {name: np.ascontiguousarray(outcome[:, :, k]) for k, name in enumerate(OUTCOMES)}
    table = OutcomeTable(scenario, requests.states, np.concatenate(results), columns)
    _write(table, path)
    return table


def cache_folder() -> Path:
    """Return the folder of stored outcome tables: ``MARCA_CACHE``, or ``marca-env`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MARCA_CACHE") or Path(base) / "marca-env")


def _fingerprint(scenario: Scenario, n: int, seed: int) -> str:
    """Hash everything that outcomes depend on; budgets and traffic are left out."""
    data = scenario.to_dict()
    for key in (
        "clusters",
        "peak_qps",
        "protection",
        "control_period",
        "name",
        "version",
        "channels",
        "traffic",
        "site",
        "window",
        "prices",
        "latency",
        "agent_kind",
    ):
        data.pop(key, None)
    text = json.dumps([_VERSION, data, n, seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(table: OutcomeTable, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, states=table.states, results=table.results.astype(np.uint16), **table.outcomes)  # type: ignore[arg-type]


def _read(scenario: Scenario, path: Path) -> OutcomeTable:
    try:
        with np.load(path) as data:
            outcomes = {name: data[name] for name in OUTCOMES}
            return OutcomeTable(scenario, data["states"], data["results"].astype(np.float32), outcomes)
    except (BadZipFile, KeyError, ValueError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: stored outcomes cannot be read ({one_line(error)[:120]}); delete the file, and they will be "
            "computed again"
        ) from None
