"""Trainings from the shipped request log that are judged offline: what ranking, ablation, sensitivity and tuning run.

The log is divided by a hash of the row number: settings are chosen on the validation rows, by the ensemble; the test
rows, and the cascade's requests, judge finished runs alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.offline.splits import Split
from benchmarks.evaluation.offline_evaluation import OfflineEvaluation
from benchmarks.suite.user_methods import RUN_OPTIONS, user_options
from benchmarks.training.trials import Trial
from marca_env.models.engine import get_engine, shipped_folder
from marca_env.utils.yaml import read_mapping

if TYPE_CHECKING:
    from agents.offline.splits import Split
    from benchmarks.evaluation.offline_evaluation import OfflineEvaluation

METHODS = (
    "JointDQN",
    "JointDDQN",
    "JointDRQN",
    "AveragedDQN",
    "REM",
    "VDN",
    "WeightedQMIX",
    "QMIX",
    "AWRQMixer",
)
"""The paper's Table, in its order."""
REFERENCES = ("random values", "mean of each action", "the ensemble itself")
"""What r_s and Return% are without a model, without the request's state, and where the labels' mean is known."""
PER_ITERATION = 10
"""Gradient steps between reports."""
FINAL_RATE = 0.01
"""The learning rate falls linearly to this share of its start: labels are mostly noise, which the last steps show."""
TUNED = Path(__file__).parent / "tuned.yaml"
REQUESTS, VALIDATION_REQUESTS = 500, 300
TEST_SEED, TEST_CASCADE_SEED = 1, 72
"""Of the requests that judge; neither is used in validation."""


def log_path() -> Path:
    """The request log that comes with the default scenario."""
    return shipped_folder("default") / "requests.parquet"


def settings_of(method: str) -> dict[str, Any]:
    """The options that tuning found for a method; for one that was not tuned, those that all have in common; for one of
    one's own, what it sets itself before all.

    Raises:
        InputError: see :func:`benchmarks.suite.user_methods.user_config`.
    """
    tuned = read_mapping(TUNED)
    return {**tuned["common"], **tuned["methods"].get(method, {}), **user_options(method)}


def split() -> Split:
    """Training, validation and test rows."""
    return Split("hash", validation=0.1, test=0.1, seed=0)


@cache
def validation(requests: int = VALIDATION_REQUESTS) -> OfflineEvaluation:
    """By the ensemble, on validation rows."""
    return OfflineEvaluation.from_log(
        str(log_path()), split=split(), part="validation", truths=("model",), requests=requests
    )


@cache
def judgement(requests: int = REQUESTS) -> OfflineEvaluation:
    """By the ensemble, on test rows, and by the cascade."""
    return OfflineEvaluation.from_log(
        str(log_path()), split=split(), requests=requests, seed=TEST_SEED, cascade_seed=TEST_CASCADE_SEED
    )


def judged_reference(name: str, seed: int, requests: int = REQUESTS) -> dict[str, float]:
    """Scores of one of :data:`REFERENCES`, as :func:`run_offline` gives them in ``test``; actions' means are the
    ensemble's over the requests of the validation.
    """
    means = validation().truths[0].values.mean(axis=0)
    values: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "random values": lambda states: np.random.default_rng(seed).random((len(states), len(means))),
        "mean of each action": lambda states: np.tile(means, (len(states), 1)),
        "the ensemble itself": lambda states: get_engine("default").table(states)[0],
    }
    return judgement(requests).score(values[name])


def run_offline(
    method: str,
    seed: int,
    updates: int,
    settings: Mapping[str, Any],
    *,
    batch: int,
    requests: int = REQUESTS,
    validate_every: int = 0,
    judge: bool = True,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train from the log and judge the last policy.

    Args:
        method: a preset, or the dotted path of a configuration like one.
        seed: of weights and draws.
        updates: gradient steps.
        settings: the method's options; ``lr`` is where the learning rate starts.
        batch: requests of a gradient step.
        requests: M of each judgement.
        validate_every: updates between validations; 0: after the last only.
        judge: score the last policy on the test rows and by the cascade.
        report: called with the numbers of every validation.

    Returns:
        ``validation`` (the last numbers) and, with ``judge``, ``test``: r_s and Return% by truth; ``curve``: updates,
        r_s and Return% of every validation; ``grad_norm``: of every tenth update; ``cpu_seconds`` of the training.

    Raises:
        KeyboardInterrupt: Ctrl-C, at whatever moment: a run that has not ended is no result.
    """
    from agents.rllib import train_to_end

    whole, began, away, curve, norms = validation(), time.process_time(), 0.0, [], []

    def validate(algorithm: Any) -> dict[str, float]:
        nonlocal away
        start = time.process_time()
        found = whole(algorithm)
        away += time.process_time() - start
        return found

    def record(numbers: dict[str, Any]) -> None:
        norms.append(float(numbers.get("grad_norm", np.nan)))  # not reported where it was not finite
        if "spearman_model" in numbers:
            names = ("spearman_model", "return_model")
            curve.append({"updates": int(numbers["gradient_steps"]), **{n: numbers[n] for n in names}})
            if report is not None:
                report(curve[-1])

    algorithm, _ = train_to_end(
        configuration(method, seed, updates, settings, batch),
        stop={"gradient_steps": updates},
        record=record,
        evaluate=validate,
        evaluate_freq=max(1, (validate_every or updates) // PER_ITERATION),
    )
    try:
        cpu = time.process_time() - began - away
        found = {"validation": curve[-1], "curve": curve, "grad_norm": norms, "cpu_seconds": cpu}
        return {**found, "test": judgement(requests)(algorithm)} if judge else found
    finally:
        algorithm.stop()


def configuration(method: str, seed: int, updates: int, settings: Mapping[str, Any], batch: int) -> Any:
    """The checked configuration of :func:`run_offline`.

    An algorithm of one's own keeps what it sets itself, as in :mod:`benchmarks.experiments.marl.experiment`.

    Raises:
        InputError: an unknown method, one that does not learn from logs, or an option that it does not have.
    """
    own = user_options(method)
    options = {name: value for name, value in settings.items() if name not in own}
    rate = {**settings, **own}["lr"]
    if isinstance(rate, (int, float)):  # a schedule of one's own stays
        options["lr"] = [[0, rate], [updates * batch, FINAL_RATE * rate]]
    options |= dict(zip(RUN_OPTIONS, (batch, PER_ITERATION, "hash"), strict=True))
    return Trial(run=method, offline=str(log_path()), seed=seed, config=options).build()


def convergence(curve: Sequence[Mapping[str, float]], share: float = 0.95, of: str = "return_model") -> int:
    """Updates until a score of the validation first reaches ``share`` of its last value, or all of one below zero; the
    paper takes Return%. Of a run that has diverged, whose last value is nan: all updates.
    """
    goal = min(share * curve[-1][of], curve[-1][of])
    return int(next((row["updates"] for row in curve if row[of] >= goal), curve[-1]["updates"]))


def gradient_variance(norms: Sequence[float], window: int) -> float:
    """Variance of the gradient's norm within windows of ``window`` reports, the mean over whole windows.

    The paper's windows are 1,000 updates long; a last one that is not full is left out, unless it is the only one.
    """
    values = np.asarray(norms, float)
    window = min(window, len(values))
    whole = values[: len(values) // window * window].reshape(-1, window)
    return float(whole.var(axis=1).mean())
