"""A quadratic program of cvxpy, compiled once into sparse maps from its parameters to the data of the solver.

``Problem.solve`` applies new parameters through several layers, which costs several times the solution of a small
program. The compiled form is available from ``Problem.get_problem_data``. Under the rules of disciplined parametrised
programming (DPP) all data but the quadratic term are affine in the parameters. So a solution needs one sparse product
and an update of the solver's data.

    minimise  ½ x'Px + q'x   subject to   Ax + s = b,   s = 0 in the first rows, s ≥ 0 in the others
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cvxpy as cp
import numpy as np
from scipy import sparse

OPTIMAL, INACCURATE, INFEASIBLE, TIME_LIMIT, FAILED = "optimal", "inaccurate", "infeasible", "time limit", "failed"


class UnsupportedError(RuntimeError):
    """The compiled form of cvxpy is not as expected; use ``Problem.solve`` instead."""


@dataclass(frozen=True)
class QPData:
    """The numbers of a quadratic program; its sparsity patterns never change."""

    P: sparse.csc_array
    """Upper triangle of the quadratic term."""
    q: np.ndarray
    """Linear term."""
    A: sparse.csc_array
    """Constraint matrix."""
    b: np.ndarray
    """Right-hand side of the constraints."""
    n_zero: int
    """Number of leading rows of A that are equations; the others are inequalities."""


class _Backend(Protocol):
    """A solver that is set up once and updated for each solution."""

    def solve(self, data: QPData, time_limit: float) -> tuple[str, np.ndarray]:
        """Return a status of this module and the solution x."""
        ...


class CompiledQP:
    """A compiled quadratic program, solved for values of its parameters.

    Args:
        problem: a quadratic program that follows the DPP rules.
        variables: variables whose values :meth:`solve` returns.
        solver: "CLARABEL" (interior point) or "OSQP" (first order, warm started).

    Raises:
        UnsupportedError: the compiled form of this version of cvxpy is not the expected one.
    """

    def __init__(self, problem: cp.Problem, variables: Sequence[cp.Variable], solver: str) -> None:
        self._parameters = problem.parameters()
        try:
            self._read(problem, variables)
            self._check(problem)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise UnsupportedError(f"cvxpy {cp.__version__} compiles to another form: {error}") from error
        self._backend: _Backend = _Clarabel() if solver == "CLARABEL" else _Osqp()

    def _read(self, problem: cp.Problem, variables: Sequence[cp.Variable]) -> None:
        """Read the sparse maps from the compiled form of cvxpy."""
        rng = np.random.default_rng(0)
        for parameter in self._parameters:
            parameter.value = rng.uniform(0.5, 1.5, parameter.shape)
        data, _, _ = problem.get_problem_data("CLARABEL")
        form = data[cp.settings.PARAM_PROB]
        rows, n = form.A.shape[0] // (form.x.size + 1), form.x.size
        dims = data["dims"]
        if any((dims.exp, dims.soc, dims.psd, dims.p3d)) or dims.zero + dims.nonneg != rows:
            raise UnsupportedError("cvxpy problem not supported: it has cones; use linear constraints only")
        constant = form.P.tocsc()
        if constant[:, :-1].nnz:
            raise UnsupportedError(
                "cvxpy problem not supported: parameters in the quadratic term; use them in linear terms only"
            )
        position, value = constant.tocoo().coords[0], constant.tocoo().data
        self._P = sparse.triu(sparse.coo_array((value, (position % n, position // n)), shape=(n, n)), format="csc")
        self._q_map = form.q.tocsr()[:n]
        self._size = form.total_param_size + 1
        self._parameter_slices = [(form.param_id_to_col[p.id], p.size, p) for p in self._parameters]
        tensor = form.A.tocsr()
        used = np.flatnonzero(np.diff(tensor.indptr))  # entry r of [A | b] is row r % rows, column r // rows
        matrix = used[used < rows * n]
        self._A_map = -tensor[matrix]  # cvxpy's form is Ax + b in the cone
        self._A = sparse.csc_array(
            (np.zeros(len(matrix)), matrix % rows, np.searchsorted(matrix, rows * np.arange(n + 1))), shape=(rows, n)
        )
        self._b_map = tensor[rows * n :]
        self._n_zero = int(dims.zero)
        self._variables = [(form.var_id_to_col[v.id], v.size, v.shape) for v in variables]

    def _check(self, problem: cp.Problem) -> None:
        """Check that the maps reproduce the data of cvxpy at other parameter values."""
        rng = np.random.default_rng(1)
        values = {p: rng.uniform(0.5, 1.5, p.shape) for p in self._parameters}
        for parameter, value in values.items():
            parameter.value = value
        expected, _, _ = problem.get_problem_data("CLARABEL")
        data = self.data(values)
        pairs = (
            (data.q, expected["c"]),
            (data.b, expected["b"]),
            ((data.A - expected["A"]).data, 0.0),
            ((data.P - sparse.triu(expected["P"])).data, 0.0),
        )
        if not all(np.allclose(a, b) for a, b in pairs):
            raise UnsupportedError("the sparse maps do not reproduce the data of cvxpy")

    def data(self, values: Mapping[cp.Parameter, np.ndarray]) -> QPData:
        """Return the data of the program at values of all its parameters.

        Raises:
            ValueError: a value whose shape differs from that of its parameter.
        """
        vector = np.empty(self._size)
        vector[-1] = 1.0
        for start, size, parameter in self._parameter_slices:
            vector[start : start + size] = np.ravel(values[parameter], order="F")
        self._A.data = self._A_map @ vector
        return QPData(self._P, self._q_map @ vector, self._A, self._b_map @ vector, self._n_zero)

    def solve(
        self, values: Mapping[cp.Parameter, np.ndarray], time_limit: float = np.inf
    ) -> tuple[str, list[np.ndarray]]:
        """Return a status of this module and the values of the variables.

        Args:
            values: values of all parameters.
            time_limit: time allowed to the solver, seconds.
        """
        status, x = self._backend.solve(self.data(values), time_limit)
        return status, [x[start : start + size].reshape(shape, order="F") for start, size, shape in self._variables]


class _Clarabel:
    """Clarabel, an interior-point solver."""

    STATUS = {  # noqa: RUF012
        "Solved": OPTIMAL,
        "AlmostSolved": INACCURATE,
        "PrimalInfeasible": INFEASIBLE,
        "AlmostPrimalInfeasible": INFEASIBLE,
        "MaxTime": TIME_LIMIT,
    }

    def __init__(self) -> None:
        self._solver: Any = None

    def solve(self, data: QPData, time_limit: float) -> tuple[str, np.ndarray]:
        import clarabel

        settings = clarabel.DefaultSettings()
        settings.verbose, settings.time_limit = False, float(time_limit)
        settings.presolve_enable, settings.max_threads = False, 1  # presolve may drop rows; then updates fail
        if self._solver is None:
            cones = [clarabel.ZeroConeT(data.n_zero), clarabel.NonnegativeConeT(len(data.b) - data.n_zero)]
            self._solver = clarabel.DefaultSolver(
                sparse.csc_matrix(data.P), data.q, sparse.csc_matrix(data.A), data.b, cones, settings
            )
        else:
            self._solver.update(q=data.q, A=data.A.data, b=data.b, settings=settings)
        solution = self._solver.solve()
        return self.STATUS.get(str(solution.status), FAILED), np.array(solution.x)


class _Osqp:
    """OSQP, a first-order solver, warm-started."""

    STATUS = {  # noqa: RUF012
        "solved": OPTIMAL,
        "solved inaccurate": INACCURATE,
        "primal infeasible": INFEASIBLE,
        "primal infeasible inaccurate": INFEASIBLE,
        "run time limit reached": TIME_LIMIT,
    }

    def __init__(self) -> None:
        self._solver: Any = None

    def solve(self, data: QPData, time_limit: float) -> tuple[str, np.ndarray]:
        import osqp

        lower = np.concatenate([data.b[: data.n_zero], np.full(len(data.b) - data.n_zero, -np.inf)])
        limit = {"time_limit": float(min(time_limit, 1e6))}
        if self._solver is None:
            self._solver = osqp.OSQP()
            options = {"eps_abs": 1e-6, "eps_rel": 1e-6, "max_iter": 10_000, "polishing": True, "verbose": False}
            quadratic, constraints = sparse.csc_matrix(data.P), sparse.csc_matrix(data.A)
            self._solver.setup(quadratic, data.q, constraints, lower, data.b, **options, **limit)
        else:
            self._solver.update(q=data.q, Ax=data.A.data, l=lower, u=data.b)
            self._solver.update_settings(**limit)
        result = self._solver.solve(raise_error=False)
        return self.STATUS.get(result.info.status, FAILED), np.asarray(result.x, dtype=np.float64)
