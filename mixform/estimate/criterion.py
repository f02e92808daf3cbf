"""The REML and ML criteria, their exact gradient and their average information.

With M = Lambda'Z'R^-1Z Lambda + P and C~ the coefficient matrix of Henderson's
equations in (beta, u) (Henderson 1984; Bates, Machler, Bolker and Walker 2015)::

    REML = log|M| - log|P| + log|R| + log|X'V^-1X| + (n-p)(1 + log(2 pi r^2/(n-p)))
    ML   = log|M| - log|P| + log|R|                +  n   (1 + log(2 pi r^2/ n   ))

everything from one factorisation of M. Where sigma^2 is held, or tied to a variance
that is (see `held`), it is not profiled out: the last term is df log(2 pi sigma^2) +
r^2 / sigma^2. The gradient needs entries of C~^-1 on the pattern of Z'R^-1Z only; the
average information (Gilmour, Thompson and Cullis 1995) one more solve with a right-hand
side for each parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from mixform._typing import Matrix, Stack, Vector
from mixform.errors import SolverError
from mixform.estimate.held import add_tied, is_held
from mixform.estimate.problem import Problem
from mixform.estimate.whitening import Rows
from mixform.mme import Factor


def require_rows(problem: Problem) -> Rows:
    """Return the rows of a problem that has a residual structure."""
    assert problem.rows is not None, "there is a residual structure"
    return problem.rows


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
        return self.problem.sigma2(self.T, self.r2)

    @cached_property
    def criterion(self) -> float:
        """-2 log (restricted) likelihood of the scaled problem."""
        df = self.problem.residual_df
        fitted = df * (LOG_2_PI + float(np.log(self.sigma2)))
        return self.logdets + fitted + self.r2 / self.sigma2

    @property
    def noise(self) -> float:
        """Size of the rounding error of the criterion.

        r^2 is what is left of y'y: where the random effects explain nearly all, its
        leading digits have cancelled.
        """
        problem = self.problem
        cancelled = 1e-15 * problem.yty / self.sigma2
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
    def e(self) -> Vector:
        """R^-1/2 e^ of a residual structure, (n,)."""
        rows = require_rows(self.problem)
        b = self.problem.equations.Lambda_dot(self.T, self.u[:, None])
        assert rows.W is not None, "rows were whitened"
        return rows.W @ np.append(-self.beta, 1.0) - rows.Z_dot(b)[:, 0]

    @cached_property
    def RootVinvX(self) -> Matrix:
        """R^1/2 V^-1X of a residual structure, (n, p)."""
        rows = require_rows(self.problem)
        b = self.problem.equations.Lambda_dot(self.T, self.V[:, :-1])
        return rows.X - rows.Z_dot(b)

    @cached_property
    def residual_gradients(self) -> tuple[Vector, Vector]:
        """Derivatives (r,) by rho of the log determinants, and of r^2.

        d logdets = tr(P~ dR) and d r^2 = -e^'R^-1 dR R^-1 e^, P~ = R^-1 - R^-1 W C~^-1
        W'R^-1, W = [X, Z Lambda]; under ML without X. Only the subjects' blocks of
        it are needed.
        """
        if self.problem.rows is None:
            return np.empty(0), np.empty(0)
        rows = self.problem.rows
        here = rows.residual
        S = here.counts()
        if self.problem.blocks:
            hats = here.sum_blocks(rows.hat_blocks(self.factor, self.T))
            S = [one - hat for one, hat in zip(S, hats, strict=True)]
        if self.problem.reml and self.problem.p:
            half = self.RootVinvX @ self.R_inverse
            fixed = here.block_sums(half, half)
            S = [one - block for one, block in zip(S, fixed, strict=True)]
        e = self.e[:, None]
        return here.traces(S), -here.traces(here.block_sums(e, e))

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
    """Solve the mixed model equations at theta, residual parameters last, (t + r,)."""
    return evaluate_at(problem.at(theta), problem.factors(theta))


def evaluate_at(problem: Problem, T: tuple[Matrix, ...]) -> Evaluation:
    """Solve the mixed model equations at given factors, triangular or not.

    A problem with a residual structure is at its parameters already.

    Raises
    ------
    SolverError : the equations are not positive definite, or nothing is left of y
    """
    p = problem.p
    factor = problem.equations.factor(T)
    LambdaZtW = problem.equations.Lambda_dot(T, problem.ZtW, transpose=True)
    V = factor.solve(LambdaZtW)
    WtVinvW = problem.WtW - LambdaZtW.T @ V  # [X, y]'V^-1[X, y]
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
    """Return derivatives by theta (t,) from derivatives by the entries of T.

    ``theta`` may hold residual parameters behind its own.
    """
    out = np.zeros(problem.n_theta)
    for structure, where, block, gradient in zip(
        problem.structures,
        problem.theta_slices,
        problem.blocks,
        factor_gradients,
        strict=True,
    ):
        dT = structure.derivatives(theta[where], block.k)
        out[where] += dT.reshape(len(dT), gradient.size) @ gradient.ravel()
    return out


def gradient(evaluation: Evaluation, theta: Vector) -> Vector:
    """Return the exact gradient of the criterion by theta and rho, (t + r,)."""
    determinants, quadratic = parts_of_gradient(evaluation, theta)
    out = determinants + quadratic / evaluation.sigma2
    held = evaluation.problem.held
    if held is not None and held.tied is not None:
        s = float(theta[held.slot])  # sigma = 1 / s
        out[held.slot] += 2.0 * (evaluation.r2 * s - evaluation.problem.residual_df / s)
    return np.where(evaluation.problem.free, out, 0.0)


def parts_of_gradient(evaluation: Evaluation, theta: Vector) -> tuple[Vector, Vector]:
    """Return derivatives (t + r,) of the log determinants, and of r^2."""
    problem = evaluation.problem
    determinants, quadratic = (
        np.append(chain_to_theta(problem, theta, by_T), by_rho)
        for by_T, by_rho in zip(
            evaluation.factor_gradients, evaluation.residual_gradients, strict=True
        )
    )
    return determinants, quadratic


def _gradient_by_T(evaluation: Evaluation) -> tuple[Matrix, ...]:
    determinants, quadratic = evaluation.factor_gradients
    return tuple(
        d + q / evaluation.sigma2 for d, q in zip(determinants, quadratic, strict=True)
    )


def em_step(evaluation: Evaluation, theta: Vector) -> Vector:
    """Return theta (t + r,) after one step of expectation-maximization in theta.

    Sigma - Sigma S Sigma / m, S = dcriterion / dSigma (Laird and Ware 1982, Biometrics
    38, 963). From variances that are too large it lands close to the optimum, where
    the average information, too small there, would throw the search far off.
    """
    problem = evaluation.problem
    out = theta.copy()
    for structure, where, block, T, G in zip(
        problem.structures,
        problem.theta_slices,
        problem.blocks,
        evaluation.T,
        _gradient_by_T(evaluation),
        strict=True,
    ):
        if is_held(structure):
            continue
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
    """Return the average information, (t + r, t + r), positive semidefinite.

    A_kl = (q_k'P~q_l - (q_k'P~y)(q_l'P~y) / r^2) / sigma^2, q_k = dV_k P~y, with
    sigma^2 profiled out: twice the matrix of Gilmour, Thompson and Cullis (1995),
    because the criterion is -2 log L. For a random term q_k = Z H_k. Where sigma^2 is
    held, the last product is not there; where sigma = 1 / s is tied to theta, q of s
    has -(2 / s) V~P~y besides, sigma^2 V~ = V.
    """
    problem = evaluation.problem
    related = problem.times_A(evaluation.ZtRinve)
    H = problem.equations.level_products(dSigma(evaluation, theta), related)
    H = add_tied(H, 1, problem.theta_slices, problem.n_theta)
    Ztq = problem.equations.ZtZ_dot(H)
    qtq = H.T @ Ztq
    linear = H.T @ evaluation.ZtRinve
    Xtq = problem.ZtX.T @ H
    if problem.rows is not None:
        rows = problem.rows
        q = rows.residual.products(evaluation.e[:, None])[:, :, 0].T
        Ztq_rho = rows.Zt_dot(problem.equations, q)
        cross = H.T @ Ztq_rho
        qtq = np.block([[qtq, cross], [cross.T, q.T @ q]])
        Ztq = np.concatenate([Ztq, Ztq_rho], axis=1)
        Xtq = np.concatenate([Xtq, rows.X.T @ q], axis=1)
        linear = np.append(linear, q.T @ evaluation.e)
    F_u = problem.equations.Lambda_dot(evaluation.T, Ztq, transpose=True)
    quadratic = qtq - F_u.T @ evaluation.factor.solve(F_u)
    if problem.p:
        half = evaluation.R_inverse.T @ (Xtq - evaluation.V[:, :-1].T @ F_u)
        quadratic -= half.T @ half
    held = problem.held
    if problem.profiled:
        quadratic -= np.outer(linear, linear) / evaluation.r2
    elif held is not None and held.tied is not None:
        scale = -2.0 / float(theta[held.slot])
        quadratic[held.slot] += scale * linear
        quadratic[:, held.slot] += scale * linear
        quadratic[held.slot, held.slot] += scale**2 * evaluation.r2
    A = np.where(np.outer(problem.free, problem.free), quadratic, 0.0)
    return (A + A.T) / (2.0 * evaluation.sigma2)


def information_bound(evaluation: Evaluation, theta: Vector) -> Vector:
    """Return a lower bound of the diagonal of the expected information, (t + r,).

    tr(P~ dV P~ dV) >= tr(P~ dV)^2 / rank(dV), by Cauchy and Schwarz. Where a variance
    is far too large the average information is far below the expected one, and a
    search that trusts it jumps across zero and back.
    """
    problem = evaluation.problem
    traces = chain_to_theta(problem, theta, evaluation.factor_gradients[0])
    ranks = np.full(len(traces), np.inf)
    for structure, where, block in zip(
        problem.structures, problem.theta_slices, problem.blocks, strict=True
    ):
        if is_held(structure):
            continue
        rank = 2 if structure.couples and block.k > 1 else 1
        ranks[where] = block.m * (block.k if structure.curved else rank)
    return np.append(traces**2 / ranks, np.zeros(problem.n_rho))
