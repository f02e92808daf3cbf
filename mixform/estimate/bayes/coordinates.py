"""The unconstrained coordinates of a random term's covariance, and their density.

Logarithms of the standard deviations, then for each correlation arctanh of the
canonical partial correlation z of its row i and column j given the columns before j
(Lewandowski, Kurowicka and Joe 2009). The Cholesky factor of the correlations is

    L_ij = z_ij prod_{l<j} sqrt(1 - z_il^2),   L_ii = prod_{l<i} sqrt(1 - z_il^2)

and under |R|^(eta - 1) each z is beta(b, b) on (-1, 1), b = eta + (k - 2 - j) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import betaln, multigammaln

from mixform._typing import Matrix, Vector
from mixform.covariance.unstructured import lower_triangle
from mixform.estimate.bayes.resolved import TermPrior
from mixform.priors import InverseWishart, log_density


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A covariance at one point of its coordinates.

    Attributes
    ----------
    T : (k, k) lower triangular, Sigma = T T'
    sd : (k,) standard deviations
    L : (k, k) Cholesky factor of the correlations
    before : (k, k) in row i, column j the product of sqrt(1 - z_il^2) over l < j
    z : (k, k) partial correlations below the diagonal
    rest : (k, k) 1 - z^2 below the diagonal
    """

    T: Matrix
    sd: Vector
    L: Matrix
    before: Matrix
    z: Matrix
    rest: Matrix


class Coordinates:
    """Coordinates of one random term and the prior density of them.

    Parameters
    ----------
    prior : of the term
    """

    def __init__(self, prior: TermPrior) -> None:
        k = prior.k
        self.prior, self.k = prior, k
        self.size = k + prior.n_correlations
        rows, columns = lower_triangle(k)
        below = rows > columns
        self.rows, self.columns = rows[below], columns[below]
        self.one, self.ones = np.eye(k), np.ones((k, k))
        # Uniform on correlation matrices: z^2 to the power b, the Jacobian included.
        self.uniform = 1.0 + (k - 2 - self.columns) / 2.0
        self.b = self.uniform
        self.constant = 0.0
        if prior.correlation is not None:
            self.b = self.uniform + prior.correlation.eta - 1.0
            logs = -betaln(self.b, self.b) - (2.0 * self.b - 1.0) * np.log(2.0)
            self.constant = float(logs.sum())

    def at(self, psi: Vector) -> Place:
        """Return the covariance at coordinates (size,)."""
        k = self.k
        sd = np.exp(psi[:k])
        one, ones = self.one, self.ones
        if not self.prior.n_correlations:
            return Place(sd[:, None] * one, sd, one, one, one, one)
        x = psi[k:]
        z, rest, before = one.copy(), ones.copy(), ones.copy()
        z[self.rows, self.columns] = np.tanh(x)
        rest[self.rows, self.columns] = np.cosh(x) ** -2
        np.multiply.accumulate(np.sqrt(rest[:, :-1]), axis=1, out=before[:, 1:])
        L = z * before
        return Place(sd[:, None] * L, sd, L, before, z, rest)

    def pull(self, place: Place, G: Matrix) -> Vector:
        """Return derivatives (size,) by the coordinates from those (k, k) by T."""
        weighted = G * place.T
        by_log_sd = weighted.sum(axis=1)
        if not self.prior.n_correlations:
            return by_log_sd
        after = weighted[:, ::-1].cumsum(axis=1)[:, ::-1] - weighted
        by_x = G * place.sd[:, None] * place.rest * place.before - place.z * after
        return np.concatenate([by_log_sd, by_x[self.rows, self.columns]])

    def log_prior(self, psi: Vector, place: Place) -> tuple[float, Vector]:
        """Return the log density of the coordinates, and its gradient (size,)."""
        k = self.k
        if self.prior.covariance is not None:
            return self._of_covariance(psi, place)
        gradient = np.empty(self.size)
        total = self.constant
        for j, (prior, log_sd) in enumerate(
            zip(self.prior.sds, psi[:k].tolist(), strict=True)
        ):
            value, gradient[j] = log_density(prior, log_sd)
            total += value
        if self.prior.n_correlations:
            x = psi[k:]
            total += float(self.b @ log_rest(x))
            gradient[k:] = -2.0 * self.b * np.tanh(x)
        return total, gradient

    def _of_covariance(self, psi: Vector, place: Place) -> tuple[float, Vector]:
        """Return the log density of Sigma times the Jacobian of the coordinates.

        |dSigma / d(log sd, R)| = 2^k prod sd^(k + 1).
        """
        k, prior = self.k, self.prior.covariance
        x, log_sds = psi[k:], float(psi[:k].sum())
        logs = log_rest(x)
        total = k * np.log(2.0) + (k + 1.0) * log_sds + float(self.uniform @ logs)
        gradient = np.append(np.full(k, k + 1.0), -2.0 * self.uniform * np.tanh(x))
        if not isinstance(prior, InverseWishart):
            return total, gradient
        nu, S = prior.df, prior.scale
        power = (nu + k + 1.0) / 2.0
        logdet_S = float(np.linalg.slogdet(S)[1])
        total += nu / 2.0 * (logdet_S - k * np.log(2.0))
        total -= float(multigammaln(nu / 2.0, k))
        total -= power * (2.0 * log_sds + float(logs.sum()))
        gradient[:k] -= 2.0 * power
        gradient[k:] += 2.0 * power * np.tanh(x)
        inverse = solve_triangular(place.T, np.eye(k), lower=True)
        half = inverse @ S @ inverse.T
        total -= 0.5 * float(np.trace(half))
        # d tr(S Sigma^-1) / dT = -2 Sigma^-1 S Sigma^-1 T = -2 T^-T half
        return total, gradient + self.pull(place, np.tril(inverse.T @ half))

    def log_jacobian(self, psi: Vector) -> float:
        """Return log |d(sd, R) / dpsi|."""
        logs = log_rest(psi[self.k :]) if self.prior.n_correlations else np.zeros(0)
        return float(psi[: self.k].sum() + self.uniform[: len(logs)] @ logs)

    def from_covariance(self, Sigma: Matrix) -> Vector:
        """Return the coordinates (size,) of a positive definite covariance."""
        sd = np.sqrt(np.diag(Sigma))
        if not self.prior.n_correlations:
            return np.log(sd)
        L = np.linalg.cholesky(Sigma / np.outer(sd, sd))
        z = np.zeros((self.k, self.k))
        before = np.ones(self.k)
        for j in range(self.k - 1):
            z[:, j] = L[:, j] / before
            before = before * np.sqrt(np.maximum(1.0 - z[:, j] ** 2, 1e-300))
        return np.append(np.log(sd), np.arctanh(z[self.rows, self.columns]))

    def natural(self, place: Place) -> Vector:
        """Return standard deviations and correlations, as `TermPrior.names`."""
        if not self.prior.n_correlations:
            return place.sd
        R = place.L @ place.L.T
        return np.append(place.sd, R[self.rows, self.columns])


def log_rest(x: Vector) -> Vector:
    """Return log(1 - tanh(x)^2) without loss of digits."""
    size = np.abs(x)
    return 2.0 * (np.log(2.0) - size - np.log1p(np.exp(-2.0 * size)))
