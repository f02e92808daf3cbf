"""Satterthwaite's denominator degrees of freedom.

The variance of an estimated contrast is matched to a scaled chi-square by its mean and
variance (Satterthwaite 1946, Biometrics Bull. 2, 110; Giesbrecht and Burns 1985,
Biometrics 41, 477; Fai and Cornelius 1996, J. Stat. Comput. Simul. 54, 363). phi =
(theta, rho, sigma), interior parameters only; its covariance is the inverse of the
observed information, the Hessian by central differences of the exact gradient. What is
held has no part in it: the row of a sigma that is held is zero, that of a sigma tied to
theta by a variance that is held follows from those of theta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.criterion import (
    Evaluation,
    dSigma,
    evaluate,
    gradient,
    parts_of_gradient,
)
from mixform.estimate.held import add_tied
from mixform.estimate.known import require_estimated
from mixform.estimate.mean_squares import MeanSquares
from mixform.estimate.problem import split_blocks
from mixform.mme import few_threads

#: Step of the central differences, relative to the parameter (at least 0.1): their
#: relative error is of the order of the square of the step.
STEP = 2e-4

#: Variance of a variance, relative to its square, that is nothing but rounding.
CERTAIN = 1e-18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VarianceModel:
    """How the covariance of beta depends on the variance parameters.

    Attributes
    ----------
    dV_beta : (t + 1, p, p) derivatives of V_beta by phi = (interior theta, interior
        rho, sigma); units of y^2, of y for sigma
    V_phi : (t + 1, t + 1) asymptotic covariance of phi; None if the observed
        information is not positive definite, or the residual has no more degrees of
        freedom than there are thetas
    smallest_eigenvalue : of the observed information of log-scaled phi
    """

    dV_beta: Stack
    V_phi: Matrix | None
    smallest_eigenvalue: float

    @property
    def note(self) -> str | None:
        """Why there are no degrees of freedom, if there are none."""
        if self.V_phi is not None:
            return None
        if self.smallest_eigenvalue > 0.0:
            return (
                "no degrees of freedom: the residual has no more of them than there "
                "are variance parameters."
            )
        return (
            "no degrees of freedom: the observed information of the variance "
            "parameters is not positive definite (smallest relative eigenvalue "
            f"{self.smallest_eigenvalue:.2g})."
        )


def variance_model(fit: Fit) -> VarianceModel:
    """Return the derivatives of V_beta and the covariance of phi.

    On the scaled problem; sigma there is in units of the user's sigma, so that phi's
    last entry is 1 at the estimate.
    """
    if fit.anova is not None:
        return VarianceModel(
            dV_beta=_dV_beta(fit),
            V_phi=_from_components(fit, fit.anova),
            smallest_eigenvalue=np.inf,
        )
    require_estimated(fit, "The covariance of the variance parameters")
    with few_threads(fit.evaluation.problem.equations):
        information = _observed_information(fit)
    values, vectors = np.linalg.eigh(information)
    V_phi = None
    # With as many variance parameters as residual df, nothing is left to tell how well
    # they are estimated.
    determined = fit.evaluation.problem.residual_df >= len(values)
    if np.all(values > 0.0) and determined:
        V_phi = _with_sigma(fit, 2.0 * (vectors / values) @ vectors.T)
    return VarianceModel(
        dV_beta=_dV_beta(fit),
        V_phi=V_phi,
        smallest_eigenvalue=float(values[0] / values[-1]) if len(values) else np.inf,
    )


def _with_sigma(fit: Fit, V: Matrix) -> Matrix:
    """Return the covariance of phi, sigma last, from that of what is estimated."""
    problem = fit.evaluation.problem
    if problem.profiled:
        return V
    J = np.vstack([np.eye(len(V)), np.zeros(len(V))])
    held = problem.held
    if held is not None and held.tied is not None:  # sigma = 1 / s
        slot = int(fit.interior[: held.slot].sum())
        J[-1, slot] = -1.0 / float(fit.scaled_theta[held.slot])
    return J @ V @ J.T


def _from_components(fit: Fit, found: MeanSquares) -> Matrix:
    """Return the covariance of phi from that of variance components.

    theta_j = c sigma_j / sigma; a negative component is not part of it.
    """
    free = np.flatnonzero(fit.interior)
    sigma2 = found.components[-1]
    J = np.zeros((len(free) + 1, len(found.components)))
    theta = fit.scaled_theta[free]
    J[np.arange(len(free)), free] = theta / (2.0 * found.components[free])
    J[:-1, -1] = -theta / (2.0 * sigma2)
    J[-1, -1] = 1.0 / (2.0 * sigma2)
    return J @ found.V_tests @ J.T


def _dV_beta(fit: Fit) -> Stack:
    """D V_beta / dphi_k = V_beta X'V^-1 dV_k V^-1X V_beta / sigma^2; / dsigma."""
    here = fit.evaluation
    problem = here.problem
    half = np.linalg.solve(fit.design.fixed.R, here.R_inverse)
    to_beta = half @ here.R_inverse.T  # (p, p): R^-1 (X'V^-1X)^-1
    parts: list[Stack] = []
    K = split_blocks(here.ZtVinvX, problem.blocks)
    A_K = split_blocks(problem.times_A(here.ZtVinvX), problem.blocks)
    for stack, K_j, A_K_j in zip(dSigma(here, fit.scaled_theta), K, A_K, strict=True):
        # (m, k, p): sum over related levels of K_l' A_lm dSigma K_m
        sums = np.tensordot(K_j, A_K_j, axes=(0, 0))  # (k, p, k, p)
        parts.append(np.einsum("tab,apbq->tpq", stack, sums, optimize=True))
    p = problem.p
    if parts:
        stacked = np.concatenate(parts)
        parts = [add_tied(stacked, 0, problem.theta_slices, problem.n_theta)]
    if problem.rows is not None:
        F = here.RootVinvX
        parts.append(np.einsum("np,anq->apq", F, problem.rows.residual.products(F)))
    inner = np.concatenate([*parts, np.empty((0, p, p))])[fit.interior]
    by_theta = fit.sigma**2 * (to_beta @ inner @ to_beta.T)
    return np.concatenate([by_theta, 2.0 * fit.V_beta[None]])


