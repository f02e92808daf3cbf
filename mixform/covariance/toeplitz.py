"""A correlation for each distance in order.

The parameters are the partial autocorrelations sin(x_1), ..., sin(x_(k-1)), any of
which in [-1, 1] make a correlation matrix (Barndorff-Nielsen and Schou 1973). L is
the normalized lattice of the recursion of Durbin and Levinson, rotations only::

    f_(m-1)(n) = cos(x_m) f_m(n) + sin(x_m) b_(m-1)(n-1)
    b_m(n) = cos(x_m) b_(m-1)(n-1) - sin(x_m) f_m(n)

f_m, b_m the forward and backward residuals of order m, of unit variance; f_n(n) is the
n-th innovation, and coefficient n is f_0(n).

As in SAS ``toep`` has one variance and ``toeph`` one for each coefficient, which is
what glmmTMB calls toep.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Mask, Matrix, Stack, Vector
from mixform.covariance.angles import HALF_PI, fold_signed, sine_cosine
from mixform.covariance.structure import Coordinates


class Toeplitz:
    """An angle for each lag, positions in the order of the coefficients."""

    linear = True
    coordinates: Coordinates = "order"

    def placed(self, positions: Vector | None) -> Toeplitz:
        return self

    def n_angles(self, k: int) -> int:
        return k - 1

    def start(self, k: int) -> Vector:
        return np.append(0.3, np.zeros(k))[: k - 1]

    def factor(self, x: Vector, k: int) -> Matrix:
        return _lattice(x, k)[0]

    def derivatives(self, x: Vector, k: int) -> Stack:
        return _lattice(x, k)[1]

    def fold(self, x: Vector) -> Vector:
        return fold_signed(x)

    def limits(self, k: int) -> tuple[float, float]:
        return -HALF_PI, HALF_PI

    def idle(self, x: Vector) -> Mask:
        # Once a partial autocorrelation is one, nothing is left to correlate.
        ended = np.cumsum(np.abs(x) == HALF_PI)
        return np.append(0, ended)[: len(x)] > 0

    def nearest(self, C: Matrix) -> Vector:
        k = len(C)
        r = np.array([np.mean(np.diagonal(C, -lag)) for lag in range(1, k)])
        x, a, left = np.zeros(k - 1), np.empty(0), 1.0
        for lag in range(k - 1):
            partial = (r[lag] - a @ r[:lag][::-1]) / left
            if not abs(partial) < 1.0:
                x[lag] = np.copysign(HALF_PI, partial)
                break
            x[lag] = np.arcsin(partial)
            a = np.append(a - partial * a[::-1], partial)
            left *= 1.0 - partial**2
        return x

    def spanning(self, k: int) -> Stack:
        lags = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        return (lags == np.arange(k)[:, None, None]).astype(np.float64)

    def extremes(self, k: int) -> Matrix:
        # All others are averages of cos(frequency lag), whose second partial
        # autocorrelation is -1 (Caratheodory).
        frequencies = np.linspace(0.0, np.pi, 8 * k + 1)
        out = np.zeros((len(frequencies), k - 1))
        out[:, :1] = HALF_PI - frequencies[:, None]
        out[:, 1:2] = -HALF_PI
        return out

    def names(self, k: int) -> tuple[str, ...]:
        return tuple(f"rho({lag})" for lag in range(1, k))

    def natural(self, x: Vector, k: int) -> tuple[Vector, Matrix]:
        L, dL = _lattice(x, k)
        return L[1:, 0], dL[:, 1:, 0].T

    def by_natural(self, x: Vector, k: int) -> tuple[Stack, Stack]:
        return self.spanning(k)[1:], np.zeros((k - 1, k - 1, k, k))


def _lattice(x: Vector, k: int) -> tuple[Matrix, Stack]:
    """Return L (k, k) and dL (k - 1, k, k)."""
    sine, cosine = sine_cosine(x)
    c = k - 1
    unit = np.eye(k)
    L, dL = np.zeros((k, k)), np.zeros((c, k, k))
    # Backward residuals of the position before, by order: (., k) and (., c, k).
    b, db = [unit[0]], [np.zeros((c, k))]
    L[0, 0] = 1.0
    for n in range(1, k):
        f, df = unit[n], np.zeros((c, k))
        new_b: list[Vector] = [unit[0]] * (n + 1)
        new_db: list[Matrix] = [df] * (n + 1)
        for m in range(n, 0, -1):
            s, t, before, d_before = sine[m - 1], cosine[m - 1], b[m - 1], db[m - 1]
            up, down = t * f + s * before, t * before - s * f
            d_up, d_down = t * df + s * d_before, t * d_before - s * df
            d_up[m - 1] += down
            d_down[m - 1] -= up
            new_b[m], new_db[m] = down, d_down
            f, df = up, d_up
        new_b[0], new_db[0] = f, df
        b, db = new_b, new_db
        L[n], dL[:, n] = f, df
    return L, dL
