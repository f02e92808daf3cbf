"""Leverages: how much each observation determines its own fitted value."""

from __future__ import annotations

import numpy as np

from mixform._typing import Vector
from mixform.estimate import Fit
from mixform.estimate.problem import split_blocks
from mixform.inference.row_diagonals import row_diagonals


def leverage(fit: Fit) -> Vector:
    """Return the diagonal (n,) of the matrix that maps y to the fitted values.

    With W = [X, Z Lambda] it is that of R^-1/2 W C~^-1 W'R^-1/2, C~ the coefficient
    matrix of the mixed model equations (Demidenko and Stukel 2005, Stat. Med. 24,
    893): the part of Z at known beta, plus what estimating beta adds. Entries of M^-1
    between levels that meet in a row are all that is needed. With a residual structure
    it is that of R^1/2 H R^-1/2, H the matrix of the whitened rows: the fitted value is
    X beta^ + Z b^, without what other residuals of the subject say.
    """
    here = fit.evaluation
    problem = here.problem
    if problem.rows is not None:
        return row_diagonals(fit).hat
    X = fit.design.fixed.Q
    if not problem.blocks:
        return np.einsum("ij,ij->i", X, X)
    LambdaV = problem.equations.Lambda_dot(here.T, here.V[:, :-1])
    for block, part in zip(
        problem.blocks, split_blocks(LambdaV, problem.blocks), strict=True
    ):
        levels = block.at_levels(part)
        X = X - np.einsum("ik,ikp->ip", block.design, levels[block.codes])
    half = X @ here.R_inverse
    return here.factor.row_quadratics() + np.einsum("ij,ij->i", half, half)
