"""The covariance of the natural parameters by the observed information.

That of (theta, rho, sigma) comes from Satterthwaite's method; the natural parameters
are smooth functions of these: covariances of the terms sigma^2 gamma, variances of the
positions sigma^2 exp(2 eta), correlations and dispersion coefficients.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Matrix
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.criterion import dSigma
from mixform.inference.kenward_roger.patterns import natural_places
from mixform.inference.kenward_roger.terms import Term
from mixform.inference.satterthwaite import variance_model


def observed_covariance(fit: Fit, terms: list[Term]) -> Matrix:
    """Return the covariance (s, s) of the parameters of terms, then of the residuals.

    In units of the residual variance. Parameters on the boundary do not vary.

    Raises
    ------
    InferenceError : the observed information is not positive definite
    """
    V_phi = variance_model(fit).V_phi
    if V_phi is None:
        raise InferenceError(
            "The observed information of the variance parameters is not positive "
            "definite, or the residual has too few degrees of freedom.",
            hint='Use ddf="kenward-roger", which takes the expected information.',
        )
    J = np.concatenate([_by_terms(fit, terms), _by_residuals(fit)])
    J = J[:, np.append(fit.interior, True)]
    return J @ V_phi @ J.T


def _by_terms(fit: Fit, terms: list[Term]) -> Matrix:
    """Return d(sigma^2 gamma) by (theta, rho, log sigma)."""
    here = fit.evaluation
    problem = here.problem
    stacks = dSigma(here, fit.scaled_theta)
    out = np.zeros((sum(len(term.D) for term in terms), len(fit.interior) + 1))
    start = 0
    for term, stack, where in zip(terms, stacks, problem.theta_slices, strict=True):
        end = start + len(term.D)
        D = term.D.reshape(len(term.D), -1).T
        by_theta = np.linalg.lstsq(D, stack.reshape(len(stack), -1).T, rcond=None)[0]
        out[start:end, where] = by_theta
        out[start:end, -1] = 2.0 * term.gamma
        start = end
    return out


def _by_residuals(fit: Fit) -> Matrix:
    """Return d(tau, r, delta) by (theta, rho, log sigma)."""
    problem = fit.evaluation.problem
    t, width = problem.n_theta, len(fit.interior) + 1
    if problem.rows is None:
        return 2.0 * np.eye(width)[-1:]
    residual = problem.rows.residual
    model, rho = residual.model, residual.rho
    places = natural_places(model)
    out = np.zeros((places.size, width))
    for s, (eta, x) in enumerate(zip(model.eta, model.x, strict=True)):
        tau = places.tau[s]
        for i, place in zip(range(tau.start, tau.stop), eta, strict=True):
            out[i, -1] = 2.0
            if place >= 0:
                out[i, t + place] = 2.0
        family, size = model.structure.family, model.layout.grids[s].size
        out[places.r[s], t + x.start : t + x.stop] = family.jacobian(rho[x], size)
    out[places.delta, t + model.delta.start : t + model.delta.stop] = np.eye(
        model.delta.stop - model.delta.start
    )
    return out
