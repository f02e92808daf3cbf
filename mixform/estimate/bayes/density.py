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
from math import log
from threading import Lock

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.errors import SolverError
from mixform.estimate.bayes.compact import Solved, compact_of
from mixform.estimate.bayes.coordinates import Coordinates, Place
from mixform.estimate.bayes.resolved import Priors
from mixform.estimate.criterion import LOG_2_PI, evaluate_at
from mixform.estimate.fit import Fit
from mixform.priors import log_density


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """The model at one psi.

    Attributes
    ----------
    psi : (d,) coordinates
    places : of each random term
    sigma : residual standard deviation, user's units
    T : for each random term the relative factor (k, k) of the scaled problem
    """

    psi: Vector
    places: tuple[Place, ...]
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
        self.compact = compact_of(self.problem)
        self.priors = priors
        self.terms = tuple(Coordinates(prior) for prior in priors.terms)
        ends = np.cumsum([0, *(term.size for term in self.terms)]).tolist()
        self.slices = tuple(slice(a, b) for a, b in pairwise(ends))
        self.size = ends[-1] + 1
        # What the user's units add to the criterion; see `reml.record`.
        self.ddf, self.y_scale = self.problem.residual_df, self.problem.y_scale
        R = np.diag(fit.design.fixed.R)
        self.constant = -self.ddf * (LOG_2_PI / 2.0 + log(self.y_scale))
        self.constant -= float(np.log(np.abs(R)).sum())
        # The sparse solver writes M into the same memory at each evaluation.
        self._lock = Lock()

    def at(self, psi: Vector) -> Point:
        """Return the model at coordinates (d,)."""
        sigma = float(np.exp(psi[-1]))
        places = tuple(
            term.at(psi[where])
            for term, where in zip(self.terms, self.slices, strict=True)
        )
        T = tuple(
            C @ place.T / sigma
            for C, place in zip(self.problem.Z_scales, places, strict=True)
        )
        return Point(psi, places, sigma, T)

    def __call__(self, psi: Vector) -> tuple[float, Vector]:
        """Return the log density and its gradient (d,).

        -inf where the equations cannot be solved to rounding.
        """
        with np.errstate(all="ignore"):
            point = self.at(psi)
            try:
                with self._lock:
                    value, gradient = self._likelihood(point)
            except SolverError:
                return -np.inf, np.zeros(self.size)
            prior, slope = self._prior(point)
            return value + prior, gradient + slope

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
        for term, where, place in zip(
            self.terms, self.slices, point.places, strict=True
        ):
            parts.append(term.natural(place))
            jacobian += term.log_jacobian(psi[where])
        natural = np.concatenate([*parts, [point.sigma]])
        return point, natural, self._prior(point)[0] - jacobian, jacobian

    def log_likelihood(self, psi: Vector) -> float:
        """Return the log restricted likelihood in the user's units."""
        return self._likelihood(self.at(psi))[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Names (d,) of the parameters as reported."""
        return (*(name for term in self.priors.terms for name in term.names), "sigma")

    def _likelihood(self, point: Point) -> tuple[float, Vector]:
        """Return the log restricted likelihood and its gradient (d,)."""
        scaled2 = (point.sigma / self.y_scale) ** 2
        logdets, r2, by_T = self._solved(point.T, scaled2)
        ratio = r2 / scaled2
        value = self.constant - 0.5 * (logdets + ratio + self.ddf * log(scaled2))
        out = np.empty(self.size)
        by_log_sigma = ratio - self.ddf
        for j, (term, where) in enumerate(zip(self.terms, self.slices, strict=True)):
            G = (-0.5 / point.sigma) * (self.problem.Z_scales[j].T @ by_T[j])
            place = point.places[j]
            out[where] = term.pull(place, G)
            by_log_sigma -= float(np.vdot(G, place.T))
        out[-1] = by_log_sigma
        return value, out

    def _solved(self, T: tuple[Matrix, ...], sigma2: float) -> Solved:
        if self.compact is not None:
            return self.compact(T, sigma2)
        here = evaluate_at(self.problem, T)
        pairs = zip(*here.factor_gradients, strict=True)
        return here.logdets, here.r2, [d + q / sigma2 for d, q in pairs]

    def _prior(self, point: Point) -> tuple[float, Vector]:
        """Return the log prior density of psi and its gradient (d,)."""
        out, psi = np.empty(self.size), point.psi
        total, out[-1] = log_density(self.priors.residual, float(psi[-1]))
        for term, where, place in zip(
            self.terms, self.slices, point.places, strict=True
        ):
            value, out[where] = term.log_prior(psi[where], place)
            total += value
        return total, out
