"""Correlations r^lag along a line: ``ar1`` and, never negative, ``exp``.

Lags are in units of the smallest distance (exp), or of the greatest common divisor of
the distances (ar1), so that they are at least one and r is the correlation at a lag of
one: sin(x), or sin(x)^2 where it cannot be negative. Given its neighbor a coefficient
does not depend on the one before: L_ij = r^(lag of i and j) w_j, w_j^2 = 1 - r^(2
step_j), step_j the lag of j and the position before.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Mask, Matrix, Stack, Vector
from mixform.covariance.angles import HALF_PI, fold_quarter, fold_signed, sine_cosine
from mixform.covariance.structure import Coordinates

#: Angles at which a family is tried.
TRIED = 33


class Markov:
    """One angle; positions of the coefficients on a line.

    Parameters
    ----------
    decay : whether the correlation is exp(-distance / range), at any numbers, in place
        of rho^distance at whole ones
    positions : (k,) different numbers; None for 0, 1, ..., k - 1
    """

    linear = False

    def __init__(self, *, decay: bool = False, positions: Vector | None = None) -> None:
        self.decay = decay
        self.coordinates: Coordinates = "number" if decay else "integer"
        self.positions = positions
        self.unit, self.signed = 1.0, not decay
        if positions is not None and len(positions) > 1:
            steps = np.diff(np.sort(positions))
            self.unit = float(steps.min())
            if not decay:
                self.unit = float(np.gcd.reduce(np.rint(steps).astype(np.int64)))
                # An even power has no sign.
                self.signed = self.unit % 2.0 == 1.0

    def placed(self, positions: Vector | None) -> Markov:
        return Markov(decay=self.decay, positions=positions)

    def n_angles(self, k: int) -> int:
        return int(k > 1)

    def start(self, k: int) -> Vector:
        return np.full(self.n_angles(k), 0.4 if self.signed else np.pi / 4.0)

    def factor(self, x: Vector, k: int) -> Matrix:
        return self._factor(x, k)[0]

    def derivatives(self, x: Vector, k: int) -> Stack:
        return self._factor(x, k)[1]

    def fold(self, x: Vector) -> Vector:
        return fold_signed(x) if self.signed else fold_quarter(x)

    def limits(self, k: int) -> tuple[float, float]:
        return (-HALF_PI if self.signed else 0.0), HALF_PI

    def idle(self, x: Vector) -> Mask:
        return np.zeros(len(x), dtype=bool)

    def nearest(self, C: Matrix) -> Vector:
        k = len(C)
        if k == 1:
            return np.empty(0)
        order, lags = self._lags(k)
        ordered = C[np.ix_(order, order)]
        nearest = np.isclose(lags, lags[lags > 0.0].min(), rtol=1e-9)
        power = float(lags[nearest][0])
        mean = float(np.mean(ordered[nearest]))
        r = np.copysign(abs(mean) ** (1.0 / power), mean)
        if not self.signed:
            return np.arcsin(np.sqrt(np.clip([r], 0.0, 1.0)))
        return np.arcsin(np.clip([r], -1.0, 1.0))

    def spanning(self, k: int) -> Stack:
        same = np.eye(k)[None]
        if k > 2:
            return np.empty((0, k, k))
        return np.concatenate([same, 1.0 - same]) if k == 2 else same

    def extremes(self, k: int) -> Matrix:
        angles = np.linspace(*self.limits(k), TRIED)[:, None]
        return angles if k > 1 else np.empty((1, 0))

    def names(self, k: int) -> tuple[str, ...]:
        return () if k == 1 else ("range" if self.decay else "rho",)

    def natural(self, x: Vector, k: int) -> tuple[Vector, Matrix]:
        if k == 1:
            return np.empty(0), np.empty((0, 0))
        r, dr, _, _ = self._correlation(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.decay:
                rate = -np.log(np.float64(r)) / self.unit
                value, slope = 1.0 / rate, self.unit / (r * np.log(np.float64(r)) ** 2)
            else:
                size = np.abs(np.float64(r)) ** (1.0 / self.unit)
                value, slope = np.copysign(size, r), size / (self.unit * abs(r))
        if self.unit == 1.0 and not self.decay:
            slope = 1.0
        return np.array([value]), np.array([[slope * dr]])

    def by_natural(self, x: Vector, k: int) -> tuple[Stack, Stack]:
        positions = np.arange(float(k)) if self.positions is None else self.positions
        D = np.abs(np.subtract.outer(positions, positions))
        value = float(self.natural(x, k)[0][0])
        if not self.decay:
            first = D * np.power(value, np.maximum(D - 1.0, 0.0))
            second = D * (D - 1.0) * np.power(value, np.maximum(D - 2.0, 0.0))
        elif value == 0.0 or not np.isfinite(value):
            first = second = np.zeros((k, k))
        else:
            C = np.exp(-D / value)
            first = C * D / value**2
            second = C * (D**2 / value**4 - 2.0 * D / value**3)
        return first[None], second[None, None]

    def _lags(self, k: int) -> tuple[np.ndarray, Matrix]:
        """Return the order of positions (k,), and the lags (k, k) in that order."""
        positions = self.positions
        if positions is None:
            positions = np.arange(float(k))
        order = np.argsort(positions)
        ordered = positions[order] / self.unit
        return order, np.abs(np.subtract.outer(ordered, ordered))

    def _correlation(self, x: Vector) -> tuple[float, float, float, float]:
        """Return r, dr/dx, and m, dm/dx with 1 - r^2 = cos(x)^2 m."""
        (sine,), (cosine,) = sine_cosine(x)
        if self.signed:
            return float(sine), float(cosine), 1.0, 0.0
        slope = 2.0 * float(sine * cosine)
        return float(sine**2), slope, 1.0 + float(sine**2), slope

    def _factor(self, x: Vector, k: int) -> tuple[Matrix, Stack]:
        L, dL = np.zeros((k, k)), np.zeros((self.n_angles(k), k, k))
        if k == 1:
            return np.ones((1, 1)), dL
        (sine,), (cosine,) = sine_cosine(x)
        r, dr, m, dm = self._correlation(x)
        order, lags = self._lags(k)
        H, dH = power_ratio(r * r, np.diagonal(lags, -1))
        root = np.sqrt(m * H)
        w = np.append(1.0, cosine * root)
        dw = -sine * root + cosine * (dm * H + m * dH * 2.0 * r * dr) / (2.0 * root)
        powers = np.tril(np.power(r, lags))
        slopes = np.tril(lags * np.power(r, np.maximum(lags - 1.0, 0.0))) * dr
        L[order] = powers * w
        dL[0, order] = slopes * w + powers * np.append(0.0, dw)
        return L, dL


def power_ratio(y: float, p: Vector) -> tuple[Vector, Vector]:
    """Return (1 - y^p) / (1 - y) and its derivative by y, for 0 <= y <= 1 and p >= 1.

    Examples
    --------
    >>> H, dH = power_ratio(0.5, np.array([2.0, 3.0]))  # 1 + y, 1 + y + y^2
    >>> H.tolist(), dH.round(12).tolist()
    ([1.5, 1.75], [1.0, 2.0])
    """
    if y < 0.5:
        rest = 1.0 - y
        H = (1.0 - y**p) / rest
        return H, (H - p * y ** (p - 1.0)) / rest
    z = -np.log(y)
    if z == 0.0:
        return p.astype(np.float64), p * (p - 1.0) / 2.0
    H = np.expm1(-p * z) / np.expm1(-z)
    # d log H / dz = p / (e^(pz) - 1) - 1 / (e^z - 1), in which 1 / z cancels.
    return H, -H * (p * _bernoulli(p * z) - _bernoulli(np.array([z]))) / y


def _bernoulli(u: Vector) -> Vector:
    """Return 1 / (e^u - 1) - 1 / u for u > 0."""
    small = u < 1e-2
    away = np.where(small, 1.0, np.minimum(u, 700.0))
    near = np.where(small, u, 0.0)
    return np.where(
        small,
        -0.5 + near / 12.0 - near**3 / 720.0,
        1.0 / np.expm1(away) - 1.0 / np.where(small, 1.0, u),
    )
