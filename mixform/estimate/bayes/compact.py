"""The criterion of small independent components from sums formed once.

Levels that no row connects do not meet in M. With C_d = Z'R^-1Z of a component and
K_d = Lambda M_d^-1 Lambda', where components with the same C_d share a slot d,

    [X, y]'V^-1[X, y] = [X, y]'R^-1[X, y] - sum_d <K_d, Z'R^-1[X, y] [X, y]'R^-1Z>_d

so that neither rows nor levels are seen again. A sampler evaluates the same model tens
of thousands of times, which makes the calls count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.errors import SolverError
from mixform.estimate.batch.layout import Layout, build_layout
from mixform.estimate.problem import Problem

#: Numbers in the sums up to which they are faster than a pass over the levels.
LARGEST = 200_000
#: Random effects of a component, and multiplications of one evaluation, up to which.
WIDEST = 12
LIMIT = 50_000.0


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """The criterion at one T: `criterion.Evaluation` without what a density needs not.

    Attributes
    ----------
    logdets : log|M| - log|P| + log|R| + log|X'V^-1X|
    r2 : penalized residual sum of squares
    determinants, quadratic : their derivatives (k, k) by each entry of T
    """

    logdets: float
    r2: float
    determinants: tuple[Matrix, ...]
    quadratic: tuple[Matrix, ...]


class Compact:
    """A problem of independent, small components; REML only.

    Parameters
    ----------
    problem : from `compact_of`, which says whether it is small enough
    layout : its components
    """

    def __init__(self, problem: Problem, layout: Layout) -> None:
        self.layout, self.C = layout, layout.C
        self.d, self.s, _ = layout.shape
        self.p = problem.p
        self.WtW = problem.WtW
        self.constant = problem.logdet_R - problem.logdet_P
        self.ZtW = layout.place(problem.ZtW)
        sums = np.einsum("idaw,jdbw->dabij", self.ZtW, self.ZtW, optimize=True)
        self.sums = sums.reshape(self.d * self.s**2, -1)
        self.counts = layout.counts.astype(np.float64)
        self.C_counted = self.C * self.counts[:, None, None]
        self.identity = np.eye(self.s)
        #: For each random term the places of its levels in a component.
        self.places = [
            [slice(a, b) for a, b in pairwise(range(t.start, t.rows.stop + 1, t.k))]
            for t in layout.pieces
        ]

    def Lambda(self, T: Sequence[AnyArray]) -> AnyArray:
        """Return Lambda of a component, (..., s, s), for T (..., k, k)."""
        out = np.zeros((*T[0].shape[:-2], self.s, self.s))
        for factor, where in zip(T, self.places, strict=True):
            for one in where:
                out[..., one, one] = factor
        return out

    def __call__(self, T: Sequence[Matrix]) -> Solved:
        """Solve at relative factors T.

        Raises
        ------
        SolverError : nothing is left of y, or T is not finite
        """
        p, s, d = self.p, self.s, self.d
        Lambda = self.Lambda(T)
        inverse, logdets = _inverse(Lambda.T @ self.C @ Lambda + self.identity)
        U = Lambda @ inverse
        K = U @ Lambda.T
        A = self.WtW - (K.reshape(-1) @ self.sums).reshape(p + 1, p + 1)
        upper, info = dpotrf(A, lower=0, clean=1)
        if info != 0 or not np.isfinite(upper[p, p]):
            raise SolverError("Nothing is left of the response.")
        diagonal = upper.diagonal()
        logdet = float(self.counts @ logdets) + 2.0 * float(np.log(diagonal[:p]).sum())
        # By A: of log|X'V^-1X| its inverse, of r^2 v v' with v = (-beta, 1).
        by_A = np.zeros((2, p + 1, p + 1))
        v = np.ones(p + 1)
        if p:
            half = dpotri(upper[:p, :p], lower=0)[0]
            V_XX = half + np.triu(half, 1).T
            by_A[0, :p, :p] = V_XX
            v[:p] = -(V_XX @ A[:p, p])
        by_A[1] = v[:, None] * v
        by_K = (self.sums @ by_A.reshape(2, -1).T).T.reshape(2, d, s, s)
        # dK = E' dLambda U' + U dLambda' E, E = I - C K: Z'V^-1 = E Z'
        E = self.identity - self.C @ K
        by_Lambda = (-2.0 * (E @ by_K @ U)).sum(axis=1)
        by_Lambda[0] += 2.0 * (self.C_counted @ U).sum(axis=0)
        parts = [self._gathered(one) for one in by_Lambda]
        r2 = float(diagonal[p]) ** 2
        return Solved(self.constant + logdet, r2, parts[0], parts[1])

    def draw(
        self, T: Sequence[Stack], Zty: AnyArray, Xty: Matrix, normal: AnyArray
    ) -> tuple[Matrix, AnyArray]:
        """Return beta (c, p) and b (c, d, s, w) for c responses, prior draws added.

        The solution of Henderson's equations for y - y*, plus (0, u*), all in units of
        the residual standard deviation.

        Parameters
        ----------
        T : (c, k, k) of each random term
        Zty, Xty : (c, d, s, w), (c, p) Z'R^-1 and X'R^-1 of y - e*
        normal : (c, d, s, w) u*
        """
        Lambda = self.Lambda(T)[:, None]
        transposed = Lambda.swapaxes(-1, -2)
        M = transposed @ self.C @ Lambda + self.identity
        half = np.linalg.inv(np.linalg.cholesky(M)) @ transposed
        K = half.swapaxes(-1, -2) @ half
        b = Lambda @ normal
        rest = Zty - self.C @ b
        ZtX = self.ZtW[:-1].reshape(self.p, -1)
        Xty = Xty - b.reshape(len(b), -1) @ ZtX.T
        by_K = K.reshape(len(K), -1) @ self.sums
        A = (self.WtW - by_K.reshape(-1, self.p + 1, self.p + 1))[:, :-1, :-1]
        side = Xty - (K @ rest).reshape(len(K), -1) @ ZtX.T
        beta = np.linalg.solve(A, side[:, :, None])[:, :, 0]
        rest = rest - (beta @ ZtX).reshape(rest.shape)
        return beta, b + K @ rest

    def _gathered(self, by_Lambda: Matrix) -> tuple[Matrix, ...]:
        """Return derivatives by each T from those by Lambda of a component."""
        return tuple(
            by_Lambda[where[0], where[0]]
            if len(where) == 1
            else sum((by_Lambda[one, one] for one in where), np.zeros(()))
            for where in self.places
        )


def compact_of(problem: Problem) -> Compact | None:
    """Return the compact form of a problem; None where it is not worth having."""
    plain = all(b.precision is None and b.loading is None for b in problem.blocks)
    if not problem.blocks or not plain or problem.rows is not None or not problem.reml:
        return None
    layout = build_layout(problem, LIMIT)
    if layout is None or layout.shape[1] > WIDEST:
        return None
    d, s, _ = layout.shape
    if d * s * s * (problem.p + 1) ** 2 > LARGEST:
        return None
    return Compact(problem, layout)


def _inverse(M: Stack) -> tuple[Stack, Vector]:
    """Return inverses (d, s, s) and log determinants (d,) of positive definite M."""
    s = M.shape[-1]
    if s == 1:
        return 1.0 / M, np.log(M[:, 0, 0])
    if s == 2:
        a, b, c = M[:, 0, 0], M[:, 0, 1], M[:, 1, 1]
        determinant = a * c - b * b
        out = np.empty_like(M)
        out[:, 0, 0], out[:, 1, 1] = c, a
        out[:, 0, 1] = out[:, 1, 0] = -b
        return out / determinant[:, None, None], np.log(determinant)
    try:
        L = np.linalg.cholesky(M)
    except np.linalg.LinAlgError as failure:
        raise SolverError("The equations are not positive definite.") from failure
    logdets = 2.0 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    return np.linalg.inv(M), logdets
