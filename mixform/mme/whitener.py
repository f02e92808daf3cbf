"""V^-1/2 of a covariance that is given: a diagonal, a dense or a sparse matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.sparse import csc_array, issparse, tril
from scipy.sparse.linalg import splu, spsolve_triangular

from mixform._typing import Matrix, Vector
from mixform.errors import DesignError

#: Asymmetry, relative to the largest entry, that is more than rounding.
ASYMMETRY = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whitener:
    """Makes rows with covariance V independent with unit variance.

    Attributes
    ----------
    whiten : A (n, c) -> W A with W V W' = I; another W than the symmetric root
    logdet : log|V|
    """

    whiten: Callable[[Matrix], Matrix]
    logdet: float


def whitener(V: object, n: int) -> Whitener:
    """Return the whitener of Var(y) = V.

    Parameters
    ----------
    V : None for the identity; a number or (n,) a diagonal; (n, n) dense or sparse

    Raises
    ------
    DesignError : another shape, not finite, asymmetric, not positive definite
    """
    if issparse(V):
        return _sparse(csc_array(cast("Any", V), dtype=np.float64), n)
    try:
        values = np.asarray(1.0 if V is None else V)
        if np.iscomplexobj(values):
            raise TypeError
        values = values.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise DesignError(
            f"V is a {type(V).__name__}, no matrix of numbers.",
            hint="Give None, the diagonal, or a matrix (n, n).",
        ) from None
    if values.ndim < 2:
        return _diagonal(values, n)
    _require_shape(values.shape, n)
    _require_finite(values)
    _require_symmetric(float(np.abs(values - values.T).max()), np.abs(values).max())
    if not np.any(values - np.diag(values.diagonal())):
        return _diagonal(values.diagonal(), n)
    try:
        L = cholesky(values, lower=True)
    except LinAlgError:
        raise _not_definite() from None

    def whiten(A: Matrix) -> Matrix:
        return solve_triangular(L, A, lower=True)

    return Whitener(whiten=whiten, logdet=2.0 * float(np.log(L.diagonal()).sum()))


def _diagonal(values: Vector, n: int) -> Whitener:
    if values.ndim and values.shape != (n,):
        _require_shape(values.shape, n)
    _require_finite(values)
    variances = np.broadcast_to(values, n)
    bad = np.flatnonzero(variances <= 0.0)
    if len(bad):
        raise DesignError(
            f"V is not positive: the variance of row {int(bad[0]) + 1} is "
            f"{variances[bad[0]]:.6g}.",
            hint="Give variances, not weights: Var(e_i) is proportional to V_i.",
        )
    root = np.sqrt(variances)

    def whiten(A: Matrix) -> Matrix:
        return A / (root if A.ndim == 1 else root[:, None])

    return Whitener(whiten=whiten, logdet=2.0 * float(np.log(root).sum()))


def _sparse(V: Any, n: int) -> Whitener:
    """Factor P V P' = L D L' (SuperLU, pivots on the diagonal)."""
    _require_shape(V.shape, n)
    _require_finite(V.data)
    size = float(abs(V).max())
    _require_symmetric(float(abs(V - V.T).max()), size)
    if tril(V, -1).count_nonzero() == 0:
        return _diagonal(V.diagonal(), n)
    options = {"SymmetricMode": True}
    try:
        lu = splu(V, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    except RuntimeError:
        raise _not_definite() from None
    D = lu.U.diagonal()
    if np.any(D <= 0.0) or np.any(lu.perm_r != lu.perm_c):
        raise _not_definite()
    L, order, root = lu.L.tocsr(), np.argsort(lu.perm_r), np.sqrt(D)

    def whiten(A: Matrix) -> Matrix:
        solved = spsolve_triangular(L, A[order], lower=True, unit_diagonal=True)
        return solved / (root if A.ndim == 1 else root[:, None])

    return Whitener(whiten=whiten, logdet=float(np.log(D).sum()))


def _require_shape(shape: tuple[int, ...], n: int) -> None:
    if shape != (n, n):
        raise DesignError(
            f"V has shape {shape}; y has {n} rows.",
            hint=f"Give a number, a diagonal ({n},) or a matrix ({n}, {n}).",
        )


def _require_finite(values: Any) -> None:
    if not np.all(np.isfinite(values)):
        raise DesignError("V holds values that are not finite.")


def _require_symmetric(apart: float, size: float) -> None:
    if apart > ASYMMETRY * size:
        raise DesignError(
            f"V is not symmetric: V_ij and V_ji differ by up to {apart:.3g}.",
            hint="A covariance matrix is symmetric.",
        )


def _not_definite() -> DesignError:
    return DesignError(
        "V is not positive definite.",
        hint="A covariance matrix of y has positive eigenvalues; one of u, ZGZ' alone, "
        "needs R added.",
    )
