"""What a correlation structure of the residuals of one subject must provide.

A residual structure is a correlation family and whether each position has a variance
of its own. A family works on differences of positions: for positions (visits) an
(size, size) array of integers, zero on the diagonal, for times and coordinates an
(..., v, v) array of distances. It has two sets of parameters: natural ones r, as
reported, and unconstrained ones x, in which the search moves; every x gives a positive
definite correlation matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from mixform._typing import AnyArray, Matrix, Stack, Vector

#: What an option of a structure may be set to.
Options = dict[str, object]


class Correlation(Protocol):
    """A family of correlation matrices.

    Attributes
    ----------
    kind : "order" for positions in the order of their levels, "integer" for integer
        positions whose gaps count, "distance" for times and coordinates
    linear : whether covariances are linear in the parameters that SAS would report
    """

    kind: Literal["order", "integer", "distance"]
    linear: bool

    def names(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return names of the natural parameters, (c,)."""
        ...

    def start(self, size: int, scale: float) -> Vector:
        """Return unconstrained parameters (c,) to start from.

        Parameters
        ----------
        size : number of positions
        scale : a typical distance between residuals of a subject
        """
        ...

    def natural(self, x: Vector, size: int) -> Vector:
        """Return natural parameters (c,)."""
        ...

    def internal(self, r: Vector, size: int) -> Vector:
        """Return unconstrained parameters (c,): `natural` undone."""
        ...

    def jacobian(self, x: Vector, size: int) -> Matrix:
        """Return dr/dx, (c, c)."""
        ...

    def correlation(self, r: Vector, D: AnyArray) -> Stack:
        """Return correlations, of the shape of D."""
        ...

    def derivatives(self, r: Vector, D: AnyArray) -> Stack:
        """Return derivatives by r, (c, ...)."""
        ...

    def second_derivatives(self, r: Vector, D: AnyArray) -> Stack:
        """Return second derivatives by r, (c, c, ...)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A residual structure.

    Attributes
    ----------
    name : as written in front of the bracket
    family : its correlations
    heterogeneous : whether each position has a variance of its own
    """

    name: str
    family: Correlation
    heterogeneous: bool


def unit_diagonal(values: Stack) -> Stack:
    """Return a writable copy (..., v, v) with ones on the diagonal."""
    out = np.array(values, dtype=np.float64)
    v = out.shape[-1]
    out[..., np.arange(v), np.arange(v)] = 1.0
    return out


def zero_diagonal(values: Stack) -> Stack:
    """Return a writable copy (..., v, v) with zeros on the diagonal."""
    out = np.array(values, dtype=np.float64)
    v = out.shape[-1]
    out[..., np.arange(v), np.arange(v)] = 0.0
    return out
