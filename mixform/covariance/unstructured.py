"""Unstructured: any covariance; theta is T's lower triangle, column by column.

The order is lme4's (Bates, Machler, Bolker and Walker 2015, J. Stat. Softw. 67(1)).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from mixform._typing import Matrix, Stack, Vector
from mixform.covariance.structure import Coordinates, semidefinite_cholesky


class Unstructured:
    """All variances and covariances free: t = k (k + 1) / 2.

    Attributes
    ----------
    name : as written in front of the bracket
    """

    scales_columns = True
    couples = True
    mixes = True
    linear = True
    curved = False
    coordinates: Coordinates = "none"
    least = 1

    def __init__(self, name: str = "us") -> None:
        self.name = name

    def placed(
        self, positions: Vector | None, options: Mapping[str, int]
    ) -> Unstructured:
        return self

    def n_parameters(self, k: int) -> int:
        return k * (k + 1) // 2

    def start(self, k: int) -> Vector:
        return self.from_factor(0.7 * np.eye(k))

    def factor(self, theta: Vector, k: int) -> Matrix:
        T = np.zeros((*theta.shape[:-1], k, k))
        T[(..., *lower_triangle(k))] = theta
        return T

    def derivatives(self, theta: Vector, k: int) -> Stack:
        return _unit_lower(k)

    def from_factor(self, T: Matrix) -> Vector:
        return T[(..., *lower_triangle(T.shape[-1]))]

    def from_covariance(self, Sigma: Matrix, tolerance: float) -> Vector:
        return self.from_factor(semidefinite_cholesky(Sigma, tolerance))

    def spanning(self, k: int) -> Stack:
        return all_symmetric(k)

    def rank(self, k: int) -> int:
        return k

    def natural(self, theta: Vector, columns: tuple[str, ...]) -> None:
        return None


@lru_cache(maxsize=64)
def lower_triangle(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the lower triangle, column by column."""
    columns, rows = np.triu_indices(k)
    return rows, columns


@lru_cache(maxsize=64)
def _unit_lower(k: int) -> Stack:
    rows, columns = lower_triangle(k)
    basis = np.zeros((len(rows), k, k))
    basis[np.arange(len(rows)), rows, columns] = 1.0
    basis.setflags(write=False)
    return basis


def all_symmetric(k: int) -> Stack:
    """Return a basis (k (k + 1) / 2, k, k) of the symmetric matrices."""
    basis = _unit_lower(k)
    return (basis + basis.transpose(0, 2, 1)) / 2.0
