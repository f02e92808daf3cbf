"""Diagonals over the rows of a model with a residual structure.

R is block-diagonal by subject, R = A A' with A = D L. With H the matrix of fitted
values in whitened rows, of which only the blocks of subjects are needed,

    P = A^-T (I - H) A^-1,    R P R = A (I - H) A',    y -> fitted: A H A^-1

with V relative to sigma^2 and P = V^-1 - V^-1X (X'V^-1X)^-1 X'V^-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.estimate import Fit
from mixform.estimate.criterion import require_rows
from mixform.mme import few_threads
from mixform.residual.batched import each


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowDiagonals:
    """Diagonals (n,), weights included, y in units of the scaled problem.

    Attributes
    ----------
    R, R_inverse, V_inverse, P, RPR : of these matrices
    hat : of the matrix that maps y to the fitted values
    Py : the vector P y = R^-1 e^
    """

    R: Vector
    R_inverse: Vector
    V_inverse: Vector
    P: Vector
    RPR: Vector
    hat: Vector
    Py: Vector


def row_diagonals(fit: Fit) -> RowDiagonals:
    """Return the diagonals of a fit that has a residual structure."""
    here = fit.evaluation
    rows = require_rows(here.problem)
    n = fit.n
    half = here.RootVinvX @ here.R_inverse
    R, R_inverse, V_inverse, P, RPR, hat, Py = np.empty((7, n))
    with few_threads(here.problem.equations):
        hats = rows.hat_blocks(here.factor, here.T)
    for pattern, random in zip(rows.residual.patterns, hats, strict=True):
        own, which = pattern.batch.rows, pattern.batch.which
        fixed = half[own] @ half[own].transpose(0, 2, 1)
        V = np.eye(own.shape[1]) - random
        S = V - fixed
        A = (pattern.D[:, :, None] * pattern.L)[which]
        B = (pattern.L_inverse / pattern.D[:, None, :])[which]
        AS, BS, BV = A @ S, B.transpose(0, 2, 1) @ S, B.transpose(0, 2, 1) @ V
        R[own] = pattern.D[which] ** 2
        R_inverse[own] = np.einsum("nji,nji->ni", B, B)
        RPR[own] = np.einsum("nij,nij->ni", AS, A)
        V_inverse[own] = np.einsum("nij,nji->ni", BV, B)
        P[own] = np.einsum("nij,nji->ni", BS, B)
        hat[own] = 1.0 - np.einsum("nij,nji->ni", AS, B)
        Py[own] = np.einsum("nji,nj->ni", B, here.e[own])
    w = np.ones(n) if fit.design.weights is None else fit.design.weights
    return RowDiagonals(
        R=R / w,
        R_inverse=R_inverse * w,
        V_inverse=V_inverse * w,
        P=P * w,
        RPR=RPR / w,
        hat=hat,
        Py=Py * np.sqrt(w),
    )


def unwhiten(fit: Fit, A: Matrix) -> Matrix:
    """Return the transpose of R^-1/2 times A (n, c), weights included."""
    out = np.empty(A.shape)
    for pattern in require_rows(fit.evaluation.problem).residual.patterns:
        own, which = pattern.batch.rows, pattern.batch.which
        B = pattern.L_inverse / pattern.D[:, None, :]
        out[own] = each(B, which, A[own], True)
    weights = fit.design.weights
    return out if weights is None else out * np.sqrt(weights)[:, None]
