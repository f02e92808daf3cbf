"""Antedependence of order one: ``ante1`` (Gabriel 1962; SAS's ANTE(1))."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.residual.structure import unit_diagonal


class Antedependence:
    """Correlation of neighbours rho_k; of others the product of those between them."""

    kind: Literal["order", "integer", "distance"] = "order"
    linear = False

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"rho({a},{b})" for a, b in itertools.pairwise(labels))

    def start(self, size: int, scale: float) -> Vector:
        return self.internal(np.full(size - 1, 0.3), size)

    def natural(self, x: Vector, size: int) -> Vector:
        return np.tanh(x)

    def internal(self, r: Vector, size: int) -> Vector:
        return np.arctanh(r)

    def jacobian(self, x: Vector, size: int) -> Matrix:
        return np.diag(1.0 / np.cosh(x) ** 2)

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        return unit_diagonal(_products(r, _between(len(r))))

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        between = _between(len(r))
        out = np.empty((len(r), *D.shape))
        for k in range(len(r)):
            out[k] = _without(r, between, [k])
        return out

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        between = _between(len(r))
        out = np.zeros((len(r), len(r), *D.shape))
        for k in range(len(r)):
            for other in range(len(r)):
                if other != k:
                    out[k, other] = _without(r, between, [k, other])
        return out


def _between(c: int) -> AnyArray:
    """Return (c, c + 1, c + 1): whether the step k, k + 1 lies between i and j."""
    i, j, k = np.arange(c + 1)[:, None], np.arange(c + 1), np.arange(c)[:, None, None]
    return (np.minimum(i, j) <= k) & (k < np.maximum(i, j))


def _products(r: Vector, between: AnyArray) -> Matrix:
    return np.prod(np.where(between, r[:, None, None], 1.0), axis=0)


def _without(r: Vector, between: AnyArray, out: list[int]) -> Matrix:
    """Return the products without some of the steps, zero where they are not all in."""
    rest = np.delete(np.arange(len(r)), out)
    inside = between[out].all(axis=0)
    return np.where(inside, _products(r[rest], between[rest]), 0.0)
