"""Products m'P~y and m'P~m of many columns m = S g beside X, V held at the fit.

V is relative to sigma^2 and P~ = V^-1 - V^-1X (X'V^-1X)^-1 X'V^-1; g are the values of
u units, such as genotypes of animals, and S gives each row of the model its unit. Rows
are whitened by R^-1/2, weights and residual structure alike. With m projected off X,
which P~ does not notice, and H = Lambda'Z'R^-1m::

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
    """Columns m, and what m'P~m is made of.

    Attributes
    ----------
    left : (n, s) R^-1/2 m, projected off R^-1/2 X
    H : (q, s) Lambda'Z'R^-1m; h : (p, s), see above
    """

    left: Matrix
    H: Matrix
    h: Matrix


class Units:
    """The units of a fit's rows.

    Parameters
    ----------
    fit : the model
    codes : (n,) unit of each row, 0 to u - 1; u : their number
    """

    def __init__(self, fit: Fit, codes: Codes, u: int) -> None:
        self.fit, self.codes, self.u = fit, codes, u
        design, problem = fit.design, fit.evaluation.problem
        self.n, self.q = len(codes), len(fit.evaluation.u)
        weights = design.weights
        self.roots = np.ones(self.n) if weights is None else np.sqrt(weights)
        self._structure = problem.rows
        if self._structure is None:
            self.X = self._Q = design.fixed.Q
        else:
            self.X = self._structure.X
            self._Q = np.linalg.qr(self.X)[0]
        self._y = self._halves_of(self._white(self._response()[:, None]))
        self._u_y = self.solve(self._y.H)

    def _response(self) -> Vector:
        """Return y off X, times the roots of the weights, on the scaled problem."""
        design, problem = self.fit.design, self.fit.evaluation.problem
        y = design.y if design.offset is None else design.y - design.offset
        rest = y * self.roots - design.fixed.Q @ problem.projection
        return rest / problem.y_scale

    def _white(self, A: Matrix) -> Matrix:
        """Return R^-1/2 A of a residual structure; weights are in A already."""
        return A if self._structure is None else self._structure.residual.whiten(A)

    def sums(self, column: Vector) -> Vector:
        """Return S' times a column (n,), (u,)."""
        sums = np.bincount(self.codes, weights=column, minlength=self.u)
        return sums.astype(np.float64, copy=False)

    def sums_of_Q(self) -> Matrix:
        """Return Q'W^1/2 S, (p, u), Q the orthonormal basis of W^1/2 X, W weights."""
        columns = (self.fit.design.fixed.Q * self.roots[:, None]).T
        return np.array([self.sums(c) for c in columns]).reshape(-1, self.u)

    def at_a_time(self) -> int:
        """Return how many columns (n, s) and (q, s) may be worked on together."""
        return int(np.clip(ENTRIES // (self.n + 2 * self.q), 16, 1024))

    def halves(self, g: Matrix) -> Halves:
        """Return the halves of S g for g (u, s)."""
        return self._halves_of(self._white(g[self.codes] * self.roots[:, None]))

    def _halves_of(self, G: Matrix) -> Halves:
        here = self.fit.evaluation
        equations = here.problem.equations
        left = G - self._Q @ (self._Q.T @ G)
        with few_threads(equations):
            if self._structure is None:
                ZtG = equations.Zt_dot(left)
            else:
                ZtG = self._structure.Zt_dot(equations, left)
            H = equations.Lambda_dot(here.T, ZtG, transpose=True)
        h = here.R_inverse.T @ (self.X.T @ left - here.V[:, :-1].T @ H)
        return Halves(left, H, h)

    def times_y(self, m: Halves) -> Vector:
        """Return m'P~y, (s,)."""
        y = self._y
        return (m.left.T @ y.left - m.H.T @ self._u_y - m.h.T @ y.h)[:, 0]

    def solve(self, H: Matrix) -> Matrix:
        """Return M^-1 H."""
        here = self.fit.evaluation
        with few_threads(here.problem.equations):
            return here.factor.solve(H)

    def shared_entries(self) -> int:
        """Return the number of entries that a shared factor takes to make."""
        correlated = self._structure is not None
        return self.u * (self.u + 2 * self.q + self.n * correlated)

    def gram(self, parts: list[Halves]) -> Matrix:
        """Return left'left of all units, (u, u)."""
        if self._structure is None:
            QS = self.sums_of_Q()
            return np.diag(self.sums(self.roots**2)) - QS.T @ QS
        left = np.hstack([part.left for part in parts])
        return left.T @ left


class SharedFactor:
    """S'P~S = F'F once, for more markers than units."""

    def __init__(self, units: Units) -> None:
        u, step = units.u, units.at_a_time()
        parts = [
            units.halves(np.eye(u, min(step, u - start), -start))
            for start in range(0, u, step)
        ]
        self.Py = np.concatenate([units.times_y(part) for part in parts])
        H, h = (np.hstack([getattr(p, name) for p in parts]) for name in ("H", "h"))
        P = units.gram(parts) - h.T @ h - H.T @ units.solve(H)
        factor, pivots, rank, _ = dpstrf(P, lower=0, overwrite_a=1)
        factor = np.triu(factor)
        factor[rank:] = 0.0
        self.factor, self.order = np.asfortranarray(factor), pivots - 1
        self.at_a_time = int(np.clip(ENTRIES // u, 16, 1024))

    @staticmethod
    def worthwhile(units: Units, s: int) -> bool:
        """Whether s markers share enough, and the factor fits in memory."""
        return s >= units.u and units.shared_entries() <= SHARED

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
        return self.units.times_y(half), Pm - np.einsum("ps,ps->s", half.h, half.h)
