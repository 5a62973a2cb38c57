"""Offline evaluation: how well a model ranks actions, and what an allocation by it earns, by a ground truth.

The revenue simulation of the paper (arXiv 2512.24325) in four steps: a ground truth of every (request, action) pair;
the action quota of a test log, which fixes the total cost; an allocation by the model's values within the quotas; its
score by the ground truth. An :class:`OfflineEvaluation` is a callable for ``train(..., evaluate=…)``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from agents.offline.rows import load_rows
from agents.offline.splits import Split
from agents.policy.allocation_policy import AllocationPolicy
from benchmarks.evaluation.metrics import ranks, return_percent, slice_errors, spearman
from benchmarks.evaluation.quota_allocation import action_quotas, quota_allocation
from marca_env.cascade.outcomes import outcome_table
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import artefact_folder
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, unknown_option

TRUTHS = ("model", "cascade")
REQUESTS = 500
"""M; with 1,000 joint actions r_s is then over half a million pairs."""
CASCADE_SEED = 71
"""Of the requests whose true outcomes judge; no log and no pool of a simulated day is drawn with it."""


@dataclass(frozen=True)
class GroundTruth:
    """True values of every pair, and what the best use of them earns under the quotas."""

    name: str
    states: np.ndarray
    """(M, F) of the requests."""
    values: np.ndarray
    """(M, J) currency per request."""
    quotas: np.ndarray
    """(J,) how often each joint action may be taken."""

    @cached_property
    def ranks(self) -> np.ndarray:
        """Of the values, (M·J,)."""
        return ranks(self.values)

    @cached_property
    def best(self) -> np.ndarray:
        """What the greedy allocation by the truth itself earns, (M,)."""
        return self.score(quota_allocation(self.values, self.quotas))

    def score(self, actions: np.ndarray) -> np.ndarray:
        """True value of an action of each request, (M,); zero for −1, a request that is not served."""
        return np.where(actions >= 0, self.values[np.arange(len(actions)), actions], 0.0)


class OfflineEvaluation:
    """Scores a model against ground truths; what does not depend on the model is worked out once.

    Args:
        scenario: of the log.
        truths: what to score against; see :meth:`from_log`.
        cost_model: expected action results, which later stages observe; ``None``: the scenario's own.

    Attributes:
        skipped: truth → why it is not among them.
    """

    def __init__(
        self,
        scenario: Scenario | str,
        truths: Sequence[GroundTruth],
        *,
        cost_model: CostModel | None = None,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        self.scenario = Scenario.load(scenario)
        self.truths, self.skipped = tuple(truths), dict(skipped or {})
        if not self.truths:
            raise InputError(f"nothing to evaluate against: {'; '.join(self.skipped.values()) or 'no truth given'}")
        self._cost_model = cost_model

    @classmethod
    def from_log(
        cls,
        log: str | Path | Sequence[str | Path],
        scenario: Scenario | str = "default",
        *,
        split: Split | None = None,
        part: str = "test",
        truths: Sequence[str] = TRUTHS,
        requests: int = REQUESTS,
        seed: int = 0,
        cascade_seed: int = CASCADE_SEED,
        progress: Callable[[int, int], None] | None = None,
    ) -> OfflineEvaluation:
        """An evaluation on the held-out rows of a log.

        Args:
            log: files, folders or globs.
            split: the one that the training was given, so that no row of it is used here; ``None``: the log is
                another than the training's, and all of it is used.
            part: ``test`` or ``validation``.
            truths: ``model``: the revenue ensemble fitted to the scenario's whole log, on requests of the part, as
                published; ``cascade``: exact outcomes of the live cascade, on as many new requests. The cascade knows
                of a request what no log shows, so that no model reaches 100 % there; it is the truth of the preset
                ``default`` only, whose log it wrote.
            requests: M of each truth.
            seed: of the requests that are taken from the part.
            cascade_seed: of the new requests; whoever has chosen anything by one takes another for the last judgement.

        Raises:
            InputError: an unknown truth, a part without rows, or no truth at hand.
        """
        scenario = Scenario.load(scenario)
        for name in truths:
            if name not in TRUTHS:
                raise InputError(unknown_option("truth", name, TRUTHS))
        rows = load_rows(log, scenario, split=split, part=part if split is not None else "train")
        joint = np.ravel_multi_index(tuple(rows["actions"].astype(np.int64).T), tuple(scenario.action_shape))
        taken = np.random.default_rng(seed).permutation(len(rows))[:requests]
        found, skipped = [], {}
        if "model" in truths:
            folder = artefact_folder(scenario) / "revenue_model"
            if folder.is_dir():
                states = rows["states"][taken].astype(np.int64)
                values = RevenueModel.load(folder).table(states)
                quotas = action_quotas(joint, values.shape[1], len(states))
                found.append(GroundTruth("model", states, values, quotas))
            else:
                skipped["model"] = f"model: scenario {scenario.name!r} has no revenue model in {folder}; run marca fit"
        if "cascade" in truths:
            if scenario.name == "default" and not scenario.differs_from(Scenario.load("default")):
                table = outcome_table(scenario, requests, cascade_seed, progress=progress)
                values = table.outcomes["revenue"]
                quotas = action_quotas(joint, values.shape[1], len(table))
                found.append(GroundTruth("cascade", table.states, values, quotas))
            else:
                skipped["cascade"] = (
                    f"cascade: its outcomes are the truth of the preset 'default', not of scenario {scenario.name!r}"
                )
        return cls(scenario, found, skipped=skipped)

    def __call__(self, algorithm: Any) -> dict[str, float]:
        """Score an algorithm in training: ``spearman_<truth>``, r_s over all pairs, and ``return_<truth>``, Return%."""
        with tempfile.TemporaryDirectory() as folder:
            policy = AllocationPolicy.load(algorithm.export_policy(folder), cost_model=self.cost_model)
        return self.score(policy.values)

    @property
    def cost_model(self) -> CostModel:
        """What tells a policy the action results to expect."""
        if self._cost_model is None:
            self._cost_model = CostModel.load(artefact_folder(self.scenario) / "cost_model")
        return self._cost_model

    def score(self, values: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        """Score a value function: states (M, F) → values (M, J). A model that has diverged scores nan."""
        found: dict[str, float] = {}
        for truth in self.truths:
            believed = values(truth.states)
            usable = bool(np.isfinite(believed).all())
            found[f"spearman_{truth.name}"] = (
                spearman(believed, truth.values, true_ranks=truth.ranks) if usable else float("nan")
            )
            found[f"return_{truth.name}"] = (
                return_percent(truth.score(quota_allocation(believed, truth.quotas)), truth.best)
                if usable
                else float("nan")
            )
        return found

    def slices(self, values: Callable[[np.ndarray], np.ndarray], truth: str = "model") -> dict[str, dict[str, float]]:
        """Errors over slices of the requests, each at the action that the truth's own allocation gives it: all, user
        value, time window × placement, and every decision; see :func:`benchmarks.evaluation.metrics.slice_errors`."""
        chosen = {t.name: t for t in self.truths}
        if truth not in chosen:
            raise InputError(unknown_option("truth", truth, chosen))
        known = chosen[truth]
        actions = quota_allocation(known.values, known.quotas)
        rows = np.arange(len(actions))
        groups = request_slices(self.scenario, known.states, self.scenario.joint_actions[actions])
        return slice_errors(values(known.states)[rows, actions], known.values[rows, actions], groups)


def request_slices(scenario: Scenario, states: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
    """Groups of requests for :func:`benchmarks.evaluation.metrics.slice_errors`: name → (M,) int.

    Args:
        states: (M, F).
        actions: (M, D) option indices.
    """
    column = {name: states[:, k] for k, name in enumerate(scenario.feature_names)}
    found = {"all": np.zeros(len(states), dtype=np.int64)}
    if "uv" in column:
        found["uv"] = column["uv"]
    if {"w", "g"} <= set(column):
        found["w×g"] = column["w"] * int(scenario.feature_sizes[scenario.feature_names.index("g")]) + column["g"]
    return found | {name: actions[:, d] for d, name in enumerate(scenario.decision_names)}
