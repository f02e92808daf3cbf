"""The solution without some rows, theta held: exact, from the solution with all rows.

With V relative to sigma^2, rows S left out, N = ([V^-1]_SS)^-1, B = [V^-1X]_S and
e = [V^-1(y - X beta)]_S::

    X'V^-1X without S  =  X'V^-1X - B'NB
    beta without S     =  beta - (X'V^-1X - B'NB)^-1 B'N e
    r^2 without S      =  r^2 - e'Ne - e'NB (X'V^-1X - B'NB)^-1 B'N e

(block elimination of V; Christensen, Pearson and Johnson 1992, Technometrics 34, 38,
treat the case of one row). N = I + U (K^-1 - U'U)^-1 U' with U the rows of Z Lambda and
K the entries of M^-1 at the random effects that these rows touch.

beta is worked on as gamma with X'V^-1X = I, rows are scaled by R^-1/2. With a residual
structure a row is left out by giving it a parameter of its own: an orthonormal basis of
the columns of R^-1/2 that belong to S takes the place of the rows S.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from mixform._typing import AnyArray, Codes, Matrix, Stack, Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.criterion import require_rows
from mixform.estimate.problem import split_blocks
from mixform.inference.row_diagonals import row_diagonals, unwhiten
from mixform.mme import few_threads
from mixform.residual.model import Residual

#: Numbers of the inverse of M that may be kept at once (200 MB).
LARGEST_TABLE = 25_000_000

#: Columns of M^-1 solved for at once.
CHUNK = 256

#: Share of the information on a fixed effect that must be left without the group.
LEAST_INFORMATION = 1e-9

#: Rows times random effects from which a group's rows are kept sparse.
DENSE_ROWS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subjects:
    """Rows whose residuals are correlated with each other.

    Attributes
    ----------
    residual : R; of : (n,) number of each row's subject
    """

    residual: Residual
    of: Codes

    def rows_with(self, S: AnyArray) -> AnyArray:
        """Return all rows of the subjects of the rows S."""
        chosen = np.zeros(int(self.of.max()) + 1, dtype=bool)
        chosen[self.of[S]] = True
        return np.flatnonzero(chosen[self.of])

    def basis(self, S: AnyArray, touched: AnyArray) -> Matrix:
        """Return an orthonormal basis of R^-1/2 [touched, S]."""
        units = np.zeros((len(self.of), len(S)))
        units[S, np.arange(len(S))] = 1.0
        return np.linalg.qr(self.residual.whiten(units)[touched])[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """What each row contributes, on the scaled problem; K = sum of k over the terms.

    Attributes
    ----------
    B : (n, p) V^-1X; e : (n,) V^-1(y - X beta), with X'V^-1X = I
    values : (n, K) entries of Z Lambda; places : (n, K) the columns they are in
    subjects : of correlated residuals; None if they are independent
    """

    B: Matrix
    e: Vector
    values: Matrix
    places: Codes
    subjects: Subjects | None = None

    def without(self, S: AnyArray) -> tuple[Codes, AnyArray, Matrix]:
        """Return columns of Z Lambda (d,), and U and [B, e] of rows S to leave out."""
        touched = S if self.subjects is None else self.subjects.rows_with(S)
        columns, U = self.loadings(touched)
        F = np.column_stack([self.B[touched], self.e[touched]])
        if self.subjects is None or len(touched) == len(S):
            return columns, U, F
        E = self.subjects.basis(S, touched)
        return columns, np.asarray(U.T @ E).T, E.T @ F

    def loadings(self, rows: AnyArray) -> tuple[Codes, AnyArray]:
        """Return the columns of Z Lambda that rows touch, (d,), and U, (n_S, d)."""
        columns, local = np.unique(self.places[rows], return_inverse=True)
        local = local.reshape(len(rows), -1)
        values = self.values[rows]
        shape = (len(rows), len(columns))
        if shape[0] * shape[1] > DENSE_ROWS:
            ends = np.arange(0, values.size + 1, values.shape[1])
            sparse: Any = csr_array((values.ravel(), local.ravel(), ends), shape)
            return columns, sparse
        U = np.zeros(shape)
        # Terms have columns of their own, so no place occurs twice in a row.
        np.put_along_axis(U, local, values, axis=1)
        return columns, U


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Removed:
    """What leaving each of G groups out takes away, on the scaled problem.

    Attributes
    ----------
    J : (G, p, p) B'NB; j : (G, p) B'Ne; r2 : (G,) e'Ne
    n_rows : (G,) rows in each
    """

    J: Stack
    j: Matrix
    r2: Vector
    n_rows: Codes


def row_parts(fit: Fit) -> Rows:
    """Return what each row contributes."""
    here = fit.evaluation
    problem = here.problem
    if problem.rows is not None:
        return _correlated_parts(fit)
    Q = fit.design.fixed.Q
    n = problem.n
    root = 1.0 if fit.design.weights is None else np.sqrt(fit.design.weights)
    y = fit.design.y if fit.design.offset is None else fit.design.y - fit.design.offset
    y = y * root
    # [X, y] - Z Lambda M^-1 Lambda'Z'[X, y]: V^-1 of both.
    W = np.column_stack([Q, (y - Q @ problem.projection) / problem.y_scale])
    values: list[Matrix] = []
    places: list[Codes] = []
    start = 0
    for block, T, part in zip(
        problem.blocks, here.T, split_blocks(here.V, problem.blocks), strict=True
    ):
        scaled = block.design @ T
        levels = block.at_levels(part)
        W = W - np.einsum("ik,ikp->ip", scaled, levels[block.codes])
        if block.loading is None:
            values.append(scaled)
            first = start + block.codes.astype(np.int64) * block.k
            places.append(first[:, None] + np.arange(block.k))
        else:
            on_factors = block.loading[block.codes][:, :, None] * scaled[:, None, :]
            values.append(on_factors.reshape(n, block.q))
            places.append(np.tile(start + np.arange(block.q), (n, 1)))
        start += block.q
    empty = np.empty((n, 0))
    return Rows(
        B=W[:, :-1] @ here.R_inverse,
        e=W @ np.append(-here.beta, 1.0),
        values=np.hstack([empty, *values]),
        places=np.hstack([empty.astype(np.int64), *places]),
    )


def _correlated_parts(fit: Fit) -> Rows:
    """Return what each whitened row contributes."""
    here, n = fit.evaluation, fit.n
    rows = require_rows(here.problem)
    of = np.empty(n, dtype=np.int64)
    first = 0
    for batch in rows.model.layout.batches:
        of[batch.rows] = first + np.arange(len(batch.rows))[:, None]
        first += len(batch.rows)
    values: list[Matrix] = [np.empty((n, 0))]
    places: list[Codes] = [np.empty((n, 0), dtype=np.int64)]
    q = here.problem.equations.q
    if not isinstance(rows.Z, tuple):
        ZLambda = here.problem.equations.Lambda_dot(here.T, rows.Z.T, transpose=True)
        values.append(ZLambda.T)
        places.append(np.tile(np.arange(q), (n, 1)))
    else:
        start = 0
        for block, T in zip(rows.Z, here.T, strict=True):
            values.append(block.design @ T)
            levels = start + block.codes.astype(np.int64) * block.k
            places.append(levels[:, None] + np.arange(block.k))
            start += block.q
    return Rows(
        B=here.RootVinvX @ here.R_inverse,
        e=here.e,
        values=np.hstack(values),
        places=np.hstack(places),
        subjects=Subjects(residual=rows.residual, of=of),
    )


def remove_single_rows(fit: Fit, rows: Rows, chosen: slice) -> Removed:
    """Return what leaving out single rows takes away, for a range of them."""
    if rows.subjects is not None:
        of = row_diagonals(fit)
        N, e = 1.0 / of.V_inverse[chosen], of.Py[chosen]
        B = unwhiten(fit, rows.B)[chosen]
    else:
        factor = fit.evaluation.factor
        quadratics = factor.row_quadratics() if fit.T else np.zeros(fit.n)
        N = 1.0 / (1.0 - quadratics[chosen])
        B, e = rows.B[chosen], rows.e[chosen]
    return Removed(
        J=np.einsum("i,ip,iq->ipq", N, B, B),
        j=(N * e)[:, None] * B,
        r2=N * e**2,
        n_rows=np.ones(len(e), dtype=np.int64),
    )


def remove_groups(
    fit: Fit, rows: Rows, codes: Codes, m: int, advance: Callable[[], None]
) -> Removed:
    """Return what leaving out each of m groups of rows takes away.

    Raises
    ------
    InferenceError : a group explains its rows to the last digit
    """
    p = rows.B.shape[1]
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(m + 1))
    crossed = np.empty((m, p + 1, p + 1))
    with few_threads(fit.evaluation.problem.equations):
        entries = _InverseEntries(fit, rows.places)
        for g in range(m):
            S = order[ends[g] : ends[g + 1]]
            columns, U, F = rows.without(S)
            crossed[g] = _weighed(F, U, entries.block(columns))
            advance()
    return Removed(
        J=crossed[:, :p, :p],
        j=crossed[:, :p, p],
        r2=crossed[:, p, p],
        n_rows=np.diff(ends).astype(np.int64),
    )


def effects_without(fit: Fit, rows: Rows, S: AnyArray) -> Vector:
    """Return u (q,) solved without the rows S, theta held; NaN if beta is lost.

    The rows left out are given parameters of their own, g = N(e + B d) with d the fall
    of beta: u without them = u + M^-1 (Lambda'Z'X d - U'g).
    """
    here = fit.evaluation
    p, q = here.problem.p, len(here.u)
    with few_threads(here.problem.equations):
        columns, U, F = rows.without(S)
        unit = np.zeros((q, len(columns)))
        unit[columns, np.arange(len(columns))] = 1.0
        inverse = here.factor.solve(unit)
    K = inverse[columns]
    inner = np.eye(len(columns)) - U.T @ (U @ K)
    NF = F + U @ (K @ np.linalg.solve(inner, U.T @ F))
    J, j = F[:, :p].T @ NF[:, :p], F[:, :p].T @ NF[:, p]
    if p and np.linalg.eigvalsh(np.eye(p) - J)[0] < LEAST_INFORMATION:
        return np.full(q, np.nan)
    d = np.linalg.solve(np.eye(p) - J, j)
    g = NF[:, p] + NF[:, :p] @ d
    return here.u + here.V[:, :p] @ here.R_inverse @ d - inverse @ (U.T @ g)


def _weighed(F: Matrix, U: AnyArray, K: Matrix) -> Matrix:
    """Return F'NF, N = I + U (K^-1 - U'U)^-1 U' = I + UL (I - L'U'UL)^-1 L'U'."""
    out = F.T @ F
    if K.size == 0:
        return out
    crossed = U.T @ U
    crossed = crossed if isinstance(crossed, np.ndarray) else crossed.toarray()
    try:
        L = np.linalg.cholesky(K)
        inner = np.linalg.cholesky(np.eye(len(K)) - L.T @ crossed @ L)
    except np.linalg.LinAlgError:
        raise InferenceError(
            "The random effects explain the rows of a group to the last digit: what "
            "leaving it out changes cannot be told.",
            hint="Use refit=True.",
        ) from None
    half = solve_triangular(inner, L.T @ (U.T @ F), lower=True)
    return out + half.T @ half


