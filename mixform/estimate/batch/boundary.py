"""Variances of zero in a stack: made exact, and certified, as for one response.

For coefficients that do not covary, so that each small pivot of T is a parameter of its
own. Where the covariance of several coefficients is singular, the search for one goes
on.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import AnyArray, Mask, Matrix, Vector
from mixform.estimate.batch.criterion import derivatives_batch, solve_batch
from mixform.estimate.batch.layout import Layout
from mixform.estimate.batch.search import BatchSearch, minimize_batch
from mixform.estimate.certificate import EIGENVALUE_TOLERANCE, PROBE, SMALL_PIVOT
from mixform.estimate.problem import Problem


def near_boundary(problem: Problem, theta: Matrix) -> Mask:
    """Return where a pivot of T is so small that zero has to be tried, (r,)."""
    near = np.zeros(len(theta), dtype=bool)
    for T in problem.factors(theta):
        near |= _small_pivots(T).any(axis=1)
    return near


def settle_zeros(
    problem: Problem,
    layout: Layout,
    found: BatchSearch,
    responses: tuple[AnyArray, Vector],
    *,
    tolerance: float,
) -> Mask:
    """Put small variances at zero where that is the optimum.

    Parameters
    ----------
    found : searches near the boundary; those that settle are changed in place
    responses : Z'y (r, d, s, w) and y'y (r,)

    Returns
    -------
    settled : (r,) where the criterion at zero, the other parameters searched again, is
        no higher, and its one-sided derivatives say that it is a minimum
    """
    small, eligible = _loose_zeros(problem, found.theta)
    rows = np.flatnonzero(eligible)
    settled = np.zeros(len(eligible), dtype=bool)
    if not len(rows):
        return settled
    Zty, yty = (part[rows] for part in responses)
    start = np.where(small[rows], 0.0, found.theta[rows])
    face = minimize_batch(problem, layout, start, (Zty, yty), tolerance=tolerance)
    limit = found.criterion[rows] + np.maximum(1e-9, found.noise[rows])
    no_higher = face.ended & (face.criterion <= limit)
    probe = np.where(small[rows], PROBE, face.theta)
    there = solve_batch(problem, layout, probe, Zty, yty)
    g, _, expected = derivatives_batch(problem, layout, there)
    relative = np.where(small[rows], g / np.where(expected > 0.0, expected, np.nan), 0)
    minimum = np.all(relative >= -EIGENVALUE_TOLERANCE, axis=1)
    others = ~near_boundary(problem, np.where(small[rows], 1.0, face.theta))
    good = no_higher & minimum & others
    found.replace(rows[good], face, good)
    settled[rows[good]] = True
    return settled


def _loose_zeros(problem: Problem, theta: Matrix) -> tuple[Mask, Mask]:
    """Return which parameters (r, t) are small pivots that stand alone.

    And where (r,) all small pivots do.
    """
    small = np.zeros(theta.shape, dtype=bool)
    eligible: Mask = np.asarray(np.isfinite(theta).all(axis=1))
    for structure, where, T in zip(
        problem.structures, problem.theta_slices, problem.factors(theta), strict=True
    ):
        pivots = _small_pivots(T)
        if structure.couples and T.shape[-1] > 1:
            eligible &= ~pivots.any(axis=1)
        else:
            # One parameter for each coefficient: the pivot itself.
            small[:, where] = pivots
    eligible &= small.any(axis=1)
    return small, eligible


def _small_pivots(T: AnyArray) -> Mask:
    return ~(np.abs(np.diagonal(T, axis1=1, axis2=2)) > SMALL_PIVOT)
