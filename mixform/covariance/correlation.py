"""What a family of correlation matrices of k coefficients must provide.

x -> L, with L L' the correlation matrix. x are angles (c,); every x is allowed, and x
outside its range [lower, upper] stands for a correlation matrix that one inside it has.
"""

from __future__ import annotations

from typing import Protocol

from mixform._typing import Mask, Matrix, Stack, Vector
from mixform.covariance.structure import Coordinates


class Correlation(Protocol):
    """A family of correlation matrices and its angles.

    Attributes
    ----------
    linear : whether covariances with one variance are linear in their parameters
    coordinates : as `Structure.coordinates`
    """

    linear: bool
    coordinates: Coordinates

    def placed(self, positions: Vector | None) -> Correlation:
        """Return the family of coefficients at positions (k,), None in order."""
        ...

    def n_angles(self, k: int) -> int:
        """Return the number c of angles for k coefficients."""
        ...

    def start(self, k: int) -> Vector:
        """Return angles (c,) to start from."""
        ...

    def factor(self, x: Vector, k: int) -> Matrix:
        """Return L (k, k), lower triangular in the order of positions."""
        ...

    def derivatives(self, x: Vector, k: int) -> Stack:
        """Return dL/dx, (c, k, k)."""
        ...

    def fold(self, x: Vector) -> Vector:
        """Return the angles (c,) of the same correlations within their range."""
        ...

    def limits(self, k: int) -> tuple[float, float]:
        """Return the lower and upper limit of the angles."""
        ...

    def idle(self, x: Vector) -> Mask:
        """Return which angles (c,) have no effect, because of the others."""
        ...

    def nearest(self, C: Matrix) -> Vector:
        """Return angles (c,) of a correlation matrix, or of one that is close.

        Exactly those of a matrix of the family.
        """
        ...

    def spanning(self, k: int) -> Stack:
        """Return matrices as `Structure.spanning` of the family with one variance."""
        ...

    def extremes(self, k: int) -> Matrix:
        """Return angles (g, c) of matrices, among which tr(S C) is about smallest."""
        ...

    def names(self, k: int) -> tuple[str, ...]:
        """Return names of the parameters to report, (c,)."""
        ...

    def by_natural(self, x: Vector, k: int) -> tuple[Stack, Stack]:
        """Return derivatives (c, k, k) of L L' by those parameters, and second ones.

        Zero where a parameter is infinite, or at zero has none.
        """
        ...

    def natural(self, x: Vector, k: int) -> tuple[Vector, Matrix]:
        """Return the parameters to report (c,), and their derivatives (c, c)."""
        ...
