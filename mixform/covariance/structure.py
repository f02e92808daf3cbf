"""What a covariance structure of k random coefficients must provide.

theta -> T, with Var(b_level) = sigma^2 T T'. T is lower triangular. To add a
structure: one file with a class of this shape, one line in the registry of the
package.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mixform._typing import Matrix, Stack, Vector


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
    """

    name: str
    scales_columns: bool
    couples: bool

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
        """Return matrices (s, k, k) whose combinations are all T T' of the family."""
        ...


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
