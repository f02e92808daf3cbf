"""Correlations that fall with the distance: ``exp``, ``gau`` and ``mat``.

With a nugget the correlation of two residuals at distance zero is 1 - nugget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
from scipy.special import expit, gammaln, kv, logit

from mixform._typing import AnyArray, Matrix, Stack, Vector

#: Relative step of the differences by the smoothness of Matern's family, which Bessel
#: functions have no closed derivative by: fourth order, so an error near 1e-12; second
#: differences take ten times the step, for an error near 1e-9.
STEP = 1e-3

#: Largest smoothness of Matern's family: beyond it the correlation is Gaussian in all
#: but name.
SMOOTHEST = 20.0

#: Distance over range from which a correlation is zero in floating point.
FARTHEST = 800.0
#: And what it is at least taken for, so that Bessel functions do not overflow.
NEAREST = 1e-140


class Decay(Protocol):
    """A correlation of distances and its derivatives by its parameters."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, (c,)."""
        ...

    def value(self, r: Vector, D: AnyArray) -> Stack:
        """Return correlations of the shape of D."""
        ...

    def first(self, r: Vector, D: AnyArray) -> Stack:
        """Return derivatives (c, ...)."""
        ...

    def second(self, r: Vector, D: AnyArray) -> Stack:
        """Return second derivatives (c, c, ...)."""
        ...


class Spatial:
    """A correlation g(distance / range; shape), times 1 - nugget.

    Parameters
    ----------
    g : of d and the parameters but the nugget; and its derivatives
    nugget : whether there is one
    """

    kind: Literal["order", "integer", "distance"] = "distance"
    linear = False

    def __init__(self, g: Decay, *, nugget: bool) -> None:
        self.g = g
        self.nugget = nugget

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return (*self.g.names, *(("nugget",) if self.nugget else ()))

    def start(self, size: int, scale: float) -> Vector:
        r = [scale, *(0.7 for _ in self.g.names[1:]), *([0.2] if self.nugget else [])]
        return self.internal(np.array(r), size)

    def natural(self, x: Vector, size: int) -> Vector:
        highest = self._highest
        bounded = np.isfinite(highest)
        r = np.exp(np.where(bounded, 0.0, x))
        r[bounded] = highest[bounded] * expit(x[bounded])
        return r

    def internal(self, r: Vector, size: int) -> Vector:
        highest = self._highest
        bounded = np.isfinite(highest)
        x = np.log(r)
        x[bounded] = logit(r[bounded] / highest[bounded])
        return x

    def jacobian(self, x: Vector, size: int) -> Matrix:
        r = self.natural(x, size)
        return np.diag(r * (1.0 - r / self._highest))

    @property
    def _highest(self) -> Vector:
        """Upper limits (c,) of the parameters, whose lower limits are zero."""
        limits = {"nugget": 1.0, "nu": SMOOTHEST}
        return np.array([limits.get(name, np.inf) for name in self.names(())])

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        share, own = self._split(r)
        return _symmetric(share * self.g.value(own, _pairs(D)), D, 1.0)

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        share, own = self._split(r)
        pairs = _pairs(D)
        parts = share * self.g.first(own, pairs)
        if self.nugget:
            parts = np.concatenate([parts, -self.g.value(own, pairs)[None]])
        return _symmetric(parts, D, 0.0)

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        share, own = self._split(r)
        pairs, c = _pairs(D), len(own)
        out = np.zeros((len(r), len(r), *pairs.shape))
        out[:c, :c] = share * self.g.second(own, pairs)
        if self.nugget:
            out[:c, c] = out[c, :c] = -self.g.first(own, pairs)
        return _symmetric(out, D, 0.0)

    def _split(self, r: Vector) -> tuple[float, Vector]:
        return (1.0 - float(r[-1]), r[:-1]) if self.nugget else (1.0, r)


def _pairs(D: AnyArray) -> AnyArray:
    """Return the distances (..., pairs) below the diagonal."""
    return D[(..., *np.tril_indices(D.shape[-1], -1))]


def _symmetric(pairs: Stack, D: AnyArray, diagonal: float) -> Stack:
    """Return symmetric matrices (..., v, v) of the entries below the diagonal."""
    v = D.shape[-1]
    rows, columns = np.tril_indices(v, -1)
    out = np.empty((*pairs.shape[:-1], v, v))
    out[..., rows, columns] = out[..., columns, rows] = pairs
    out[..., np.arange(v), np.arange(v)] = diagonal
    return out


