"""Reductions in sums of squares of the terms of a model, fixed or random.

X, Z and y are written in coordinates of an orthonormal basis of the space that X and Z
span, N = rank([X, Z]) numbers for each column; what is orthogonal to that space is the
residual. A reduction R(term | others) is then the squared length of y along an
orthonormal basis U of what the term adds to the others, and a quadratic form y'Ay has
A = U U'.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.linalg.lapack import dpstrf
from scipy.sparse import csc_array, diags_array, hstack

from mixform._typing import Matrix, Vector
from mixform.design import Design, RandomBlock
from mixform.errors import DesignError
from mixform.estimate.mean_squares import Coordinates
from mixform.estimate.responses import checked_response

#: Length of what others leave of a column of unit length, below which nothing is left.
INDEPENDENT = 1e-9

#: Square of the same where it comes from cross-products, with their rounding.
LEAST_PIVOT = 1e-11

#: Columns of X and Z together, above which the dense matrices would be too large.
LARGEST = 6000


def coordinates(design: Design) -> Coordinates:
    """Write a design in coordinates.

    With Q R = X and Z = Q Q'Z + Z_, a Cholesky factorisation of Z_'Z_ that takes its
    columns by size gives those of Z_.

    Raises
    ------
    DesignError : too many columns; no residual degrees of freedom
    """
    n, p = design.fixed.Q.shape
    q = sum(block.m * block.k for block in design.blocks)
    if p + q > LARGEST:
        raise DesignError(
            f"The model has {p + q} fixed and random effects; analysis of variance is "
            f"for at most {LARGEST}, whose dense matrices it works with.",
            hint='Use method="REML".',
        )
    response = checked_response(design)
    scale, rest = float(response.y_scale[0]), response.rest[:, 0]
    Z = weighted_Z(design)
    QtZ = np.asarray((Z.T @ design.fixed.Q).T)
    gram = np.asarray((Z.T @ Z).todense()) - QtZ.T @ QtZ
    lengths = np.sqrt(np.asarray(Z.power(2).sum(axis=0)).ravel())
    lengths[lengths == 0.0] = 1.0
    gram /= np.outer(lengths, lengths)
    F, order, r = _rows_of(gram)
    along = np.asarray(Z.T @ rest).ravel() / lengths
    from_rest = np.empty(0)
    if r:
        lead = F[:, order[:r]]  # upper triangular
        from_rest = np.linalg.solve(lead.T, along[order[:r]])
    rss = float(rest @ rest - from_rest @ from_rest)
    if n - p - r < 1:
        raise DesignError(
            "The terms leave no residual degrees of freedom: analysis of variance has "
            "no mean square for the residual variance.",
            hint="Leave out the random term whose levels have one row each.",
        )
    if not rss > 1e-12 * float(rest @ rest):
        raise DesignError(
            "The terms fit the response to the last digit; no residual variance is "
            "left.",
            hint="Drop a random term, or check the response for copies.",
        )
    ends = np.cumsum([0, *(b.m * b.k for b in design.blocks)]).tolist()
    whole = np.vstack([QtZ, F * lengths])
    return Coordinates(
        X=np.vstack([design.fixed.R, np.zeros((r, p))]),
        Z=tuple(whole[:, a:b] for a, b in pairwise(ends)),
        y=np.append(response.projection[:, 0], scale * from_rest),
        rss=scale**2 * rss,
        residual_df=n - p - r,
    )


def weighted_Z(design: Design) -> csc_array:
    """Return Z (n, q), rows scaled by the root of their weights."""
    if not design.blocks:
        return csc_array((len(design.y), 0))
    Z = hstack([block.Z for block in design.blocks], format="csc")
    if design.weights is not None:
        Z = diags_array(np.sqrt(design.weights)) @ Z
    return csc_array(Z)


def _rows_of(gram: Matrix) -> tuple[Matrix, np.ndarray, int]:
    """Return F (r, q) with F'F = gram, the order of its pivots, and the rank r."""
    q = len(gram)
    # LAPACK does not hold the first pivot against the tolerance.
    if q == 0 or not gram.diagonal().max() > LEAST_PIVOT:
        return np.empty((0, q)), np.arange(q), 0
    factor, pivots, rank, _ = dpstrf(gram, lower=0, tol=LEAST_PIVOT)
    order = np.asarray(pivots) - 1
    F = np.empty((rank, q))
    F[:, order] = np.triu(factor)[:rank]
    return F, order, int(rank)


def span_within(columns: Matrix, others: Matrix) -> Matrix:
    """Return an orthonormal basis (N, f) of what columns add to others.

    Parameters
    ----------
    columns : (N, a)
    others : (N, b) orthonormal
    """
    lengths = _lengths(columns)
    rest = columns[:, lengths > 0.0] / lengths[lengths > 0.0]
    for _ in range(2):  # once more: what rounding left behind
        rest = rest - others @ (others.T @ rest)
    lengths = _lengths(rest)
    rest = rest[:, lengths > INDEPENDENT] / lengths[lengths > INDEPENDENT]
    F, order, rank = _rows_of(rest.T @ rest)
    lead = rest[:, order[:rank]]
    if rank == 0:
        return lead
    # Nearly orthonormal by the Cholesky factor, to rounding by Householder's.
    lead = np.linalg.solve(F[:, order[:rank]].T, lead.T).T
    lead -= others @ (others.T @ lead)
    return np.linalg.qr(lead)[0]


def _lengths(columns: Matrix) -> Vector:
    return np.sqrt(np.einsum("ij,ij->j", columns, columns))


def reduction(parts: Sequence[Matrix], own: Matrix) -> Matrix:
    """Return the basis (N, f) of R(own | parts); all of them (N, ...)."""
    others = np.empty((len(own), 0))
    for part in parts:
        others = np.hstack([others, span_within(part, others)])
    return span_within(own, others)


def contains(larger: RandomBlock, smaller: RandomBlock) -> bool:
    """Whether the columns of one random term span those of another.

    They do if the levels of the smaller are unions of levels of the larger, with the
    same covariate, however the user wrote it.
    """
    if not np.array_equal(larger.design, smaller.design):
        return False
    pairs = larger.codes * np.int64(smaller.m) + smaller.codes
    return len(np.unique(pairs)) == len(np.unique(larger.codes))
