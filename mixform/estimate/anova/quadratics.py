"""Quadratic forms y'Ay of random terms: reductions in sums of squares, and traces.

A is the projection on what a term adds to others: C C' of that piece, or where the term
has more levels than the spaces with and without it have other columns, the difference
of the projections on the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.sparse import csr_array, eye_array

from mixform._typing import Vector
from mixform.estimate.anova.columns import Block, Columns
from mixform.estimate.anova.pieces import (
    Piece,
    added,
    along,
    breadth,
    leading,
    rank,
    rest_after,
    span,
)


@dataclass(frozen=True, slots=True, eq=False)
class Quadratic:
    """The quadratic form y'Ay of a random term, A = sum of signs C C'.

    Attributes
    ----------
    term : its position
    before : pieces of the space it is added to
    plus, minus : pieces of A
    touched : the random terms with variances in the expectation
    """

    term: int
    before: tuple[Piece, ...]
    plus: tuple[Piece, ...]
    minus: tuple[Piece, ...]
    touched: frozenset[int]

    @property
    def rank(self) -> int:
        """Degrees of freedom."""
        return rank(self.plus) - rank(self.minus)

    @property
    def signed(self) -> list[tuple[float, Piece]]:
        """The pieces of A with their signs."""
        return [(1.0, one) for one in self.plus] + [(-1.0, one) for one in self.minus]

    @property
    def space(self) -> tuple[Piece, ...]:
        """Pieces of the space with the term."""
        return self.plus if self.minus else (*self.before, *self.plus)


def quadratic(columns: Columns, i: int, others: Sequence[int]) -> Quadratic:
    """Return the quadratic form of term i after X and others."""
    touched = frozenset(range(len(columns.Z))) - frozenset(others)
    before = tuple(span(columns, others))
    with_it = [*others, i]
    if any(i in columns.within[j] for j in others):
        return Quadratic(i, before, (), (), touched)
    width = breadth(columns, with_it) + breadth(columns, others)
    if columns.size(i) <= width:
        own = added(columns, leading(columns, others), before, i)
        return Quadratic(i, before, (own,), (), touched)
    return Quadratic(i, before, tuple(span(columns, with_it)), before, touched)


def sum_of_squares(columns: Columns, form: Quadratic, y: Vector) -> float:
    """Return y'Ay; of what the space before leaves of y, so that nothing cancels."""
    rest = rest_after(columns, form.before, y[:, None])[:, 0]
    return sum(float(np.sum(along(columns, one, rest) ** 2)) for one in form.plus)


def coefficients(form: Quadratic, n_terms: int) -> Vector:
    """Return tr(Z_j'A Z_j) of each random term."""
    out = np.zeros(n_terms)
    for sign, piece in form.signed:
        for j in form.touched & set(piece.T):
            out[j] += sign * _squared(piece.T[j])
    return out


def trace(
    columns: Columns, one: Quadratic, two: Quadratic, variances: Mapping[int, float]
) -> float:
    """Return tr(A_1 V A_2 V), V = sum of variances v_j Z_j Z_j' + v_residual I.

    Parameters
    ----------
    columns : all columns
    one, two : quadratic forms with A_1 and A_2
    variances : by term; of the residual at the key -1
    """
    kept = {-1: variances[-1]}
    kept |= {j: variances[j] for j in one.touched & two.touched}
    return sum(
        a * b * _trace(columns, C, D, kept)
        for (a, C), (b, D) in product(one.signed, two.signed)
    )


def _trace(columns: Columns, C: Piece, D: Piece, variances: dict[int, float]) -> float:
    """Return the sum of squares of C'V D."""
    if C.sparse and D.sparse:
        return _trace_of_levels(columns, C, D, variances)
    if C.sparse:
        C, D = D, C
    out = variances[-1] * _inner(C, D)
    for j, value in variances.items():
        if j >= 0 and j in C.T and j in D.T:
            out = out + value * np.asarray(C.T[j] @ D.T[j].T)
    return _squared(out)


def _inner(C: Piece, D: Piece) -> Block:
    if C is D:
        return np.eye(C.size)
    width = next(iter(D.K.values())).shape[1]
    out = np.zeros((C.size, width))
    for key in C.T.keys() & D.K.keys():
        out += np.asarray(C.T[key] @ D.K[key])
    return out


def _trace_of_levels(
    columns: Columns, C: Piece, D: Piece, variances: dict[int, float]
) -> float:
    """Return the sum of squares of C'V D for bases of the levels of two terms.

    Of each product of four sparse matrices, the order with less work.
    """
    (l,) = D.K
    left: dict[int, Block] = {-1: csr_array(C.T[l] @ D.K[l])}
    right: dict[int, Block] = {-1: csr_array(eye_array(columns.size(l)))}
    for j in variances:
        if j >= 0:
            left[j], right[j] = C.T[j], csr_array(D.T[j].T)
    out = 0.0
    for a, b in product(variances, variances):
        if b > a:
            continue
        value = variances[a] * variances[b] * (1.0 if a == b else 2.0)
        out += value * _cycle(left[a], right[a], left[b], right[b])
    return out


def _cycle(A: Block, B: Block, C: Block, D: Block) -> float:
    """Return the inner product of A B and C D, which is that of C'A and D B'."""
    Ct, Bt = csr_array(C.T), csr_array(B.T)
    if _work(A, B) + _work(C, D) <= _work(Ct, A) + _work(D, Bt):
        return float((A @ B).multiply(C @ D).sum())
    return float((Ct @ A).multiply(D @ Bt).sum())


def _work(A: Block, B: Block) -> float:
    """Return the number of multiplications of a product of sparse matrices."""
    within = np.bincount(A.indices, minlength=A.shape[1])
    return float(within @ np.diff(B.indptr))


def _squared(M: Block) -> float:
    values = M.data if isinstance(M, csr_array) else M
    return float(np.sum(np.square(values)))
