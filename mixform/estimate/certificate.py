"""Is this a minimum? The boundary made exact, and the one-sided test there.

On the Cholesky scale a zero column of T is stationary by symmetry, whether or not it is
a minimum. So optimality is judged on the scale of Sigma = T T': with S = dcriterion /
dSigma, an optimum has S T = 0 and S positive semidefinite on the null space of T'. A
negative eigenvalue there is a direction to leave along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mixform._typing import Mask, Matrix, Vector
from mixform.covariance import Structure, is_curved
from mixform.covariance.structure import SMALL_PIVOT
from mixform.errors import SolverError
from mixform.estimate.criterion import (
    Evaluation,
    average_information,
    evaluate,
    evaluate_at,
    gradient,
)
from mixform.estimate.determination import undetermined
from mixform.estimate.held import is_held
from mixform.estimate.limits import (
    PROBE,
    Inward,
    free_parameters,
    snap_to_limits,
    steepest_inward,
)
from mixform.estimate.problem import Problem
from mixform.estimate.trust_region import minimize

#: An eigenvalue of S above this, relative to its trace part, counts as not negative.
EIGENVALUE_TOLERANCE = 1e-5
#: Curvature of the criterion by theta that is nothing but rounding.
FLAT = 1e-16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """What is known of the point where the search ended.

    Attributes
    ----------
    predicted_decrease : of the criterion that is left, by the average information
        over the interior parameters; deviance units
    smallest_eigenvalue : of dcriterion/dSigma over the null spaces of the blocks,
        relative to its expectation; +inf if no block is singular
    direction : block and vector (k,) of that eigenvalue; or from a limit of a
        structure that has its own
    undetermined : parameters that the data do not determine, of a residual structure
    """

    predicted_decrease: float
    smallest_eigenvalue: float
    direction: tuple[int, Vector] | Inward | None
    undetermined: tuple[str, ...] = ()


def snap_to_boundary(
    problem: Problem, theta: Vector, here: Evaluation, *, polish: bool = False
) -> tuple[Vector, Evaluation, int]:
    """Put variances that are zero but for rounding exactly at zero.

    A block whose T has a small pivot is replaced by the singular one next to it, if
    the criterion is no higher there; with ``polish``, no higher at the minimum of the
    boundary next to it.

    Returns
    -------
    theta, its evaluation, and the number of evaluations made
    """
    theta, here, count = snap_to_limits(problem, theta, here)
    for j, (structure, where) in enumerate(
        zip(problem.structures, problem.theta_slices, strict=True)
    ):
        T = here.T[j]
        pivots = np.sort(np.abs(np.asarray(T.diagonal())))[-structure.rank(len(T)) :]
        fixed = structure.curved or is_held(structure)
        if fixed or float(pivots[0]) > SMALL_PIVOT or not np.any(T):
            continue
        for Sigma, tolerance in _singular_neighbors(structure, T):
            trial = theta.copy()
            trial[where] = structure.from_covariance(Sigma, tolerance)
            there = evaluate(problem, trial)
            count += 1
            limit = here.criterion + max(1e-9, here.noise)
            if there.criterion > limit and polish:
                # A zero column stays zero: this searches the boundary near by.
                search = minimize(problem, trial, tolerance=1e-9, max_evaluations=30)
                trial, there = search.theta, search.evaluation
                count += search.n_evaluations
            if there.criterion <= limit:
                theta, here = trial, there
                break
    return theta, here, count


def _singular_neighbors(
    structure: Structure, T: Matrix
) -> Iterator[tuple[Matrix, float]]:
    """Yield singular covariances near T T', and what counts as zero in them.

    First the nearest one, then those with small pivots of T at zero.
    """
    left, sizes, _ = np.linalg.svd(T)
    small = sizes <= SMALL_PIVOT
    rank = structure.rank(len(T))
    if structure.couples and np.any(sizes[:rank][small[:rank]] > 0.0):
        for solid in [left[:, ~small] * sizes[~small]] if not np.all(small) else []:
            yield solid @ solid.T, 1e-14 * float(sizes[0]) ** 2
    if rank < len(T):
        # A pivot of a trapezoid may be zero without a column that is.
        yield np.zeros_like(T), 1e-14
        return
    pivots = np.sort(np.abs(np.asarray(T.diagonal())))
    for size in pivots[pivots <= SMALL_PIVOT][::-1]:
        if size > 0.0 or _has_loose_column(T):
            yield T @ T.T, 1.000001 * size**2 + 1e-14 * float(np.max(T**2))


def _has_loose_column(T: Matrix) -> bool:
    """Whether a column with a zero pivot has entries below it."""
    return any(T[c, c] == 0.0 and np.any(T[c:, c]) for c in range(len(T)))


def canonical_signs(problem: Problem, theta: Vector) -> Vector:
    """Return theta with every T's diagonal not negative: the same Sigma."""
    out = theta.copy()
    for structure, where, block in zip(
        problem.structures, problem.theta_slices, problem.blocks, strict=True
    ):
        if is_curved(structure):
            out[where] = structure.canonical(theta[where], block.k)
            continue
        T = structure.factor(theta[where], block.k)
        signs = np.where(np.diag(T) < 0.0, -1.0, 1.0)
        if np.any(signs < 0.0):
            out[where] = structure.from_factor(T * signs)
    return out


