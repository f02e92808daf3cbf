"""Follow the conditional minima of one parameter, and find where zeta has a value.

zeta(kappa) = sign(kappa - estimate) sqrt(D(kappa) - D_min), D(kappa) the minimum of
the criterion with the parameter fixed (Bates and Watts 1988; Bates, Machler, Bolker
and Walker 2015). At a conditional minimum dD/dkappa is the partial derivative, so each
point gives the exact slope of zeta as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from mixform._typing import Matrix, Vector
from mixform.estimate.problem import Problem
from mixform.inference.profile.coordinates import Coordinates, CorCoordinates
from mixform.inference.profile.criterion import Origin
from mixform.inference.profile.error_coordinates import EntryCoordinates
from mixform.inference.profile.search import (
    Minimum,
    conditional_minimum,
    zero_variables,
)

#: How much lower than the fit's a criterion may be, by rounding and by the tolerance
#: of the fit.
LOWER = 1e-6

#: |zeta| this near to the quantile is finished by one step of Newton.
NEAR = 1e-4

#: Times that a step is halved when no minimum is found at its end.
MAX_HALVINGS = 6

MAX_POINTS = 200

FAILED = "no certified minimum was found at {value:.5g}: {failure}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knot:
    """A point of a profile.

    Attributes
    ----------
    kappa : the fixed parameter
    x : the others, where the criterion is lowest
    H : Hessian by x
    zeta, slope : and dzeta / dkappa
    minimum : the solution there; None at the estimates
    """

    kappa: float
    x: Vector
    H: Matrix
    zeta: float
    slope: float
    minimum: Minimum | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Path:
    """What it takes to find conditional minima of one parameter.

    Attributes
    ----------
    problem, coordinates : of the parameter
    origin : the estimates
    careful : whether to go to a limit by small steps: where variances are zero, other
        minima may be near
    """

    problem: Problem
    coordinates: Coordinates
    origin: Origin
    careful: bool

    def first(self) -> Knot:
        """Return the knot at the estimates."""
        at = self.origin
        slope = float(np.sqrt(max(at.curvature, 0.0) / 2.0))
        return Knot(kappa=at.kappa, x=at.x, H=at.H, zeta=0.0, slope=slope)

    def knot(self, kappa: float, near: Sequence[Knot]) -> Knot | str:
        """Return the knot at kappa, predicted from those near by; or why not."""
        x = self._predict(kappa, near)
        found = conditional_minimum(
            self.problem, self.coordinates, kappa, x, near[-1].H
        )
        if found is None or found.failure is not None:
            failure = "the criterion does not exist there"
            if found is not None and found.failure is not None:
                failure = found.failure
            return FAILED.format(value=self.coordinates.value(kappa), failure=failure)
        rise = found.value.criterion - self.origin.criterion
        if rise < -LOWER:
            return (
                f"at {self.coordinates.value(kappa):.5g} the criterion is lower by "
                f"{-rise:.3g} than at the estimates, which are not the minimum"
            )
        sign = 1.0 if kappa > self.origin.kappa else -1.0
        zeta = sign * float(np.sqrt(max(rise, 0.0)))
        slope = found.value.slope / (2.0 * zeta) if zeta else near[-1].slope
        return Knot(
            kappa=kappa, x=found.x, H=found.H, zeta=zeta, slope=slope, minimum=found
        )

    def _predict(self, kappa: float, near: Sequence[Knot]) -> Vector:
        """Extrapolate x by a parabola through the last knots.

        Next to the estimates the tangent there takes the place of a third knot.
        """
        kappas = [knot.kappa for knot in near[-3:]]
        xs = [knot.x for knot in near[-3:]]
        if len(kappas) < 3:
            back = 1e-3 * (self.origin.kappa - kappa)
            kappas.insert(0, self.origin.kappa + back)
            xs.insert(0, self.origin.x + back * self.origin.tangent)
        weights = [
            np.prod([(kappa - b) / (a - b) for b in kappas if b != a]) for a in kappas
        ]
        return sum((w * x for w, x in zip(weights, xs, strict=True)), 0.0 * xs[0])

    def end(self, direction: float) -> float:
        """Return the bound of kappa in a direction."""
        at = self.coordinates
        return at.upper if direction > 0.0 else at.lower

    def stuck(self, knot: Knot) -> str | None:
        """Return why a correlation is not defined at a knot, if it is not."""
        if not isinstance(self.coordinates, CorCoordinates):
            return None
        if all(knot.x[i] > 1e-6 for i in self.coordinates.nonnegative):
            return None
        value = self.coordinates.value(knot.kappa)
        return (
            f"a standard deviation is zero where the correlation is held at {value:.4g}"
        )


def walk(
    path: Path, direction: float, *, cutoff: float, step: float
) -> tuple[list[Knot], str | None]:
    """Follow the conditional minima until |zeta| reaches the cutoff.

    Parameters
    ----------
    direction : 1.0 or -1.0, of kappa
    cutoff : of |zeta|
    step : of zeta, aimed at

    Returns
    -------
    knots : from the estimates outwards, the first not among them
    reason : why they end before the cutoff, if they do
    """
    knots = [path.first()]
    end = path.end(direction)
    while len(knots) < MAX_POINTS:
        last = knots[-1]
        if abs(last.zeta) >= cutoff or last.kappa == end:
            break
        found = _next_knot(path, knots, direction, step)
        if isinstance(found, str):
            return knots[1:], found
        knots.append(found)
        stuck = path.stuck(found)
        if stuck is not None:
            return knots[1:], stuck
    return knots[1:], _why_short(path, knots[-1], direction, cutoff)


def _next_knot(
    path: Path, knots: list[Knot], direction: float, step: float
) -> Knot | str:
    """Return the next knot of a walk; or why there is none."""
    last, end = knots[-1], path.end(direction)
    size = _step_size(path, knots, direction, step)
    found: Knot | str = ""
    for _ in range(MAX_HALVINGS):
        kappa = last.kappa + direction * size
        if (end - kappa) * direction <= 0.25 * size:
            kappa = end
        found = path.knot(kappa, knots)
        if isinstance(found, Knot) and _smooth_between(path, last, found, step):
            break
        size /= 2.0
    return found


def _smooth_between(path: Path, last: Knot, found: Knot, step: float) -> bool:
    """Whether a cubic will do between two knots.

    Where a variance leaves zero, the second derivative of zeta jumps.
    """
    gap = abs(found.zeta - last.zeta)
    if gap <= 0.5 * step:
        return True
    at = path.coordinates
    before, after = (zero_variables(at, k.kappa, k.x) for k in (last, found))
    return gap <= 3.0 * step and np.array_equal(before, after)


def _step_size(path: Path, knots: list[Knot], direction: float, step: float) -> float:
    """Return the step of kappa that should change zeta by ``step``."""
    last = knots[-1]
    scale = max(abs(last.kappa), 1e-8)
    size = step / last.slope if last.slope > 0.0 else scale
    if len(knots) > 1:
        size = min(size, 3.0 * abs(last.kappa - knots[-2].kappa))
    if isinstance(path.coordinates, CorCoordinates):
        size = min(size, 0.3)
    if direction < 0.0 and path.coordinates.lower == 0.0:
        # Flat at zero, zeta changes by about half of slope * kappa on the way there.
        near = last.slope * last.kappa <= step
        size = last.kappa if near else min(size, 0.6 * last.kappa)
    return size


def _why_short(path: Path, knot: Knot, direction: float, cutoff: float) -> str | None:
    if abs(knot.zeta) >= cutoff:
        return None
    if knot.kappa == path.end(direction):
        return bound_reason(path, knot)
    return f"the profile does not reach |zeta| = {cutoff:.3g}"


def bound_reason(path: Path, knot: Knot) -> str:
    """Return why a profile that ends at a bound has no limit beyond it."""
    value = path.coordinates.value(knot.kappa)
    if isinstance(path.coordinates, CorCoordinates):
        return f"no limit: |zeta| is only {abs(knot.zeta):.3f} at a correlation of " + (
            "1" if value > 0.0 else "-1"
        )
    if isinstance(path.coordinates, EntryCoordinates):
        return (
            f"no limit: |zeta| is only {abs(knot.zeta):.3f} at the edge of its range, "
            f"{value:.4g}"
        )
    if knot.kappa == path.origin.kappa:
        return "one-sided: the estimate is zero"
    return f"one-sided: |zeta| is only {abs(knot.zeta):.3f} at zero"


def find_limit(path: Path, direction: float, quantile: float) -> tuple[float, str]:
    """Find where |zeta| is the quantile.

    Returns
    -------
    limit : of the parameter; at a bound zero, NaN where there is none
    reason : why it is not an ordinary limit, or ""
    """
    first, target = path.first(), direction * quantile
    if first.kappa == path.end(direction):
        return _at_end(path, first)
    knots = [first]
    if path.careful:
        walked, reason = walk(path, direction, cutoff=0.8 * quantile, step=0.5)
        knots += walked
        if reason is not None:
            at_end = knots[-1].kappa == path.end(direction)
            return _at_end(path, knots[-1]) if at_end else (np.nan, reason)
    for _ in range(40):
        one = len(knots) == 1
        kappa = (
            _first_guess(path, first, target) if one else _guess(path, knots, target)
        )
        found = _nearest_knot(path, kappa, knots)
        if isinstance(found, str):
            return np.nan, found
        stuck = path.stuck(found)
        if stuck is not None:
            return np.nan, stuck
        if abs(found.zeta - target) <= NEAR and found.slope > 0.0:
            kappa = found.kappa + (target - found.zeta) / found.slope
            return path.coordinates.value(kappa), ""
        if found.kappa == path.end(direction) and abs(found.zeta) < quantile:
            return _at_end(path, found)
        knots.append(found)
    return np.nan, f"zeta did not reach {target:.4g}"


def _at_end(path: Path, knot: Knot) -> tuple[float, str]:
    """Return the limit and the reason of a profile that ends at a bound."""
    at_zero = not isinstance(path.coordinates, CorCoordinates | EntryCoordinates)
    value = path.coordinates.value(knot.kappa) if at_zero else np.nan
    return value, bound_reason(path, knot)


def _nearest_knot(path: Path, kappa: float, knots: list[Knot]) -> Knot | str:
    """Return the knot at kappa, or as near to it as a minimum is found; or why not."""
    near = sorted(knots, key=lambda knot: -abs(knot.kappa - kappa))
    found = path.knot(kappa, near)
    for _ in range(MAX_HALVINGS):
        if isinstance(found, Knot):
            break
        kappa = (kappa + near[-1].kappa) / 2.0
        found = path.knot(kappa, near)
    return found


def _first_guess(path: Path, first: Knot, target: float) -> float:
    """Return Wald's limit, of the logarithm for a standard deviation."""
    if not first.slope > 0.0:
        return first.kappa + np.sign(target) * max(abs(first.kappa), 1.0)
    move = target / first.slope
    if path.coordinates.lower == 0.0 < first.kappa:
        return first.kappa * float(np.exp(np.clip(move / first.kappa, -1.5, 1.5)))
    if isinstance(path.coordinates, CorCoordinates):
        room = 0.8 * (path.end(target) - first.kappa)
        return first.kappa + (move if abs(move) < abs(room) else room)
    return first.kappa + move


