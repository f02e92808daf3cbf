"""The criterion in the coordinates of one parameter, with its exact derivatives.

With log dets and r^2 of `estimate.criterion`, and sigma where it is not profiled out::

    D(theta, sigma) = log dets + df log(2 pi sigma^2) + r^2(theta) / sigma^2

A coefficient fixed at c adds (c - beta_j)^2 / [(X'V^-1X)^-1]_jj to r^2; log|X'V^-1X|
stays that of the full model under REML (Welham and Thompson 1997, J. R. Stat. Soc. B
59, 701).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.errors import SolverError
from mixform.estimate.criterion import LOG_2_PI, Evaluation, evaluate_at
from mixform.estimate.problem import Problem
from mixform.inference.profile.coordinates import Chart, Coordinates, FixedCoordinates

#: Step of the central differences for the Hessian at the estimates, in w (residual
#: SDs over a covariate of unit RMS), relative where w exceeds 0.1.
STEP = 1e-3

#: Eigenvalue of the Hessian, of unit diagonal, below which a direction counts as flat.
FLAT = 1e-7

#: Logarithm of an SD, up or down, beyond which its square leaves the range of numbers.
LARGEST_LOG = 300.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Value:
    """The criterion at one (kappa, x).

    Attributes
    ----------
    criterion : of the scaled problem
    slope : its derivative by kappa
    gradient : by x
    here : the solution there, the fixed coefficient at its value
    sigma2 : scaled residual variance
    """

    criterion: float
    slope: float
    gradient: Vector
    here: Evaluation
    sigma2: float


def value_at(
    problem: Problem, coordinates: Coordinates, kappa: float, x: Vector
) -> Value:
    """Return the criterion and its exact derivatives.

    Raises
    ------
    SolverError : the residual variance is too small, or the factors too large, to count
    """
    with np.errstate(over="ignore"):
        w, log_sigma = coordinates.place(kappa, x)
    if not np.all(np.isfinite(w)) or abs(log_sigma or 0.0) > LARGEST_LOG:
        raise SolverError("The residual variance is too small, or large, to count.")
    here = solve_at(problem, coordinates.chart, w)
    return _differentiate(coordinates, kappa, x, here, log_sigma)


def solve_at(problem: Problem, chart: Chart, w: Vector) -> Evaluation:
    """Return the solution at w."""
    return evaluate_at(chart.problem(problem, w), chart.factors(w))


def _differentiate(
    coordinates: Coordinates,
    kappa: float,
    x: Vector,
    here: Evaluation,
    log_sigma: float | None,
) -> Value:
    """Return the value from the unconstrained solution."""
    slope = 0.0
    if isinstance(coordinates, FixedCoordinates):
        here, slope = constrain(here, coordinates, kappa)
    residual_df = here.problem.residual_df
    if log_sigma is None:
        sigma2, by_sigma = here.sigma2, 0.0
        criterion = here.criterion
    else:
        sigma2 = float(np.exp(2.0 * log_sigma))
        by_sigma = 2.0 * (residual_df - here.r2 / sigma2)
        criterion = here.logdets + residual_df * (LOG_2_PI + 2.0 * log_sigma)
        criterion += here.r2 / sigma2
    w, _ = coordinates.place(kappa, x)
    by_w = _by_w(coordinates.chart, w, here, sigma2)
    by_kappa, by_x = coordinates.pull(kappa, x, by_w, by_sigma)
    return Value(
        criterion=criterion,
        slope=slope + by_kappa,
        gradient=by_x,
        here=here,
        sigma2=sigma2,
    )


def _by_w(chart: Chart, w: Vector, here: Evaluation, sigma2: float) -> Vector:
    """Return derivatives of the criterion by w at a given sigma^2."""
    parts = _parts(chart, w, here)
    return parts[0] + parts[1] / sigma2


def _parts(chart: Chart, w: Vector, here: Evaluation) -> tuple[Vector, Vector]:
    """Return derivatives by w of the log determinants, and of r^2."""
    determinants, quadratic = (
        chart.pull(w, by_T, by_rho, here)
        for by_T, by_rho in zip(
            here.factor_gradients, here.residual_gradients, strict=True
        )
    )
    return determinants, quadratic


def constrain(
    here: Evaluation, coordinates: FixedCoordinates, kappa: float
) -> tuple[Evaluation, float]:
    """Return the solution with the coefficient fixed, and dcriterion / dkappa.

    beta moves along (X'V^-1X)^-1 row, u with it; r^2 grows by the square of the gap
    over row'(X'V^-1X)^-1 row.
    """
    half = here.R_inverse.T @ coordinates.row
    size = float(half @ half)
    target = (kappa - coordinates.centre) / coordinates.y_scale
    gap = target - float(coordinates.row @ here.beta)
    move = here.R_inverse @ half * (gap / size)
    moved = replace(
        here,
        beta=here.beta + move,
        u=here.u - here.V[:, :-1] @ move,
        r2=here.r2 + gap**2 / size,
    )
    return moved, 2.0 * gap / (size * moved.sigma2 * coordinates.y_scale)


def determinant_slopes(
    coordinates: Coordinates, kappa: float, x: Vector, value: Value
) -> Vector:
    """Return derivatives of the log determinants alone, by w."""
    w, _ = coordinates.place(kappa, x)
    return _parts(coordinates.chart, w, value.here)[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChartHessian:
    """Second derivatives at the estimates, in one chart.

    Attributes
    ----------
    here : the solution there
    profiled : (t, t) by w, sigma profiled out
    joint : (t + 1, t + 1) by w and log sigma
    """

    here: Evaluation
    profiled: Matrix
    joint: Matrix


def chart_hessian(problem: Problem, chart: Chart) -> ChartHessian:
    """Return the Hessian by w by central differences of the exact gradient.

    That by (w, log sigma) follows: d2/dsigma2 = 4 df, d2/dw dsigma = -2 dr^2/dw /
    sigma^2, and sigma profiled out is its Schur complement.
    """
    t = len(chart.w)
    profiled = np.empty((t, t))
    for k in range(t):
        step = STEP * max(0.1, abs(float(chart.w[k])))
        sides: list[Vector] = []
        for sign in (1.0, -1.0):
            w = chart.w.copy()
            w[k] += sign * step
            there = solve_at(problem, chart, w)
            sides.append(_by_w(chart, w, there, there.sigma2))
        profiled[k] = (sides[0] - sides[1]) / (2.0 * step)
    profiled = (profiled + profiled.T) / 2.0
    here = solve_at(problem, chart, chart.w)
    cross = -2.0 * _parts(chart, chart.w, here)[1] / here.sigma2
    curvature = 4.0 * problem.residual_df
    joint = np.empty((t + 1, t + 1))
    joint[:t, :t] = profiled + np.outer(cross, cross) / curvature
    joint[t, :t] = joint[:t, t] = cross
    joint[t, t] = curvature
    return ChartHessian(here=here, profiled=profiled, joint=joint)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """The estimates in the coordinates of one parameter.

    Attributes
    ----------
    kappa, x : where
    criterion : its minimum
    H : (., .) Hessian by x, kappa fixed
    tangent : dx / dkappa along the path of conditional minima
    curvature : d2criterion / dkappa2 along it: zeta' = sqrt(curvature / 2)
    """

    kappa: float
    x: Vector
    criterion: float
    H: Matrix
    tangent: Vector
    curvature: float


def origin(
    coordinates: Coordinates,
    hessian: ChartHessian,
) -> Origin:
    """Return the second-order picture of the criterion at the estimates."""
    kappa, x = coordinates.start()
    if isinstance(coordinates, FixedCoordinates):
        full = _fixed_hessian(coordinates, hessian, kappa, x)
    else:
        J = _jacobian(coordinates, kappa, x)
        if coordinates.place(kappa, x)[1] is None:
            full = J[:-1].T @ hessian.profiled @ J[:-1]
        else:
            full = J.T @ hessian.joint @ J
    H, cross = full[1:, 1:], full[1:, 0]
    tangent = _tangent(H, cross)
    return Origin(
        kappa=kappa,
        x=x,
        criterion=hessian.here.criterion,
        H=H,
        tangent=tangent,
        curvature=float(full[0, 0] + cross @ tangent),
    )


def _tangent(H: Matrix, cross: Vector) -> Vector:
    """Return -H^-1 cross, without the directions in which the criterion is flat.

    It only predicts where the next minimum is; a residual variance that is nearly zero
    is flat.
    """
    diagonal = H.diagonal()
    scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(H * np.outer(scale, scale))
    kept = values > FLAT
    along = vectors[:, kept].T @ (scale * cross) / values[kept]
    return -scale * (vectors[:, kept] @ along)


def _fixed_hessian(
    coordinates: FixedCoordinates, hessian: ChartHessian, kappa: float, x: Vector
) -> Matrix:
    """Return the Hessian by (kappa, x) with a coefficient fixed.

    By kappa and w from the gradient at two values of the coefficient, which takes no
    other factorisation; by w, what fixing adds to the profiled one.
    """
    here = hessian.here
    half = here.R_inverse.T @ coordinates.row
    variance = float(half @ half) * here.sigma2 * coordinates.y_scale**2
    step = STEP * float(np.sqrt(variance))
    upper, lower = (
        _differentiate(coordinates, kappa + side, x, here, None).gradient
        for side in (step, -step)
    )
    cross = (upper - lower) / (2.0 * step)
    full = np.empty((len(x) + 1, len(x) + 1))
    full[0, 0] = 2.0 / variance
    full[0, 1:] = full[1:, 0] = cross
    full[1:, 1:] = hessian.profiled + np.outer(cross, cross) * variance / 2.0
    return full


def _jacobian(coordinates: Coordinates, kappa: float, x: Vector) -> Matrix:
    """Return d(w, log sigma) / d(kappa, x), (t + 1, 1 + size of x)."""
    t = len(coordinates.chart.w)
    rows: list[Vector] = []
    for i in range(t + 1):
        unit = np.zeros(t + 1)
        unit[i] = 1.0
        by_kappa, by_x = coordinates.pull(kappa, x, unit[:t], unit[t])
        rows.append(np.append(by_kappa, by_x))
    return np.array(rows)
