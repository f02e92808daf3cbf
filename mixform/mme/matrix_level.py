"""Henderson's mixed model equations for matrices that are given.

    [ X'R^-1X   X'R^-1Z        ] [beta]   [ X'R^-1 y ]
    [ Z'R^-1X   Z'R^-1Z + G^-1 ] [ u  ] = [ Z'R^-1 y ]

Var(u) = G, Var(e) = R (Henderson 1975, Biometrics 31, 423). Where X is not of full
rank, columns that are combinations of earlier ones get a solution of zero: that is a
generalized inverse of the coefficient matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse import block_array, csr_array, diags_array, eye_array, issparse
from scipy.sparse.linalg import cg

from mixform._typing import Mask, Matrix, Vector
from mixform.design import ColumnSpace, matrix_part
from mixform.errors import DesignError, InferenceError, suggest

SOLVERS = ("direct", "cg")
#: Entries of X up to which its null space is found from X itself, not from X'X.
DENSE = 10_000_000
#: Asymmetry, relative to the largest entry, that counts as rounding.
SYMMETRIC = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """Solutions of the mixed model equations.

    Attributes
    ----------
    beta : (p,) a solution for the fixed effects, zero for columns of X left out
    u : (q,) best linear unbiased predictions
    C_inverse : (p + q, p + q) generalized inverse of the coefficient matrix; None
        after "cg"
    pev : (q,) prediction error variances of u; None after "cg"
    residual : relative size of what the equations leave, |C x - r| / |r|
    X : (n, p), whose rows span what is estimable
    names : of the columns of X
    """

    beta: Vector
    u: Vector
    C_inverse: Matrix | None = field(repr=False)
    pev: Vector | None
    residual: float
    X: Any = field(repr=False)
    names: tuple[str, ...]

    @property
    def space(self) -> ColumnSpace:
        """Which functions of beta are estimable."""
        n, p = self.X.shape
        # X'X has the null space of X, and p rows.
        return space_of(self.X if n * p <= DENSE else self.X.T @ self.X, self.names)

    @property
    def estimable(self) -> Mask:
        """Which coefficients, (p,), are estimable by themselves, not one of many."""
        return self.space.estimable(np.eye(len(self.beta)))

    def estimate(self, K: object) -> tuple[Vector, Vector | None]:
        """Return estimates of K beta, K (r, p), and their variances (None after "cg").

        Raises
        ------
        InferenceError : a row of K is not estimable: no combination of rows of X; or
            of another width
        """
        rows = np.atleast_2d(floats(K, "K"))
        p = len(self.beta)
        if rows.ndim != 2 or rows.shape[1] != p:
            raise InferenceError(f"K has {rows.shape[-1]} columns; X has {p}.")
        self.space.require_estimable(rows)
        if self.C_inverse is None:
            return rows @ self.beta, None
        V = self.C_inverse[:p, :p]
        return rows @ self.beta, np.einsum("ij,jk,ik->i", rows, V, rows)


class MixedModelEquations:
    """The mixed model equations of given matrices, dense or sparse.

    Parameters
    ----------
    y : (n,); X : (n, p), of any rank; Z : (n, q)
    G, Ginv : (q, q) Var(u) or its inverse, one of them
    R, Rinv : (n, n) Var(e) or its inverse; a number or a vector (n,) is a diagonal;
        the identity if neither is given

    Raises
    ------
    DesignError : shapes that do not fit; missing values; G or R asymmetric or singular

    Examples
    --------
    One record of 6 with Var(u) = Var(e): half of what is above the mean of 2 records.

    >>> eye = np.eye(2)
    >>> one = np.ones((2, 1))
    >>> s = MixedModelEquations([6.0, 2.0], one, eye, G=eye).solve()
    >>> s.beta.round(9).tolist(), s.u.round(9).tolist()
    ([4.0], [1.0, -1.0])
    """

    def __init__(
        self,
        y: object,
        X: object,
        Z: object,
        *,
        G: object = None,
        Ginv: object = None,
        R: object = None,
        Rinv: object = None,
    ) -> None:
        self.y: Vector = floats(y, "y").ravel()
        n = len(self.y)
        #: Names of the columns of X: those of a frame, or x1, x2, ...
        self.names = column_names(X)
        self.X: Any = _sparse(X, "X")
        self.Z: Any = _sparse(Z, "Z")
        for name, matrix in (("X", self.X), ("Z", self.Z)):
            if matrix.shape[0] != n:
                raise DesignError(f"{name} has {matrix.shape[0]} rows, y has {n}.")
            _require_finite(matrix.data, name)
        _require_finite(self.y, "y")
        if (G is None) == (Ginv is None):
            raise DesignError("Give G or Ginv, one of the two.")
        if R is not None and Rinv is not None:
            raise DesignError("Give R or Rinv, not both.")
        q = self.Z.shape[1]
        self.Ginv = _precision(G, Ginv, q, "G" if Ginv is None else "Ginv")
        self.Rinv = eye_array(n)
        if R is not None or Rinv is not None:
            self.Rinv = _precision(R, Rinv, n, "R" if Rinv is None else "Rinv")
        W = block_array([[self.X, self.Z]], format="csr")
        p = self.X.shape[1]
        C = cast("Any", (W.T @ self.Rinv @ W).tocsr())
        #: Coefficient matrix (p + q, p + q) and right-hand side (p + q,).
        self.C = C + block_array([[csr_array((p, p)), None], [None, self.Ginv]])
        self.rhs: Vector = np.asarray(W.T @ (self.Rinv @ self.y), dtype=np.float64)

    def solve(self, solver: str = "direct", *, tolerance: float = 1e-10) -> Solution:
        """Return the solutions.

        Parameters
        ----------
        solver : "direct" (dense, with the inverse), or "cg": conjugate gradients with
            the diagonal as preconditioner, for large sparse equations
        tolerance : of "cg", on the relative residual

        Raises
        ------
        DesignError : unknown solver; the equations are singular in u
        InferenceError : "cg" did not reach the tolerance
        """
        if solver not in SOLVERS:
            raise DesignError(
                f"Unknown solver {solver!r}.", hint=suggest(solver, SOLVERS, "Solvers")
            )
        if solver == "cg":
            return self._iterate(tolerance)
        p, q = self.X.shape[1], self.Z.shape[1]
        C = _dense(self.C)
        fixed = np.array(space_of(self.X, self.names).kept, dtype=np.int64)
        kept = np.append(fixed, p + np.arange(q))
        inverse = np.zeros_like(C)
        try:
            factor = cho_factor(C[np.ix_(kept, kept)])
        except LinAlgError:
            raise DesignError(
                "The equations are not positive definite.",
                hint="G and R must be covariance matrices.",
            ) from None
        inverse[np.ix_(kept, kept)] = cho_solve(factor, np.eye(len(kept)))
        x: Vector = np.zeros(p + q)
        x[kept] = cho_solve(factor, self.rhs[kept])
        return self._solution(x, inverse)

    def _iterate(self, tolerance: float) -> Solution:
        diagonal = self.C.diagonal()
        used = np.where(diagonal > 0.0, diagonal, 1.0)
        x, info = cg(self.C, self.rhs, rtol=tolerance, M=diags_array(1.0 / used))
        found = self._solution(x, None)
        if info != 0:
            raise InferenceError(
                f"Conjugate gradients stopped at a relative residual of "
                f"{found.residual:.2g}.",
                hint='Raise tolerance=, or use solver="direct".',
            )
        return found

    def _solution(self, x: Vector, inverse: Matrix | None) -> Solution:
        p = self.X.shape[1]
        size = float(np.linalg.norm(self.rhs))
        rest = float(np.linalg.norm(self.C @ x - self.rhs))
        return Solution(
            beta=x[:p],
            u=x[p:],
            C_inverse=inverse,
            pev=None if inverse is None else inverse.diagonal()[p:].copy(),
            residual=rest / size if size > 0.0 else rest,
            X=self.X,
            names=self.names,
        )


def floats(values: Any, name: str) -> Any:
    """Return an array of real numbers.

    Raises
    ------
    DesignError : text, ragged lists, complex numbers
    """
    try:
        out = np.asarray(values)
        if not np.iscomplexobj(out):
            return out.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        pass
    raise DesignError(
        f"{name} is not numeric.",
        hint="Give real numbers; fit() makes columns of the levels of a factor.",
    )


def column_names(X: Any) -> tuple[str, ...]:
    """Return the names of the columns of a frame, else x1, x2, ..."""
    if hasattr(X, "columns"):
        return tuple(str(name) for name in X.columns)
    shape = np.shape(X)
    return tuple(f"x{j + 1}" for j in range(shape[1] if len(shape) == 2 else 0))


def space_of(X: Any, names: tuple[str, ...]) -> ColumnSpace:
    """Return which functions of the coefficients of X (n, p) are estimable."""
    values = _dense(X) if issparse(X) else floats(X, "X")
    return matrix_part(values, names).space


def _sparse(matrix: Any, name: str) -> Any:
    values: Any = matrix if issparse(matrix) else floats(matrix, name)
    if values.ndim != 2:
        raise DesignError(f"{name} is no matrix.")
    return csr_array(values)


def _require_finite(values: Any, name: str) -> None:
    if not np.all(np.isfinite(values)):
        raise DesignError(
            f"{name} has missing or infinite values.",
            hint="Leave such rows out of all matrices.",
        )


def _dense(matrix: Any) -> Matrix:
    return np.asarray(matrix.todense(), dtype=np.float64)


def _precision(given: object, inverse: object, n: int, name: str) -> Any:
    """Return the inverse of a covariance of size n, sparse."""
    value = cast("Any", given if inverse is None else inverse)
    if not hasattr(value, "tocsr"):
        value = floats(value, name)
        if value.shape in {(), (1,), (n,)}:
            value = diags_array(np.broadcast_to(value, n).astype(np.float64))
    if value.shape != (n, n):
        raise DesignError(f"{name} has shape {value.shape}, not {(n, n)}.")
    value = csr_array(cast("Any", value))
    _require_finite(value.data, name)
    apart = abs(value - value.T).max() if value.nnz else 0.0
    if apart > 0.0 and apart > SYMMETRIC * abs(value).max():
        raise DesignError(
            f"{name} is not symmetric: two of its entries differ by {apart:.4g}.",
            hint="Check how it was computed.",
        )
    if inverse is not None:
        return value
    values = _dense(value)
    try:
        return csr_array(cho_solve(cho_factor(values), np.eye(n)))
    except LinAlgError:
        raise DesignError(
            f"{name} is not positive definite.",
            hint="With a variance of zero, gls(y, X, Z G Z' + R).blup(G Z') needs no "
            "inverse.",
        ) from None
