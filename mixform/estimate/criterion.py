"""The REML and ML criteria, their exact gradient and their average information.

With M = Lambda'Z'R^-1Z Lambda + P and C~ the coefficient matrix of Henderson's
equations in (beta, u) (Henderson 1984; Bates, Machler, Bolker and Walker 2015)::

    REML = log|M| - log|P| + log|R| + log|X'V^-1X| + (n-p)(1 + log(2 pi r^2/(n-p)))
    ML   = log|M| - log|P| + log|R|                +  n   (1 + log(2 pi r^2/ n   ))

everything from one factorisation of M. The gradient needs entries of C~^-1 on the
pattern of Z'R^-1Z only; the average information (Gilmour, Thompson and Cullis 1995)
one more solve with a right-hand side for each parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from mixform._typing import Matrix, Stack, Vector
from mixform.errors import SolverError
from mixform.estimate.problem import Problem
from mixform.mme import Factor

LOG_2_PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The solution of the mixed model equations at one theta, on the scaled problem.

    Attributes
    ----------
    problem : what is solved
    T : relative covariance factor of each block
    factor : of M
    LambdaZtW : (q, p + 1) Lambda'Z'R^-1 [X, y]
    V : (q, p + 1) M^-1 Lambda'Z'R^-1 [X, y]
    R_inverse : (p, p) inverse of the upper Cholesky factor of X'V^-1X
    beta : (p,) fixed effects; u : (q,) spherical random effects
    r2 : y'R^-1 e^, the penalized residual sum of squares
    logdets : log|M| - log|P| + log|R|, and log|X'V^-1X| under REML
    """

    problem: Problem
    T: tuple[Matrix, ...]
    factor: Factor
    LambdaZtW: Matrix
    V: Matrix
    R_inverse: Matrix
    beta: Vector
    u: Vector
    r2: float
    logdets: float

    @property
    def sigma2(self) -> float:
        """Residual variance, in units of the scaled y."""
        return self.r2 / self.problem.residual_df

    @cached_property
    def criterion(self) -> float:
        """-2 log (restricted) likelihood of the scaled problem."""
        df = self.problem.residual_df
        return self.logdets + df * (1.0 + LOG_2_PI + float(np.log(self.r2 / df)))

    @property
    def noise(self) -> float:
        """Size of the rounding error of the criterion.

        r^2 is what is left of y'y: where the random effects explain nearly all, its
        leading digits have cancelled.
        """
        problem = self.problem
        cancelled = 1e-15 * problem.residual_df * problem.yty / self.r2
        return 1e-13 * (problem.n + abs(self.criterion)) + cancelled

    @cached_property
    def _ZtVinvW(self) -> Matrix:
        """Z'V^-1 [X, y], (q, p + 1)."""
        problem = self.problem
        LambdaV = problem.equations.Lambda_dot(self.T, self.V)
        return problem.ZtW - problem.equations.ZtZ_dot(LambdaV)

    @property
    def ZtVinvX(self) -> Matrix:
        """Z'V^-1X, (q, p)."""
        return self._ZtVinvW[:, :-1]

    @cached_property
    def ZtRinve(self) -> Vector:
        """Z'R^-1 e^ = Z'V^-1 (y - X beta), (q,)."""
        return self._ZtVinvW @ np.append(-self.beta, 1.0)

    @cached_property
    def factor_gradients(self) -> tuple[tuple[Matrix, ...], tuple[Matrix, ...]]:
        """Derivatives (k, k) of the log determinants, and of r^2, by each entry of T.

        d logdets = 2 sum(dT o B), B the level sums of Z'R^-1X C~^bu + Z'R^-1Z Lambda
        C~^uu; under ML of Z'R^-1Z Lambda M^-1. d r^2 = -2 sum(dT o g u'), g = Z'R^-1e^.
        """
        problem = self.problem
        traces = self.factor.traces()
        level_sums = problem.equations.level_sums
        products = level_sums(self.ZtRinve[:, None], self.u[:, None])
        quadratic = tuple(-2.0 * product for product in products)
        if not problem.reml or problem.p == 0:
            return tuple(2.0 * trace for trace in traces), quadratic
        # A last row of zeros for y costs less than copies without its column.
        R_inverse = np.vstack([self.R_inverse, np.zeros(problem.p)])
        K, V = self._ZtVinvW @ R_inverse, self.V @ R_inverse
        determinants = tuple(
            2.0 * (trace - correction)
            for trace, correction in zip(traces, level_sums(K, V), strict=True)
        )
        return determinants, quadratic


def evaluate(problem: Problem, theta: Vector) -> Evaluation:
    """Solve the mixed model equations at theta (t,)."""
    return evaluate_at(problem, problem.factors(theta))


