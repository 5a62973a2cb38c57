"""The program of :mod:`mpc.planning.load_qp` without a solver: linear systems over a guessed set of prices that sit at a bound.

With the loads eliminated, Eq. 17 (arXiv 2512.24325) around a nominal sequence is a strictly convex quadratic in the log
prices within a box. The primal–dual active set method (Hintermüller, Ito and Kunisch, 2003) guesses which prices sit at
a bound, solves a linear system for the others and corrects the guess; a guess that repeats satisfies the conditions of
optimality exactly. Undamped minutes do not influence each other, so the system falls into one of G × G per minute.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 8
"""Guesses before the general solver is asked; two are usual."""
LARGEST = 240
"""Unknowns of one linear system beyond which the sparse general solver is quicker."""


def box_minimum(hessian: np.ndarray, linear: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """Minimiser of ½ x'Hx − f'x over low ≤ x ≤ high, for B programs of n unknowns at once.

    Args:
        hessian: H (B,n,n), symmetric, positive definite.
        linear: f (B,n).
        low: (B,n); ``high`` (B,n).

    Returns:
        x (B,n), or ``None``: the guesses did not settle, or a system was singular.
    """
    n = linear.shape[1]
    weight = hessian[:, np.arange(n), np.arange(n)]
    at_low = at_high = np.zeros(linear.shape, dtype=bool)
    system, right = hessian, linear
    for _ in range(ROUNDS):
        try:
            x = np.linalg.solve(system, right[..., None])[..., 0]
        except np.linalg.LinAlgError:
            return None
        force = linear - (hessian @ x[..., None])[..., 0]  # zero where free; at a bound, which way x would go
        free = ~(at_low | at_high)
        below = np.where(free, x < low, at_low & (force + weight * (x - low) < 0))
        above = np.where(free, x > high, at_high & (force + weight * (x - high) > 0))
        if (below == at_low).all() and (above == at_high).all():
            return x if np.isfinite(x).all() else None
        at_low, at_high = below, above
        free = ~(at_low | at_high)
        held = np.where(at_low, low, np.where(at_high, high, 0.0))
        system = np.where(free[:, :, None] & free[:, None, :], hessian, np.eye(n))
        right = np.where(free, linear - (hessian @ held[..., None])[..., 0], held)
    return None


def closed_form(
    loads: np.ndarray,
    slopes: np.ndarray,
    nominal: np.ndarray,
    last: np.ndarray,
    *,
    low: np.ndarray,
    high: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    damping: np.ndarray,
    proximity: float,
) -> np.ndarray | None:
    """Log prices (N,G) that minimise the program; arguments as of :meth:`mpc.planning.load_qp.LoadProblem.solve`.

    Args:
        target: (N,G) loads aimed at.
        weights: (N,) α^i.
        damping: (N,G) weights of the damping term, zero where it does not apply.
        proximity: ρ.

    Returns:
        ``None`` where the program is too large or its active set does not settle: then a solver must be asked.
    """
    n, size = loads.shape
    if (size if not damping.any() else n * size) > LARGEST:
        return None
    pulled = slopes.swapaxes(1, 2) * weights[:, None, None]  # α^i S_i'
    hessian = pulled @ slopes  # (N,G,G)
    hessian[:, np.arange(size), np.arange(size)] += proximity
    linear = (pulled @ (target - loads)[..., None])[..., 0]  # of the move u − ū
    if not damping.any():
        move = box_minimum(hessian, linear, low - nominal, high - nominal)
        return None if move is None else nominal + move
    whole, pull = _damped(hessian, linear, loads, slopes, last, damping)
    move = box_minimum(whole, pull, (low - nominal).reshape(1, -1), (high - nominal).reshape(1, -1))
    return None if move is None else nominal + move.reshape(n, size)


def _damped(
    hessian: np.ndarray,
    linear: np.ndarray,
    loads: np.ndarray,
    slopes: np.ndarray,
    last: np.ndarray,
    damping: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The minutes' systems joined into one, (1,NG,NG) and (1,NG), with w (y_i − y_{i−1})² added."""
    n, size = loads.shape
    whole = np.zeros((n, size, n, size))
    whole[np.arange(n), :, np.arange(n)] = hessian
    pull = linear.copy()
    steps = loads - np.vstack([last, loads[:-1]])
    for i in np.flatnonzero(damping.any(axis=1)):
        after = slopes[i].T * damping[i]
        whole[i, :, i] += after @ slopes[i]
        pull[i] -= after @ steps[i]
        if i > 0:
            before = slopes[i - 1].T * damping[i]
            whole[i - 1, :, i - 1] += before @ slopes[i - 1]
            whole[i, :, i - 1] -= after @ slopes[i - 1]
            whole[i - 1, :, i] -= before @ slopes[i]
            pull[i - 1] += before @ steps[i]
    return whole.reshape(1, n * size, n * size), pull.reshape(1, -1)
