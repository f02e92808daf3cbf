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
from mixform.estimate.problem import Problem, split_blocks
from mixform.mme import Factor, apply_blocks

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

    @cached_property
    def _ZtVinvW(self) -> Matrix:
        """Z'V^-1 [X, y], (q, p + 1)."""
        problem = self.problem
        LambdaV = apply_blocks(self.T, problem.blocks, self.V, transpose=False)
        return problem.ZtW - problem.equations.ZtZ_dot(LambdaV)

    @property
    def ZtVinvX(self) -> Matrix:
        """Z'V^-1X, (q, p)."""
        return self._ZtVinvW[:, :-1]

    @cached_property
    def ZtRinve(self) -> Vector:
        """Z'R^-1 e^ = Z'V^-1 (y - X beta), (q,)."""
        return self._ZtVinvW[:, -1] - self._ZtVinvW[:, :-1] @ self.beta

    @cached_property
    def factor_gradients(self) -> tuple[tuple[Matrix, ...], tuple[Matrix, ...]]:
        """Derivatives (k, k) of the log determinants, and of r^2, by each entry of T.

        d logdets = 2 sum(dT o B), B the level sums of Z'R^-1X C~^bu + Z'R^-1Z Lambda
        C~^uu; under ML of Z'R^-1Z Lambda M^-1. d r^2 = -2 sum(dT o g u'), g = Z'R^-1e^.
        """
        problem = self.problem
        traces = self.factor.traces()
        g = split_blocks(self.ZtRinve, problem.blocks)
        u = split_blocks(self.u, problem.blocks)
        quadratic = tuple(-2.0 * (g_j.T @ u_j) for g_j, u_j in zip(g, u, strict=True))
        if not problem.reml or problem.p == 0:
            return tuple(2.0 * trace for trace in traces), quadratic
        K = split_blocks(self.ZtVinvX @ self.R_inverse, problem.blocks)
        V = split_blocks(self.V[:, :-1] @ self.R_inverse, problem.blocks)
        determinants = tuple(
            2.0 * (trace - _level_sums(K_j, V_j))
            for trace, K_j, V_j in zip(traces, K, V, strict=True)
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
    LambdaZtW = apply_blocks(T, problem.blocks, problem.ZtW, transpose=True)
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
        u=V[:, p] - V[:, :p] @ beta,
        r2=float(upper[p, p]) ** 2,
        logdets=logdets,
    )


def _level_sums(A: Stack, B: Stack) -> Matrix:
    """Return sum over levels of A_l B_l' for A, B (m, k, p)."""
    k = A.shape[1]
    if k == 1:
        return np.array([[np.vdot(A, B)]])
    by_coefficient = A.transpose(1, 0, 2).reshape(k, -1)
    return by_coefficient @ B.transpose(1, 0, 2).reshape(k, -1).T


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
    determinants, quadratic = evaluation.factor_gradients
    total = tuple(
        d + q / evaluation.sigma2 for d, q in zip(determinants, quadratic, strict=True)
    )
    return chain_to_theta(evaluation.problem, theta, total)


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
    a = split_blocks(evaluation.ZtRinve, problem.blocks)
    H = np.zeros((len(evaluation.u), len(theta)))
    start = 0
    for where, stack, a_j in zip(
        problem.theta_slices, dSigma(evaluation, theta), a, strict=True
    ):
        # (m, k) (k, k*t) -> (m*k, t): row (l, a) is sum_b a[l, b] dSigma[t, b, a]
        product = a_j @ stack.transpose(1, 2, 0).reshape(a_j.shape[1], -1)
        H[start : start + a_j.size, where] = product.reshape(a_j.size, -1)
        start += a_j.size
    ZtZ_H = problem.equations.ZtZ_dot(H)
    F_u = apply_blocks(evaluation.T, problem.blocks, ZtZ_H, transpose=True)
    quadratic = H.T @ ZtZ_H - F_u.T @ evaluation.factor.solve(F_u)
    if problem.p:
        F_x = problem.ZtX.T @ H - evaluation.V[:, :-1].T @ F_u
        half = evaluation.R_inverse.T @ F_x
        quadratic -= half.T @ half
    linear = H.T @ evaluation.ZtRinve
    A = (quadratic - np.outer(linear, linear) / evaluation.r2) / evaluation.sigma2
    return (A + A.T) / 2.0
