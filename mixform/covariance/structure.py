"""What a covariance structure of k random coefficients must provide.

theta -> T, with Var(b_level) = sigma^2 T T'. T is lower triangular (in the order of
positions, where the coefficients have some). To add a structure: one file with a class
of this shape, one line in the registry of the package.

The entries of T are linear in theta, and a variance of zero is a zero column of T; or
the structure is curved, and says itself where its parameters have their limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeGuard

import numpy as np

from mixform._typing import Mask, Matrix, Stack, Vector

#: A pivot of T on the scaled problem that is tried as zero, and the distance from its
#: limit at which an angle is put there.
SMALL_PIVOT = 0.03


#: What the coefficients must be: anything, levels of a factor in order, at whole
#: numbers, or at any numbers.
Coordinates = Literal["none", "order", "integer", "number"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Natural:
    """Parameters as they are reported.

    Attributes
    ----------
    names : (c,)
    values : (c,) in units of sigma to the power
    powers : (c,) 1 for standard deviations and loadings, 2 for variances, 0 for
        correlations
    jacobian : (c, t) derivatives by theta
    """

    names: tuple[str, ...]
    values: Vector
    powers: Vector
    jacobian: Matrix


class Structure(Protocol):
    """A map from parameters to the relative covariance factor T.

    `factor`, `derivatives` and `from_factor` take stacks as well: more axes in front of
    theta and T are axes in front of the result (`derivatives` may leave out those that
    it does not vary along).

    Attributes
    ----------
    name : as written in front of the bracket
    scales_columns : whether the structure stays the same when the coefficients are
        rescaled one by one; if not, they are rescaled together
    couples : whether coefficients may covary
    mixes : whether A T is of the structure for every lower triangular A
    linear : whether the covariances are all combinations of `spanning` that are
        positive semidefinite
    curved : whether the entries of T are no linear functions of theta
    coordinates : what the coefficients must be: anything ("none"), levels of a factor
        in order, at whole numbers, or at any numbers
    least : the smallest number of coefficients
    """

    name: str
    scales_columns: bool
    couples: bool
    mixes: bool
    linear: bool
    curved: bool
    coordinates: Coordinates
    least: int

    def placed(self, positions: Vector | None, options: Mapping[str, int]) -> Structure:
        """Return the structure at positions (k,), with the options of a term."""
        ...

    def n_parameters(self, k: int) -> int:
        """Return the number t of parameters for k coefficients."""
        ...

    def start(self, k: int) -> Vector:
        """Return parameters (t,) to start from: a moderate variance each."""
        ...

    def factor(self, theta: Vector, k: int) -> Matrix:
        """Return T (k, k), lower triangular."""
        ...

    def derivatives(self, theta: Vector, k: int) -> Stack:
        """Return dT/dtheta, (t, k, k)."""
        ...

    def from_factor(self, T: Matrix) -> Vector:
        """Return the parameters (t,) of a T of this structure: `factor` undone."""
        ...

    def from_covariance(self, Sigma: Matrix, tolerance: float) -> Vector:
        """Return parameters (t,) of a covariance (k, k) that may be singular.

        A pivot of at most ``tolerance`` counts as zero, and its column of T is zero.
        """
        ...

    def spanning(self, k: int) -> Stack:
        """Return matrices (s, k, k) that may be added to any T T' of the family.

        As far as it stays positive semidefinite. Their combinations are all of a
        linear family; a structure that holds no sum of two has none.
        """
        ...

    def rank(self, k: int) -> int:
        """Return how many columns of T, the first, may be other than zero."""
        ...

    def natural(self, theta: Vector, columns: tuple[str, ...]) -> Natural | None:
        """Return the parameters to report of k coefficients; None if T T' says all."""
        ...


class Curved(Structure, Protocol):
    """A structure with limits of its own, where T T' is stationary by symmetry.

    C of the scaled problem is diagonal for it.
    """

    def canonical(self, theta: Vector, k: int) -> Vector:
        """Return the parameters (t,) of the same T T' within their range."""
        ...

    def rescaled(self, theta: Vector, factors: Vector) -> Vector:
        """Return the parameters (t,) of diag(factors) T; factors (k,) positive."""
        ...

    def at_edge(self, theta: Vector, k: int) -> Mask:
        """Return which canonical parameters (t,) are at a limit, or without effect."""
        ...

    def pinned(self, theta: Vector, k: int) -> Mask:
        """Return which (t,) of those have a slope there: a search would cross."""
        ...

    def snapped(self, theta: Vector, k: int) -> list[Vector]:
        """Return canonical parameters (t,) next to these with some at their limits."""
        ...

    def inward(self, theta: Vector, k: int) -> Matrix:
        """Return directions (e, t) from the limits that theta is at, if T is not 0."""
        ...

    def rays(self, S: Matrix, k: int) -> Matrix:
        """Return parameters (g, t) of unit size where tr(S T T') may be negative.

        They are tried where all variances are zero.
        """
        ...


def is_curved(structure: Structure) -> TypeGuard[Curved]:
    """Whether a structure has limits of its own."""
    return structure.curved


def semidefinite_cholesky(Sigma: Matrix, tolerance: float) -> Matrix:
    """Return lower triangular T with T T' = Sigma, zero columns at zero pivots.

    Parameters
    ----------
    Sigma : (k, k) positive semidefinite up to ``tolerance``
    tolerance : a pivot (conditional variance) up to this counts as zero

    Examples
    --------
    >>> semidefinite_cholesky(np.array([[4.0, 2.0], [2.0, 1.0]]), 1e-12)
    array([[2., 0.],
           [1., 0.]])
    """
    rest = np.array(Sigma, dtype=np.float64)
    T = np.zeros_like(rest)
    for j in range(len(rest)):
        if rest[j, j] > tolerance:
            T[j:, j] = rest[j:, j] / np.sqrt(rest[j, j])
            rest[j:, j:] -= np.outer(T[j:, j], T[j:, j])
    return T
