"""A least squares regression for each subject, all of them at once.

Design in, coefficients of m subjects out. Subjects with the same number of rows are
stacked and decomposed together; nothing here knows what the coefficients are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixform._typing import Codes, Mask, Matrix, Stack, Vector
from mixform.design import Design
from mixform.design.fixed import ALIAS_TOLERANCE

#: Share of a sum of squares that is rounding.
ROUNDING = 1e-24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SubjectFits:
    """Regressions of m subjects on the same k covariates, by least squares.

    Attributes
    ----------
    design : the rows, the covariates and, as its random block, the subjects
    coefficients : (m, k) estimates
    roots : (m, k, k) upper triangular F_i with F_i F_i' = (Z_i' Z_i)^-1, Z_i weighted
    counts : (m,) rows
    rss : (m,) residual sums of squares, weighted
    explained : (m,) sums of squares of the covariates, the constant left out
    total : (m,) sums of squares of the response
    pool : whether all subjects have one residual variance
    """

    design: Design
    coefficients: Matrix
    roots: Stack
    counts: Codes
    rss: Vector
    explained: Vector
    total: Vector
    pool: bool

    @property
    def levels(self) -> pd.Index:
        """Labels of the subjects."""
        return self.design.blocks[0].levels

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients."""
        return self.design.fixed.names

    @property
    def m(self) -> int:
        """Number of subjects."""
        return len(self.counts)

    @property
    def k(self) -> int:
        """Number of coefficients of each subject."""
        return self.coefficients.shape[1]

    @property
    def subject_df(self) -> Codes:
        """Residual degrees of freedom of each subject, (m,)."""
        return self.counts - self.k

    @property
    def pooled_df(self) -> int:
        """Residual degrees of freedom of all subjects together."""
        return int(self.subject_df.sum())

    @property
    def pooled_variance(self) -> float:
        """Residual sum of squares over its degrees of freedom, NaN if none."""
        return float(self.rss.sum()) / self.pooled_df if self.pooled_df else np.nan

    @property
    def own_variances(self) -> Vector:
        """Residual variance of each subject by itself, (m,); NaN without df."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.subject_df > 0, self.rss / self.subject_df, np.nan)

    @property
    def variances(self) -> Vector:
        """Residual variance that standard errors use, (m,)."""
        if self.pool:
            return np.full(self.m, self.pooled_variance)
        return self.own_variances

    @property
    def unscaled(self) -> Stack:
        """The covariance of the coefficients over the residual variance, (m, k, k)."""
        return self.roots @ self.roots.swapaxes(1, 2)

    @property
    def r2(self) -> Vector:
        """Share of the sum of squares explained, (m,); NaN where there is none."""
        varying = self.explained + self.rss
        with np.errstate(divide="ignore", invalid="ignore"):
            share = self.explained / varying
        return np.where(varying > ROUNDING * self.total, share, np.nan)

    @property
    def exact(self) -> Mask:
        """Whose rows leave nothing but rounding of degrees of freedom, (m,)."""
        return (self.subject_df > 0) & (self.rss <= ROUNDING * self.total)

    @property
    def fitted(self) -> Vector:
        """Z_i beta_i + offset, (n,)."""
        design = self.design
        rows = self.coefficients[design.blocks[0].codes]
        values = np.einsum("ij,ij->i", design.fixed.coded.values, rows)
        return values if design.offset is None else values + design.offset


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shortage:
    """Subjects without a regression of their own.

    Attributes
    ----------
    reasons : (M,) why there is none, empty for the others
    """

    reasons: tuple[str, ...]

    @property
    def short(self) -> Mask:
        """Which subjects, (M,)."""
        return np.array([bool(reason) for reason in self.reasons])


def find_shortage(design: Design, *, pool: bool) -> Shortage:
    """Find the subjects whose rows do not determine their coefficients.

    A covariate is counted as a combination of those before it as in `orthonormalize`,
    by its variation within the subject.

    Parameters
    ----------
    pool : False asks for a residual degree of freedom of each subject as well
    """
    k, constant = design.fixed.coded.values.shape[1], _has_constant(design)
    reasons = [""] * design.blocks[0].m
    for subjects, rows, Z, _ in _stacks(design):
        n = rows.shape[1]
        if n < k + (not pool):
            text = f"{n} row{'s' if n > 1 else ''}"
            for i in subjects.tolist():
                reasons[i] = text
            continue
        R = np.linalg.qr(Z).R
        aliased = _aliased(R, constant=constant)
        for place in np.flatnonzero(aliased.any(axis=1)).tolist():
            column = int(np.argmax(aliased[place]))
            name = design.fixed.names[column]
            flat = constant and _is_multiple(Z[place], column)
            what = "is constant" if flat else "is a combination of others"
            reasons[int(subjects[place])] = f"{name!r} {what} in {n} rows"
    return Shortage(reasons=tuple(reasons))


def fit_subjects(design: Design, *, pool: bool) -> SubjectFits:
    """Return the least squares regression of each subject.

    By the QR decomposition of each Z_i, rows scaled by the root of their weights::

        Z_i = Q_i R_i,   beta_i = R_i^-1 Q_i'y_i,   rss_i = |y_i - Q_i Q_i'y_i|^2

    Parameters
    ----------
    design : every subject's rows determine its coefficients, see `find_shortage`
    pool : whether all subjects have one residual variance
    """
    m, k = design.blocks[0].m, design.fixed.coded.values.shape[1]
    coefficients, roots = np.empty((m, k)), np.empty((m, k, k))
    counts, first = np.empty(m, dtype=np.int64), int(_has_constant(design))
    rss, explained, total = np.empty(m), np.empty(m), np.empty(m)
    for subjects, rows, Z, y in _stacks(design):
        Q, R = np.linalg.qr(Z)
        effects = np.einsum("sij,si->sj", Q, y)
        rest = y - np.einsum("sij,sj->si", Q, effects)
        # What Q'y lost to cancellation is still in the residuals: a second pass.
        more = np.einsum("sij,si->sj", Q, rest)
        rest = rest - np.einsum("sij,sj->si", Q, more)
        effects = effects + more
        inverse = np.linalg.solve(R, np.broadcast_to(np.eye(k), R.shape))
        coefficients[subjects] = np.linalg.solve(R, effects[..., None])[..., 0]
        roots[subjects] = inverse
        counts[subjects] = rows.shape[1]
        rss[subjects] = np.einsum("si,si->s", rest, rest)
        total[subjects] = np.einsum("si,si->s", y, y)
        explained[subjects] = np.einsum(
            "sj,sj->s", effects[:, first:], effects[:, first:]
        )
    return SubjectFits(
        design=design,
        coefficients=coefficients,
        roots=roots,
        counts=counts,
        rss=rss,
        explained=explained,
        total=total,
        pool=pool,
    )


def _stacks(design: Design) -> Iterator[tuple[Codes, Codes, Stack, Matrix]]:
    """Yield subjects with the same number of rows: (s,), rows (s, n_i), Z and y.

    Rows are scaled by the root of their weights; y is without offset.
    """
    codes = design.blocks[0].codes
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=design.blocks[0].m)
    starts = np.cumsum(counts) - counts
    Z = design.fixed.coded.values
    y = design.y if design.offset is None else design.y - design.offset
    if design.weights is not None:
        root = np.sqrt(design.weights)
        Z, y = Z * root[:, None], y * root
    for size in np.unique(counts).tolist():
        subjects = np.flatnonzero(counts == size)
        rows = order[starts[subjects][:, None] + np.arange(size)]
        yield subjects, rows, Z[rows], y[rows]


def _has_constant(design: Design) -> bool:
    return design.fixed.names[0] == "Intercept"


def _is_multiple(Z: Matrix, column: int) -> bool:
    """Whether a column of one subject is a multiple of its first."""
    scale = np.linalg.norm(Z[:, 0]) * np.linalg.norm(Z[:, column])
    cross = abs(float(Z[:, 0] @ Z[:, column]))
    return bool(cross >= (1.0 - 1e-12) * scale)


def _aliased(R: Stack, *, constant: bool) -> Mask:
    """Return which columns are combinations of those before them, (s, k).

    With a constant the size of a column is its variation about the mean: R without
    its first row.
    """
    norms = np.linalg.norm(R, axis=1)
    sizes = norms.copy()
    if constant:
        sizes[:, 1:] = np.linalg.norm(R[:, 1:, 1:], axis=1)
    rest = np.abs(np.diagonal(R, axis1=1, axis2=2))
    # 1e-12: what rounding leaves of a column that is constant in the subject.
    return (rest <= ALIAS_TOLERANCE * sizes) | (rest <= 1e-12 * norms)
