"""Correlations that fall with the distance: ``exp``, ``gau`` and ``mat``.

With a nugget the correlation of two residuals at distance zero is 1 - nugget.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from scipy.special import expit, gammaln, kv, logit

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.residual.structure import unit_diagonal, zero_diagonal

#: Step of the differences by the smoothness of Matern's family, which Bessel
#: functions have no closed derivative by: fourth order, so an error near 1e-13.
STEP = 1e-3


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
        if not self.nugget:
            return np.exp(x)
        return np.append(np.exp(x[:-1]), expit(x[-1]))

    def internal(self, r: Vector, size: int) -> Vector:
        if not self.nugget:
            return np.log(r)
        return np.append(np.log(r[:-1]), logit(r[-1]))

    def jacobian(self, x: Vector, size: int) -> Matrix:
        r = self.natural(x, size)
        if self.nugget:
            r[-1] *= 1.0 - r[-1]
        return np.diag(r)

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        share, own = self._split(r)
        return unit_diagonal(share * self.g.value(own, D))

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        share, own = self._split(r)
        parts = share * self.g.first(own, D)
        if self.nugget:
            parts = np.concatenate([parts, -self.g.value(own, D)[None]])
        return zero_diagonal(parts)

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        share, own = self._split(r)
        c = len(own)
        out = np.zeros((len(r), len(r), *D.shape))
        out[:c, :c] = share * self.g.second(own, D)
        if self.nugget:
            out[:c, c] = out[c, :c] = -self.g.first(own, D)
        return zero_diagonal(out)

    def _split(self, r: Vector) -> tuple[float, Vector]:
        return (1.0 - float(r[-1]), r[:-1]) if self.nugget else (1.0, r)


class PowerExponential:
    """exp(-(d / range)^power): exponential (1) and Gaussian (2)."""

    names = ("range",)

    def __init__(self, power: int) -> None:
        self.power = power

    def value(self, r: Vector, D: AnyArray) -> Stack:
        return np.exp(-((D / r[0]) ** self.power))

    def first(self, r: Vector, D: AnyArray) -> Stack:
        a = (D / r[0]) ** self.power
        return (self.power / r[0] * a * np.exp(-a))[None]

    def second(self, r: Vector, D: AnyArray) -> Stack:
        k, a = self.power, (D / r[0]) ** self.power
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
        return _matern(float(r[0]), self._nu(r), D)[0]

    def first(self, r: Vector, D: AnyArray) -> Stack:
        rho, nu = float(r[0]), self._nu(r)
        by_range = _matern(rho, nu, D)[1]
        if self.nu is not None:
            return by_range[None]
        return np.stack([by_range, _by_smoothness(rho, nu, D, 1)[0]])

    def second(self, r: Vector, D: AnyArray) -> Stack:
        rho, nu = float(r[0]), self._nu(r)
        by_range = _matern(rho, nu, D)[2]
        if self.nu is not None:
            return by_range[None, None]
        mixed = _by_smoothness(rho, nu, D, 1)[1]
        return np.stack(
            [
                np.stack([by_range, mixed]),
                np.stack([mixed, _by_smoothness(rho, nu, D, 2)[0]]),
            ]
        )

    def _nu(self, r: Vector) -> float:
        return float(r[1]) if self.nu is None else self.nu


def _matern(rho: float, nu: float, D: AnyArray) -> Stack:
    """Return the correlation and its first two derivatives by the range, (3, ...).

    From d/dt (t^nu K_nu) = -t^nu K_(nu-1).
    """
    out = np.zeros((3, *D.shape))
    out[0] = 1.0
    apart = D > 0.0
    t = np.asarray(D, dtype=np.float64)[apart] / rho
    c = np.exp((1.0 - nu) * np.log(2.0) - gammaln(nu))
    slope = -c * t**nu * kv(nu - 1.0, t)
    bend = -c * (t ** (nu - 1.0) * kv(nu - 1.0, t) - t**nu * kv(nu - 2.0, t))
    out[0][apart] = c * t**nu * kv(nu, t)
    out[1][apart] = -slope * t / rho
    out[2][apart] = (bend * t**2 + 2.0 * slope * t) / rho**2
    return out


def _by_smoothness(rho: float, nu: float, D: AnyArray, order: int) -> Stack:
    """Return a derivative by nu of the correlation and of its derivatives (3, ...)."""
    h = STEP * nu
    near = [_matern(rho, nu + s * h, D) for s in (-2.0, -1.0, 1.0, 2.0)]
    if order == 1:
        return (near[0] - 8.0 * near[1] + 8.0 * near[2] - near[3]) / (12.0 * h)
    middle = _matern(rho, nu, D)
    outer, inner = near[0] + near[3], near[1] + near[2]
    return (16.0 * inner - outer - 30.0 * middle) / (12.0 * h**2)
