"""Diagonal: independent coefficients, each with its own variance; theta = diag T."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.covariance.structure import Coordinates


class Diagonal:
    """Variances free, covariances zero: t = k. This is what ``||`` means."""

    name = "diag"
    scales_columns = True
    couples = False
    mixes = False
    linear = True
    curved = False
    coordinates: Coordinates = "none"
    least = 1

    def placed(self, positions: Vector | None, options: Mapping[str, int]) -> Diagonal:
        return self

    def n_parameters(self, k: int) -> int:
        return k

    def start(self, k: int) -> Vector:
        return np.full(k, 0.7)

    def factor(self, theta: Vector, k: int) -> Matrix:
        return theta[..., :, None] * np.eye(k)

    def derivatives(self, theta: Vector, k: int) -> Stack:
        return _unit_diagonal(k)

    def from_factor(self, T: Matrix) -> Vector:
        return np.diagonal(T, axis1=-2, axis2=-1).copy()

    def from_covariance(self, Sigma: Matrix, tolerance: float) -> Vector:
        variances = np.diag(Sigma)
        return np.sqrt(np.where(variances > tolerance, variances, 0.0))

    def spanning(self, k: int) -> Stack:
        return _unit_diagonal(k)

    def rank(self, k: int) -> int:
        return k

    def natural(self, theta: Vector, columns: tuple[str, ...]) -> None:
        return None


@lru_cache(maxsize=64)
def _unit_diagonal(k: int) -> Stack:
    basis = np.zeros((k, k, k))
    basis[np.arange(k), np.arange(k), np.arange(k)] = 1.0
    basis.setflags(write=False)
    return basis
