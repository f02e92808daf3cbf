"""Standard deviations, one or one for each coefficient, and a family of correlations.

theta is (sd) or (sd_1, ..., sd_k), then the angles of the correlations: T = diag(sd) L.
A common standard deviation may have either sign, which says nothing. Of several the
absolute values count: one that is zero is a limit with a slope, because the sign of its
covariances would change beyond.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mixform._typing import Mask, Matrix, Stack, Vector
from mixform.covariance.correlation import Correlation
from mixform.covariance.structure import SMALL_PIVOT, Coordinates, Natural
from mixform.covariance.unstructured import all_symmetric


class Patterned:
    """Variances and a pattern of correlations.

    Parameters
    ----------
    name : as written in front of the bracket
    family : of the correlations
    heterogeneous : whether each coefficient has a variance of its own
    """

    couples = True
    mixes = False
    curved = True
    least = 2

    def __init__(self, name: str, family: Correlation, *, heterogeneous: bool) -> None:
        self.name = name
        self.coordinates: Coordinates = family.coordinates
        self.family = family
        self.heterogeneous = heterogeneous
        self.scales_columns = heterogeneous
        self.linear = family.linear and not heterogeneous

    def placed(self, positions: Vector | None, options: Mapping[str, int]) -> Patterned:
        family = self.family.placed(positions)
        return Patterned(self.name, family, heterogeneous=self.heterogeneous)

    def n_sds(self, k: int) -> int:
        """Return the number of standard deviations of k coefficients."""
        return k if self.heterogeneous else 1

    def n_parameters(self, k: int) -> int:
        return self.n_sds(k) + self.family.n_angles(k)

    def start(self, k: int) -> Vector:
        return np.append(np.full(self.n_sds(k), 0.7), self.family.start(k))

    def factor(self, theta: Vector, k: int) -> Matrix:
        if theta.ndim > 1:
            return np.array([self.factor(one, k) for one in theta])
        sd, x = self._split(theta, k)
        return self._sizes(sd)[:, None] * self.family.factor(x, k)

    def derivatives(self, theta: Vector, k: int) -> Stack:
        if theta.ndim > 1:
            return np.array([self.derivatives(one, k) for one in theta])
        sd, x = self._split(theta, k)
        L, dL = self.family.factor(x, k), self.family.derivatives(x, k)
        if not self.heterogeneous:
            return np.concatenate([L[None], sd[0] * dL])
        by_sd = np.zeros((k, k, k))
        by_sd[np.arange(k), np.arange(k)] = np.where(sd < 0.0, -1.0, 1.0)[:, None] * L
        return np.concatenate([by_sd, np.abs(sd)[:, None] * dL])

    def from_factor(self, T: Matrix) -> Vector:
        if T.ndim > 2:
            return np.array([self.from_factor(one) for one in T])
        return self.from_covariance(T @ T.T, 0.0)

    def from_covariance(self, Sigma: Matrix, tolerance: float) -> Vector:
        k = len(Sigma)
        variances = np.where(Sigma.diagonal() > tolerance, Sigma.diagonal(), 0.0)
        if not self.heterogeneous:
            variances = np.full(k, variances.mean())
        sd = np.sqrt(variances)
        if not np.all(sd > 0.0):
            return np.append(sd[: self.n_sds(k)], self.family.start(k))
        x = self.family.nearest(Sigma / np.outer(sd, sd))
        return np.append(sd[: self.n_sds(k)], x)

    def spanning(self, k: int) -> Stack:
        if not self.heterogeneous:
            return self.family.spanning(k)
        return all_symmetric(k) if k < 3 else np.empty((0, k, k))

    def rank(self, k: int) -> int:
        return k

    def canonical(self, theta: Vector, k: int) -> Vector:
        sd, x = self._split(theta, k)
        return np.append(np.abs(sd), self.family.fold(x))

    def rescaled(self, theta: Vector, factors: Vector) -> Vector:
        k = len(factors)
        sd, x = self._split(theta, k)
        return np.append(sd * factors[: self.n_sds(k)], x)

    def at_edge(self, theta: Vector, k: int) -> Mask:
        sd, x = self._split(theta, k)
        # Correlations take part if two standard deviations do.
        absent = self._too_few(sd, k)
        angles = np.isin(x, self.family.limits(k)) | self.family.idle(x) | absent
        return np.append(sd == 0.0, angles)

    def pinned(self, theta: Vector, k: int) -> Mask:
        out = np.zeros(len(theta), dtype=bool)
        if self.heterogeneous:
            out[:k] = theta[:k] == 0.0
        return out

    def snapped(self, theta: Vector, k: int) -> list[Vector]:
        goals = theta.copy()
        sd, x = self._split(theta, k)
        goals[: len(sd)][sd < SMALL_PIVOT] = 0.0
        for limit in self.family.limits(k):
            goals[len(sd) :][np.abs(x - limit) < SMALL_PIVOT] = limit
        moved = np.flatnonzero(goals != theta)
        out = [goals] if len(moved) else []
        for i in moved if len(moved) > 1 else []:
            one = theta.copy()
            one[i] = goals[i]
            out.append(one)
        return out

    def inward(self, theta: Vector, k: int) -> Matrix:
        sd, x = self._split(theta, k)
        lower, _ = self.family.limits(k)
        at_limit = np.isin(x, self.family.limits(k)) & ~self.family.idle(x)
        if self._too_few(sd, k):
            at_limit[:] = False
        directions = np.diag(
            np.append(np.ones(len(sd)), np.where(x == lower, 1.0, -1.0))
        )
        return directions[np.append(sd == 0.0, at_limit)]

    def rays(self, S: Matrix, k: int) -> Matrix:
        angles = self.family.extremes(k)
        if not self.heterogeneous:
            return np.column_stack([np.ones(len(angles)), angles])
        single = np.repeat(self.family.start(k)[None], k, axis=0)
        out = [np.column_stack([np.eye(k), single])]
        for x in angles:
            L = self.family.factor(x, k)
            vector = np.linalg.eigh(S * (L @ L.T))[1][:, 0]
            halves = (np.maximum(vector, 0.0), np.maximum(-vector, 0.0))
            out += [np.append(sd, x)[None] for sd in halves if np.any(sd)]
        return np.concatenate(out)

    def natural(self, theta: Vector, columns: tuple[str, ...]) -> Natural:
        k = len(columns)
        sd, x = self._split(theta, k)
        values, slopes = self.family.natural(x, k)
        names = tuple(f"sd({name})" for name in columns)
        names = names if self.heterogeneous else ("sd",)
        n, c = len(sd), len(x)
        jacobian = np.zeros((n + c, n + c))
        jacobian[np.arange(n), np.arange(n)] = np.where(sd < 0.0, -1.0, 1.0)
        jacobian[n:, n:] = slopes
        return Natural(
            names=names + self.family.names(k),
            values=np.append(np.abs(sd), values),
            powers=np.append(np.ones(n), np.zeros(c)),
            jacobian=jacobian,
        )

    def natural_derivatives(self, theta: Vector, k: int) -> tuple[Stack, Stack]:
        """Return derivatives of T T' by variances and correlations, and second ones.

        Parameters without finite derivatives, such as one variance of several that is
        zero, have derivatives of zero.
        """
        sd, x = self._split(theta, k)
        L = self.family.factor(x, k)
        C, (dC, d2C) = L @ L.T, self.family.by_natural(x, k)
        s = np.broadcast_to(np.abs(sd), (k,))
        n, t = len(sd), len(theta)
        D, D2 = np.zeros((t, k, k)), np.zeros((t, t, k, k))
        D[n:] = np.outer(s, s) * dC
        D2[n:, n:] = np.outer(s, s) * d2C
        if n == 1:
            D[0], D2[0, 1:], D2[1:, 0] = C, dC, dC
            return D, D2
        # sqrt(v_i v_j) C_ij: by v_i half of it over v_i, on the diagonal 1.
        inverse = np.where(s > 0.0, 1.0 / np.where(s > 0.0, s**2, 1.0), 0.0)
        rows = np.eye(k)[:, :, None] * inverse[:, None, None]
        half = (rows + rows.transpose(0, 2, 1)) / 2.0
        D[:n] = half * np.outer(s, s) * C
        D2[:n, n:] = half[:, None] * D[n:]
        D2[n:, :n] = D2[:n, n:].transpose(1, 0, 2, 3)
        D2[:n, :n] = (half[:, None] * half - self._own(inverse)) * np.outer(s, s) * C
        return D, D2

    def _own(self, inverse: Vector) -> Stack:
        """Return d half_i / d v_i of half_i, -(1 / v_i^2) / 2 in row and column i."""
        k = len(inverse)
        out = np.zeros((k, k, k, k))
        for i in range(k):
            out[i, i, i] += inverse[i] ** 2 / 2.0
            out[i, i, :, i] += inverse[i] ** 2 / 2.0
        return out

    def _split(self, theta: Vector, k: int) -> tuple[Vector, Vector]:
        return theta[: self.n_sds(k)], theta[self.n_sds(k) :]

    def _sizes(self, sd: Vector) -> Vector:
        """Return what the rows of L are multiplied by; (1,) or (k,)."""
        return np.abs(sd) if self.heterogeneous else sd

    def _too_few(self, sd: Vector, k: int) -> bool:
        """Whether fewer than two coefficients have a variance."""
        return int(np.count_nonzero(np.broadcast_to(sd, (k,)))) < min(2, k)
