"""Compound symmetry: one correlation of any two coefficients.

With lowest = -1 / (k - 1), rho = lowest + (1 - lowest) cos(x)^2: x = 0 is a correlation
of one, x = pi / 2 the most negative one, where the coefficients sum to zero. As
in SAS ``cs`` has one variance and ``csh`` one for each coefficient, which is what
glmmTMB calls cs.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Mask, Matrix, Stack, Vector
from mixform.covariance.angles import HALF_PI, fold_quarter, sine_cosine
from mixform.covariance.structure import Coordinates


class CompoundSymmetry:
    """One angle; none for a single coefficient."""

    linear = True
    coordinates: Coordinates = "none"

    def placed(self, positions: Vector | None) -> CompoundSymmetry:
        return self

    def n_angles(self, k: int) -> int:
        return int(k > 1)

    def start(self, k: int) -> Vector:
        return np.full(self.n_angles(k), np.pi / 4.0)

    def factor(self, x: Vector, k: int) -> Matrix:
        return _factor(x, k)[0]

    def derivatives(self, x: Vector, k: int) -> Stack:
        return _factor(x, k)[1]

    def fold(self, x: Vector) -> Vector:
        return fold_quarter(x)

    def limits(self, k: int) -> tuple[float, float]:
        return 0.0, HALF_PI

    def idle(self, x: Vector) -> Mask:
        return np.zeros(len(x), dtype=bool)

    def nearest(self, C: Matrix) -> Vector:
        k = len(C)
        if k == 1:
            return np.empty(0)
        rho = float(np.mean(C[np.tril_indices(k, -1)]))
        # 1 - rho is k / (k - 1) sin^2, 1 + (k - 1) rho is k cos^2.
        sine = np.sqrt(max((1.0 - rho) * (k - 1) / k, 0.0))
        cosine = np.sqrt(max((1.0 + (k - 1) * rho) / k, 0.0))
        return np.array([np.arctan2(sine, cosine)])

    def spanning(self, k: int) -> Stack:
        same = np.eye(k)[None]
        return np.concatenate([same, 1.0 - same]) if k > 1 else same

    def extremes(self, k: int) -> Matrix:
        return np.array([[0.0], [HALF_PI]]) if k > 1 else np.empty((1, 0))

    def names(self, k: int) -> tuple[str, ...]:
        return ("rho",) if k > 1 else ()

    def natural(self, x: Vector, k: int) -> tuple[Vector, Matrix]:
        if k == 1:
            return np.empty(0), np.empty((0, 0))
        (sine,), (cosine,) = sine_cosine(x)
        rho = cosine**2 - sine**2 / (k - 1)
        return np.array([rho]), np.array([[-2.0 * sine * cosine * k / (k - 1)]])

    def by_natural(self, x: Vector, k: int) -> tuple[Stack, Stack]:
        c = len(x)
        return np.repeat(1.0 - np.eye(k)[None], c, axis=0), np.zeros((c, c, k, k))


def _factor(x: Vector, k: int) -> tuple[Matrix, Stack]:
    """Return L and dL, from the conditional variances of equicorrelated variables.

    With s = sqrt(1 - rho), u_j = sqrt(1 + j rho): L_jj = s u_j / u_(j-1) and L_ij = rho
    s / (u_(j-1) u_j) for i > j > 0; the first column is (1, rho, ..., rho).
    """
    L, dL = np.zeros((k, k)), np.zeros((min(k - 1, 1), k, k))
    L[0, 0] = 1.0
    if k == 1:
        return L, dL
    (sine,), (cosine,) = sine_cosine(x)
    rho = cosine**2 - sine**2 / (k - 1)
    d_rho = -2.0 * sine * cosine * k / (k - 1)
    s, ds = np.sqrt(k / (k - 1)) * np.array([sine, cosine])
    j = np.arange(k - 1)
    u = np.append(np.sqrt(1.0 + j * rho), np.sqrt(k) * cosine)
    du = np.append(j * d_rho / (2.0 * u[:-1]), -np.sqrt(k) * sine)
    L[1:, 0], dL[0, 1:, 0] = rho, d_rho
    for c in range(1, k):
        own = s * u[c] / u[c - 1]
        L[c, c] = own
        dL[0, c, c] = (ds * u[c] + s * du[c] - own * du[c - 1]) / u[c - 1]
        if c == k - 1:
            break
        below = rho * s / (u[c - 1] * u[c])
        L[c + 1 :, c] = below
        by_x = (d_rho * s + rho * ds) / (u[c - 1] * u[c])
        dL[0, c + 1 :, c] = by_x - below * (du[c - 1] / u[c - 1] + du[c] / u[c])
    return L, dL
