"""Priors and small models as arrays of numbers, which compiled loops read."""

from __future__ import annotations

from itertools import accumulate
from math import inf, lgamma, log, pi
from typing import NamedTuple

import numpy as np
from scipy.special import betaln, multigammaln

from mixform._typing import AnyArray, Codes, Matrix, Stack, Vector
from mixform.estimate.bayes.compact import Compact
from mixform.estimate.bayes.resolved import Priors, TermPrior
from mixform.estimate.problem import Problem
from mixform.priors import Flat, InverseWishart, PriorOfSD

#: Kinds of priors of a standard deviation; of a whole covariance.
POWER, HALF_T, HALF_NORMAL, INVERSE_GAMMA = range(4)
NOT_WHOLE, FLAT_COVARIANCE, INVERSE_WISHART = range(3)

#: What a prior that is flat in some sense multiplies log(sd) by in the density of it.
POWERS = {"log": 0.0, "sd": 1.0, "variance": 2.0, "covariance": 2.0}


class Terms(NamedTuple):
    """The coordinates and priors of r random terms and of sigma, which comes last.

    Attributes
    ----------
    k, coupled, start : (r,) coefficients, whether they correlate, first coordinate
    first : (r,) place of the first standard deviation among all
    kinds, values : (sum k + 1,), (sum k + 1, 3) of the priors of standard deviations
    first_power, powers : (r,), and for each correlation the power of 1 - z^2
    constants : (r,) of the densities
    whole : (r,) kind of a prior of the whole covariance
    nu, S : (r,), (r, k, k) of inverse-Wishart priors
    """

    k: Codes
    coupled: Codes
    start: Codes
    first: Codes
    kinds: Codes
    values: Matrix
    first_power: Codes
    powers: Vector
    constants: Vector
    whole: Codes
    nu: Vector
    S: Stack


class Components(NamedTuple):
    """A `Compact` model in the user's units.

    Attributes
    ----------
    C, counts, sums, WtW : of `Compact`
    k : (r,) coefficients of the random terms
    term, place : of each level of a component, its random term and first position
    Z_scales : (r, k, k) T of the scaled problem is that times T / sigma
    y_scale, ddf : of the response, residual degrees of freedom
    constant : of the log density
    """

    C: Stack
    counts: AnyArray
    sums: Matrix
    WtW: Matrix
    k: Codes
    term: Codes
    place: Codes
    Z_scales: Stack
    y_scale: float
    ddf: float
    constant: float


def numbers_of_sd(prior: PriorOfSD) -> tuple[int, tuple[float, float, float]]:
    """Return kind and numbers of a prior: the log density of log(sd) is of them.

    Normalized where the prior is proper; else the density is the one that is uniform.
    """
    if isinstance(prior, Flat):
        power = POWERS[prior.on]
        return POWER, (power, log(power) if power else 0.0, 0.0)
    if isinstance(prior, InverseWishart):
        nu, S = prior.df, float(prior.scale[0, 0])
        constant = nu / 2.0 * log(S / 2.0) - lgamma(nu / 2.0) + log(2.0)
        return INVERSE_GAMMA, (nu, S, constant)
    assert prior.scale is not None, "the scale was filled in"
    nu = prior.df
    if nu == inf:
        return HALF_NORMAL, (nu, prior.scale, 0.5 * log(2.0 / pi))
    constant = log(2.0) + lgamma((nu + 1.0) / 2.0) - lgamma(nu / 2.0)
    return HALF_T, (nu, prior.scale, constant - 0.5 * log(nu * pi))


def terms_of(priors: Priors) -> Terms:
    """Return the numbers of all priors."""
    terms = priors.terms
    sds: list[tuple[int, tuple[float, float, float]]] = []
    for term in terms:
        own = [numbers_of_sd(prior) for prior in term.sds]
        # Of a covariance: sd^(k + 1), the Jacobian by log sd; see `_constant`.
        sds += own or [(POWER, (term.k + 1.0, 0.0, 0.0))] * term.k
    sds.append(numbers_of_sd(priors.residual))
    sizes = [term.k + term.n_correlations for term in terms]
    width = max((term.k for term in terms), default=1)
    S = np.zeros((len(terms), width, width))
    whole, nu = np.zeros(len(terms), dtype=np.int64), np.zeros(len(terms))
    for t, term in enumerate(terms):
        if isinstance(term.covariance, InverseWishart):
            S[t, : term.k, : term.k] = term.covariance.scale
            whole[t], nu[t] = INVERSE_WISHART, term.covariance.df
        elif term.covariance is not None:
            whole[t] = FLAT_COVARIANCE
    return Terms(
        k=np.array([term.k for term in terms], dtype=np.int64),
        coupled=np.array([term.n_correlations > 0 for term in terms], dtype=np.int64),
        start=_starts(sizes),
        first=_starts([term.k for term in terms]),
        kinds=np.array([kind for kind, _ in sds], dtype=np.int64),
        values=np.array([values for _, values in sds]),
        first_power=_starts([term.n_correlations for term in terms]),
        powers=np.concatenate([np.empty(0), *(powers_of(term) for term in terms)]),
        constants=np.array([_constant(term) for term in terms], dtype=np.float64),
        whole=whole,
        nu=nu,
        S=S,
    )


def powers_of(term: TermPrior) -> Vector:
    """Return for each correlation the power of 1 - z^2, that of the Jacobian included.

    Uniform on correlation matrices it is 1 + (k - 2 - j) / 2.
    """
    if not term.n_correlations:
        return np.empty(0)
    columns = np.repeat(np.arange(term.k - 1), np.arange(term.k - 1, 0, -1))
    eta = 1.0 if term.correlation is None else term.correlation.eta
    return eta + (term.k - 2 - columns) / 2.0


def _constant(term: TermPrior) -> float:
    """Return what of the log density depends on no coordinate.

    |dSigma / d(log sd, R)| = 2^k prod sd^(k + 1).
    """
    k, prior = term.k, term.covariance
    if prior is None:
        b = powers_of(term)
        return float((-betaln(b, b) - (2.0 * b - 1.0) * log(2.0)).sum())
    constant = k * log(2.0)
    if isinstance(prior, InverseWishart):
        logdet = float(np.linalg.slogdet(prior.scale)[1])
        constant += prior.df / 2.0 * (logdet - k * log(2.0))
        constant -= float(multigammaln(prior.df / 2.0, k))
    return constant


def components_of(compact: Compact, problem: Problem, constant: float) -> Components:
    """Return the numbers of a model of small components.

    Parameters
    ----------
    problem : it is of
    constant : of the log likelihood, that of `compact` left out
    """
    k = [len(C) for C in problem.Z_scales]
    scales = np.zeros((len(k), max(k), max(k)))
    for t, C in enumerate(problem.Z_scales):
        scales[t, : k[t], : k[t]] = C
    places = [(t, one.start) for t, where in enumerate(compact.places) for one in where]
    term, place = np.array(places, dtype=np.int64).T
    return Components(
        C=np.ascontiguousarray(compact.C),
        counts=compact.counts,
        sums=np.ascontiguousarray(compact.sums),
        WtW=np.ascontiguousarray(compact.WtW),
        k=np.array(k, dtype=np.int64),
        term=np.ascontiguousarray(term),
        place=np.ascontiguousarray(place),
        Z_scales=scales,
        y_scale=problem.y_scale,
        ddf=float(problem.residual_df),
        constant=constant - 0.5 * compact.constant,
    )


def _starts(sizes: list[int]) -> Codes:
    return np.array([0, *accumulate(sizes)][:-1], dtype=np.int64)