def _guess(path: Path, knots: list[Knot], target: float) -> float:
    """Return where zeta should be the target, from the knots so far."""
    direction = np.sign(target)
    below = [knot for knot in knots if (target - knot.zeta) * direction > 0.0]
    above = [knot for knot in knots if (target - knot.zeta) * direction <= 0.0]
    low = max(below, key=lambda knot: knot.kappa * direction)
    if above:
        high = min(above, key=lambda knot: knot.kappa * direction)
        guess = _inverse(low, high, target)
        inside = (guess - low.kappa) * (high.kappa - guess) > 0.0
        # Bisection where the cubic is of no use, or after too many tries.
        return guess if inside and len(knots) < 15 else (low.kappa + high.kappa) / 2.0
    move = (target - low.zeta) / low.slope if low.slope > 0.0 else np.inf * direction
    span = 2.0 * abs(low.kappa - knots[0].kappa)
    guess = low.kappa + direction * min(abs(move), span)
    end = path.end(target)
    close = 0.1 * abs(low.kappa - end) if np.isfinite(end) else 0.0
    return end if (end - guess) * direction <= close else guess


def _inverse(low: Knot, high: Knot, target: float) -> float:
    """Return kappa at the target by the cubic through both knots and their slopes."""
    one, two = sorted((low, high), key=lambda knot: knot.zeta)
    if not (one.slope > 0.0 and two.slope > 0.0 and one.zeta < two.zeta):
        return (one.kappa + two.kappa) / 2.0
    inverse = CubicHermiteSpline(
        [one.zeta, two.zeta],
        [one.kappa, two.kappa],
        [1.0 / one.slope, 1.0 / two.slope],
    )
    return float(inverse(target))