def interior_parameters(problem: Problem, theta: Vector) -> np.ndarray:
    """Return which parameters are free to move both ways, (t + r,) boolean.

    Parameters that only enter a zero column of T sit on the boundary, and so do
    correlations at the edge of their range; those of a residual structure that is held
    do not move.
    """
    interior = problem.free
    if problem.rows is not None:
        here = problem.rows.model.at(theta[problem.n_theta :])
        interior[problem.n_theta :] &= ~here.at_edge()
    for structure, where, block in zip(
        problem.structures, problem.theta_slices, problem.blocks, strict=True
    ):
        if is_curved(structure):
            interior[where] = free_parameters(structure, theta[where], block.k)
            continue
        T = structure.factor(theta[where], block.k)
        zero = ~np.any(T, axis=0)
        dT = structure.derivatives(theta[where], block.k)
        moves = np.any(dT != 0.0, axis=1)  # (t, k): which columns each moves
        interior[where] = np.asarray(moves & ~zero).any(axis=1)
    return interior


def certify(problem: Problem, theta: Vector, here: Evaluation) -> Certificate:
    """Judge the point (t,) that a search ended at."""
    if not np.any(problem.free):
        return Certificate(
            predicted_decrease=0.0, smallest_eigenvalue=np.inf, direction=None
        )
    predicted = _decrease_left(problem, theta, here)
    best = Certificate(
        predicted_decrease=predicted,
        smallest_eigenvalue=np.inf,
        direction=None,
        undetermined=undetermined(here, theta, interior_parameters(problem, theta)),
    )
    for inward in steepest_inward(problem, theta, here):
        if inward.slope < best.smallest_eigenvalue:
            best = replace(best, smallest_eigenvalue=inward.slope, direction=inward)
    null_spaces = _null_spaces(here)
    if not any(space.size for space in null_spaces):
        return best
    for j, value, direction in _one_sided(problem, here, null_spaces):
        if value < best.smallest_eigenvalue:
            best = replace(best, smallest_eigenvalue=value, direction=(j, direction))
    return best


def zero_columns(structure: Structure, T: Matrix) -> Mask:
    """Return which columns (k,) of T are zero and need not be.

    None of a curved structure, whose limits are its own.
    """
    k = len(T)
    zero = ~np.any(T, axis=0) & (np.arange(k) < structure.rank(k))
    return zero & (not structure.curved)


