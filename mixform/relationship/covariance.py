"""Dense covariances K of members, by a loading F with K = F F': singular or not.

A centred genomic matrix is always singular, and so is one with two clones. The
equations are solved for independent factors a, b = F a, and K^-1 is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.linalg.lapack import dpotrf, dpotri, dpstrf
from scipy.sparse import csc_array

from mixform._typing import Matrix, Vector
from mixform.design.random import level_labels
from mixform.errors import DesignError
from mixform.relationship.labelled import (
    SYMMETRIC,
    checked_labels,
    require_symmetric,
    square_matrix,
)

#: Squared pivot, relative to the largest, below which K has no inverse worth using: a
#: smaller one costs more digits of log|K| than the criterion has to spare.
DEFINITE = 1e-8
#: Squared pivot, relative to the largest diagonal entry of K, that counts as zero.
ZERO_PIVOT = 1e-11
#: What a pivoted Cholesky factor may leave of K, relative to the largest entry.
LEFT_OVER = 1e-10


@dataclass(frozen=True, eq=False)
class Covariance:
    """A covariance K = F F' of labelled members: made of a matrix, or by `loading`.

    Attributes
    ----------
    labels : members
    loading : (m, r) F, r the rank; lower triangular where K is positive definite
    zero : what counted as zero, in words; empty where nothing did
    """

    labels: pd.Index
    loading: Matrix
    zero: str = ""

    def __repr__(self) -> str:
        return f"<{self.description}>"

    @property
    def description(self) -> str:
        """What it is, and its rank where it is singular."""
        m, r = self.loading.shape
        rank = f" of rank {r}" if r < m or self.zero else ""
        note = f" ({self.zero} taken as zero)" if self.zero else ""
        return f"covariance{rank} of {m} members{note}"

    @cached_property
    def definite(self) -> bool:
        """Whether F is a Cholesky factor without small pivots."""
        m, r = self.loading.shape
        if m != r or np.any(np.triu(self.loading, 1)):
            return False
        pivots = np.square(self.loading.diagonal())
        return float(pivots.min()) > DEFINITE * float(pivots.max())

    @cached_property
    def precision(self) -> csc_array | None:
        """K^-1, (m, m); None if K is singular or nearly so."""
        if not self.definite:
            return None
        lower, _ = dpotri(self.loading, lower=1)
        lower = np.tril(lower)
        return csc_array(lower + np.tril(lower, -1).T)

    @property
    def logdet(self) -> float:
        """log|K| of a definite K."""
        return 2.0 * float(np.log(np.abs(self.loading.diagonal())).sum())

    @property
    def diagonal(self) -> Vector:
        """Diagonal of K, (m,)."""
        return np.einsum("ij,ij->i", self.loading, self.loading)

    def times(self, x: Matrix) -> Matrix:
        """Return K x for x (m, c)."""
        return self.loading @ (self.loading.T @ x)

    def half(self, x: Matrix) -> Matrix:
        """Return (F, 0) x for x (m, c)."""
        return self.loading @ x[: self.loading.shape[1]]


def loading(F: object, labels: object = None) -> Covariance:
    """Return the covariance F F' for ``relationship=``, of low rank or not.

    Parameters
    ----------
    F : (m, r) loadings of the members on r independent factors: a frame by member, or
        an array. Centred markers over the root of 2 sum p(1 - p), for example
    labels : (m,) members; None for the index of a frame

    Raises
    ------
    DesignError : not numeric, missing values, without labels

    Examples
    --------
    >>> twins = loading([[2.0], [2.0], [1.0]], ["a", "b", "c"])
    >>> twins.times(np.eye(3)).tolist()
    [[4.0, 4.0, 2.0], [4.0, 4.0, 2.0], [2.0, 2.0, 1.0]]
    """
    if labels is None and isinstance(F, pd.DataFrame):
        labels = F.index
    try:
        values = np.array(F, dtype=np.float64)
    except (TypeError, ValueError):
        raise DesignError("The loading is not numeric.") from None
    if values.ndim != 2 or not values.size:
        raise DesignError(
            f"The loading has shape {values.shape}, not (members, factors).",
            hint="One row for each member, one column for each factor.",
        )
    names = None if labels is None else level_labels(pd.Index(cast("Any", labels)))
    m = len(values)
    names = checked_labels(names, (m, m))
    if not np.all(np.isfinite(values)):
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise DesignError(f"The loading of {names[row]!r} has missing values.")
    if values.shape[1] > m:
        return _factored(values @ values.T, names)
    return Covariance(names, values)


def covariance_relation(K: pd.DataFrame) -> Covariance:
    """Check a covariance of labelled members, and factor it.

    Raises
    ------
    DesignError : asymmetric or indefinite; named or with the eigenvalue
    """
    values, labels = square_matrix(K, None, "covariance")
    require_symmetric(values, labels, "covariance")
    return _factored((values + values.T) / 2.0, labels)


def _factored(K: Matrix, labels: pd.Index) -> Covariance:
    """Factor K (m, m), symmetric: Cholesky, pivoted Cholesky, or by eigenvalues.

    A singular K is factored with pivots (LAPACK's dpstrf; Higham 1990, in Reliable
    Numerical Computation, 161): clones have equal rows of F. The eigenvalues are for a
    K that is semidefinite but for rounding to a few digits.
    """
    lower, info = dpotrf(K, lower=1, clean=1)
    pivots = np.square(lower.diagonal())
    if info == 0 and float(pivots.min()) > ZERO_PIVOT * float(pivots.max()):
        return Covariance(labels, lower)
    size = float(K.diagonal().max())
    if not size > 0.0:
        raise DesignError("The covariance has no positive variance.")
    packed, order, rank, _ = dpstrf(K, tol=ZERO_PIVOT * size, lower=1)
    F = np.empty((len(K), rank))
    F[order - 1] = np.tril(packed)[:, :rank]
    if float(np.abs(K - F @ F.T).max()) <= LEFT_OVER * size:
        return Covariance(labels, F, f"pivots below {ZERO_PIVOT:g} of the largest")
    values, vectors = np.linalg.eigh(K)
    smallest, largest = float(values[0]), float(values[-1])
    if smallest < -SYMMETRIC * largest:
        raise DesignError(
            f"The covariance is indefinite: its smallest eigenvalue is {smallest:.4g}.",
            hint="A covariance has no negative eigenvalue; check how it was computed.",
        )
    kept = values > SYMMETRIC * largest
    zero = f"eigenvalues below {SYMMETRIC:g} of the largest, down to {smallest:.2g},"
    return Covariance(labels, vectors[:, kept] * np.sqrt(values[kept]), zero)
