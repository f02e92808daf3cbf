"""Autoregression of order one: ``ar1``, ``arh1`` and, in continuous time, ``car1``."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mixform._typing import AnyArray, Matrix, Stack, Vector


class Autoregressive:
    """Correlation rho^lag at integer positions, rho between -1 and 1."""

    kind: Literal["order", "integer", "distance"] = "integer"
    linear = False

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return ("rho",)

    def start(self, size: int, scale: float) -> Vector:
        return self.internal(np.array([0.3]), size)

    def natural(self, x: Vector, size: int) -> Vector:
        return np.tanh(x)

    def internal(self, r: Vector, size: int) -> Vector:
        return np.arctanh(r)

    def jacobian(self, x: Vector, size: int) -> Matrix:
        return np.diag(1.0 / np.cosh(x) ** 2)

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        return _powers(r[0], D)

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return (D * _powers(r[0], np.maximum(D - 1, 0)))[None]

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return (D * (D - 1) * _powers(r[0], np.maximum(D - 2, 0)))[None, None]


def _powers(rho: float, lags: AnyArray) -> Stack:
    """Return rho^lag; whole lags may have a negative base."""
    return np.power(float(rho), np.asarray(lags, dtype=np.float64))


#: Largest -log rho in continuous time: a smaller rho is zero, and its inverse square
#: still a number.
FASTEST = 320.0


class ContinuousAutoregressive:
    """Correlation rho^distance of times, rho between 0 and 1 (at distance 1).

    The search moves in x, with the correlation exp(-distance / exp(x)).
    """

    kind: Literal["order", "integer", "distance"] = "distance"
    linear = False

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return ("rho",)

    def start(self, size: int, scale: float) -> Vector:
        return self.internal(np.array([0.5 ** (1.0 / scale)]), size)

    def natural(self, x: Vector, size: int) -> Vector:
        # The range of the correlation is exp(x).
        return np.exp(-np.minimum(np.exp(-x), FASTEST))

    def internal(self, r: Vector, size: int) -> Vector:
        return -np.log(-np.log(r))

    def jacobian(self, x: Vector, size: int) -> Matrix:
        rate = np.exp(-x)
        return np.diag(np.where(rate < FASTEST, np.exp(-rate) * rate, 0.0))

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        return np.power(float(r[0]), D)

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return (D * np.power(float(r[0]), D - 1.0))[None]

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return (D * (D - 1.0) * np.power(float(r[0]), D - 2.0))[None, None]
