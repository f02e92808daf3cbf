"""The criterion of small independent components from sums formed once.

Levels that no row connects do not meet in M. With C_d = Z'R^-1Z of a component and
K_d = Lambda M_d^-1 Lambda', where components with the same C_d share a slot d,

    [X, y]'V^-1[X, y] = [X, y]'R^-1[X, y] - sum_d <K_d, Z'R^-1[X, y] [X, y]'R^-1Z>_d

so that neither rows nor levels are seen again. The density that is sampled is evaluated
from these sums by `estimate.bayes.kernels`, with A = [X, y]'V^-1[X, y], a the last row
of its inverse, r^2 = 1 / a_y and

    d log|X'V^-1X| + d r^2 / sigma^2 = <A^-1 + (r^4 / sigma^2 - r^2) a a', dA>
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from mixform._typing import AnyArray, Matrix, Stack
from mixform.estimate.batch.layout import Layout, build_layout
from mixform.estimate.problem import Problem

#: Numbers in the sums up to which they are faster than a pass over the levels.
LARGEST = 200_000
#: Random effects of a component, and multiplications of one evaluation, up to which.
WIDEST = 12
LIMIT = 50_000.0


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
        M = transposed @ self.C @ Lambda + np.eye(self.s)
        half = np.linalg.inv(np.linalg.cholesky(M)) @ transposed
        K = half.swapaxes(-1, -2) @ half
        b = Lambda @ normal
        rest = Zty - self.C @ b
        ZtX = self.ZtW[:-1].reshape(self.p, self.ZtW[0].size)
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
