"""Reduced rank: Sigma = Lambda Lambda', Lambda (k, d); theta is its lower part.

What glmmTMB calls ``rr`` (McGillycuddy, Warton, Popovic and Bolker 2025, J. Stat.
Softw. 112(1)). The other columns of T are zero by construction.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.covariance.structure import Coordinates, Natural
from mixform.covariance.unstructured import all_symmetric, lower_triangle


class ReducedRank:
    """Covariances of rank d at most: t = k d - d (d - 1) / 2.

    Parameters
    ----------
    d : rank
    """

    name = "rr"
    scales_columns = True
    couples = True
    mixes = True
    linear = False
    curved = False
    coordinates: Coordinates = "none"
    least = 1

    def __init__(self, d: int = 2) -> None:
        self.d = d

    def placed(
        self, positions: Vector | None, options: Mapping[str, int]
    ) -> ReducedRank:
        return ReducedRank(**options)

    def rank(self, k: int) -> int:
        return min(self.d, k)

    def n_parameters(self, k: int) -> int:
        return len(self._places(k)[0])

    def start(self, k: int) -> Vector:
        # Loadings that are not orthogonal to any covariance: every one is tried.
        rows, columns = np.indices((k, k))
        loadings = np.cos(np.pi * columns * (rows + 0.5) / k)
        return 0.7 * loadings[self._places(k)]

    def factor(self, theta: Vector, k: int) -> Matrix:
        T = np.zeros((*theta.shape[:-1], k, k))
        T[(..., *self._places(k))] = theta
        return T

    def derivatives(self, theta: Vector, k: int) -> Stack:
        rows, columns = self._places(k)
        basis = np.zeros((len(rows), k, k))
        basis[np.arange(len(rows)), rows, columns] = 1.0
        return basis

    def from_factor(self, T: Matrix) -> Vector:
        return T[(..., *self._places(T.shape[-1]))]

    def from_covariance(self, Sigma: Matrix, tolerance: float) -> Vector:
        k = len(Sigma)
        values, vectors = np.linalg.eigh(Sigma)
        kept = np.where(values > tolerance, values, 0.0)[-self.rank(k) :]
        half = vectors[:, -self.rank(k) :] * np.sqrt(kept)
        _, R = np.linalg.qr(half.T)
        T = np.zeros((k, k))
        T[:, : self.rank(k)] = (R * np.where(np.diag(R) < 0.0, -1.0, 1.0)[:, None]).T
        if not np.all(kept > 0.0):
            # A column for each factor that is left, and zeros.
            T = _columns_to_the_left(T, int(np.count_nonzero(kept)))
        return self.from_factor(T)

    def spanning(self, k: int) -> Stack:
        return all_symmetric(k) if self.d >= k else np.empty((0, k, k))

    def natural_derivatives(self, theta: Vector, k: int) -> tuple[Stack, Stack]:
        """Return derivatives of T T' by the loadings, and second ones."""
        rows, columns = self._places(k)
        Lambda, unit = self.factor(theta, k), np.eye(k)
        half = unit[rows][:, :, None] * Lambda.T[columns][:, None, :]
        pairs = unit[rows][:, None, :, None] * unit[rows][None, :, None, :]
        same = (columns[:, None] == columns)[:, :, None, None]
        return half + half.transpose(0, 2, 1), same * (
            pairs + pairs.transpose(0, 1, 3, 2)
        )

    def natural(self, theta: Vector, columns: tuple[str, ...]) -> Natural:
        rows, factors = self._places(len(columns))
        names = tuple(
            f"loading({columns[row]}, {factor + 1})"
            for row, factor in zip(rows, factors, strict=True)
        )
        t = len(theta)
        return Natural(names=names, values=theta, powers=np.ones(t), jacobian=np.eye(t))

    def _places(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of the loadings, column by column."""
        rows, columns = lower_triangle(k)
        return rows[columns < self.d], columns[columns < self.d]


def _columns_to_the_left(T: Matrix, rank: int) -> Matrix:
    """Return a lower trapezoid of the same T T' with ``rank`` columns."""
    left, sizes, _ = np.linalg.svd(T)
    out = np.zeros_like(T)
    if rank:
        _, R = np.linalg.qr((left[:, :rank] * sizes[:rank]).T)
        out[:, :rank] = np.triu(R).T
    return out