def _observed_information(fit: Fit) -> Matrix:
    """Return the Hessian of the deviance by (interior theta, sigma / sigma^).

    The deviance is log dets + df log(2 pi sigma^2) + r^2(theta) / sigma^2 (Bates et al.
    2015; Kuznetsova, Brockhoff and Christensen 2017, J. Stat. Softw. 82(13)). By theta
    alone where sigma is held, or tied to it.
    """
    here = fit.evaluation
    problem, sigma2 = here.problem, here.sigma2
    free = np.flatnonzero(fit.interior)
    t = len(free)
    if not problem.profiled:
        return _differences(fit, lambda there, theta: gradient(there, theta)[free])
    H = np.empty((t + 1, t + 1))
    H[t, t] = 4.0 * problem.residual_df
    if t == 0:
        return H
    slope = parts_of_gradient(here, fit.scaled_theta)[1][free]
    H[t, :t] = H[:t, t] = -2.0 * slope / sigma2

    def by_theta(there: Evaluation, theta: Vector) -> Vector:
        determinants, quadratic = parts_of_gradient(there, theta)
        return (determinants + quadratic / sigma2)[free]

    H[:t, :t] = _differences(fit, by_theta)
    return H


def _differences(fit: Fit, slopes: Callable[[Evaluation, Vector], Vector]) -> Matrix:
    """Return central differences (t, t) of slopes by the interior parameters."""
    problem = fit.evaluation.problem
    free = np.flatnonzero(fit.interior)
    H = np.empty((len(free), len(free)))
    for row, k in enumerate(free):
        step = STEP * _scale_of(fit, int(k))
        sides: list[Vector] = []
        for sign in (1.0, -1.0):
            theta = fit.scaled_theta.copy()
            theta[k] += sign * step
            sides.append(slopes(evaluate(problem, theta), theta))
        H[row] = (sides[0] - sides[1]) / (2.0 * step)
    return (H + H.T) / 2.0


def _scale_of(fit: Fit, k: int) -> float:
    """Return a scale for theta_k: its size, at least 0.1.

    A parameter near zero moves on the scale of 1 (the residual SD over a Z of unit
    RMS), never of its value.
    """
    return max(0.1, abs(float(fit.scaled_theta[k])))