class _InverseEntries:
    """Entries of M^-1 between random effects, as many as memory allows solved once.

    M^-1 is zero between effects that no chain of rows joins, so one solve gives a
    column for each connected part of the design.
    """

    def __init__(self, fit: Fit, places: Codes) -> None:
        self.factor = fit.evaluation.factor
        self.q = q = fit.evaluation.problem.equations.q
        self.part = _connected_parts(places, q)
        order = np.argsort(self.part, kind="stable")
        first = np.searchsorted(self.part[order], np.arange(q))
        self.rank = np.empty(q, dtype=np.int64)
        self.rank[order] = np.arange(q) - first[self.part[order]]
        width = int(self.rank.max()) + 1 if q else 0
        self.table: Matrix | None = None
        if q * width <= LARGEST_TABLE:
            self.table = np.empty((q, width))
            for start in range(0, width, CHUNK):
                end = min(start + CHUNK, width)
                here = np.flatnonzero((self.rank >= start) & (self.rank < end))
                self.table[:, start:end] = self._solve(
                    here, self.rank[here] - start, end - start
                )

    def _solve(self, rows: Codes, columns: Codes, width: int) -> Matrix:
        unit = np.zeros((self.q, width))
        unit[rows, columns] = 1.0
        return self.factor.solve(unit)

    def block(self, columns: Codes) -> Matrix:
        """Return M^-1 at rows and columns ``columns`` (d,), (d, d)."""
        if self.table is None:
            d = len(columns)
            K = self._solve(columns, np.arange(d), d)[columns]
            return (K + K.T) / 2.0
        part = self.part[columns]
        K = self.table[np.ix_(columns, self.rank[columns])]
        K = np.where(part[:, None] == part, K, 0.0)
        return (K + K.T) / 2.0


def _connected_parts(places: Codes, q: int) -> Codes:
    """Return for each column of Z which connected part of the design it is in, (q,)."""
    n, width = places.shape
    if q == 0:
        return np.empty(0, dtype=np.int64)
    rows = np.repeat(np.arange(n), width) + q
    ones = np.ones(places.size, dtype=np.int8)
    graph = coo_array((ones, (rows, places.ravel())), shape=(n + q, n + q))
    parts = connected_components(graph, directed=False)[1][:q]
    return np.unique(parts, return_inverse=True)[1].astype(np.int64)
