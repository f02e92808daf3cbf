"""The unconstrained coordinates of a random term's covariance.

Logarithms of the standard deviations, then for each correlation arctanh of the
canonical partial correlation z of its row i and column j given the columns before j
(Lewandowski, Kurowicka and Joe 2009), column by column. The Cholesky factor of the
correlations is

    L_ij = z_ij prod_{l<j} sqrt(1 - z_il^2),   L_ii = prod_{l<i} sqrt(1 - z_il^2)

and under |R|^(eta - 1) each z is beta(b, b) on (-1, 1), b = eta + (k - 2 - j) / 2.
"""

from __future__ import annotations

import numpy as np

from mixform._typing import Matrix, Vector
from mixform.covariance.unstructured import lower_triangle
from mixform.estimate.bayes.arrays import powers_of
from mixform.estimate.bayes.resolved import TermPrior


class Coordinates:
    """Coordinates of one random term.

    Parameters
    ----------
    prior : of the term
    """

    def __init__(self, prior: TermPrior) -> None:
        self.k, self.n_correlations = prior.k, prior.n_correlations
        self.size = self.k + self.n_correlations
        rows, columns = lower_triangle(self.k)
        below = rows > columns
        self.rows, self.columns = rows[below], columns[below]
        #: Powers of 1 - z^2 in the density of z that is uniform on correlations.
        self.uniform = powers_of(prior)
        if prior.correlation is not None:
            self.uniform = self.uniform - (prior.correlation.eta - 1.0)

    def log_jacobian(self, psi: Vector) -> float:
        """Return log |d(sd, R) / dpsi|."""
        size = np.abs(psi[self.k :])
        logs = 2.0 * (np.log(2.0) - size - np.log1p(np.exp(-2.0 * size)))
        return float(psi[: self.k].sum() + self.uniform @ logs)

    def from_covariance(self, Sigma: Matrix) -> Vector:
        """Return the coordinates (size,) of a positive definite covariance."""
        sd = np.sqrt(np.diag(Sigma))
        if not self.n_correlations:
            return np.log(sd)
        L = np.linalg.cholesky(Sigma / np.outer(sd, sd))
        z = np.zeros((self.k, self.k))
        before = np.ones(self.k)
        for j in range(self.k - 1):
            z[:, j] = L[:, j] / before
            before = before * np.sqrt(np.maximum(1.0 - z[:, j] ** 2, 1e-300))
        return np.append(np.log(sd), np.arctanh(z[self.rows, self.columns]))

    def natural(self, psi: Vector, T: Matrix) -> Vector:
        """Return standard deviations and correlations, as `TermPrior.names`."""
        sd = np.exp(psi[: self.k])
        if not self.n_correlations:
            return sd
        L = T / sd[:, None]
        return np.append(sd, (L @ L.T)[self.rows, self.columns])
