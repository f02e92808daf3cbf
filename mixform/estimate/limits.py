"""Limits of curved structures: made exact, and the one-sided test there.

A correlation of one or a variance of zero is where such a structure's T T' is
stationary by symmetry, whether or not it is a minimum. A parameter is put at its limit
where the criterion is no higher; there the criterion's slope inwards is what certifies
the point, or a direction to leave along. A standard deviation beside others that is
zero has a slope itself: the search there is one without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mixform._typing import Mask, Matrix, Stack, Vector
from mixform.covariance import Curved, Natural, Structure, is_curved
from mixform.covariance.structure import Coordinates
from mixform.estimate.criterion import Evaluation, evaluate, evaluate_at
from mixform.estimate.problem import Problem
from mixform.estimate.trust_region import minimize

#: How far inside a limit the slope is taken: an angle, or a standard deviation in
#: residual SDs.
PROBE = 1e-4

#: Evaluations that a search at a limit may take.
PATIENCE = 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inward:
    """A direction from a limit.

    Attributes
    ----------
    block : whose
    slope : of the criterion along it, relative to its parts
    origin : (t,) the block's parameters; the same T T' as at the limit
    step : (t,) the direction
    """

    block: int
    slope: float
    origin: Vector
    step: Vector


def free_parameters(structure: Curved, theta: Vector, k: int) -> Mask:
    """Return which canonical parameters (t,) are inside their range and matter."""
    T, dT = structure.factor(theta, k), structure.derivatives(theta, k)
    half = dT @ T.T
    dSigma = half + half.transpose(0, 2, 1)
    moves = np.abs(dSigma).max(axis=(1, 2)) > 1e-14 * float(np.max(T**2, initial=0.0))
    return ~structure.at_edge(theta, k) & moves


def snap_to_limits(
    problem: Problem, theta: Vector, here: Evaluation
) -> tuple[Vector, Evaluation, int]:
    """Put parameters of curved structures at limits that are as good.

    Returns
    -------
    theta (t,), its evaluation, and the number of evaluations made
    """
    count = 0
    for structure, where, block in zip(
        problem.structures, problem.theta_slices, problem.blocks, strict=True
    ):
        if not is_curved(structure):
            continue
        own = structure.canonical(theta[where], block.k)
        if np.any(own != theta[where]):
            theta = theta.copy()
            theta[where] = own
            here, count = evaluate(problem, theta), count + 1
        for near in structure.snapped(own, block.k):
            trial = theta.copy()
            trial[where] = near
            there = evaluate(problem, trial)
            count += 1
            limit = here.criterion + max(1e-9, here.noise)
            slope = np.any(structure.pinned(near, block.k))
            if slope or there.criterion > limit:
                trial, there, extra = _search_without(problem, trial)
                count += extra
            if there.criterion <= limit:
                theta, here = trial, there
                break
    return theta, here, count


def _search_without(problem: Problem, theta: Vector) -> tuple[Vector, Evaluation, int]:
    """Search with the parameters held that a search would take across a limit."""
    free = np.ones(len(theta), dtype=bool)
    structures: list[Structure] = []
    slices: list[slice] = []
    start = 0
    for structure, where, block in zip(
        problem.structures, problem.theta_slices, problem.blocks, strict=True
    ):
        if is_curved(structure):
            own = structure.canonical(theta[where], block.k)
            held = structure.pinned(own, block.k)
            free[where] = ~held
            if np.any(held):
                structure = Held(structure, own, ~held)
        structures.append(structure)
        size = int(free[where].sum())
        slices.append(slice(start, start + size))
        start += size
    smaller = replace(problem, structures=tuple(structures), theta_slices=tuple(slices))
    search = minimize(smaller, theta[free], tolerance=1e-9, max_evaluations=PATIENCE)
    out = theta.copy()
    out[free] = search.theta
    return out, evaluate(problem, out), search.n_evaluations + 1


class Held:
    """A structure with some of its parameters held.

    Parameters
    ----------
    inner : the structure
    theta : (t,) all parameters
    free : (t,) which are not held
    """

    mixes = False
    linear = False
    curved = True
    coordinates: Coordinates = "none"
    least = 1

    def __init__(self, inner: Structure, theta: Vector, free: Mask) -> None:
        self.inner, self.theta, self.free = inner, theta, free
        self.name = inner.name
        self.scales_columns = inner.scales_columns
        self.couples = inner.couples

    def placed(self, positions: Vector | None, options: Mapping[str, int]) -> Held:
        return self

    def n_parameters(self, k: int) -> int:
        return int(self.free.sum())

    def start(self, k: int) -> Vector:
        return self.theta[self.free]

    def factor(self, theta: Vector, k: int) -> Matrix:
        return self.inner.factor(self._all(theta), k)

    def derivatives(self, theta: Vector, k: int) -> Stack:
        return self.inner.derivatives(self._all(theta), k)[self.free]

    def from_factor(self, T: Matrix) -> Vector:
        return self.inner.from_factor(T)[self.free]

    def from_covariance(self, Sigma: Matrix, tolerance: float) -> Vector:
        return self.inner.from_covariance(Sigma, tolerance)[self.free]

    def spanning(self, k: int) -> Stack:
        return np.empty((0, k, k))

    def rank(self, k: int) -> int:
        return self.inner.rank(k)

    def natural(self, theta: Vector, columns: tuple[str, ...]) -> Natural | None:
        return self.inner.natural(self._all(theta), columns)

    def _all(self, theta: Vector) -> Vector:
        out = self.theta.copy()
        out[self.free] = theta
        return out


def steepest_inward(problem: Problem, theta: Vector, here: Evaluation) -> list[Inward]:
    """Return for each curved block at a limit the direction of the steepest descent."""
    found: list[Inward] = []
    for j, (structure, where, block) in enumerate(
        zip(problem.structures, problem.theta_slices, problem.blocks, strict=True)
    ):
        if not is_curved(structure):
            continue
        own = theta[where]
        if not np.any(here.T[j]):
            found.append(_from_zero(here, structure, j, own))
            continue
        for step in structure.inward(own, block.k):
            moved = own + PROBE * step
            T = list(here.T)
            T[j] = structure.factor(moved, block.k)
            there = evaluate_at(here.problem, tuple(T))
            determinants, quadratic = there.factor_gradients
            dT = np.tensordot(step, structure.derivatives(moved, block.k), axes=1)
            total = determinants[j] + quadratic[j] / there.sigma2
            size = float(np.sum(np.abs(dT * determinants[j])))
            slope = float(np.sum(dT * total)) / size if size > 0.0 else 0.0
            found.append(Inward(block=j, slope=slope, origin=own, step=step))
    return found


def _from_zero(here: Evaluation, structure: Curved, j: int, theta: Vector) -> Inward:
    """Return the direction from a term without variance.

    With T = PROBE I, S = dcriterion / dSigma is dcriterion / dT over 2 PROBE.
    """
    k = len(here.T[j])
    T = list(here.T)
    T[j] = PROBE * np.eye(k)
    there = evaluate_at(here.problem, tuple(T))
    determinants, quadratic = there.factor_gradients
    expected = (determinants[j] + determinants[j].T) / 2.0
    total = quadratic[j] / there.sigma2
    total = expected + (total + total.T) / 2.0
    best = Inward(block=j, slope=np.inf, origin=theta, step=np.zeros_like(theta))
    for ray in structure.rays(total, k):
        factor = structure.factor(ray, k)
        Sigma = factor @ factor.T
        slope = float(np.sum(total * Sigma)) / float(np.sum(expected * Sigma))
        if slope < best.slope:
            origin = structure.rescaled(ray, np.zeros(k))
            best = replace(best, slope=slope, origin=origin, step=ray - origin)
    return best
