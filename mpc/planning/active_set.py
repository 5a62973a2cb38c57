"""Solver of the convex program of :mod:`mpc.planning.load_qp` by linear systems instead of a general solver.

Without its load variables, Eq. 17 (arXiv 2512.24325) around a nominal sequence is a strictly convex quadratic in the
log prices within a box. The primal-dual active-set method (Hintermüller, Ito and Kunisch, 2003) guesses which prices
are at a bound, solves a linear system for the others and corrects the guess. If a guess comes out again, it is the
exact optimum. Without damping the minutes are independent, and the system splits into one of G × G per minute.
"""

from __future__ import annotations

import numpy as np

MAX_ITERATIONS = 8
"""Guesses before the general solver is used; two are usual."""
MAX_UNKNOWNS = 240
"""Unknowns of a linear system above which the sparse general solver is faster."""


def minimise_in_box(hessian: np.ndarray, linear: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """Minimise ½ x'Hx − f'x over low ≤ x ≤ high, for B programs of n unknowns at once.

    Args:
        hessian: H (B,n,n), symmetric and positive definite.
        linear: f (B,n).
        low: (B,n) lower bounds.
        high: (B,n) upper bounds.

    Returns:
        x (B,n), or ``None`` if the guesses did not settle or a system was singular.
    """
    n = linear.shape[1]
    weight = hessian[:, np.arange(n), np.arange(n)]
    at_low = at_high = np.zeros(linear.shape, dtype=bool)
    system, right = hessian, linear
    for _ in range(MAX_ITERATIONS):
        try:
            x = np.linalg.solve(system, right[..., None])[..., 0]
        except np.linalg.LinAlgError:
            return None
        force = linear - (hessian @ x[..., None])[..., 0]  # zero where free; at a bound, the direction of descent
        free = ~(at_low | at_high)
        below = np.where(free, x < low, at_low & (force + weight * (x - low) < 0))
        above = np.where(free, x > high, at_high & (force + weight * (x - high) > 0))
        if (below == at_low).all() and (above == at_high).all():
            return x if np.isfinite(x).all() else None
        at_low, at_high = below, above
        free = ~(at_low | at_high)
        fixed = np.where(at_low, low, np.where(at_high, high, 0.0))
        system = np.where(free[:, :, None] & free[:, None, :], hessian, np.eye(n))
        right = np.where(free, linear - (hessian @ fixed[..., None])[..., 0], fixed)
    return None


def solve_active_set(
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
    """Return the log prices (N,G) that minimise the program of :class:`mpc.planning.load_qp.LoadQP`.

    Args:
        loads: (N,G) loads of the nominal prices, as fractions of the budgets.
        slopes: (N,G,G) their derivative, [i, g, h] = ∂y_ig/∂u_ih.
        nominal: (N,G) log prices ū.
        last: (G,) load of the last minute.
        low: (N,G) least log prices.
        high: (N,G) greatest log prices.
        target: (N,G) loads to aim at.
        weights: (N,) α^i.
        damping: (N,G) weights of the damping term, zero where it does not apply.
        proximity: ρ.

    Returns:
        The log prices, or ``None`` if the program is too large or its active set does not settle. Then use a solver.
    """
    n, size = loads.shape
    if (size if not damping.any() else n * size) > MAX_UNKNOWNS:
        return None
    weighted = slopes.swapaxes(1, 2) * weights[:, None, None]  # α^i S_i'
    hessian = weighted @ slopes  # (N,G,G)
    hessian[:, np.arange(size), np.arange(size)] += proximity
    linear = (weighted @ (target - loads)[..., None])[..., 0]  # in the move u − ū
    if not damping.any():
        move = minimise_in_box(hessian, linear, low - nominal, high - nominal)
        return None if move is None else nominal + move
    joint_hessian, joint_linear = _add_damping(hessian, linear, loads, slopes, last, damping)
    move = minimise_in_box(joint_hessian, joint_linear, (low - nominal).reshape(1, -1), (high - nominal).reshape(1, -1))
    return None if move is None else nominal + move.reshape(n, size)


def _add_damping(
    hessian: np.ndarray,
    linear: np.ndarray,
    loads: np.ndarray,
    slopes: np.ndarray,
    last: np.ndarray,
    damping: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the systems of all minutes joined into one, (1,NG,NG) and (1,NG), with w (y_i − y_{i−1})² added."""
    n, size = loads.shape
    joint = np.zeros((n, size, n, size))
    joint[np.arange(n), :, np.arange(n)] = hessian
    pull = linear.copy()
    steps = loads - np.vstack([last, loads[:-1]])
    for i in np.flatnonzero(damping.any(axis=1)):
        after = slopes[i].T * damping[i]
        joint[i, :, i] += after @ slopes[i]
        pull[i] -= after @ steps[i]
        if i > 0:
            before = slopes[i - 1].T * damping[i]
            joint[i - 1, :, i - 1] += before @ slopes[i - 1]
            joint[i, :, i - 1] -= after @ slopes[i - 1]
            joint[i - 1, :, i] -= before @ slopes[i]
            pull[i - 1] += before @ steps[i]
    return joint.reshape(1, n * size, n * size), pull.reshape(1, -1)
