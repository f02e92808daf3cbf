"""Small matrices by the batch: U patterns of v rows, N subjects that share them."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dtrtri

from mixform._typing import Stack, Vector
from mixform.errors import SolverError


def gather(grid: Stack, places: np.ndarray) -> Stack:
    """Return (..., U, v, v) entries of (..., size, size)."""
    return grid[..., places[:, :, None], places[:, None, :]]


def cholesky(C: Stack, name: str, r: Vector) -> Stack:
    """Return lower triangular L (U, v, v), L L' = C.

    Raises
    ------
    SolverError : a matrix is not positive definite; names the structure
    """
    try:
        return np.linalg.cholesky(C)
    except np.linalg.LinAlgError:
        values = ", ".join(f"{value:.6g}" for value in r)
        raise SolverError(
            f"The residual correlations of {name!r} are singular at ({values}).",
            hint="Residuals nearly determine each other: check for duplicates, use "
            "nugget=True, or a simpler structure.",
        ) from None


def inverse_lower(L: Stack) -> Stack:
    """Return the inverses of lower triangular matrices (U, v, v)."""
    if L.shape[-1] == 1:
        return 1.0 / L
    if L.shape[-1] <= 32:
        return np.tril(np.linalg.inv(L))
    return np.stack([dtrtri(one, lower=1)[0] for one in L])


def each(M: Stack, which: np.ndarray, A: Stack, transpose: bool = False) -> Stack:
    """Return M[which] A for M (U, v, v) and A (N, v, c)."""
    if M.shape[-1] == 1:
        return M[which] * A
    if transpose:
        M = M.transpose(0, 2, 1)
    return M[0] @ A if len(M) == 1 else M[which] @ A


def sum_by(which: np.ndarray, U: int, blocks: Stack) -> Stack:
    """Return (U, v, v) sums of (N, v, v) by pattern."""
    if U == 1:
        return blocks.sum(axis=0, keepdims=True)
    order = np.argsort(which, kind="stable")
    firsts = np.searchsorted(which[order], np.arange(U))
    return np.add.reduceat(blocks[order], firsts, axis=0)
