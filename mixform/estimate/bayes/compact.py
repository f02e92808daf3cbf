"""The criterion of small independent components from sums formed once.

Levels that no row connects do not meet in M. With C_d = Z'R^-1Z of a component and
K_d = Lambda M_d^-1 Lambda', where components with the same C_d share a slot d,

    [X, y]'V^-1[X, y] = [X, y]'R^-1[X, y] - sum_d <K_d, Z'R^-1[X, y] [X, y]'R^-1Z>_d

so that neither rows nor levels are seen again. A sampler evaluates the same model tens
of thousands of times, which makes the calls count.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.errors import SolverError
from mixform.estimate.batch.layout import Layout, build_layout
from mixform.estimate.problem import Problem

#: Numbers in the sums up to which they are faster than a pass over the levels.
LARGEST = 200_000
#: Random effects of a component, and multiplications of one evaluation, up to which.
WIDEST = 12
LIMIT = 50_000.0


#: The log determinants of the criterion, r^2, and for each random term the derivatives
#: (k, k) of log determinants + r^2 / sigma^2 by each entry of T.
Solved = tuple[float, float, list[Matrix]]


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
        self.identity, self.unit = np.eye(self.s), np.eye(self.p + 1)
        #: For each random term the places of its levels in a component.
        self.places = [
            [slice(a, b) for a, b in pairwise(range(t.start, t.rows.stop + 1, t.k))]
            for t in layout.pieces
        ]
        self.single = len(self.places) == 1 and len(self.places[0]) == 1

    def Lambda(self, T: Sequence[AnyArray]) -> AnyArray:
        """Return Lambda of a component, (..., s, s), for T (..., k, k)."""
        out = np.zeros((*T[0].shape[:-2], self.s, self.s))
        for factor, where in zip(T, self.places, strict=True):
            for one in where:
                out[..., one, one] = factor
        return out

    def __call__(self, T: Sequence[Matrix], sigma2: float) -> Solved:
        """Solve at relative factors T and residual variance sigma^2.

        With A = [X, y]'V^-1[X, y], a the last row of its inverse and r^2 = 1 / a_y,
        d log|X'V^-1X| + d r^2 / sigma^2 = <A^-1 + (r^4 / sigma^2 - r^2) a a', dA>.

        Raises
        ------
        SolverError : nothing is left of y, or T is not finite
        """
        p, s = self.p, self.s
        Lambda = T[0] if self.single else self.Lambda(T)
        CLambda = self.C @ Lambda
        M = Lambda.T @ CLambda
        M.reshape(len(M), -1)[:, :: s + 1] += 1.0
        inverse, logdets = _inverse(M)
        U = Lambda @ inverse
        K = U @ Lambda.T
        A = self.WtW - (K.reshape(-1) @ self.sums).reshape(p + 1, p + 1)
        upper, info = dpotrf(A, lower=0, clean=0)
        if info != 0:
            raise SolverError("Nothing is left of the response.")
        diagonal = upper.diagonal()
        logdet = float(self.counts @ logdets + 2.0 * np.log(diagonal[:p]).sum())
        r2 = float(diagonal[p]) ** 2
        by_A = dpotrs(upper, self.unit, lower=0)[0]
        a = by_A[p]
        by_A = by_A + ((r2 / sigma2 - 1.0) * r2) * a * a[:, None]
        by_K = (self.sums @ by_A.reshape(-1)).reshape(M.shape)
        # dK = E' dLambda U' + U dLambda' E, E = I - C K: Z'V^-1 = E Z'
        E = self.identity - self.C @ K
        by_Lambda = 2.0 * ((self.C_counted - E @ by_K) @ U).sum(axis=0)
        if self.single:
            return self.constant + logdet, r2, [by_Lambda]
        parts = [
            np.add.reduce([by_Lambda[one, one] for one in where])
            for where in self.places
        ]
        return self.constant + logdet, r2, parts

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