def evaluate_at(problem: Problem, T: tuple[Matrix, ...]) -> Evaluation:
    """Solve the mixed model equations at given factors, triangular or not.

    Raises
    ------
    SolverError : the equations are not positive definite, or nothing is left of y
    """
    p = problem.p
    factor = problem.equations.factor(T)
    LambdaZtW = problem.equations.Lambda_dot(T, problem.ZtW, transpose=True)
    V = factor.solve(LambdaZtW)
    # [X, y]'V^-1[X, y]; X is orthonormal and orthogonal to y before Z enters.
    WtVinvW = -(LambdaZtW.T @ V)
    WtVinvW.flat[:: p + 2] += 1.0
    WtVinvW[p, p] += problem.yty - 1.0
    upper, info = dpotrf(WtVinvW, lower=0, clean=1)
    if info != 0:
        raise SolverError(
            "The random effects fit the response to the last digit; "
            "no residual variance is left.",
            hint="Drop a random term, or check the response for copies.",
        )
    R_inverse = dtrtri(upper[:p, :p], lower=0)[0] if p else np.empty((0, 0))
    beta = R_inverse @ upper[:p, p]
    logdets = factor.logdet - problem.logdet_P + problem.logdet_R
    if problem.reml and p:
        logdets += 2.0 * float(np.log(upper.diagonal()[:p]).sum())
    return Evaluation(
        problem=problem,
        T=T,
        factor=factor,
        LambdaZtW=LambdaZtW,
        V=V,
        R_inverse=R_inverse,
        beta=beta,
        u=V @ np.append(-beta, 1.0),
        r2=float(upper[p, p]) ** 2,
        logdets=logdets,
    )


def chain_to_theta(
    problem: Problem, theta: Vector, factor_gradients: tuple[Matrix, ...]
) -> Vector:
    """Return derivatives by theta (t,) from derivatives by the entries of T."""
    out = np.empty(len(theta))
    for structure, where, block, gradient in zip(
        problem.structures,
        problem.theta_slices,
        problem.blocks,
        factor_gradients,
        strict=True,
    ):
        dT = structure.derivatives(theta[where], block.k)
        out[where] = dT.reshape(len(dT), -1) @ gradient.ravel()
    return out


def gradient(evaluation: Evaluation, theta: Vector) -> Vector:
    """Return the exact gradient of the criterion by theta, (t,)."""
    return chain_to_theta(evaluation.problem, theta, _gradient_by_T(evaluation))


def _gradient_by_T(evaluation: Evaluation) -> tuple[Matrix, ...]:
    determinants, quadratic = evaluation.factor_gradients
    return tuple(
        d + q / evaluation.sigma2 for d, q in zip(determinants, quadratic, strict=True)
    )


def em_step(evaluation: Evaluation, theta: Vector) -> Vector:
    """Return theta (t,) after one step of expectation-maximization.

    Sigma - Sigma S Sigma / m, S = dcriterion / dSigma (Laird and Ware 1982, Biometrics
    38, 963). From variances that are too large it lands close to the optimum, where
    the average information, too small there, would throw the search far off.
    """
    problem = evaluation.problem
    out = np.empty_like(theta)
    for structure, where, block, T, G in zip(
        problem.structures,
        problem.theta_slices,
        problem.blocks,
        evaluation.T,
        _gradient_by_T(evaluation),
        strict=True,
    ):
        change = T @ T.T @ G @ T.T / (2.0 * block.m)  # G = 2 S T
        Sigma = T @ T.T - (change + change.T) / 2.0
        out[where] = structure.from_covariance(Sigma, 0.0)
    return out


def dSigma(evaluation: Evaluation, theta: Vector) -> list[Stack]:
    """Return for each block the derivatives (t, k, k) of T T' by its parameters."""
    problem = evaluation.problem
    stacks: list[Stack] = []
    for structure, where, T in zip(
        problem.structures, problem.theta_slices, evaluation.T, strict=True
    ):
        half = structure.derivatives(theta[where], len(T)) @ T.T
        stacks.append(half + half.transpose(0, 2, 1))
    return stacks


def average_information(evaluation: Evaluation, theta: Vector) -> Matrix:
    """Return the average information of the criterion, (t, t), positive semidefinite.

    A_kl = (q_k'P~q_l - (q_k'P~y)(q_l'P~y) / r^2) / sigma^2, q_k = dV_k P~y, with
    sigma^2 profiled out: twice the matrix of Gilmour, Thompson and Cullis (1995),
    because the criterion is -2 log L.
    """
    problem = evaluation.problem
    related = problem.times_A(evaluation.ZtRinve)
    H = problem.equations.level_products(dSigma(evaluation, theta), related)
    ZtZ_H = problem.equations.ZtZ_dot(H)
    F_u = problem.equations.Lambda_dot(evaluation.T, ZtZ_H, transpose=True)
    quadratic = H.T @ ZtZ_H - F_u.T @ evaluation.factor.solve(F_u)
    if problem.p:
        F_x = (problem.ZtW.T @ H - evaluation.V.T @ F_u)[:-1]
        half = evaluation.R_inverse.T @ F_x
        quadratic -= half.T @ half
    linear = H.T @ evaluation.ZtRinve
    A = (quadratic - np.outer(linear, linear) / evaluation.r2) / evaluation.sigma2
    return (A + A.T) / 2.0


def information_bound(evaluation: Evaluation, theta: Vector) -> Vector:
    """Return a lower bound of the diagonal of the expected information, (t,).

    tr(P~ dV P~ dV) >= tr(P~ dV)^2 / rank(dV), by Cauchy and Schwarz. Where a variance
    is far too large the average information is far below the expected one, and a
    search that trusts it jumps across zero and back.
    """
    problem = evaluation.problem
    traces = chain_to_theta(problem, theta, evaluation.factor_gradients[0])
    ranks = np.empty(len(theta))
    for structure, where, block in zip(
        problem.structures, problem.theta_slices, problem.blocks, strict=True
    ):
        ranks[where] = block.m * (2 if structure.couples and block.k > 1 else 1)
    return traces**2 / ranks
