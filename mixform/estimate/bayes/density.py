"""The log posterior density of the variances, beta and u integrated out, and gradient.

    log p(psi | y) = -1/2 [ log|M| - log|P| + log|R| + log|X'V^-1X|
                            + (n - p) log(2 pi sigma^2) + r^2 / sigma^2 ] + log prior

with a flat prior of beta (Harville 1974: the restricted likelihood), psi the
coordinates of each random term in the user's units and log sigma at last. On the
scaled problem T = C T_user, T_user = (Cholesky factor of Sigma) / sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, log
from threading import Lock
from typing import Any

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.errors import SolverError
from mixform.estimate.bayes.arrays import components_of, terms_of
from mixform.estimate.bayes.compact import compact_of
from mixform.estimate.bayes.coordinates import Coordinates
from mixform.estimate.bayes.resolved import Priors
from mixform.estimate.criterion import LOG_2_PI, evaluate_at
from mixform.estimate.fit import Fit

#: Distance of log sigma from that of the response at which the density counts as zero:
#: squares beyond it under- or overflow.
FARTHEST = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """The model at one psi.

    Attributes
    ----------
    psi : (d,) coordinates
    factors : (r, k, k) of each random term, Sigma = T T' in the user's units
    sigma : residual standard deviation, user's units
    T : for each random term the relative factor (k, k) of the scaled problem
    """

    psi: Vector
    factors: Stack
    sigma: float
    T: tuple[Matrix, ...]


class Density:
    """The log density of psi (d,), with its gradient.

    Parameters
    ----------
    fit : the model by REML
    priors : of its standard deviations and correlations
    """

    def __init__(self, fit: Fit, priors: Priors) -> None:
        self.problem = fit.evaluation.problem
        self.priors = priors
        self.coordinates = tuple(Coordinates(prior) for prior in priors.terms)
        ends = np.cumsum([0, *(term.size for term in self.coordinates)]).tolist()
        self.slices = tuple(slice(a, b) for a, b in pairwise(ends))
        self.size = ends[-1] + 1
        # What the user's units add to the criterion; see `reml.record`.
        self.ddf, self.y_scale = self.problem.residual_df, self.problem.y_scale
        self.middle = log(self.y_scale)
        R = np.diag(fit.design.fixed.R)
        self.constant = -self.ddf * (LOG_2_PI / 2.0 + log(self.y_scale))
        self.constant -= float(np.log(np.abs(R)).sum())
        self.terms = terms_of(priors)
        self.compact = compact_of(self.problem)
        self.components = self.compact and components_of(
            self.compact, self.problem, self.constant
        )
        self.kernels = _compiled()
        # The sparse solver writes M into the same memory at each evaluation.
        self._lock = Lock()

    def at(self, psi: Vector) -> Point:
        """Return the model at coordinates (d,)."""
        sigma = float(np.exp(psi[-1]))
        factors = self.kernels.factors(psi, self.terms)
        T = tuple(
            C @ factor[: len(C), : len(C)] / sigma
            for C, factor in zip(self.problem.Z_scales, factors, strict=True)
        )
        return Point(psi, factors, sigma, T)

    def __call__(self, psi: Vector) -> tuple[float, Vector]:
        """Return the log density and its gradient (d,).

        -inf where the equations cannot be solved to rounding.
        """
        out = np.empty(self.size)
        value = -np.inf
        if not abs(psi[-1] - self.middle) < FARTHEST:
            pass
        elif self.components is not None:
            value = self.kernels.density_of_components(
                psi, self.terms, self.components, out
            )
        else:
            try:
                with self._lock, np.errstate(all="ignore"):
                    value = self._solved(psi, out)
            except SolverError:
                pass
        if not isfinite(value):
            return -np.inf, np.zeros(self.size)
        return value, out

    def describe(self, psi: Vector) -> tuple[Point, Vector, float, float]:
        """Return the model at psi (d,) in the user's terms.

        Returns
        -------
        the model; the parameters (d,) in the order of `names`; the log density of the
        priors at standard deviations and correlation matrices; the log of the Jacobian
        of these by psi
        """
        point = self.at(psi)
        parts: list[Vector] = []
        jacobian = float(psi[-1])
        for term, where, T in zip(
            self.coordinates, self.slices, point.factors, strict=True
        ):
            parts.append(term.natural(psi[where], T[: term.k, : term.k]))
            jacobian += term.log_jacobian(psi[where])
        natural = np.concatenate([*parts, [point.sigma]])
        prior = self._add_priors(point, np.zeros(self.size))
        return point, natural, prior - jacobian, jacobian

    def log_likelihood(self, psi: Vector) -> float:
        """Return the log restricted likelihood in the user's units."""
        return self._likelihood(self.at(psi), np.empty(self.size))

    @property
    def names(self) -> tuple[str, ...]:
        """Names (d,) of the parameters as reported."""
        return (*(name for term in self.priors.terms for name in term.names), "sigma")

    def _solved(self, psi: Vector, out: Vector) -> float:
        """Write the gradient (d,); return the log density."""
        point = self.at(psi)
        value = self._likelihood(point, out)
        return value + self._add_priors(point, out)

    def _likelihood(self, point: Point, out: Vector) -> float:
        """Write the gradient (d,) of the log restricted likelihood; return it."""
        scaled2 = (point.sigma / self.y_scale) ** 2
        here = evaluate_at(self.problem, point.T)
        ratio = here.r2 / scaled2
        G = np.zeros_like(point.factors)
        pairs = zip(*here.factor_gradients, self.problem.Z_scales, strict=True)
        for j, (determinants, quadratic, C) in enumerate(pairs):
            by_T = determinants + quadratic / scaled2
            G[j, : len(C), : len(C)] = (-0.5 / point.sigma) * (C.T @ by_T)
        moved = self.kernels.pull_factors(point.psi, self.terms, point.factors, G, out)
        out[-1] = ratio - self.ddf - moved
        return self.constant - 0.5 * (here.logdets + ratio + self.ddf * log(scaled2))

    def _add_priors(self, point: Point, out: Vector) -> float:
        """Add the gradient (d,) of the log prior density of psi; return it."""
        return self.kernels.add_priors(point.psi, self.terms, point.factors, out)


def _compiled() -> Any:
    """Return the compiled loops, which takes numba."""
    from mixform.estimate.bayes import kernels  # noqa: PLC0415 - for this method only

    return kernels
