"""Training from the shipped request log, and offline evaluation of the trained policies.

The log is split by a hash of the row number. Settings are chosen on the validation rows, by the ensemble of revenue
models; the test rows, and the cascade's requests, serve to test finished runs only. The scores are r_s, Spearman's rank
correlation of Q values with true values, and Return%, the revenue of the greedy allocation over the best possible.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from agents.offline.splits import Split
from benchmarks.evaluation.offline_evaluation import OfflineEvaluation
from benchmarks.suite.user_methods import RUN_OPTIONS, user_options
from benchmarks.training.trials import Trial
from marca_env.models.engine import get_engine, shipped_folder
from marca_env.utils.yaml import read_mapping

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
"""Methods of the paper's table, in its order."""
REFERENCES = ("random values", "mean of each action", "the ensemble itself")
"""Scores without a model, without the request's state, and with the exact mean of the labels."""
PER_ITERATION = 10
"""Gradient steps between reports."""
FINAL_RATE = 0.01
"""Share of its start to which the learning rate falls linearly: labels are mostly noise, visible in the last steps."""
TUNED = Path(__file__).parent / "tuned.yaml"
REQUESTS, VALIDATION_REQUESTS = 500, 300
TEST_SEED, TEST_CASCADE_SEED = 1, 72
"""Seeds of the test requests; neither is used in validation."""


def log_path() -> Path:
    """Return the path of the request log that comes with the default scenario."""
    return shipped_folder("default") / "requests.parquet"


def tuned_settings(method: str) -> dict[str, Any]:
    """Return the options that tuning found for a method.

    A method that was not tuned has those that all have in common; what a user's method sets itself comes first.

    Raises:
        InputError: see :func:`benchmarks.suite.user_methods.user_config`.
    """
    tuned = read_mapping(TUNED)
    return {**tuned["common"], **tuned["methods"].get(method, {}), **user_options(method)}


def log_split() -> Split:
    """Return the split of the log into training, validation and test rows."""
    return Split("hash", validation=0.1, test=0.1, seed=0)


@cache
def validation_evaluation(requests: int = VALIDATION_REQUESTS) -> OfflineEvaluation:
    """Return the evaluation by the ensemble on validation rows."""
    return OfflineEvaluation.from_log(
        str(log_path()), split=log_split(), part="validation", truths=("model",), requests=requests
    )


@cache
def final_evaluation(requests: int = REQUESTS) -> OfflineEvaluation:
    """Return the evaluation by the ensemble on test rows and by the cascade."""
    return OfflineEvaluation.from_log(
        str(log_path()), split=log_split(), requests=requests, seed=TEST_SEED, cascade_seed=TEST_CASCADE_SEED
    )


def score_reference(name: str, seed: int, requests: int = REQUESTS) -> dict[str, float]:
    """Return the scores of one of :data:`REFERENCES`, as :func:`run_offline` returns them in ``test``.

    Means of actions are those of the ensemble over the requests of the validation.
    """
    means = validation_evaluation().truths[0].values.mean(axis=0)
    values: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "random values": lambda states: np.random.default_rng(seed).random((len(states), len(means))),
        "mean of each action": lambda states: np.tile(means, (len(states), 1)),
        "the ensemble itself": lambda states: get_engine("default").table(states)[0],
    }
    return final_evaluation(requests).score(values[name])


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
    """Train from the log and evaluate the last policy.

    Args:
        method: a preset, or the dotted path of a configuration that derives from one.
        seed: of weights and draws.
        updates: gradient steps.
        settings: the method's options; ``lr`` is the initial learning rate.
        batch: requests of a gradient step.
        requests: M, requests of each evaluation.
        validate_every: updates between validations; 0: validate after the last only.
        judge: score the last policy on the test rows and by the cascade.
        report: called with the numbers of every validation.

    Returns:
        ``validation`` (the last numbers) and, with ``judge``, ``test``: r_s and Return% by truth; ``curve``: updates,
        r_s and Return% of every validation; ``grad_norm``: of every tenth update; ``cpu_seconds`` of the training.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed: a run that has not ended is no result.
    """
    from agents.rllib import train_to_end

    evaluation, began, evaluation_seconds = validation_evaluation(), time.process_time(), 0.0
    curve: list[dict[str, Any]] = []
    norms: list[float] = []

    def validate(algorithm: Any) -> dict[str, float]:
        nonlocal evaluation_seconds
        start = time.process_time()
        scores = evaluation(algorithm)
        evaluation_seconds += time.process_time() - start
        return scores

    def record(numbers: dict[str, Any]) -> None:
        norms.append(float(numbers.get("grad_norm", np.nan)))  # missing where it was not finite
        if "spearman_model" in numbers:
            names = ("spearman_model", "return_model")
            curve.append({"updates": int(numbers["gradient_steps"]), **{n: numbers[n] for n in names}})
            if report is not None:
                report(curve[-1])

    algorithm, _ = train_to_end(
        offline_config(method, seed, updates, settings, batch),
        stop={"gradient_steps": updates},
        record=record,
        evaluate=validate,
        evaluate_freq=max(1, (validate_every or updates) // PER_ITERATION),
    )
    try:
        cpu_seconds = time.process_time() - began - evaluation_seconds
        numbers = {"validation": curve[-1], "curve": curve, "grad_norm": norms, "cpu_seconds": cpu_seconds}
        return {**numbers, "test": final_evaluation(requests)(algorithm)} if judge else numbers
    finally:
        algorithm.stop()


def offline_config(method: str, seed: int, updates: int, settings: Mapping[str, Any], batch: int) -> Any:
    """Return the checked configuration of :func:`run_offline`.

    A user's algorithm keeps what it sets itself.

    Raises:
        InputError: the method is unknown, does not learn from logs, or has no such option.
    """
    own = user_options(method)
    options = {name: value for name, value in settings.items() if name not in own}
    rate = {**settings, **own}["lr"]
    if isinstance(rate, (int, float)):  # a user's schedule stays as it is
        options["lr"] = [[0, rate], [updates * batch, FINAL_RATE * rate]]
    options |= dict(zip(RUN_OPTIONS, (batch, PER_ITERATION, "hash"), strict=True))
    options |= {"max_skipped_updates": None}  # a run that has diverged is a result
    return Trial(run=method, offline=str(log_path()), seed=seed, config=options).build()


def convergence(curve: Sequence[Mapping[str, float]], share: float = 0.95, of: str = "return_model") -> int:
    """Return the updates after which a score of the validation first reaches ``share`` of its last value.

    A last value below zero must be reached in full. The paper takes Return%. For a run that has diverged, whose last
    value is nan, it is all updates.
    """
    target = min(share * curve[-1][of], curve[-1][of])
    return int(next((row["updates"] for row in curve if row[of] >= target), curve[-1]["updates"]))


def gradient_variance(norms: Sequence[float], window: int) -> float:
    """Return the variance of the gradient's norm within windows of ``window`` reports, the mean over full windows.

    The paper's windows are 1,000 updates long. A last window that is not full is left out unless it is the only one.
    """
    values = np.asarray(norms, float)
    window = min(window, len(values))
    windows = values[: len(values) // window * window].reshape(-1, window)
    return float(windows.var(axis=1).mean())
