"""Search for the optimum of many responses at once.

The steps of `trust_region` (average information plus a secant, an exact trust-region
step, the model that predicted better) on stacks. A replicate leaves the stack when its
search ends; who does not end in a few rounds is left to the search for one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mixform._typing import AnyArray, Mask, Matrix, Stack, Vector
from mixform.estimate.batch.criterion import (
    Solutions,
    derivatives_batch,
    solve_batch,
)
from mixform.estimate.batch.layout import Layout
from mixform.estimate.problem import Problem

#: Rounds after which a replicate is left to the search for one.
MAX_ROUNDS = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchSearch:
    """Where the searches are, and at last where they ended.

    Attributes
    ----------
    theta : (r, t) parameters
    ended : (r,) whether the search ended by its rule
    criterion, noise, r2 : (r,) of the solutions there, as `Evaluation`'s
    beta : (r, p); V_XX : (r, p, p)
    """

    theta: Matrix
    ended: Mask
    criterion: Vector
    noise: Vector
    r2: Vector
    beta: Matrix
    V_XX: Stack

    def store(self, which: AnyArray, there: Solutions, rows: Mask) -> None:
        """Put replicates ``which[rows]`` at the solutions ``rows``."""
        places = which[rows]
        self.theta[places] = there.theta[rows]
        self.criterion[places] = there.criterion[rows]
        self.noise[places] = there.noise[rows]
        self.r2[places] = there.r2[rows]
        self.beta[places] = there.beta[rows]
        self.V_XX[places] = there.V_XX[rows]

    def replace(self, places: AnyArray, other: BatchSearch, rows: Mask) -> None:
        """Put replicates ``places`` where others ended."""
        for field in fields(self):
            getattr(self, field.name)[places] = getattr(other, field.name)[rows]

    def take(self, rows: AnyArray) -> BatchSearch:
        """Return those of some replicates."""
        chosen = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        return BatchSearch(**chosen)


def minimize_batch(
    problem: Problem,
    layout: Layout,
    start: Vector | Matrix,
    responses: tuple[AnyArray, Vector],
    *,
    tolerance: float,
) -> BatchSearch:
    """Search for each of r responses.

    Parameters
    ----------
    start : (t,), which all share: M is factored once there; or (r, t)
    responses : Z'y (r, d, s, w) as `Layout.place` gives it, and y'y (r,)
    tolerance : predicted decrease of the criterion at which to stop
    """
    Zty, yty = responses
    start = np.atleast_2d(start)
    here = solve_batch(problem, layout, start, Zty, yty)
    found = _begin(here, len(yty))
    which = np.arange(len(yty))
    g, A, _ = derivatives_batch(problem, layout, here)
    B = np.zeros_like(A)
    secant = np.zeros(len(yty), dtype=bool)
    radius = np.maximum(1.0, 0.1 * np.linalg.norm(found.theta, axis=1))
    for _ in range(MAX_ROUNDS):
        H = A + np.where(secant[:, None, None], B, 0.0)
        step, predicted, inside = trust_region_steps(H, g, radius)
        theta = found.theta[which] + step
        there = solve_batch(problem, layout, theta, Zty[which], yty[which])
        decrease, noise = found.criterion[which] - there.criterion, found.noise[which]
        flat = predicted <= np.where(inside, 1e-4 * tolerance, 1e-2 * noise)
        ended = flat | (inside & (predicted <= tolerance))
        least = np.where(ended, -noise, np.minimum(1e-4 * predicted, noise))
        accepted = (decrease > least) & ~flat
        found.store(which, there, accepted)
        found.ended[which[ended]] = True
        secant = _secant_is_better(g, A, B, step, decrease)
        radius = _next_radius(radius, step, decrease, predicted)
        moved = accepted & ~ended
        if moved.any():
            g_new, A_new, _ = derivatives_batch(problem, layout, there.take(moved))
            B[moved] = secant_updates(B[moved], step[moved], g_new - g[moved], A_new)
            g[moved], A[moved] = g_new, A_new
        if ended.all():
            break
        go = ~ended
        which, g, A, B = which[go], g[go], A[go], B[go]
        secant, radius = secant[go], radius[go]
    return found


def _begin(here: Solutions, r: int) -> BatchSearch:
    """Return the record with all replicates at their common start."""
    p = here.beta.shape[1]
    return BatchSearch(
        theta=np.broadcast_to(here.theta, (r, here.theta.shape[1])).copy(),
        ended=np.zeros(r, dtype=bool),
        criterion=here.criterion.copy(),
        noise=here.noise.copy(),
        r2=here.r2.copy(),
        beta=here.beta.copy(),
        V_XX=np.broadcast_to(here.V_XX, (r, p, p)).copy(),
    )


def _secant_is_better(
    g: Matrix, A: Stack, B: Stack, step: Matrix, decrease: Vector
) -> Mask:
    """Return where A + B predicted the decrease better than A."""
    with_A = -np.einsum("ri,ri->r", g, step) - 0.5 * _quadratic(A, step)
    with_B = with_A - 0.5 * _quadratic(B, step)
    return np.abs(with_B - decrease) < np.abs(with_A - decrease)


def _quadratic(A: Stack, step: Matrix) -> Vector:
    return np.einsum("ri,rij,rj->r", step, A, step)


def _next_radius(
    radius: Vector, step: Matrix, decrease: Vector, predicted: Vector
) -> Vector:
    """Shrink after a poor prediction, grow after a good one at the edge."""
    length = np.sqrt(np.einsum("ri,ri->r", step, step))
    shrunk = length * np.where(decrease > 0.0, 0.5, 0.25)
    grow = (decrease > 0.75 * predicted) & (length > 0.8 * radius)
    grown = np.where(grow, 2.5 * radius, radius)
    return np.where(decrease < 0.25 * predicted, shrunk, grown)


def secant_updates(B: Stack, step: Matrix, dg: Matrix, A: Stack) -> Stack:
    """Return B (r, t, t) sized and updated so that (A + B) step = dg.

    As `trust_region.secant_update` for one.
    """
    missed = dg - np.einsum("rij,rj->ri", A, step)
    Bs = np.einsum("rij,rj->ri", B, step)
    size = np.abs(np.einsum("ri,ri->r", step, Bs))
    gap = np.abs(np.einsum("ri,ri->r", step, missed))
    shrink = np.minimum(1.0, gap / np.where(size > 0.0, size, 1.0))
    shrink[size == 0.0] = 1.0
    B, Bs = shrink[:, None, None] * B, shrink[:, None] * Bs
    curvature = np.einsum("ri,ri->r", dg, step)
    lengths = np.linalg.norm(dg, axis=1) * np.linalg.norm(step, axis=1)
    usable = np.abs(curvature) > 1e-10 * lengths
    curvature[~usable] = 1.0
    error = missed - Bs
    cross = error[:, :, None] * dg[:, None, :]
    along = np.einsum("ri,ri->r", step, error) / curvature**2
    update = (cross + cross.swapaxes(1, 2)) / curvature[:, None, None]
    update -= along[:, None, None] * dg[:, :, None] * dg[:, None, :]
    return B + np.where(usable[:, None, None], update, 0.0)


def trust_region_steps(
    H: Stack, g: Matrix, radius: Vector
) -> tuple[Matrix, Vector, Mask]:
    """Minimize g's + s'Hs/2 over the ball of the radius, for each of r models.

    Returns
    -------
    step : (r, t)
    predicted : (r,) decrease of the quadratic model
    inside : (r,) the minimum of a convex model lies inside the ball
    """
    values, vectors = np.linalg.eigh(H)
    along = np.einsum("rij,ri->rj", vectors, g)
    largest = np.maximum(np.abs(values).max(axis=1), 1e-300)
    steepest = np.abs(along).max(axis=1)
    flat = (np.abs(values) <= 1e-14 * largest[:, None]) & (
        np.abs(along) <= 1e-10 * steepest[:, None]
    )
    convex = np.all((values > 0.0) | flat, axis=1)
    safe = np.where(flat | ~convex[:, None], 1.0, values)
    s = np.where(flat, 0.0, -along / safe)
    inside = convex & (np.linalg.norm(s, axis=1) <= radius)
    edge = ~inside
    if edge.any():
        s[edge] = _edge_steps(values[edge], along[edge], radius[edge], largest[edge])
    predicted = -np.einsum("ri,ri->r", along, s)
    predicted -= 0.5 * np.einsum("ri,ri,ri->r", values, s, s)
    return np.einsum("rij,rj->ri", vectors, s), predicted, inside


def _edge_steps(
    values: Matrix, along: Matrix, radius: Vector, largest: Vector
) -> Matrix:
    """Return steps to the edge of the ball, in the eigenvectors' coordinates.

    Newton's method on 1/radius - 1/|s(shift)|, monotone from the left (More and
    Sorensen 1983). Where nothing of g is along a negative direction the step stays
    inside the ball: such a replicate is left to the search for one.
    """
    shift = np.maximum(
        np.maximum(0.0, -values[:, 0]) + 1e-14 * largest,
        np.linalg.norm(along, axis=1) / radius - largest,
    )
    s = -along / (values + shift[:, None])
    for _ in range(60):
        length = np.linalg.norm(s, axis=1)
        outside = length > radius * (1.0 + 1e-3)
        if not outside.any():
            break
        slope = np.sum(along**2 / (values + shift[:, None]) ** 3, axis=1)
        change = (length - radius) / radius * length**2 / np.where(outside, slope, 1.0)
        shift = shift + np.where(outside, change, 0.0)
        s = -along / (values + shift[:, None])
    return s