def is_singular(structure: Structure, T: Matrix) -> bool:
    """Whether T T' has a lower rank than the structure can have."""
    if not structure.curved:
        return bool(np.any(zero_columns(structure, T)))
    sizes = np.linalg.svd(T, compute_uv=False)
    return float(sizes[-1]) <= 1e-12 * float(sizes[0])


def _decrease_left(problem: Problem, theta: Vector, here: Evaluation) -> float:
    """Return the decrease that the average information predicts inside the face."""
    interior = interior_parameters(problem, theta)
    if not np.any(interior):
        return 0.0
    g = gradient(here, theta)[interior]
    A = average_information(here, theta)[np.ix_(interior, interior)]
    values, vectors = np.linalg.eigh(A)
    along = vectors.T @ g
    floor = max(1e-12 * float(values[-1]), FLAT)
    return 0.5 * float(np.sum(along**2 / np.maximum(values, floor)))


def _null_spaces(here: Evaluation) -> list[Matrix]:
    """Return an orthonormal basis (k, d) of the null space of each block's T'.

    Of those that are estimated; none of a held one.
    """
    spaces: list[Matrix] = []
    for structure, T in zip(here.problem.structures, here.T, strict=True):
        if is_held(structure) or not np.any(zero_columns(structure, T)):
            spaces.append(np.empty((len(T), 0)))
        else:
            zero = ~np.any(T, axis=0)
            left = np.linalg.svd(T)[0]
            spaces.append(left[:, len(T) - int(zero.sum()) :])
    return spaces


def _one_sided(
    problem: Problem, here: Evaluation, spaces: list[Matrix]
) -> list[tuple[int, float, Vector]]:
    """Return for each singular block its most promising null direction.

    The zero columns of T are set to PROBE times the null space N; then
    N'(dcriterion/dT)[zero columns] = 2 PROBE N'SN, from one evaluation.
    """
    probe: list[Matrix] = []
    for j, (T, space) in enumerate(zip(here.T, spaces, strict=True)):
        moved = T.copy()
        if space.size:
            zero = ~np.any(T, axis=0)
            if not problem.structures[j].couples:
                space = np.eye(len(T))[:, zero]
                spaces[j] = space
            moved[:, zero] = PROBE * space
        probe.append(moved)
    there = evaluate_at(here.problem, tuple(probe))
    determinants, quadratic = there.factor_gradients
    found: list[tuple[int, float, Vector]] = []
    for j, space in enumerate(spaces):
        if not space.size:
            continue
        zero = ~np.any(here.T[j], axis=0)
        expected = space.T @ determinants[j][:, zero]
        total = expected + space.T @ quadratic[j][:, zero] / there.sigma2
        if problem.structures[j].couples:
            values, vectors = np.linalg.eigh((total + total.T) / 2.0)
            weights = vectors[:, 0]
            value = float(values[0])
        else:
            weights = np.eye(len(total))[int(np.argmin(np.diag(total)))]
            value = float(weights @ total @ weights)
        scale = float(weights @ expected @ weights)
        if not scale > 0.0:
            raise SolverError("The one-sided derivative has no scale: no rows left?")
        found.append((j, value / scale, space @ weights))
    return found


def leave_along(
    problem: Problem,
    theta: Vector,
    here: Evaluation,
    direction: tuple[int, Vector] | Inward,
) -> tuple[Vector, int]:
    """Step off a false zero: the first size along it that lowers the criterion.

    Returns
    -------
    theta (t,), and the number of evaluations made
    """
    size, count = 0.5, 0
    while size > 1e-7:
        trial = theta.copy()
        if isinstance(direction, Inward):
            where = problem.theta_slices[direction.block]
            trial[where] = direction.origin + size * direction.step
        else:
            j, v = direction
            Sigma = here.T[j] @ here.T[j].T + size**2 * np.outer(v, v)
            structure, where = problem.structures[j], problem.theta_slices[j]
            trial[where] = structure.from_covariance(Sigma, 1e-16)
        count += 1
        if evaluate(problem, trial).criterion < here.criterion:
            return trial, count
        size /= 4.0
    return theta, count
