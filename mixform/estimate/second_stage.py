"""The second stage: the coefficients of subjects regressed on their covariates.

The model of m subjects with k coefficients each, beta_i^ of the first stage::

    beta_i^ = W_i beta + u_i + error_i,   Var(u_i) = D,   Var(error_i) = S_i

W_i is block diagonal: coefficient c has q_c covariates, the rows of A_c. S_i =
sigma_i^2 (Z_i' Z_i)^-1 is taken as known. The least squares residuals of coefficient c
are M_c (u_c + error_c), M_c = I - A_c (A_c' A_c)^-1 A_c', and so::

    E r_c' r_d = sum_i [M_c M_d]_ii (D_cd + S_i,cd)

The naive estimate of D leaves S_i out, and is too large by its mean; the moment
estimate subtracts it. Both divide by tr(M_c M_d), m - q if all coefficients have the
same q covariates. The moment estimate is unbiased where sigma_i^2 is, and need not be
positive definite. Without covariates it is the sample covariance of the coefficients
less the mean of S_i, as in random coefficient regression (Swamy 1970, Econometrica 38).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from mixform._typing import Mask, Matrix, Stack, Vector
from mixform.design.between import Between


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regression:
    """Estimates of beta, (q,), and their covariance, (q, q)."""

    beta: Vector
    V_beta: Matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Least squares of the second stage.

    Attributes
    ----------
    naive : with the covariance that D_naive gives
    D_naive : (k, k) covariance of the residuals
    D : (k, k) less the mean of the sampling covariances
    """

    naive: Regression
    D_naive: Matrix
    D: Matrix


def least_squares(coefficients: Matrix, S: Stack, between: Between) -> Moments:
    """Regress each coefficient on its covariates by itself.

    Parameters
    ----------
    coefficients : (m, k) of the first stage
    S : (m, k, k) their sampling covariances
    """
    k = coefficients.shape[1]
    solved = [_ordinary(coefficients[:, c], between, c) for c in range(k)]
    residuals = np.column_stack([rest for _, rest, _ in solved])
    shares = _shares(between)
    divisor = shares.sum(axis=0)
    cross = residuals.T @ residuals
    D_naive = cross / divisor
    D = (cross - np.einsum("icd,icd->cd", shares, S)) / divisor
    maps = [inverse for _, _, inverse in solved]  # A_c^+, (q_c, m)
    V = np.block([[D_naive[c, d] * maps[c] @ maps[d].T for d in range(k)]
                  for c in range(k)])  # fmt: skip
    beta = np.concatenate([estimate for estimate, _, _ in solved])
    return Moments(naive=Regression(beta=beta, V_beta=V), D_naive=D_naive, D=D)


def generalized_least_squares(
    coefficients: Matrix, S: Stack, between: Between, D: Matrix
) -> Regression | None:
    """Regress all coefficients together, each subject with its own covariance.

    ::

        beta = (sum W_i' V_i^-1 W_i)^-1 sum W_i' V_i^-1 beta_i^,   V_i = D + S_i

    which given D and sigma^2 is the generalized least squares of the mixed model
    y_i = Z_i W_i beta + Z_i u_i + e_i.

    Returns
    -------
    None if a V_i is not positive definite
    """
    V = D + S
    if not positive_definite(V).all():
        return None
    L = np.linalg.cholesky(V)
    q = between.width
    both = np.concatenate([between.stacked(), coefficients[..., None]], axis=2)
    rows = np.linalg.solve(L, both).reshape(-1, q + 1)
    R = np.linalg.qr(rows).R
    root = solve_triangular(R[:q, :q], np.eye(q))
    return Regression(beta=root @ R[:q, q], V_beta=root @ root.T)


def positive_definite(V: Stack) -> Mask:
    """Return which of m symmetric matrices are positive definite, (m,).

    Judged with the diagonal scaled to 1, so that units do not matter.
    """
    diagonal = np.diagonal(V, axis1=1, axis2=2)
    positive = (diagonal > 0.0).all(axis=1)
    scale = np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    values = np.linalg.eigvalsh(V / (scale[:, :, None] * scale[:, None, :]))
    return positive & (values[:, 0] > 1e-12)


def is_covariance(D: Matrix, like: Matrix) -> bool:
    """Whether D is positive semidefinite to rounding, in the units of ``like``."""
    scale = np.sqrt(np.diag(like))
    scale = np.where(scale > 0.0, scale, 1.0)
    return bool(np.linalg.eigvalsh(D / np.outer(scale, scale))[0] > -1e-10)


def _ordinary(b: Vector, between: Between, c: int) -> tuple[Vector, Vector, Matrix]:
    """Return estimate (q_c,), residuals (m,) and the pseudoinverse (q_c, m) of A_c."""
    A, Q = between.columns[c], between.bases[c]
    R = Q.T @ A
    inverse = np.linalg.solve(R, Q.T)
    estimate = inverse @ b
    return estimate, b - A @ estimate, inverse


def _shares(between: Between) -> Stack:
    """Return the diagonals of M_c M_d, (m, k, k)."""
    bases = between.bases
    own = [np.einsum("ij,ij->i", Q, Q) for Q in bases]
    k = len(bases)
    shares = np.empty((len(own[0]), k, k))
    for c in range(k):
        for d in range(k):
            Q, P = bases[c], bases[d]
            both = np.einsum("ij,ij->i", Q @ (Q.T @ P), P)
            shares[:, c, d] = 1.0 - own[c] - own[d] + both
    return shares