def satterthwaite(ell: Vector, V_beta: Matrix, dV_beta: Stack, V_phi: Matrix) -> float:
    """Return the denominator degrees of freedom for the t test of one contrast.

    Scaled chi-square match to the estimated Var(ell' beta) (Giesbrecht-Burns 1985)::

        df = 2 (ell' V_beta ell)^2 / (g' V_phi g),   g_k = ell' dV_beta[k] ell

    Parameters
    ----------
    ell : (p,) contrast coefficients, in the column order of X
    V_beta : (p, p) covariance of beta, units of y^2
    dV_beta : (t, p, p) derivatives of V_beta by phi
    V_phi : (t, t) asymptotic covariance of phi

    Raises
    ------
    InferenceError : V_phi is not positive along g, so phi is not a minimum

    Examples
    --------
    >>> one = np.ones((1, 1))  # balanced, 6 batches of 5: exactly 6 - 1 df
    >>> round(satterthwaite(one[0], one / 30, one[None] / 30, 2 / 5 * one), 9)
    5.0
    """
    variance = float(ell @ V_beta @ ell)
    slopes = np.einsum("i,kij,j->k", ell, dV_beta, ell)
    variance_of_variance = float(slopes @ V_phi @ slopes)
    if not variance_of_variance > 0.0:
        raise InferenceError(
            f"Var of Var(ell' beta) is {variance_of_variance:.3g}, not > 0."
        )
    return 2.0 * variance**2 / variance_of_variance


def satterthwaite_f(nu: Vector) -> float:
    """Return the denominator df of an F test from those of its q independent parts.

    The F statistic is the mean of q squared t's with nu_m df; its expectation, sum
    nu_m / (nu_m - 2) / q, is matched to that of an F (Fai and Cornelius 1996). A part
    with nu_m <= 2 has no expectation: 2 is returned, as lmerTest does.

    Examples
    --------
    >>> satterthwaite_f(np.array([10.0, 10.0]))
    10.0
    """
    if len(nu) == 1 or float(nu.max()) <= (1.0 + 1e-8) * float(nu.min()):
        return float(np.mean(nu))
    if np.any(nu <= 2.0):
        return 2.0
    finite = nu[np.isfinite(nu)]
    expectation = float(np.sum(finite / (finite - 2.0))) + len(nu) - len(finite)
    return 2.0 * expectation / (expectation - len(nu))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Satterthwaite:
    """Satterthwaite's approximation for the fixed effects of one fit.

    Attributes
    ----------
    V_beta : (p, p) covariance of the estimates
    variances : its derivatives, and the covariance of the variance parameters
    """

    V_beta: Matrix
    variances: VarianceModel

    @property
    def title(self) -> str:
        """Name of the method, as printed."""
        return "Satterthwaite"

    @property
    def note(self) -> str | None:
        """Why there are no degrees of freedom, if there are none."""
        return self.variances.note

    def t_ddf(self, L: Matrix) -> Vector:
        """Return the df of each row of L (r, p); NaN where there is none."""
        V_phi = self.variances.V_phi
        if V_phi is None:
            return np.full(len(L), np.nan)
        return np.array([self._ddf(ell, V_phi) for ell in L])

    def _ddf(self, ell: Vector, V_phi: Matrix) -> float:
        """Return the df of one contrast; infinite if its variance is known."""
        if not np.any(ell):
            return np.nan
        dV_beta = self.variances.dV_beta
        if V_phi[-1, -1] == 0.0:  # sigma is held
            slopes = np.einsum("i,kij,j->k", ell, dV_beta, ell)
            if slopes @ V_phi @ slopes <= CERTAIN * (ell @ self.V_beta @ ell) ** 2:
                return np.inf
        return satterthwaite(ell, self.V_beta, dV_beta, V_phi)

    def f_ddf(self, L: Matrix) -> tuple[float, float]:
        """Return the denominator df of independent contrasts L (r, p), and 1."""
        nu = self.t_ddf(L)
        return (np.nan if np.any(np.isnan(nu)) else satterthwaite_f(nu)), 1.0
