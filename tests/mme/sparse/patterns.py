"""Symmetric positive definite matrices of every shape the engine must handle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Dense = NDArray[np.float64]


def from_factors(codes: list[Dense], seed: int = 0, k: int = 1) -> Dense:
    """Return Z'Z / 2 + I for random factors with k coefficients each."""
    rng = np.random.default_rng(seed)
    n = codes[0].size
    blocks: list[Dense] = []
    for code in codes:
        m = int(code.max()) + 1
        Z = np.zeros((n, m, k))
        Z[np.arange(n), code] = rng.normal(size=(n, k))
        blocks.append(Z.reshape(n, -1))
    Z = np.hstack(blocks)
    return Z.T @ Z / 2 + np.eye(Z.shape[1])


def crossed(*sizes: int, n: int = 400, k: int = 1, seed: int = 0) -> Dense:
    """Return the matrix of crossed factors with levels drawn at random."""
    rng = np.random.default_rng(seed)
    return from_factors([rng.integers(0, m, n) for m in sizes], seed, k)


def nested() -> Dense:
    """Return the matrix of 12 groups, 4 subgroups in each and 3 within those."""
    rows = np.arange(12 * 4 * 3 * 2)
    return from_factors([rows // 24, rows // 6, rows // 2], 1)


def arrow(q: int, *, head_first: bool) -> Dense:
    """Return a diagonal matrix with one full row, which fills in if taken first."""
    M = 4.0 * np.eye(q)
    at = 0 if head_first else q - 1
    M[at] = M[:, at] = 1.0
    M[at, at] = q
    return M


def dense(q: int) -> Dense:
    """Return a full matrix."""
    A = np.random.default_rng(q).normal(size=(q, q))
    return A @ A.T + q * np.eye(q)


def pedigree(n: int, herds: int = 0) -> Dense:
    """Return A^-1 + I of n animals with random parents, with crossed herds if any."""
    rng = np.random.default_rng(n)
    residual = np.eye(n)
    for animal in range(n // 10, n):
        parents = rng.choice(animal, 2, replace=False)
        residual[animal, parents] = -0.5
    precision = 2.0 * residual.T @ residual
    if herds == 0:
        return precision + np.eye(n)
    Z = np.zeros((n, herds))
    Z[np.arange(n), rng.integers(0, herds, n)] = 1.0
    corner = Z.T @ Z + np.eye(herds)
    return np.block([[precision + np.eye(n), Z], [Z.T, corner]])


def disconnected() -> Dense:
    """Return blocks that share nothing, their columns shuffled."""
    parts = [dense(3), np.eye(4), arrow(9, head_first=True), crossed(5, 4, n=20)]
    M: Dense = linalg.block_diag(*parts)
    order = np.random.default_rng(0).permutation(M.shape[0])
    return M[np.ix_(order, order)]


def grid(side: int) -> Dense:
    """Return the five-point Laplacian of a square grid, plus a little."""
    line = 2.0 * np.eye(side) - np.eye(side, k=1) - np.eye(side, k=-1)
    M = np.kron(line, np.eye(side)) + np.kron(np.eye(side), line)
    return M + 0.01 * np.eye(side * side)


PATTERNS: dict[str, Dense] = {
    "one column": np.array([[2.5]]),
    "diagonal": np.diag(np.arange(1.0, 8.0)),
    "full": dense(60),
    "arrow, head first": arrow(40, head_first=True),
    "arrow, head last": arrow(40, head_first=False),
    "arrow wide enough to be dense": arrow(700, head_first=True),
    "disconnected": disconnected(),
    "nested": nested(),
    "crossed": crossed(60, 30, 4),
    "crossed slopes": crossed(40, 20, k=2),
    "crossed, three coefficients": crossed(30, 10, k=3),
    "dense root over leaves": crossed(700, 290, n=4_000),
    "dense root over leaves, two wide": crossed(500, 160, n=2_500, k=2),
    "grid": grid(22),
    "pedigree": pedigree(400),
    "pedigree and herds": pedigree(300, herds=12),
}


def lower_triangle(
    M: Dense,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Return (indptr, indices, values) of the lower triangle by columns."""
    columns, rows = np.nonzero(np.tril(M).T)
    indptr = np.searchsorted(columns, np.arange(M.shape[0] + 1)).astype(np.int64)
    return indptr, rows.astype(np.int32), M[rows, columns]
