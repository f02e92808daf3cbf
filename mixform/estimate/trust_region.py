"""Minimize the criterion: average information plus a secant for what it misses.

Inside the parameter space the average information A is a fine stand-in for the Hessian.
Near a boundary the curvature it leaves out is all there is. This is the situation for
which Dennis, Gay and Welsch (1981, ACM Trans. Math. Softw. 7, 348-368) made NL2SOL:
the Hessian is A + B, B a sized secant update of g_new - g_old - A_new s, and each step
uses A or A + B by which of the two predicted the last change better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.errors import SolverError
from mixform.estimate.criterion import (
    Evaluation,
    average_information,
    em_step,
    evaluate,
    gradient,
    information_bound,
)
from mixform.estimate.problem import Problem

#: How far the average information may fall below the expected one's lower bound.
SHORTFALL = 1.5

#: Predicted decrease, for each row and random effect, that was rounding where it does
#: not come true: the criterion of 100 000 related animals scatters by 2e-7.
SCATTER = 5e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """Where a search ended.

    Attributes
    ----------
    theta : (t,) parameters
    evaluation : the solution there
    n_evaluations : factorisations of M it took
    """

    theta: Vector
    evaluation: Evaluation
    n_evaluations: int


def minimize(
    problem: Problem,
    theta: Vector,
    *,
    tolerance: float,
    max_evaluations: int,
    by_em: bool = False,
    trace: Callable[[int, float, Vector], None] | None = None,
) -> Search:
    """Search for a minimum of the criterion from theta.

    Parameters
    ----------
    theta : (t,) start
    tolerance : predicted decrease of the criterion at which to stop
    max_evaluations : of the criterion
    by_em : make the first step one of expectation-maximization, which is safe from a
        start that knows nothing of the data
    trace : called with the count, the criterion and theta after each evaluation
    """
    search = _State(problem, theta, trace)
    if not np.any(problem.free):
        return search.end()
    if by_em and max_evaluations > 1:
        search.jump(em_step(search.here, theta))
    search.differentiate()
    radius = max(1.0, 0.1 * float(np.linalg.norm(theta)))
    scatter = min(SCATTER * (problem.n + problem.equations.q), 1e-6)
    while search.count < max_evaluations:
        step, predicted, inside = trust_region_step(search.hessian, search.g, radius)
        step = np.where(problem.free, step, 0.0)  # rounding moves nothing that is held
        noise = search.here.noise
        # Flat but for rounding, or nothing left that another step could gain.
        if predicted <= (1e-4 * tolerance if inside else 1e-2 * noise):
            return search.end()
        there = search.attempt(step)
        if there is None:
            radius = 0.25 * float(np.linalg.norm(step))
            continue
        decrease = search.here.criterion - there.criterion
        lost = predicted <= scatter and decrease < 0.5 * predicted
        if lost or (inside and predicted <= tolerance):
            if decrease >= (0.0 if lost else -noise):
                search.theta, search.here = search.theta + step, there
            return search.end()
        search.choose_model(step, decrease)
        radius = _next_radius(radius, step, decrease / predicted)
        if decrease > min(1e-4 * predicted, noise):
            search.move(step, there)
        elif radius < 1e-14:
            break
    return search.end()


class _State:
    """The state of a search: where it is, and the two models of the criterion."""

    def __init__(
        self,
        problem: Problem,
        theta: Vector,
        trace: Callable[[int, float, Vector], None] | None,
    ) -> None:
        self.problem, self.trace = problem, trace
        self.theta = theta
        self.count = 0
        self.use_secant = False
        self.here = self.evaluate(np.zeros_like(theta))

    def evaluate(self, step: Vector) -> Evaluation:
        there = evaluate(self.problem, self.theta + step)
        self.count += 1
        if self.trace:
            self.trace(self.count, there.criterion, self.theta + step)
        return there

    def attempt(self, step: Vector) -> Evaluation | None:
        """Return the evaluation after a step; None where R cannot be factored.

        Correlations that round to one are no way to go, but the search may turn back.
        """
        try:
            return self.evaluate(step)
        except SolverError:
            if self.problem.rows is None or float(np.linalg.norm(step)) < 1e-14:
                raise
            return None

    def jump(self, theta: Vector) -> None:
        step = theta - self.theta
        self.here = self.evaluate(step)
        self.theta = theta

    def differentiate(self) -> None:
        self.g = gradient(self.here, self.theta)
        self.A = _information(self.here, self.theta)
        self.B = np.zeros_like(self.A)

    @property
    def hessian(self) -> Matrix:
        return self.A + self.B if self.use_secant else self.A

    def choose_model(self, step: Vector, decrease: float) -> None:
        """Use the model that predicted the last decrease better."""
        with_A = -float(self.g @ step + 0.5 * step @ self.A @ step)
        with_B = with_A - 0.5 * float(step @ self.B @ step)
        self.use_secant = abs(with_B - decrease) < abs(with_A - decrease)

    def move(self, step: Vector, there: Evaluation) -> None:
        """Accept a step and update the derivatives and the secant."""
        self.theta = self.theta + step
        self.here = there
        g_old, self.g = self.g, gradient(there, self.theta)
        self.A = _information(there, self.theta)
        self.B = _secant_update(self.B, step, self.g - g_old, self.A)

    def end(self) -> Search:
        return Search(
            theta=self.theta,
            evaluation=self.here,
            n_evaluations=self.count,
        )


def _information(evaluation: Evaluation, theta: Vector) -> Matrix:
    """Return the average information, raised where it is far below the expected."""
    A = average_information(evaluation, theta)
    short = information_bound(evaluation, theta) / SHORTFALL - A.diagonal()
    A.flat[:: len(A) + 1] += np.maximum(short, 0.0)
    return A


def _next_radius(radius: float, step: Vector, ratio: float) -> float:
    """Shrink after a poor prediction, grow after a good one at the edge."""
    length = float(np.linalg.norm(step))
    if ratio < 0.25:
        return length * (0.5 if ratio > 0.0 else 0.25)
    if ratio > 0.75 and length > 0.8 * radius:
        return 2.5 * radius
    return radius


def _secant_update(B: Matrix, step: Vector, dg: Vector, A: Matrix) -> Matrix:
    """Return B sized and updated so that (A + B) step = dg (Dennis et al. 1981)."""
    missed = dg - A @ step
    Bs = B @ step
    size = abs(step @ Bs)
    if size > 0.0:
        shrink = min(1.0, abs(step @ missed) / size)
        B, Bs = shrink * B, shrink * Bs
    curvature = dg @ step
    if abs(curvature) <= 1e-10 * np.linalg.norm(dg) * np.linalg.norm(step):
        return B
    error = missed - Bs
    cross = np.outer(error, dg)
    return (
        B
        + (cross + cross.T) / curvature
        - (step @ error) * np.outer(dg, dg) / curvature**2
    )


def trust_region_step(
    H: Matrix, g: Vector, radius: float
) -> tuple[Vector, float, bool]:
    """Minimize g's + s'Hs/2 over the ball of the radius, exactly.

    Returns
    -------
    step : (t,)
    predicted : decrease of the quadratic model, >= 0
    inside : the minimum of a convex model lies inside the ball
    """
    values, vectors = np.linalg.eigh(H)
    along = vectors.T @ g
    lowest, largest = float(values[0]), float(np.abs(values).max())
    # A direction without curvature and without slope (a zero column of T) is left
    # alone; without curvature but with slope it ends at the radius.
    flat = (np.abs(values) <= 1e-14 * largest) & (
        np.abs(along) <= 1e-10 * np.abs(along).max()
    )
    if np.all(values[~flat] > 0.0):
        newton = np.where(flat, 0.0, -along / np.where(flat, 1.0, values))
        if np.linalg.norm(newton) <= radius:
            return vectors @ newton, -0.5 * float(along @ newton), True
    # From below: |s(shift)| >= |g| / (largest + shift), and H + shift I >= 0.
    shift = max(
        max(0.0, -lowest) + 1e-14 * max(largest, 1e-300),
        float(np.linalg.norm(along)) / radius - largest,
    )
    s, length = -along, np.inf
    # Newton on 1/radius - 1/|s(shift)|, monotone from the left (More, Sorensen 1983).
    for _ in range(60):
        s = -along / (values + shift)
        length = float(np.linalg.norm(s))
        if length <= radius * (1.0 + 1e-3):
            break
        slope = float(np.sum(along**2 / (values + shift) ** 3))
        shift += (length - radius) / radius * length**2 / slope
    if length < 0.999 * radius and lowest < 0.0:
        # The hard case: g has nothing along the negative direction; add some of it.
        s[0] += np.copysign(np.sqrt(radius**2 - length**2), s[0])
    predicted = -float(along @ s + 0.5 * values @ s**2)
    return vectors @ s, predicted, False
