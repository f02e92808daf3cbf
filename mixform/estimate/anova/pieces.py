"""Projections onto spaces of columns, in pieces with orthonormal bases.

The space of X and some random terms is that of its largest term, whose Z'Z is
diagonal, and, piece by piece, what X and the other terms add to it. The basis of a
piece is C = Y K with Y all columns; C'Y is kept too, so that products of pieces need
cross-products of columns only, never rows. Terms nested in others add nothing, and
cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr, solve_triangular
from scipy.linalg.lapack import dpstrf
from scipy.sparse import csr_array, diags_array

from mixform._typing import Matrix, Vector
from mixform.errors import SolverError
from mixform.estimate.anova.columns import FIXED, Block, Columns

#: Length of what others leave of a column of unit length, below which nothing is left.
INDEPENDENT = 1e-9

#: Square of the same where it comes from cross-products, with their rounding.
LEAST_PIVOT = 1e-11

#: Numbers in one dense matrix, above which analysis of variance is refused.
LARGEST = 1e8


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """An orthonormal basis C = Y K of r columns, orthogonal to the pieces before it.

    Attributes
    ----------
    size : r
    K : by block of columns, (size of the block, r); blocks left out are zero
    T : by block of columns, C'Y, (r, size of the block); likewise
    """

    size: int
    K: dict[int, Block]
    T: dict[int, Block]

    @property
    def sparse(self) -> bool:
        """Whether the basis is that of the levels of a term."""
        return FIXED not in self.K and all(
            isinstance(one, csr_array) for one in self.K.values()
        )


def leading(columns: Columns, terms: Iterable[int]) -> list[int]:
    """Return the terms that are not within others of them, the largest first."""
    out: list[int] = []
    for j in sorted(terms, key=lambda j: -columns.size(j)):
        if not any(j in columns.within[k] for k in out):
            out.append(j)
    return out


def span(columns: Columns, terms: Iterable[int], *, fixed: bool = True) -> list[Piece]:
    """Return the pieces of the space of some random terms and, if so, X."""
    order = leading(columns, terms)
    pieces = [_levels(columns, j) for j in order[:1]]
    if fixed:
        pieces.append(_fixed(columns, order[:1], pieces))
    for at, j in enumerate(order[1:], 1):
        pieces.append(added(columns, order[:at], pieces, j))
    return pieces


def breadth(columns: Columns, terms: Iterable[int]) -> int:
    """Return the largest number of dense basis vectors that `span` forms."""
    order = leading(columns, terms)
    return columns.size(FIXED) + sum(columns.size(j) for j in order[1:])


def rank(pieces: Sequence[Piece]) -> int:
    """Return the dimension of a space."""
    return sum(piece.size for piece in pieces)


def rest_after(columns: Columns, pieces: Sequence[Piece], M: Matrix) -> Matrix:
    """Return what a space leaves of the columns of M (n, c)."""
    for _ in range(2):  # once more: what rounding left behind
        for piece in pieces:
            along = sum(K.T @ columns.products(key, M) for key, K in piece.K.items())
            M = M - sum(columns.times(key, K @ along) for key, K in piece.K.items())
    return M


def along(columns: Columns, piece: Piece, y: Vector) -> Vector:
    """Return C'y."""
    return np.asarray(
        sum(K.T @ columns.products(key, y[:, None])[:, 0] for key, K in piece.K.items())
    )


def _levels(columns: Columns, j: int) -> Piece:
    squares = columns.squares(j)
    used = squares > 0.0
    root = np.where(used, 1.0 / np.sqrt(np.where(used, squares, 1.0)), 0.0)
    scale = csr_array(diags_array(root))
    T = {key: csr_array(scale @ columns.cross[j, key]) for key in range(len(columns.Z))}
    return Piece(
        size=int(used.sum()),
        K={j: scale},
        T={**T, FIXED: np.asarray(scale @ columns.cross[j, FIXED])},
    )


def _fixed(columns: Columns, before: Sequence[int], pieces: Sequence[Piece]) -> Piece:
    """Return what X adds, from its rows: cross-products would lose digits."""
    p = columns.size(FIXED)
    keys = [j for j in columns.keys if not _spanned(columns, before, j)]
    if not before:
        return Piece(
            size=p,
            K={FIXED: np.eye(p)},
            T={key: columns.cross[FIXED, key] for key in keys},
        )
    basis, coefficients = _orthonormal(rest_after(columns, pieces, columns.Q))
    return Piece(
        size=basis.shape[1],
        K=_coefficients(pieces, FIXED, coefficients),
        T={key: columns.products(key, basis).T for key in keys},
    )


