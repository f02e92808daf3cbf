"""Simulation-based calibration (Talts, Betancourt, Simpson, Vehtari and Gelman 2018).

Parameters drawn from their priors, data from these, and the rank of each parameter
among draws from the posterior is uniform. The prior of beta is flat, the right Haar
measure of shifts of the response: whatever beta is, its rank is uniform as well.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mixform.estimate.bayes.sample import sample
from mixform.priors import half_t, lkj
from tests.estimate.bayes.models import design

pytest.importorskip("nutpie")

M, N = 8, 5
SIMULATIONS, DRAWS, EVERY, BINS = 240, 99, 5, 10
PRIOR = {
    "g": [half_t(np.inf, 1.0), lkj(2.0)],
    "g[x]": half_t(7.0, 0.5),
    "residual": half_t(np.inf, 1.0),
}


def simulated(rng):
    """One data set, and the parameters that it was drawn with."""
    sd = np.abs([rng.normal(), 0.5 * rng.standard_t(7)])
    # |R|^(eta - 1) of two coefficients: the correlation is beta(eta, eta) on (-1, 1).
    correlation = 2.0 * rng.beta(2.0, 2.0) - 1.0
    sigma = abs(rng.normal())
    R = np.array([[1.0, correlation], [correlation, 1.0]])
    b = rng.multivariate_normal(np.zeros(2), R * np.outer(sd, sd), size=M)
    g, x = np.repeat(np.arange(M), N), np.tile(np.arange(N) - 1.0, M)
    beta = np.array([3.0, -2.0])
    y = beta[0] + b[g, 0] + (beta[1] + b[g, 1]) * x + sigma * rng.normal(size=M * N)
    truth = np.array([*sd, correlation, sigma, *beta, *b[2], *b[7]])
    return pd.DataFrame({"y": y, "x": x, "g": g}), truth


@pytest.mark.slow
def test_ranks_are_uniform():
    rng = np.random.default_rng(20180418)
    ranks = []
    for simulation in range(SIMULATIONS):
        data, truth = simulated(rng)
        control = {
            "seed": simulation,
            "draws": DRAWS * EVERY,
            "tune": 400,
            "chains": 1,
            "target_accept": 0.9,
        }
        made = design("y ~ x + (x | g)", data)
        drawn = sample(made, prior=PRIOR, control=control)
        b = drawn.b[0]
        values = np.column_stack([drawn.parameters, drawn.beta, b[:, 2], b[:, 7]])
        ranks.append((values[::EVERY] < truth).sum(axis=0))
    counts = np.array(ranks)
    expected = SIMULATIONS / BINS
    for j in range(counts.shape[1]):
        found = np.bincount(counts[:, j] * BINS // (DRAWS + 1), minlength=BINS)
        chi2 = ((found - expected) ** 2 / expected).sum()
        assert stats.chi2.sf(chi2, BINS - 1) > 1e-3, f"parameter {j}: {found}"
