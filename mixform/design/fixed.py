"""X: its columns, which of them are aliased, and an orthonormal basis of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr

from mixform._typing import Matrix, Vector
from mixform.design.column_space import ColumnSpace
from mixform.design.model_matrix import Coded

#: A column closer than this to the span of those before it, relative to its own
#: variation about the mean, is aliased (the tolerance of R's lm).
ALIAS_TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedPart:
    """The fixed effects.

    Attributes
    ----------
    coded : all columns of X with names and terms, unweighted
    kept : positions of the p columns that are estimated
    aliased : positions of the columns that are combinations of columns before them
    alias_of_kept : (p, a) coefficients of those combinations
    Q : (n, p) orthonormal basis of the kept columns, rows scaled by sqrt(weight)
    R : (p, p) upper triangular, ``Q @ R`` are the kept, scaled columns
    """

    coded: Coded
    kept: tuple[int, ...]
    aliased: tuple[int, ...]
    alias_of_kept: Matrix
    Q: Matrix
    R: Matrix

    @property
    def X(self) -> Matrix:
        """The kept columns, (n, p), unweighted."""
        if not self.aliased:
            return self.coded.values
        return self.coded.values[:, self.kept]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns, aliased ones included."""
        return self.coded.names

    @property
    def aliased_names(self) -> tuple[str, ...]:
        """Names of the columns that were dropped."""
        return tuple(self.coded.names[j] for j in self.aliased)

    @property
    def space(self) -> ColumnSpace:
        """Which functions of the coefficients are estimable."""
        return ColumnSpace(
            names=self.names,
            kept=self.kept,
            aliased=self.aliased,
            alias_of_kept=self.alias_of_kept,
        )


def matrix_part(X: Matrix, names: tuple[str, ...]) -> FixedPart:
    """Return a matrix (n, c) as fixed part, with its columns that are combinations."""
    return orthonormalize(Coded(values=X, names=names, terms=(), spec=None), None)


def orthonormalize(coded: Coded, root_weights: Vector | None) -> FixedPart:
    """Return an orthonormal basis of X, aliased columns found and set aside.

    Columns are taken from left to right, so of two aliased ones the first is kept.
    """
    X = coded.values
    if root_weights is not None:
        X = X * root_weights[:, None]
    if X.shape[1] == 0:
        empty = np.empty((0, 0))
        return FixedPart(
            coded=coded, kept=(), aliased=(), alias_of_kept=empty, Q=X, R=empty
        )
    norms = np.sqrt(np.einsum("ij,ij->j", X, X))
    norms[norms == 0.0] = 1.0
    Q, R = _thin_qr(X / norms)
    constant = bool(np.all(coded.values[:, 0] == coded.values[0, 0]))
    kept = _independent_columns(R, constant=constant)
    aliased = tuple(j for j in range(X.shape[1]) if j not in set(kept))
    combination = np.empty((len(kept), 0))
    if aliased:
        # Only R is needed to write the aliased columns in terms of the kept ones.
        Q_kept, R_kept = _thin_qr(R[:, kept])
        solution = np.linalg.solve(R_kept, Q_kept.T @ R[:, aliased])
        # What rounding left of a zero would look like a dependence.
        solution[np.abs(solution) < 1e-11] = 0.0
        combination = solution * norms[list(aliased)] / norms[list(kept)][:, None]
        Q, R = _thin_qr(X[:, kept] / norms[list(kept)])
    return FixedPart(
        coded=coded,
        kept=kept,
        aliased=aliased,
        alias_of_kept=combination,
        Q=Q,
        R=R * norms[list(kept)],
    )


def _thin_qr(X: Matrix) -> tuple[Matrix, Matrix]:
    Q, R = qr(X, mode="economic", check_finite=False)
    return np.asarray(Q), np.asarray(R)


def _independent_columns(R: Matrix, *, constant: bool) -> tuple[int, ...]:
    """Return which columns are not combinations of columns to their left.

    Works on the R factor alone (R'R = X'X), by Gram-Schmidt done twice. When the first
    column is constant, a column's size is its variation about the mean, so that a
    year or a time stamp is not taken for a second intercept.
    """
    kept: list[int] = []
    basis = np.empty(R.shape)
    for j in range(R.shape[1]):
        column = R[:, j].copy()
        found = basis[:, : len(kept)]
        varying = found[:, :1] if constant else found[:, :0]
        size = float(np.linalg.norm(column - varying @ (varying.T @ column)))
        for _ in range(2):
            column -= found @ (found.T @ column)
        rest = float(np.linalg.norm(column))
        # 1e-12: what rounding leaves of a constant column of scaled size 1.
        if rest > ALIAS_TOLERANCE * size and rest > 1e-12:
            basis[:, len(kept)] = column / rest
            kept.append(j)
    return tuple(kept)
