"""A correlation for each distance in order: ``toep`` and ``toeph``."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.residual.structure import unit_diagonal, zero_diagonal


class Toeplitz:
    """Correlations r_1, ..., r_(size - 1) by lag.

    The search moves in the inverse hyperbolic tangents of the partial
    autocorrelations; any of them in (-1, 1) give a positive definite matrix, by the
    recursion of Durbin and Levinson (Barndorff-Nielsen and Schou 1973).

    Parameters
    ----------
    linear : whether the variances are equal
    """

    kind: Literal["order", "integer", "distance"] = "order"

    def __init__(self, *, linear: bool) -> None:
        self.linear = linear

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"rho({lag})" for lag in range(1, len(labels)))

    def start(self, size: int, scale: float) -> Vector:
        return self.internal(0.4 ** np.arange(1.0, size), size)

    def natural(self, x: Vector, size: int) -> Vector:
        return _autocorrelations(np.tanh(x))[0]

    def internal(self, r: Vector, size: int) -> Vector:
        partial = np.empty(size - 1)
        a = np.empty(0)
        for lag in range(1, size):
            before = r[: lag - 1]
            left = 1.0 - a @ before
            partial[lag - 1] = (r[lag - 1] - a @ before[::-1]) / left
            a = np.append(a - partial[lag - 1] * a[::-1], partial[lag - 1])
        return np.arctanh(partial)

    def jacobian(self, x: Vector, size: int) -> Matrix:
        partial = np.tanh(x)
        return _autocorrelations(partial)[1] * (1.0 - partial**2)

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        return unit_diagonal(np.append(1.0, r)[D])

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        lags = np.arange(1, len(r) + 1).reshape(-1, *(1,) * D.ndim)
        return zero_diagonal(lags == D)

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return np.zeros((len(r), len(r), *D.shape))


def _autocorrelations(partial: Vector) -> tuple[Vector, Matrix]:
    """Return r (c,) of partial autocorrelations, and dr / dpartial (c, c).

    r_k = a'(r_k-1, ..., r_1) + partial_k (1 - a'(r_1, ..., r_k-1)), a the coefficients
    of the autoregression of order k - 1.
    """
    c = len(partial)
    r, dr = np.zeros(c), np.zeros((c, c))
    a, da = np.empty(0), np.empty((0, c))
    for k in range(c):
        before, d_before = r[:k], dr[:k]
        left = 1.0 - a @ before
        d_left = -(before @ da) - a @ d_before
        r[k] = a @ before[::-1] + partial[k] * left
        dr[k] = before[::-1] @ da + a @ d_before[::-1] + partial[k] * d_left
        dr[k, k] += left
        step = -partial[k] * da[::-1]
        step[:, k] -= a[::-1]
        own = np.zeros((1, c))
        own[0, k] = 1.0
        a = np.append(a - partial[k] * a[::-1], partial[k])
        da = np.concatenate([da + step, own])
    return r, dr
