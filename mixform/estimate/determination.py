"""Whether the data determine the parameters of a residual structure.

The average information of parameters that the data do not determine is singular: a
correlation of visits that no subject has both of, or a random intercept beside
compound symmetry.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Vector
from mixform.errors import SolverError
from mixform.estimate.criterion import Evaluation, average_information, evaluate
from mixform.estimate.problem import Problem

#: Information of one parameter, in units of a row, below which there is none.
NO_INFORMATION = 1e-9

#: Smallest eigenvalue of the information, scaled to unit diagonal, that is not zero.
SINGULAR = 1e-9

#: How far beyond a point at its edge a parameter is put, on the unconstrained scale.
OUTWARD = 20.0


def undetermined(
    here: Evaluation, psi: Vector, interior: np.ndarray
) -> tuple[str, ...]:
    """Return names of residual parameters (and terms) that the data do not determine.

    Parameters
    ----------
    psi : (t + r,) parameters of the scaled problem
    interior : (t + r,) which are not on the boundary
    """
    problem = here.problem
    if problem.rows is None or problem.n_rho == 0:
        return ()
    names = parameter_names(problem)
    free = np.flatnonzero(interior)
    A = average_information(here, psi)[np.ix_(free, free)]
    diagonal = A.diagonal()
    none = (diagonal < NO_INFORMATION * problem.n) & (free >= problem.n_theta)
    if np.any(none):
        return tuple(names[free[k]] for k in np.flatnonzero(none))
    known = diagonal > 0.0
    if not np.any(known):
        return ()
    scale = np.sqrt(diagonal[known])
    values, vectors = np.linalg.eigh(A[np.ix_(known, known)] / np.outer(scale, scale))
    if values[0] > SINGULAR:
        return ()
    direction = np.zeros(len(psi))
    direction[free[known]] = vectors[:, 0] / scale
    moved = _natural_direction(problem, psi, direction)
    moved /= np.abs(moved).max()
    return tuple(names[k] for k in np.flatnonzero(np.abs(moved) > 0.1))


def _natural_direction(problem: Problem, psi: Vector, direction: Vector) -> Vector:
    """Return a direction (t + r,) with natural correlation parameters in rho."""
    assert problem.rows is not None, "there is a residual structure"
    model, t = problem.rows.model, problem.n_theta
    rho, out = psi[t:], direction.copy()
    for x, grid in zip(model.x, model.layout.grids, strict=True):
        J = model.structure.family.jacobian(rho[x], grid.size)
        out[t + x.start : t + x.stop] = J @ direction[t:][x]
    return out


def snap_to_edge(
    problem: Problem, psi: Vector, here: Evaluation
) -> tuple[Vector, Evaluation, int]:
    """Put correlations that are at the edge of their range but for rounding there.

    Returns
    -------
    psi, its evaluation, and the number of evaluations made
    """
    if here.problem.rows is None:
        return psi, here, 0
    model, count = here.problem.rows.model, 0
    sensitivity = here.problem.rows.residual.sensitivity
    for k in np.flatnonzero(here.problem.rows.residual.at_edge()):
        for step in (OUTWARD, -OUTWARD):
            trial = psi.copy()
            trial[problem.n_theta + k] += step
            try:
                at = model.at(trial[problem.n_theta :])
                if not at.sensitivity[k] < sensitivity[k]:
                    continue
                there = evaluate(problem, trial)
            except SolverError:
                continue  # at its limit the correlation matrix is singular
            count += 1
            if there.criterion <= here.criterion + max(1e-9, here.noise):
                psi, here = trial, there
    return psi, here, count


def parameter_names(problem: Problem) -> list[str]:
    """Return what each parameter (t + r,) of a problem belongs to."""
    names: list[str] = []
    for number, where in enumerate(problem.theta_slices):
        names += [f"the covariance of random term {number + 1}"] * (
            where.stop - where.start
        )
    if problem.rows is None:
        return names
    model = problem.rows.model
    for s, grid in enumerate(model.layout.grids):
        prefix = f"{model.layout.strata[s]}:" if model.layout.strata[s] else ""
        for i, place in enumerate(model.eta[s]):
            if place >= 0:
                which = f"({grid.labels[i]})" if model.structure.heterogeneous else ""
                names.append(f"{prefix}sd{which}")
        names += [prefix + name for name in model.structure.family.names(grid.labels)]
    return names + [f"log sd: {name}" for name in model.dispersion_names]
