"""Allocation under action quotas: the greedy rule of the revenue simulation, and the optimal allocation.

The revenue simulation of the paper (arXiv 2512.24325) fixes the total cost: each joint action may be taken as often as
in the test log. Actions are then given out by a model's values. M requests, J joint actions.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment, linprog

from benchmarks.evaluation.metrics import rising_order
from marca_env.utils.errors import InputError

BLOCK = 1 << 13
"""Pairs processed at once; most are of requests that are already served or of actions that are used up."""
LARGEST_ASSIGNMENT = 4_000
"""Most requests for which the optimum is found as an assignment; for more it is found as a linear program."""


def action_quotas(actions: np.ndarray, n_actions: int, requests: int) -> np.ndarray:
    """Return how often each joint action may be taken: the log's histogram, scaled to a number of requests.

    Args:
        actions: (N,) joint action of each row of the log, 0 … J − 1.
        n_actions: J.
        requests: M; what rounding down leaves goes to the largest remainders.

    Returns:
        (J,) int64 that sums to ``requests``.

    Raises:
        InputError: no rows.
    """
    if len(actions) == 0:
        raise InputError("action quotas: the log has no rows; use a log with rows")
    share = np.bincount(actions, minlength=n_actions) * (requests / len(actions))
    quotas = np.floor(share + 1e-9).astype(np.int64)
    behind = np.argsort(quotas - share, kind="stable")[: requests - int(quotas.sum())]
    quotas[behind] += 1
    return quotas


def quota_allocation(values: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Allocate greedily: take pairs from the most valuable down while their request is free and their action is left.

    Ties go to the lower request, then to the lower action. The result is that of the plain loop over all pairs; many
    pairs that can no longer matter are removed at once before the loop.

    Args:
        values: (M, J); −inf for actions that a request may not get.
        quotas: (J,) integers.

    Returns:
        (M,) int64 actions; −1 for a request for which no action is left.

    Raises:
        InputError: shapes that do not fit, values that are nan or +inf, or a negative quota.
    """
    values, left = _checked(values, quotas)
    requests, n_actions = values.shape
    chosen = np.full(requests, -1, dtype=np.int64)
    pairs = rising_order(-values)
    pairs = pairs[: int((values > -np.inf).sum())]
    for start in range(0, len(pairs), BLOCK):
        _allocate_block(*np.divmod(pairs[start : start + BLOCK], n_actions), chosen, left)
        if not left.any() or not (chosen < 0).any():
            break
    return chosen


def _allocate_block(requests: np.ndarray, actions: np.ndarray, chosen: np.ndarray, left: np.ndarray) -> None:
    """Allocate a block of pairs in their order; changes ``chosen`` and ``left``."""
    open_ = (chosen[requests] < 0) & (left[actions] > 0)
    remaining, served = left.tolist(), {}
    for request, action in zip(requests[open_].tolist(), actions[open_].tolist(), strict=True):
        if request not in served and remaining[action]:
            served[request] = action
            remaining[action] -= 1
    left[:] = remaining
    chosen[list(served)] = list(served.values())


def best_allocation(values: np.ndarray, quotas: np.ndarray, *, method: str | None = None) -> np.ndarray:
    """Return the allocation of greatest total value: a transportation problem, whose linear relaxation is integral.

    Args:
        values: (M, J), finite.
        quotas: (J,) integers, at least M in total.
        method: ``assignment`` (shortest augmenting paths, each action as often as its quota) or ``program`` (linear
            program, HiGHS); ``None``: by size.

    Returns:
        (M,) int64 actions.

    Raises:
        InputError: as :func:`quota_allocation`, or quotas that are too small.
    """
    values, left = _checked(values, quotas)
    requests = len(values)
    if left.sum() < requests or not np.isfinite(values).all():
        raise InputError(f"{requests} requests, quotas of {left.sum()}: use finite values and a quota for each request")
    slots = np.repeat(np.arange(len(left)), np.minimum(left, requests))
    if method is None:
        method = "assignment" if max(requests, len(slots)) <= LARGEST_ASSIGNMENT else "program"
    if method == "assignment":
        rows, columns = linear_sum_assignment(values[:, slots], maximize=True)
        return slots[columns[np.argsort(rows)]]
    return _linear_program(values, left)


def _linear_program(values: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    requests, n_actions = values.shape
    ones = np.ones(requests * n_actions)
    pair = np.arange(requests * n_actions)
    of_request = sparse.csr_array((ones, (pair // n_actions, pair)))
    of_action = sparse.csr_array((ones, (pair % n_actions, pair)), shape=(n_actions, len(pair)))
    solved = linprog(
        -values.ravel(), A_ub=of_action, b_ub=quotas, A_eq=of_request, b_eq=np.ones(requests), method="highs-ds"
    )
    if not solved.success:
        raise RuntimeError(f"best allocation: {solved.message}")
    return solved.x.reshape(values.shape).argmax(axis=1)


def quota_bound(values: np.ndarray, quotas: np.ndarray, chosen: np.ndarray) -> float:
    """Return an upper bound on every allocation, by prices π ≥ 0 of the actions: Σ_i max_a(Q − π_a) + Σ_a π_a·quota_a.

    The prices are the least at which each request prefers the action that ``chosen`` gives it: longest paths between
    actions (Bellman–Ford). If ``chosen`` is optimal, they exist and the bound is its value, which proves that it is
    optimal. If it is not, the bound is loose, but still a bound.

    Args:
        values: (M, J), finite.
        quotas: (J,) integers.
        chosen: (M,) action of each request, no −1.
    """
    values, quotas = _checked(values, quotas)
    own_values = values[np.arange(len(values)), chosen]
    gain = np.full((len(quotas), len(quotas)), -np.inf)  # [a, b]: the most that a request of action a gains by b
    np.maximum.at(gain, chosen, values - own_values[:, None])
    prices, rounding = np.zeros(len(quotas)), 1e-13 * float(np.abs(values).max())
    for _ in range(len(quotas)):
        raised = np.maximum(prices, (gain + prices[:, None]).max(axis=0))
        if (raised - prices).max() <= rounding:
            break
        prices = raised
    return float((values - prices).max(axis=1).sum() + prices @ quotas)


def _checked(values: np.ndarray, quotas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, left = np.asarray(values), np.array(quotas)
    if values.ndim != 2 or left.shape != values.shape[1:]:
        raise InputError(f"values {values.shape} and quotas {left.shape} do not fit; use one quota per action")
    if np.isnan(values).any() or np.isposinf(values).any():
        raise InputError("values are nan or infinite; use numbers below infinity (a model that has diverged gives nan)")
    if not np.issubdtype(left.dtype, np.integer) or (left < 0).any():
        raise InputError(f"quotas of type {left.dtype}, the lowest {left.min()}; use integers that are not negative")
    return values, left.astype(np.int64)
