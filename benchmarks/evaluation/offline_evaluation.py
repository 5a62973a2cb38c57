"""Offline evaluation: how well a model ranks actions, and what an allocation by its values earns, by a ground truth.

It is the revenue simulation of the paper (arXiv 2512.24325) in four steps: a ground truth of every (request, action)
pair; the action quota of a test log, which fixes the total cost; an allocation by the model's values within the quotas;
its score by the ground truth. r_s is Spearman's rank correlation; Return% is what the allocation earns, as a share of
what an allocation by the truth earns. An :class:`OfflineEvaluation` is a callable for ``train(..., evaluate=…)``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from agents.offline.rows import load_rows, row_states
from agents.offline.splits import Split
from agents.policy.allocation_policy import AllocationPolicy
from agents.policy.trust import named_code
from benchmarks.evaluation.metrics import ranks, return_percent, spearman
from benchmarks.evaluation.quota_allocation import action_quotas, quota_allocation
from benchmarks.evaluation.slice_calibration import request_slices, slice_errors
from marca_env.cascade.outcomes import outcome_table
from marca_env.models.cost_model import CostModel
from marca_env.models.engine import artefact_folder
from marca_env.models.revenue_model import RevenueModel
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.model_files import NotFiniteError

TRUTHS = ("model", "cascade")
REQUESTS = 500
"""Requests M of a ground truth; with 1,000 joint actions r_s is then over half a million pairs."""
CASCADE_SEED = 71
"""Seed of the test requests of the live cascade; no log and no simulated day uses it."""


@dataclass(frozen=True)
class GroundTruth:
    """True values of every (request, action) pair, and the quotas of the actions."""

    name: str
    states: np.ndarray
    """(M,W) states of the requests."""
    values: np.ndarray
    """(M, J) currency per request."""
    quotas: np.ndarray
    """(J,) number of requests that may take each joint action."""

    @cached_property
    def ranks(self) -> np.ndarray:
        """Ranks of the values, (M·J,)."""
        return ranks(self.values)

    @cached_property
    def best(self) -> np.ndarray:
        """Value that the greedy allocation by the truth itself gives each request, (M,)."""
        return self.score(quota_allocation(self.values, self.quotas))

    def score(self, actions: np.ndarray) -> np.ndarray:
        """Return the true value of one action of each request, (M,); zero for −1, a request that is not served."""
        return np.where(actions >= 0, self.values[np.arange(len(actions)), actions], 0.0)


class OfflineEvaluation:
    """Scores a model against ground truths; whatever does not depend on the model is computed once.

    Args:
        scenario: scenario of the log.
        truths: ground truths to score against; see :meth:`from_log`.
        cost_model: predicts the action results that later stages observe; ``None``: the scenario's own.
        skipped: truth → why it is not among them.

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
            raise InputError(f"no ground truth: {'; '.join(self.skipped.values()) or 'pass at least one'}")
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
        """Make an evaluation on the held-out rows of a log.

        Args:
            log: files, folders or globs.
            scenario: scenario of the log.
            split: split of the training, so that none of its rows is used here. ``None``: the log is not the
                training's, and all its rows are used.
            part: ``test`` or ``validation``.
            truths: ``model`` is the revenue ensemble fitted to the scenario's complete log, on requests of the part, as
                published. ``cascade`` is the exact outcomes of the live cascade, on as many new requests. The cascade
                knows more of a request than any log shows, so no model reaches 100 % there. It is the truth of the
                preset ``default`` only, whose log it wrote.
            requests: M of each truth.
            seed: seed of the requests that are taken from the part.
            cascade_seed: seed of the new requests. After choosing anything by one seed, use another for the final
                evaluation.
            progress: called with finished and total requests while outcomes are computed.

        Raises:
            InputError: an unknown truth, a part without rows, or no truth available.
        """
        scenario = Scenario.load(scenario)
        for name in truths:
            if name not in TRUTHS:
                raise InputError(unknown_option("truth", name, TRUTHS))
        rows = load_rows(log, scenario, split=split, part=part if split is not None else "train")
        joint = np.ravel_multi_index(tuple(rows["actions"].astype(np.int64).T), tuple(scenario.action_shape))
        sample = np.random.default_rng(seed).permutation(len(rows))[:requests]
        ground_truths, skipped = [], {}
        if "model" in truths:
            folder = artefact_folder(scenario) / "revenue_model"
            if folder.is_dir():
                states = row_states(rows[sample], scenario)
                values = RevenueModel.load(folder).table(states)
                quotas = action_quotas(joint, values.shape[1], len(states))
                ground_truths.append(GroundTruth("model", states, values, quotas))
            else:
                skipped["model"] = (
                    f"model: scenario {scenario.name!r} has no revenue model in {folder}; fit one with marca fit"
                )
        if "cascade" in truths:
            if scenario.name == "default" and not scenario.differs_from(Scenario.load("default")):
                table = outcome_table(scenario, requests, cascade_seed, progress=progress)
                values = table.outcomes["revenue"]
                quotas = action_quotas(joint, values.shape[1], len(table))
                ground_truths.append(GroundTruth("cascade", table.states, values, quotas))
            else:
                skipped["cascade"] = (
                    f"cascade: its outcomes are the truth of the preset 'default', not of scenario {scenario.name!r}"
                )
        return cls(scenario, ground_truths, skipped=skipped)

    def __call__(self, algorithm: Any) -> dict[str, float]:
        """Score an algorithm in training: ``spearman_<truth>``, r_s over all pairs, and ``return_<truth>``, Return%."""
        own_code = named_code(algorithm.config.preset().to_dict())
        with tempfile.TemporaryDirectory() as folder:
            exported = algorithm.export_policy(folder)
            try:
                policy = AllocationPolicy.load(exported, cost_model=self.cost_model, trust=own_code)
            except NotFiniteError:
                return self.score(lambda states: np.full((len(states), len(self.scenario.joint_actions)), np.nan))
        return self.score(policy.values)

    @property
    def cost_model(self) -> CostModel:
        """Cost model that predicts the action results for policies."""
        if self._cost_model is None:
            self._cost_model = CostModel.load(artefact_folder(self.scenario) / "cost_model")
        return self._cost_model

    def score(self, values: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        """Score a value function: states (M, W) → values (M, J). A model that has diverged scores nan."""
        scores: dict[str, float] = {}
        for truth in self.truths:
            predicted = values(truth.states)
            usable = bool(np.isfinite(predicted).all())
            scores[f"spearman_{truth.name}"] = (
                spearman(predicted, truth.values, true_ranks=truth.ranks) if usable else float("nan")
            )
            scores[f"return_{truth.name}"] = (
                return_percent(truth.score(quota_allocation(predicted, truth.quotas)), truth.best)
                if usable
                else float("nan")
            )
        return scores

    def slices(self, values: Callable[[np.ndarray], np.ndarray], truth: str = "model") -> dict[str, dict[str, float]]:
        """Return the errors of a value function over slices of the requests.

        Each request counts at the action that the truth's own allocation gives it; see
        :func:`benchmarks.evaluation.slice_calibration.slice_errors`.

        Raises:
            InputError: an unknown truth.
        """
        truths = {t.name: t for t in self.truths}
        if truth not in truths:
            raise InputError(unknown_option("truth", truth, truths))
        states, true = truths[truth].states, truths[truth].values
        actions = quota_allocation(true, truths[truth].quotas)
        rows = np.arange(len(actions))
        groups = request_slices(self.scenario, states, self.scenario.joint_actions[actions])
        return slice_errors(values(states)[rows, actions], true[rows, actions], groups)
