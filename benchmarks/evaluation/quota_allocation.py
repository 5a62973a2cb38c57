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
    values = np.asarray(values)
    requests, actions, _ = counted_allocation(values, np.ones(len(values), dtype=np.int64), quotas)
    chosen = np.full(len(values), -1, dtype=np.int64)
    chosen[requests] = actions
    return chosen


def counted_allocation(
    values: np.ndarray, counts: np.ndarray, quotas: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Allocate as :func:`quota_allocation` does, with the number of requests of each state in place of repeated rows.

    Memory does not grow with the number of requests: quotas of 10⁸ take as much as quotas of 10.

    Args:
        values: (S, J) value of each action in each state; −inf for actions that the state may not get.
        counts: (S,) integers, requests of each state.
        quotas: (J,) integers.

    Returns:
        Three int64 arrays (n,), n < S + J: states, their actions, and how many requests of the state take the action.

    Raises:
        InputError: as :func:`quota_allocation`, or counts that are no integers, negative, or not one for each state.
    """
    values, actions_left = _checked(values, quotas)
    requests_left = _checked_integers("counts", counts, len(values))
    pairs = rising_order(-values)
    pairs = pairs[: int((values > -np.inf).sum())]
    taken: list[tuple[int, int, int]] = []
    for start in range(0, len(pairs), BLOCK):
        taken += _allocate_block(*np.divmod(pairs[start : start + BLOCK], values.shape[1]), requests_left, actions_left)
        if not actions_left.any() or not requests_left.any():
            break
    states, actions, numbers = np.array(taken, dtype=np.int64).reshape(-1, 3).T
    return states, actions, numbers


def _allocate_block(
    states: np.ndarray, actions: np.ndarray, requests_left: np.ndarray, actions_left: np.ndarray
) -> list[tuple[int, int, int]]:
    """Allocate a block of pairs in their order; lowers ``requests_left`` (S,) and ``actions_left`` (J,)."""
    is_open = (requests_left[states] > 0) & (actions_left[actions] > 0)
    states, actions = states[is_open], actions[is_open]
    waiting = dict(zip(states.tolist(), requests_left[states].tolist(), strict=True))
    remaining = dict(zip(actions.tolist(), actions_left[actions].tolist(), strict=True))
    taken = []
    for state, action in zip(states.tolist(), actions.tolist(), strict=True):
        number = min(waiting[state], remaining[action])
        if number:
            waiting[state] -= number
            remaining[action] -= number
            taken.append((state, action, number))
    requests_left[list(waiting)] = list(waiting.values())
    actions_left[list(remaining)] = list(remaining.values())
    return taken


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
    values = np.asarray(values)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise InputError(f"values of shape {values.shape} and type {values.dtype}; use numbers of shape (M, J)")
    left = _checked_integers("quotas", quotas, values.shape[1])
    if np.isnan(values).any() or np.isposinf(values).any():
        raise InputError("values are nan or infinite; use numbers below infinity (a model that has diverged gives nan)")
    return values, left


def _checked_integers(name: str, numbers: np.ndarray, length: int) -> np.ndarray:
    """Return a copy of ``numbers`` as (length,) int64."""
    numbers = np.asarray(numbers)
    if numbers.shape != (length,):
        raise InputError(f"{name} of shape {numbers.shape} do not fit the values; use shape ({length},)")
    if not np.issubdtype(numbers.dtype, np.integer) or (numbers < 0).any():
        lowest = f", the lowest {numbers.min()}" if np.issubdtype(numbers.dtype, np.number) and length else ""
        raise InputError(f"{name} of type {numbers.dtype}{lowest}; use integers that are not negative")
    return numbers.astype(np.int64)
