"""One factor: Sigma = lambda lambda' + diag(psi), psi_i = a_i^2; theta = (lambda, a).

T rotates [lambda, diag(a)] to a lower triangle, row by row: with f what is left of the
factor's standard deviation given the coefficients before, T_jj^2 = f^2 lambda_j^2 +
a_j^2, T_ij = f^2 lambda_j lambda_i / T_jj, and f_next = f a_j / T_jj.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mixform._typing import Mask, Matrix, Stack, Vector
from mixform.covariance.structure import SMALL_PIVOT, Coordinates, Natural

#: Steps of Gauss and Newton towards the loadings of a covariance, at most.
MOST_STEPS = 100


class FactorAnalytic:
    """A common factor and specific variances: t = 2 k."""

    name = "fa1"
    scales_columns = True
    couples = True
    mixes = False
    linear = False
    curved = True
    coordinates: Coordinates = "none"
    least = 3

    def placed(
        self, positions: Vector | None, options: Mapping[str, int]
    ) -> FactorAnalytic:
        return self

    def n_parameters(self, k: int) -> int:
        return 2 * k

    def start(self, k: int) -> Vector:
        return np.full(2 * k, 0.5)

    def factor(self, theta: Vector, k: int) -> Matrix:
        if theta.ndim > 1:
            return np.array([self.factor(one, k) for one in theta])
        return _factor(theta, k)[0]

    def derivatives(self, theta: Vector, k: int) -> Stack:
        if theta.ndim > 1:
            return np.array([self.derivatives(one, k) for one in theta])
        return _factor(theta, k)[1]

    def from_factor(self, T: Matrix) -> Vector:
        if T.ndim > 2:
            return np.array([self.from_factor(one) for one in T])
        return self.from_covariance(T @ T.T, 0.0)

    def from_covariance(self, Sigma: Matrix, tolerance: float) -> Vector:
        variances = np.where(Sigma.diagonal() > tolerance, Sigma.diagonal(), 0.0)
        loadings = _loadings(np.where(np.outer(variances, variances) > 0.0, Sigma, 0.0))
        # A loading beyond its coefficient's variance leaves nothing specific.
        loadings = np.clip(loadings, -np.sqrt(variances), np.sqrt(variances))
        specific = variances - loadings**2
        rounding = 1e-14 * variances
        return np.append(loadings, np.sqrt(np.where(specific > rounding, specific, 0)))

    def spanning(self, k: int) -> Stack:
        basis = np.zeros((k, k, k))
        basis[np.arange(k), np.arange(k), np.arange(k)] = 1.0
        return basis

    def rank(self, k: int) -> int:
        return k

    def canonical(self, theta: Vector, k: int) -> Vector:
        loadings = theta[:k]
        largest = loadings[np.argmax(np.abs(loadings))]
        return np.append(loadings if largest >= 0.0 else -loadings, np.abs(theta[k:]))

    def rescaled(self, theta: Vector, factors: Vector) -> Vector:
        return theta * np.tile(factors, 2)

    def at_edge(self, theta: Vector, k: int) -> Mask:
        loadings = theta[:k]
        # A loading changes Sigma by itself only if there is another, or it is not 0.
        idle = np.full(k, not np.any(loadings))
        return np.append(idle, theta[k:] == 0.0)

    def pinned(self, theta: Vector, k: int) -> Mask:
        return np.zeros(len(theta), dtype=bool)

    def snapped(self, theta: Vector, k: int) -> list[Vector]:
        small = np.flatnonzero((theta[k:] < SMALL_PIVOT) & (theta[k:] > 0.0))
        out: list[Vector] = []
        for chosen in [small, *(small[[i]] for i in range(len(small)))]:
            trial = theta.copy()
            trial[k + chosen] = 0.0
            out.append(trial)
        if np.all(np.abs(theta[:k]) < SMALL_PIVOT) and np.any(theta):
            out.insert(0, np.where(np.abs(theta) < SMALL_PIVOT, 0.0, theta))
        return out if len(small) != 1 else out[:1]

    def inward(self, theta: Vector, k: int) -> Matrix:
        return np.eye(2 * k)[np.append(np.zeros(k, dtype=bool), theta[k:] == 0.0)]

    def rays(self, S: Matrix, k: int) -> Matrix:
        vector = np.linalg.eigh(S)[1][:, 0]
        return np.vstack([np.append(vector, np.zeros(k)), np.eye(2 * k)[k:]])

    def natural_derivatives(self, theta: Vector, k: int) -> tuple[Stack, Stack]:
        """Return derivatives of T T' by loadings and specific variances, twice."""
        unit = np.eye(k)
        D, D2 = np.zeros((2 * k, k, k)), np.zeros((2 * k, 2 * k, k, k))
        half = unit[:, :, None] * theta[:k]
        D[:k], D[k:] = half + half.transpose(0, 2, 1), self.spanning(k)
        pairs = unit[:, None, :, None] * unit[None, :, None, :]
        D2[:k, :k] = pairs + pairs.transpose(0, 1, 3, 2)
        return D, D2

    def natural(self, theta: Vector, columns: tuple[str, ...]) -> Natural:
        k = len(columns)
        names = [f"loading({name})" for name in columns]
        names += [f"specific({name})" for name in columns]
        return Natural(
            names=tuple(names),
            values=np.append(theta[:k], theta[k:] ** 2),
            powers=np.repeat([1.0, 2.0], k),
            jacobian=np.diag(np.append(np.ones(k), 2.0 * theta[k:])),
        )