def basis_after(parts: Sequence[Matrix], own: Matrix) -> Matrix:
    """Return an orthonormal basis (n, f) of what columns add to parts.

    Parameters
    ----------
    parts : each (n, ...)
    own : (n, a); columns of all shorter than `INDEPENDENT` count as nothing
    """
    others = _orthonormal(np.hstack([np.empty((len(own), 0)), *parts]))[0]
    for _ in range(2):
        own = own - others @ (others.T @ own)
    return _orthonormal(own)[0]


def _orthonormal(M: Matrix) -> tuple[Matrix, Matrix]:
    """Return an orthonormal basis M K (n, r) of the columns of M (n, c), and K."""
    lengths = np.sqrt(np.einsum("ij,ij->j", M, M))
    kept = np.flatnonzero(lengths > INDEPENDENT)
    if not len(kept):
        return np.empty((len(M), 0)), np.zeros((M.shape[1], 0))
    basis, R, order = qr(M[:, kept] / lengths[kept], mode="economic", pivoting=True)
    r = int(np.sum(np.abs(np.diag(R)) > INDEPENDENT))
    kept = kept[order[:r]]
    K = np.zeros((M.shape[1], r))
    K[kept] = _inverse(np.asarray(R[:r, :r], dtype=np.float64)) / lengths[kept][:, None]
    return np.asarray(basis[:, :r], dtype=np.float64), K


def added(
    columns: Columns, before: Sequence[int], pieces: Sequence[Piece], i: int
) -> Piece:
    """Return what random term i adds to the space of X and terms before it.

    Parameters
    ----------
    columns : all columns
    before : the random terms of the space
    pieces : of the space
    i : the term

    Raises
    ------
    SolverError : the dense matrices would not fit into memory
    """
    size = columns.size(i)
    if size * max(size, columns.width) > LARGEST:
        raise SolverError(
            f"Analysis of variance would need a dense matrix of {size} by "
            f"{max(size, columns.width)} numbers for a random term that is crossed "
            "with others.",
            hint='Use method="REML".',
        )
    lengths = np.sqrt(columns.squares(i))
    lengths[lengths == 0.0] = 1.0
    gram = columns.cross[i, i].toarray()
    for piece in pieces:
        own = piece.T[i]
        gram -= (own.T @ own).toarray() if piece.sparse else own.T @ own
    F, order, r = _factor(gram / np.outer(lengths, lengths))
    lead = order[:r]
    k = np.zeros((size, r))
    k[lead] = _inverse(F[:, lead]) / lengths[lead][:, None]
    T: dict[int, Block] = {i: F * lengths}
    for key in columns.keys:
        if key in (i, FIXED) or _spanned(columns, before, key):
            continue
        T[key] = np.asarray((columns.cross[key, i] @ k).T)
        for piece in pieces:
            T[key] -= np.asarray((piece.T[key].T @ (piece.T[i] @ k)).T)
    return Piece(size=r, K=_coefficients(pieces, i, k), T=T)


def _spanned(columns: Columns, terms: Iterable[int], key: int) -> bool:
    return any(key in columns.within[j] for j in terms)


def _coefficients(pieces: Sequence[Piece], own: int, k: Matrix) -> dict[int, Block]:
    """Return the coefficients of Y_own k less its projection on pieces."""
    out: dict[int, Block] = {own: k}
    for piece in pieces:
        across = piece.T[own] @ k
        for key, K in piece.K.items():
            out[key] = out.get(key, 0.0) - np.asarray(K @ across)
    return out


def _inverse(R: Matrix) -> Matrix:
    return solve_triangular(R, np.eye(len(R))) if len(R) else np.empty((0, 0))


def _factor(gram: Matrix) -> tuple[Matrix, np.ndarray, int]:
    """Return F (r, q) with F'F = gram, the order of its pivots, and the rank r."""
    q = len(gram)
    # LAPACK does not hold the first pivot against the tolerance.
    if q == 0 or not gram.diagonal().max() > LEAST_PIVOT:
        return np.empty((0, q)), np.arange(q), 0
    factor, pivots, r, _ = dpstrf(gram, lower=0, tol=LEAST_PIVOT)
    order = np.asarray(pivots) - 1
    F = np.empty((r, q))
    F[:, order] = np.triu(factor)[:r]
    return F, order, int(r)
