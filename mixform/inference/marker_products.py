"""Products m'P~y and m'P~m of many columns m = S g beside X, V held at the fit.

V is relative to sigma^2 and P~ = V^-1 - V^-1X (X'V^-1X)^-1 X'V^-1; g are the values of
u units, such as genotypes of animals, and S gives each row of the model its unit. With
m projected off X, which P~ does not notice, and H = Lambda'Z'R^-1m::

    m'P~m = m'R^-1m - H'M^-1 H - h'h,   h = R_X^-T (X'R^-1m - X'R^-1Z Lambda M^-1 H)

Many markers share one pivoted Cholesky factor S'P~S = F'F (Higham 1990): each costs the
product of a triangle with g. Where u is large, each costs a solution with M instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dpstrf

from mixform._typing import Codes, Matrix, Vector
from mixform.estimate import Fit
from mixform.mme import few_threads

#: Entries of the arrays that are worked on at a time (80 MB).
ENTRIES = 10_000_000
#: Largest number of entries of what all markers share (400 MB).
SHARED = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Columns m, and what m'P~m and m'P~y are made of.

    Attributes
    ----------
    left : (n, s) R^-1/2 m, projected off X
    H : (q, s) Lambda'Z'R^-1m; h : (p, s), see above
    Py : (s,) m'P~y
    """

    left: Matrix
    H: Matrix
    h: Matrix
    Py: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The units of a fit's rows.

    Attributes
    ----------
    fit : the model
    codes : (n,) unit of each row, 0 to u - 1; u : their number
    """

    fit: Fit
    codes: Codes
    u: int

    @property
    def roots(self) -> Vector:
        """R^-1/2, (n,)."""
        weights = self.fit.design.weights
        return np.ones(self.fit.n) if weights is None else np.sqrt(weights)

    def sums(self, column: Vector) -> Vector:
        """Return S' times a column (n,), (u,)."""
        sums = np.bincount(self.codes, weights=column, minlength=self.u)
        return sums.astype(np.float64, copy=False)

    def sums_of_Q(self) -> Matrix:
        """Return Q'R^-1/2 S, (p, u), Q the orthonormal basis of R^-1/2 X."""
        columns = (self.fit.design.fixed.Q * self.roots[:, None]).T
        return np.array([self.sums(c) for c in columns]).reshape(-1, self.u)

    def at_a_time(self) -> int:
        """Return how many columns (n, s) and (q, s) may be worked on together."""
        height = self.fit.n + 2 * len(self.fit.evaluation.u)
        return int(np.clip(ENTRIES // height, 16, 1024))

    def halves(self, g: Matrix) -> Halves:
        """Return the halves of S g for g (u, s)."""
        fit, here = self.fit, self.fit.evaluation
        design, problem, Q = fit.design, here.problem, fit.design.fixed.Q
        y = design.y if design.offset is None else design.y - design.offset
        rest = (y * self.roots - Q @ problem.projection) / problem.y_scale
        G = g[self.codes] * self.roots[:, None]
        left = G - Q @ (Q.T @ G)
        with few_threads(problem.equations):
            ZtG = problem.equations.Zt_dot(left)
            H = problem.equations.Lambda_dot(here.T, ZtG, transpose=True)
        h = here.R_inverse.T @ (Q.T @ left - here.V[:, :-1].T @ H)
        # X'R^-1y is zero on the scaled problem, so X'V^-1y is what Z gives.
        h_y = here.R_inverse.T @ -(here.V[:, :-1].T @ here.LambdaZtW[:, -1])
        Py = left.T @ rest - H.T @ here.V[:, -1] - h.T @ h_y
        return Halves(left, H, h, Py)

    def solve(self, H: Matrix) -> Matrix:
        """Return M^-1 H."""
        here = self.fit.evaluation
        with few_threads(here.problem.equations):
            return here.factor.solve(H)


class SharedFactor:
    """S'P~S = F'F once, for more markers than units."""

    def __init__(self, units: Units) -> None:
        u, step = units.u, units.at_a_time()
        parts = [
            units.halves(np.eye(u, min(step, u - start), -start))
            for start in range(0, u, step)
        ]
        H, h = (np.hstack([getattr(p, name) for p in parts]) for name in ("H", "h"))
        self.Py = np.concatenate([part.Py for part in parts])
        del parts
        QS = units.sums_of_Q()
        P = np.diag(units.sums(units.roots**2))
        P -= QS.T @ QS + h.T @ h + H.T @ units.solve(H)
        factor, pivots, rank, _ = dpstrf(P, lower=0, overwrite_a=1)
        factor = np.triu(factor)
        factor[rank:] = 0.0
        self.factor, self.order = np.asfortranarray(factor), pivots - 1
        self.at_a_time = int(np.clip(ENTRIES // u, 16, 1024))

    @staticmethod
    def worthwhile(units: Units, s: int) -> bool:
        """Whether s markers share enough, and the factor fits in memory."""
        size = units.u * (units.u + 2 * len(units.fit.evaluation.u))
        return s >= units.u and size <= SHARED

    def __call__(self, g: Matrix) -> tuple[Vector, Vector]:
        """Return m'P~y and m'P~m of markers g (u, s), each (s,)."""
        Fg = dtrmm(1.0, self.factor, np.asfortranarray(g[self.order]), overwrite_b=1)
        return g.T @ self.Py, np.einsum("us,us->s", Fg, Fg)


class OneByOne:
    """A solution with M for each marker."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self.at_a_time = units.at_a_time()

    def __call__(self, g: Matrix) -> tuple[Vector, Vector]:
        """Return m'P~y and m'P~m of markers g (u, s), each (s,)."""
        half = self.units.halves(g)
        Pm = np.einsum("ns,ns->s", half.left, half.left)
        Pm -= np.einsum("qs,qs->s", half.H, self.units.solve(half.H))
        return half.Py, Pm - np.einsum("ps,ps->s", half.h, half.h)