def _factor(theta: Vector, k: int) -> tuple[Matrix, Stack]:
    """Return T (k, k) and dT (2 k, k, k).

    Where T_jj is zero, its column is, and only a_j moves it: dT_jj / da_j = 1.
    """
    loadings, a = theta[:k], theta[k:]
    T, dT = np.zeros((k, k)), np.zeros((2 * k, k, k))
    unit = np.eye(2 * k)
    f, df = 1.0, np.zeros(2 * k)
    for j in range(k):
        g, dg = f * loadings[j], df * loadings[j] + f * unit[j]
        size = float(np.hypot(g, a[j]))
        if size == 0.0:
            T[j, j], dT[:, j, j] = 0.0, unit[k + j] + dg
            continue
        d_size = (g * dg + a[j] * unit[k + j]) / size
        T[j, j], dT[:, j, j] = size, d_size
        share = g / size
        d_share = (dg - share * d_size) / size
        for i in range(j + 1, k):
            h = f * loadings[i]
            dh = df * loadings[i] + f * unit[i]
            T[i, j] = share * h
            dT[:, i, j] = d_share * h + share * dh
        kept = a[j] / size
        df = df * kept + f * (unit[k + j] - kept * d_size) / size
        f = f * kept
    return T, dT


def _loadings(Sigma: Matrix) -> Vector:
    """Return the loadings (k,) that come closest to the correlations of Sigma.

    Least squares over the entries below the diagonal, by Gauss and Newton's steps from
    the leading eigenvector, halved until they come closer.
    """
    k = len(Sigma)
    sd = np.sqrt(Sigma.diagonal())
    safe = np.where(sd > 0.0, sd, 1.0)
    C = Sigma / np.outer(safe, safe)
    values, vectors = np.linalg.eigh(C)
    loadings = vectors[:, -1] * np.sqrt(max(float(values[-1]), 0.0))
    loadings *= np.where(loadings[np.argmax(np.abs(loadings))] < 0.0, -1.0, 1.0)
    rows, columns = np.tril_indices(k, -1)
    pairs = np.arange(len(rows))
    missed = C[rows, columns] - loadings[rows] * loadings[columns]
    for _ in range(MOST_STEPS):
        J = np.zeros((len(rows), k))
        J[pairs, rows] = loadings[columns]
        J[pairs, columns] += loadings[rows]
        step = np.linalg.lstsq(J, missed, rcond=1e-12)[0]
        while np.abs(step).max() > 1e-15:
            trial = loadings + step
            there = C[rows, columns] - trial[rows] * trial[columns]
            if there @ there < missed @ missed:
                break
            step = step / 2.0
        else:
            break
        loadings, missed = trial, there
    return loadings * sd
