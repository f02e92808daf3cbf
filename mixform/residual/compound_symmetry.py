"""One correlation between all residuals of a subject: ``cs`` and ``csh``."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import expit, logit

from mixform._typing import AnyArray, Matrix, Stack, Vector
from mixform.residual.structure import unit_diagonal, zero_diagonal


class CompoundSymmetry:
    """Correlation rho between -1 / (size - 1) and 1.

    Parameters
    ----------
    linear : whether the variances are equal: then V is linear in (rho sigma^2,
        sigma^2)
    """

    kind: Literal["order", "integer", "distance"] = "order"

    def __init__(self, *, linear: bool) -> None:
        self.linear = linear

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        return ("rho",)

    def start(self, size: int, scale: float) -> Vector:
        return self.internal(np.array([0.3]), size)

    def natural(self, x: Vector, size: int) -> Vector:
        lowest = -1.0 / (size - 1)
        return lowest + (1.0 - lowest) * expit(x)

    def internal(self, r: Vector, size: int) -> Vector:
        lowest = -1.0 / (size - 1)
        return logit((r - lowest) / (1.0 - lowest))

    def jacobian(self, x: Vector, size: int) -> Matrix:
        share = expit(x)
        return (1.0 + 1.0 / (size - 1)) * np.diag(share * (1.0 - share))

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        return unit_diagonal(np.full(D.shape, r[0]))

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return zero_diagonal(np.ones((1, *D.shape)))

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        return np.zeros((1, 1, *D.shape))
