"""Models whose posterior is checked: designs, and the same written densely."""

from __future__ import annotations

import numpy as np
import pandas as pd

import mixform as mf
from mixform.call import design_of, make_call
from mixform.estimate import Control, estimate
from mixform.estimate.bayes import kernels
from mixform.estimate.bayes.arrays import terms_of
from mixform.estimate.bayes.density import Density
from mixform.estimate.bayes.resolved import Priors, resolve_priors


def design(formula, data, **arguments):
    return design_of(make_call(formula, data, **arguments))


def density_of(made, prior=None, backend="auto"):
    fit = estimate(made, method="REML", control=Control(backend=backend))
    size = fit.evaluation.problem.y_scale
    return Density(fit, resolve_priors(made, prior, size))


def log_density(prior, log_sd):
    """Of the logarithm of a standard deviation, and its derivative."""
    terms, slope = terms_of(Priors(terms=(), residual=prior)), np.zeros(1)
    nothing = np.empty((0, 1, 1))
    value = kernels.add_priors(np.array([log_sd]), terms, nothing, slope)
    return value, slope[0]


def table(seed=0, n=60, m=7, h=5):
    """Rows of two crossed factors, two covariates, weights and an offset."""
    rng = np.random.default_rng(seed)
    g = np.append(np.arange(m), rng.integers(0, m, n - m))
    x = rng.normal(size=n) * 4.0 + 2.0
    data = pd.DataFrame(
        {
            "g": [f"g{i}" for i in g],
            "h": rng.integers(0, h, n),
            "x": x,
            "z": rng.normal(size=n) * 0.1,
            "w": rng.uniform(0.5, 3.0, n),
            "o": rng.normal(size=n),
        }
    )
    b = rng.normal(size=(m, 2)) * [8.0, 2.0]
    data["y"] = 20.0 + b[g, 0] + (1.5 + b[g, 1]) * x + rng.normal(size=n) * 5.0
    return data


def pedigree():
    return mf.Pedigree(
        pd.DataFrame(
            {
                "animal": [f"g{i}" for i in range(7)],
                "sire": [None, None, "g0", "g0", "g2", "g2", "g4"],
                "dam": [None, None, "g1", None, "g1", "g3", "g3"],
            }
        )
    )


def relationship_matrix():
    """A of `pedigree`, by the tabular method."""
    parents = [(-1, -1), (-1, -1), (0, 1), (0, -1), (2, 1), (2, 3), (4, 3)]
    A = np.zeros((7, 7))
    for i, (s, d) in enumerate(parents):
        for j in range(i):
            A[i, j] = A[j, i] = 0.5 * sum(A[j, k] for k in (s, d) if k >= 0)
        A[i, i] = 1.0 + (0.5 * A[s, d] if min(s, d) >= 0 else 0.0)
    return A


def dense_covariance(made, covariances, sigma, relations):
    """Var(y) (n, n) for covariances (k, k) of each term and A of its levels."""
    n = len(made.y)
    weights = np.ones(n) if made.weights is None else made.weights
    V = np.diag(sigma**2 / weights)
    for block, Sigma, A in zip(made.blocks, covariances, relations, strict=True):
        Z = block.Z.toarray()
        A = np.eye(block.m) if A is None else A
        V += Z @ np.kron(A, Sigma) @ Z.T
    return V


def log_restricted_likelihood(made, V):
    """Of y, dense, with a flat prior of beta (Harville 1974)."""
    y = made.y if made.offset is None else made.y - made.offset
    X = made.X.to_numpy()
    inverse = np.linalg.inv(V)
    XVX = X.T @ inverse @ X
    rest = y - X @ np.linalg.solve(XVX, X.T @ inverse @ y)
    logdets = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XVX)[1]
    df = len(y) - X.shape[1]
    return -0.5 * (logdets + df * np.log(2.0 * np.pi) + rest @ inverse @ rest)
