"""Minimize the criterion over all parameters but one, from a good guess.

A trust-region search with the exact gradient and a Hessian that is carried along the
path and updated by symmetric rank one (Conn, Gould and Toint 1991, Math. Program. 50,
177), which may be indefinite. As in `estimate.certificate`, a variance of zero is
stationary whether or not it is a minimum, and is probed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dposv

from mixform._typing import Codes, Matrix, Vector
from mixform.errors import SolverError
from mixform.estimate.certificate import EIGENVALUE_TOLERANCE, PROBE
from mixform.estimate.problem import Problem
from mixform.estimate.trust_region import trust_region_step
from mixform.inference.profile.coordinates import Coordinates
from mixform.inference.profile.criterion import Value, determinant_slopes, value_at
from mixform.inference.profile.limits import leave_limit

#: Predicted decrease of the criterion at which a conditional minimum is certified.
CERTIFIED_DECREASE = 1e-8

#: Evaluations of one conditional minimum before the search is given up.
MAX_EVALUATIONS = 60

#: Length of the longest first step, in units of the curvature of each variable.
START_RADIUS = 4.0

#: Predicted decrease of the criterion beyond which a step is cut.
FAR = 4.0

#: Norm of a column of T below which it is tried as zero.
SMALL_COLUMN = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Minimum:
    """A minimum of the criterion at one kappa.

    Attributes
    ----------
    kappa, x : where
    value : the criterion there
    H : its Hessian by x, as far as it is known
    n_evaluations : it took
    failure : why it is not certified; None if it is
    """

    kappa: float
    x: Vector
    value: Value
    H: Matrix
    n_evaluations: int
    failure: str | None


def conditional_minimum(
    problem: Problem, coordinates: Coordinates, kappa: float, x: Vector, H: Matrix
) -> Minimum | None:
    """Minimize the criterion at kappa from x, certified.

    Returns
    -------
    the minimum; None where the criterion does not exist at (kappa, x)
    """
    search = _Search(problem, coordinates, kappa)
    value = search.evaluate(x)
    if value is None:
        return None
    x, value, H, failure = search.descend(x, value, H)
    for _ in range(5):
        zero = zero_variables(coordinates, kappa, x)
        if failure is not None or not len(zero):
            break
        at_zero = search.snap(x, value, zero)
        if at_zero is None:
            break
        x, value = at_zero
        left = search.leave_zero(x, value, zero)
        if left is None:
            break
        x, value, H, failure = search.descend(*left, H)
    for _ in range(3):
        inside = leave_limit(search.evaluate, coordinates, kappa, x, value)
        if failure is not None or inside is None:
            break
        x, value, H, failure = search.descend(*inside, H)
    return Minimum(
        kappa=kappa,
        x=x,
        value=value,
        H=H,
        n_evaluations=search.count,
        failure=failure,
    )


class _Search:
    """A search at one kappa; counts its evaluations."""

    def __init__(
        self, problem: Problem, coordinates: Coordinates, kappa: float
    ) -> None:
        self.problem, self.coordinates, self.kappa = problem, coordinates, kappa
        self.count = 0
        self.bounded = np.array(coordinates.nonnegative, dtype=np.int64)

    def evaluate(self, x: Vector) -> Value | None:
        """Return the criterion; None where it does not exist."""
        self.count += 1
        try:
            return value_at(self.problem, self.coordinates, self.kappa, x)
        except SolverError:
            return None

    def descend(
        self, x: Vector, value: Value, H: Matrix
    ) -> tuple[Vector, Value, Matrix, str | None]:
        """Search for a minimum from x."""
        if len(x) == 0:
            return x, value, H, None
        scale = 1.0 / np.sqrt(np.maximum(H.diagonal(), 1.0))
        H = H * np.outer(scale, scale)
        radius = START_RADIUS
        failure = "the search did not converge"
        for _ in range(MAX_EVALUATIONS):
            free = self._free(x, value.gradient)
            g = scale * value.gradient
            step, predicted, inside = _step(H, g, free, radius)
            noise = value.here.noise
            if predicted <= (CERTIFIED_DECREASE if inside else noise):
                failure = None
                break
            if radius < 1e-12:
                break
            step, share = self._keep_nonnegative(x, scale, step)
            predicted *= share
            trial = x + scale * step
            there = self.evaluate(trial)
            if there is None:
                radius = 0.25 * float(np.linalg.norm(step))
                continue
            change = scale * (there.gradient - value.gradient)
            H = _rank_one(H, step, change)
            decrease = value.criterion - there.criterion
            radius = _next_radius(radius, step, decrease / predicted)
            if decrease > min(1e-4 * predicted, noise):
                x, value = trial, there
        return x, value, H / np.outer(scale, scale), failure

    def _free(self, x: Vector, gradient: Vector) -> np.ndarray:
        """Return which variables are not held at zero by their slope."""
        free = np.ones(len(x), dtype=bool)
        for i in self.bounded:
            free[i] = x[i] > 0.0 or gradient[i] < 0.0
        return free

    def _keep_nonnegative(
        self, x: Vector, scale: Vector, step: Vector
    ) -> tuple[Vector, float]:
        """Cut a step where a variable would become negative."""
        share = 1.0
        for i in self.bounded:
            move = float(scale[i] * step[i])
            if x[i] == 0.0:
                step[i] = max(step[i], 0.0)
            elif x[i] + move < 0.0:
                share = min(share, float(x[i]) / -move)
        return share * step, share

    def snap(self, x: Vector, value: Value, zero: Codes) -> tuple[Vector, Value] | None:
        """Put the variables ``zero`` exactly at zero; None if that is no minimum."""
        if not np.any(x[zero]):
            return x, value
        snapped = x.copy()
        snapped[zero] = 0.0
        there = self.evaluate(snapped)
        limit = value.criterion + max(1e-9, value.here.noise)
        if there is None or there.criterion > limit:
            return None
        return snapped, there

    def leave_zero(
        self, x: Vector, value: Value, zero: Codes
    ) -> tuple[Vector, Value] | None:
        """Step off a false zero of the variables ``zero``; None if it is a minimum.

        The gradient at small values of them is their curvature at zero: twice the
        derivative of the criterion by the covariance (see `estimate.certificate`).
        """
        curvature = np.empty((len(zero), len(zero)))
        expected = np.empty_like(curvature)
        for row, i in enumerate(zero):
            probe = x.copy()
            probe[i] = PROBE
            there = self.evaluate(probe)
            if there is None:
                return None
            curvature[row] = there.gradient[zero] / PROBE
            slopes = determinant_slopes(self.coordinates, self.kappa, probe, there)
            _, by_x = self.coordinates.pull(self.kappa, probe, slopes, 0.0)
            expected[row] = by_x[zero] / PROBE
        values, vectors = np.linalg.eigh((curvature + curvature.T) / 2.0)
        lowest = vectors[:, 0]
        if values[0] >= -EIGENVALUE_TOLERANCE * abs(float(lowest @ expected @ lowest)):
            return None
        size = 0.5
        while size > 1e-7:
            trial = x.copy()
            trial[zero] = size * lowest
            there = self.evaluate(trial)
            if there is not None and there.criterion < value.criterion:
                return trial, there
            size /= 4.0
        return None


def _step(
    H: Matrix, g: Vector, free: np.ndarray, radius: float
) -> tuple[Vector, float, bool]:
    """Return the trust-region step over the free variables.

    Newton's, by Cholesky, where it is short; else by `trust_region_step`.
    """
    if free.all():
        _, newton, info = dposv(H, -g)
        predicted = -0.5 * float(g @ newton)
        short = info == 0 and float(newton @ newton) <= radius**2
        if short and predicted <= FAR:
            return newton, predicted, True
        if short:
            radius = float(np.sqrt(newton @ newton * FAR / predicted))
        return trust_region_step(H, g, radius)
    step = np.zeros(len(g))
    if not free.any():
        return step, 0.0, True
    part, predicted, inside = trust_region_step(H[np.ix_(free, free)], g[free], radius)
    step[free] = part
    return step, predicted, inside


def _next_radius(radius: float, step: Vector, ratio: float) -> float:
    length = float(np.linalg.norm(step))
    if ratio < 0.25:
        return length * (0.5 if ratio > 0.0 else 0.25)
    if ratio > 0.75 and length > 0.8 * radius:
        return 2.5 * radius
    return radius


def _rank_one(H: Matrix, step: Vector, change: Vector) -> Matrix:
    """Return the symmetric rank-one update, H step = change."""
    error = change - H @ step
    size = float(error @ step)
    if abs(size) <= 1e-8 * float(np.linalg.norm(error) * np.linalg.norm(step)):
        return H
    return H + np.outer(error, error) / size


def zero_variables(coordinates: Coordinates, kappa: float, x: Vector) -> Codes:
    """Return the positions in x of the entries of T's columns that are nearly zero."""
    w, _ = coordinates.place(kappa, x)
    w = w[: len(coordinates.chart.columns)]
    if not len(w) or np.abs(w).min() > SMALL_COLUMN:
        return np.empty(0, dtype=np.int64)
    columns = coordinates.chart.columns
    norms = np.sqrt(np.bincount(columns, w**2))
    places = [
        coordinates.position(int(i))
        for i in np.flatnonzero(norms[columns] < SMALL_COLUMN)
    ]
    held: Sequence[int] = coordinates.nonnegative
    return np.array([i for i in places if i >= 0 and i not in held], dtype=np.int64)
