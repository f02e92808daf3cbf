"""Kenward and Roger's covariance of the fixed effects and their degrees of freedom.

Kenward and Roger (1997, Biometrics 53, 983) correct Phi = (X'V^-1X)^-1 for the
variances being estimated, and match a scaled Wald statistic to an F distribution. With
D_i and D_ij the derivatives of V by its parameters, W their covariance::

    V_beta = Phi + 2 Phi [ sum_ij W_ij (Q_ij - A_i Phi A_j - R_ij / 4) ] Phi
    A_i = X'V^-1 D_i V^-1X   Q_ij = X'V^-1 D_i V^-1 D_j V^-1X   R_ij = X'V^-1 D_ij V^-1X
    2 W^-1 = tr(V^-1 D_i V^-1 D_j) - 2 tr(Phi Q_ij) + tr(Phi A_i Phi A_j)

That is the expected information. With the observed one, as SAS and mmrm have it, W is
the covariance of the parameters that Satterthwaite's method uses.

Only R_ij depends on what the parameters are. They are those of SAS: variances and
covariances where V is linear in them, so that R_ij = 0 (random terms, ``us diag cs
toep`` residuals), else variances and correlations or ranges; dispersion coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from mixform._typing import Mask, Matrix, Stack, Vector
from mixform.errors import InferenceError
from mixform.estimate import Fit
from mixform.estimate.criterion import Evaluation
from mixform.inference.kenward_roger.components import component_moments
from mixform.inference.kenward_roger.curvature import curvature
from mixform.inference.kenward_roger.levels import level_moments
from mixform.inference.kenward_roger.observed import observed_covariance
from mixform.inference.kenward_roger.patterns import natural_slopes
from mixform.inference.kenward_roger.terms import Moments, terms_of
from mixform.mme import few_threads

#: Information of a row on a parameter, below which V does not depend on it.
LEAST_INFORMATION = 1e-14


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KenwardRoger:
    """Kenward and Roger's approximation for the fixed effects of one fit.

    Attributes
    ----------
    V_beta : (p, p) adjusted covariance of the estimates
    V_unadjusted : (p, p) (X'V^-1X)^-1, too small because V is estimated
    A : (r, p, p) X'V^-1 D_i V^-1X, for each parameter
    W : (r, r) covariance of the parameters, by the information
    linear : second derivatives of V were left out
    observed : the information was the observed, not the expected one
    """

    V_beta: Matrix
    V_unadjusted: Matrix
    A: Stack
    W: Matrix
    linear: bool = False
    observed: bool = False

    @property
    def title(self) -> str:
        """Name of the method, as printed."""
        ways = ["linear"] if self.linear else []
        ways += ["observed information"] if self.observed else []
        return f"Kenward-Roger ({', '.join(ways)})" if ways else "Kenward-Roger"

    @property
    def note(self) -> None:
        """There always are degrees of freedom."""
        return

    def t_ddf(self, L: Matrix) -> Vector:
        """Return the df of each row of L (r, p); NaN for a row of zeros."""
        return np.array(
            [self.f_ddf(ell[None])[0] if np.any(ell) else np.nan for ell in L]
        )

    def f_ddf(self, L: Matrix) -> tuple[float, float]:
        """Return the denominator df m and the factor lambda of the Wald F of L (q, p).

        Kenward and Roger (1997), section 3: from A1, A2 and B, the moments of the
        statistic, by the formulas that are exact where it has an exact F distribution.
        """
        q = len(L)
        Phi = self.V_unadjusted
        # With M = L'(L Phi L')^-1 L, M Phi A_i Phi has the nonzero eigenvalues of
        # H_i = S^-1 L Phi A_i Phi L' S^-1', S S' = L Phi L'.
        S = np.linalg.cholesky(L @ Phi @ L.T)
        half = np.linalg.solve(S, L @ Phi)
        H = half @ self.A @ half.T
        traces = np.einsum("iaa->i", H)
        A1 = float(traces @ self.W @ traces)
        A2 = float(np.einsum("ij,iab,jba->", self.W, H, H, optimize=True))
        return matched_f(A1, A2, q)


def matched_f(A1: float, A2: float, q: int) -> tuple[float, float]:
    """Return m and lambda, lambda F ~ F(q, m), from the moments of F.

    Examples
    --------
    A variance estimated with 5 df: A1 = A2 = 2/5 for one contrast.

    >>> m, factor = matched_f(0.4, 0.4, 1)
    >>> round(m, 9), round(factor, 9)
    (5.0, 1.0)
    """
    if A2 == 0.0:
        return np.inf, 1.0
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
    common = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / common, (q - g) / common, (q + 2.0 - g) / common
    # rho = V* / (2 E*^2) with E* = 1 / (1 - A2/q), V* = (2/q) (1 + c1 B) / ...
    shrink = 1.0 - A2 / q
    numerator, first, second = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
    # Where A2 nears q both go to zero together, and their ratio to one.
    ratio = 1.0 if abs(shrink) < 1e-10 and abs(first) < 1e-10 else shrink / first
    # m = 4 + (q + 2) / (q rho - 1), rho = moment / (q second): second is zero at m = 4.
    moment = ratio**2 * numerator
    m = 4.0 + (q + 2.0) * second / (moment - second)
    if q == 1 or abs(m - 2.0) < 1e-2:
        return m, 1.0
    return m, m * shrink / (m - 2.0)


def kenward_roger(
    fit: Fit, *, linear: bool = False, observed: bool = False
) -> KenwardRoger:
    """Return Kenward and Roger's approximation.

    Parameters are counted as pbkrtest does: each distinct entry of each random term's
    covariance, zero or not, and those of the residuals. One that V does not depend on
    any more, at the edge of its range, is taken as known.

    Parameters
    ----------
    linear : leave out the second derivatives of V
    observed : take W from the observed information of the parameters off the boundary

    Raises
    ------
    InferenceError : the fit is not by REML; or the information is singular
    SolverError : the work would not fit into memory
    """
    if fit.method != "REML":
        raise InferenceError(
            "Kenward-Roger's approximation is derived for REML; this fit is by "
            f"{fit.method}.",
            hint='Fit with method="REML", or use ddf="satterthwaite".',
        )
    here = fit.evaluation
    problem = here.problem
    terms = terms_of(here, fit.scaled_theta)
    with few_threads(problem.equations):
        moments = (
            level_moments(here, terms)
            if problem.rows is None
            else component_moments(here, terms)
        )
    # In units in which the residual variance is one; X orthonormal.
    half = here.R_inverse
    A, Phi = moments.A, half @ half.T
    matters = _matters(here, moments)
    W = np.zeros(moments.traces.shape)
    W[np.ix_(matters, matters)] = (
        observed_covariance(fit, terms)[np.ix_(matters, matters)]
        if observed
        else 2.0 * _inverse(_expected(moments, half)[np.ix_(matters, matters)])
    )
    APhiA = np.einsum("ij,iab,bc,jcd->ad", W, A, Phi, A, optimize=True)
    change = moments.weighed(W) - APhiA
    if not linear:
        change -= curvature(here, terms, W) / 4.0
    change = Phi @ (change + change.T) @ Phi
    to_user = np.linalg.inv(fit.design.fixed.R) * fit.sigma
    from_user = fit.design.fixed.R / fit.sigma
    return KenwardRoger(
        V_beta=to_user @ (Phi + change) @ to_user.T,
        V_unadjusted=fit.V_beta,
        A=from_user.T @ A @ from_user,
        W=W,
        linear=linear,
        observed=observed,
    )


def _expected(moments: Moments, half: Matrix) -> Matrix:
    """Return the expected information (r, r) of -2 log likelihood; half half' = Phi."""
    H = half.T @ moments.A @ half
    fixed = np.einsum("iab,jba->ij", H, H, optimize=True)
    return moments.traces - 2.0 * moments.fixed_traces(half) + fixed


def _matters(here: Evaluation, moments: Moments) -> Mask:
    """Return whether V depends on each parameter, (r,).

    It does not at the edge of a range: where residuals are uncorrelated because the
    range of their correlation is zero, a change by a factor e changes nothing.
    """
    matters = np.ones(len(moments.traces), dtype=bool)
    if here.problem.rows is not None:
        slopes = natural_slopes(here.problem.rows.residual)
        information = slopes**2 * np.diag(moments.traces)[-len(slopes) :]
        matters[-len(slopes) :] = information > LEAST_INFORMATION * here.problem.n
    return matters


def _inverse(information: Matrix) -> Matrix:
    diagonal = np.diag(information)
    try:
        if not np.all(diagonal > 0.0):
            raise LinAlgError
        scale = np.sqrt(diagonal)
        factor = cho_factor(information / np.outer(scale, scale))
    except LinAlgError:
        raise InferenceError(
            "The expected information of the variance parameters is singular: the data "
            "do not tell them apart.",
            hint='Drop a random term, or use ddf="satterthwaite".',
        ) from None
    inverse = cho_solve(factor, np.eye(len(scale))) / np.outer(scale, scale)
    return (inverse + inverse.T) / 2.0