class PowerExponential:
    """exp(-(d / range)^power): exponential (1) and Gaussian (2)."""

    names = ("range",)

    def __init__(self, power: int) -> None:
        self.power = power

    def value(self, r: Vector, D: AnyArray) -> Stack:
        return np.exp(-self._exponent(r, D))

    def first(self, r: Vector, D: AnyArray) -> Stack:
        a = self._exponent(r, D)
        return (self.power / r[0] * a * np.exp(-a))[None]

    def _exponent(self, r: Vector, D: AnyArray) -> Stack:
        """Return (d / range)^power, no larger than what leaves a correlation."""
        return np.minimum(D / r[0], FARTHEST) ** self.power

    def second(self, r: Vector, D: AnyArray) -> Stack:
        k, a = self.power, self._exponent(r, D)
        return (k * a * np.exp(-a) * (k * a - k - 1.0) / r[0] ** 2)[None, None]


class Matern:
    """2^(1 - nu) / Gamma(nu) t^nu K_nu(t), t = d / range (Matern 1960).

    Parameters
    ----------
    nu : the smoothness, None to estimate it
    """

    def __init__(self, nu: float | None) -> None:
        self.nu = nu

    @property
    def names(self) -> tuple[str, ...]:
        return ("range",) if self.nu is not None else ("range", "nu")

    def value(self, r: Vector, D: AnyArray) -> Stack:
        return _matern(float(r[0]), self._nu(r), D)

    def first(self, r: Vector, D: AnyArray) -> Stack:
        rho, nu = float(r[0]), self._nu(r)
        by_range = _by_range(rho, nu, D)[0]
        if self.nu is not None:
            return by_range[None]
        return np.stack([by_range, _by_smoothness(_matern, rho, nu, D)])

    def second(self, r: Vector, D: AnyArray) -> Stack:
        rho, nu = float(r[0]), self._nu(r)
        by_range = _by_range(rho, nu, D)[1]
        if self.nu is not None:
            return by_range[None, None]
        mixed = _by_smoothness(lambda *at: _by_range(*at)[0], rho, nu, D)
        bend = _twice_by_smoothness(rho, nu, D)
        return np.stack([np.stack([by_range, mixed]), np.stack([mixed, bend])])

    def _nu(self, r: Vector) -> float:
        return float(r[1]) if self.nu is None else self.nu


def _matern(rho: float, nu: float, D: AnyArray) -> Stack:
    """Return the correlation at distances; one at zero."""
    out = np.where(D > 0.0, 0.0, 1.0)
    apart, t = _scaled(rho, nu, D)
    out[apart] = _constant(nu) * t**nu * kv(nu, t)
    return out


def _scaled(rho: float, nu: float, D: AnyArray) -> tuple[AnyArray, Vector]:
    """Return which distances are neither zero nor too far to be correlated, and t."""
    apart = (D > 0.0) & (FARTHEST * rho > D)
    return apart, np.maximum(D[apart] / rho, NEAREST ** (1.0 / max(nu, 1.0)))


def _by_range(rho: float, nu: float, D: AnyArray) -> Stack:
    """Return the first two derivatives by the range, (2, ...).

    From d/dt (t^nu K_nu) = -t^nu K_(nu-1).
    """
    out = np.zeros((2, *D.shape))
    apart, t = _scaled(rho, nu, D)
    c = _constant(nu)
    # Times t and t^2, which have no overflow at small t.
    slope = -c * t ** (nu + 1.0) * kv(nu - 1.0, t)
    bend = slope + c * t ** (nu + 2.0) * kv(nu - 2.0, t)
    out[0][apart] = -slope / rho
    out[1][apart] = (bend + 2.0 * slope) / rho / rho
    return out


def _constant(nu: float) -> float:
    return float(np.exp((1.0 - nu) * np.log(2.0) - gammaln(nu)))


def _by_smoothness(
    g: Callable[[float, float, AnyArray], Stack], rho: float, nu: float, D: AnyArray
) -> Stack:
    """Return the derivative by nu of a function of (range, nu, distances)."""
    h = STEP * nu
    low, lower, upper, high = (g(rho, nu + s * h, D) for s in (-2, -1, 1, 2))
    return (low - 8.0 * lower + 8.0 * upper - high) / (12.0 * h)


def _twice_by_smoothness(rho: float, nu: float, D: AnyArray) -> Stack:
    h = 10.0 * STEP * nu
    low, lower, middle, upper, high = (
        _matern(rho, nu + s * h, D) for s in (-2, -1, 0, 1, 2)
    )
    return (16.0 * (lower + upper) - low - high - 30.0 * middle) / (12.0 * h**2)
