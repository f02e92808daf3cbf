"""Independent residuals, each position with its own variance: ``diag``."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mixform._typing import AnyArray, Matrix, Stack, Vector


class Independent:
    """No correlation, no parameter of it."""

    kind: Literal["order", "integer", "distance"] = "order"
    linear = True

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return ()

    def start(self, size: int, scale: float) -> Vector:
        return np.empty(0)

    def natural(self, x: Vector, size: int) -> Vector:
        return np.empty(0)

    def internal(self, r: Vector, size: int) -> Vector:
        return np.empty(0)

    def jacobian(self, x: Vector, size: int) -> Matrix:
        return np.empty((0, 0))

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        return np.broadcast_to(np.eye(D.shape[-1]), D.shape)

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return np.empty((0, *D.shape))

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return np.empty((0, 0, *D.shape))
