"""The log posterior density against dense algebra, its gradient against differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import betaln

import mixform as mf
from mixform.priors import flat, half_t, inverse_wishart, lkj
from tests.estimate.bayes.models import (
    dense_covariance,
    density_of,
    design,
    log_restricted_likelihood,
    pedigree,
    relationship_matrix,
    table,
)

K = pd.DataFrame(
    relationship_matrix(), index=pedigree().labels, columns=pedigree().labels
)
WISHART = inverse_wishart(5.0, [[30.0, 4.0], [4.0, 8.0]])
WEIGHTED = {"weights": "w", "offset": "o"}
MIXED = {"h": inverse_wishart(4.0, 20.0), "g[x]": flat(), "residual": flat("variance")}

#: formula, arguments, priors, relation of the levels of each term, backend
CASES = {
    "one": ("y ~ x + (1 | g)", {}, None, [None], "auto"),
    "us": ("y ~ x + (x | g)", {}, None, [None], "auto"),
    "us, eta 3, 7 df": (
        "y ~ x + (x | g)",
        WEIGHTED,
        {"g": [half_t(7.0), lkj(3.0)], "residual": half_t(np.inf, 4.0)},
        [None],
        "auto",
    ),
    "three": ("y ~ x + (x + z | g)", {}, {"g": lkj(0.8)}, [None], "auto"),
    "inverse Wishart": ("y ~ (x | g)", WEIGHTED, {"g": WISHART}, [None], "auto"),
    "covariance": ("y ~ (x | g)", {}, {"g": flat("covariance")}, [None], "auto"),
    "diag": ("y ~ x + (x || g)", {}, None, [None], "auto"),
    "crossed": ("y ~ x + (x | g) + (1 | h)", WEIGHTED, MIXED, [None] * 2, "auto"),
    "no fixed": ("y ~ 0 + (1 | h / g)", WEIGHTED, None, [None] * 2, "auto"),
    "nested": ("y ~ 0 + x + (1 | h / g)", {}, None, [None] * 2, "auto"),
    "sparse": ("y ~ x + (x | g) + (1 | h)", WEIGHTED, MIXED, [None] * 2, "sparse"),
    "iid": (
        "y ~ x + (1 | g) + iid(1 | g)",
        {"relationship": {"g": pedigree()}},
        None,
        [K.to_numpy(), None],
        "auto",
    ),
    "pedigree": (
        "y ~ x + (x | g)",
        {"relationship": {"g": pedigree()}, **WEIGHTED},
        None,
        [K.to_numpy()],
        "auto",
    ),
    "pedigree, sparse": (
        "y ~ x + (x | g) + (1 | h)",
        {"relationship": {"g": pedigree()}},
        None,
        [K.to_numpy(), None],
        "sparse",
    ),
    "covariance of levels": (
        "y ~ x + (x | g)",
        {"relationship": {"g": K}},
        None,
        [K.to_numpy()],
        "auto",
    ),
    "precision of levels": (
        "y ~ x + (x | g)",
        {"relationship": {"g": mf.precision(np.linalg.inv(K), K.index)}},
        None,
        [K.to_numpy()],
        "auto",
    ),
    "no random term": ("y ~ x + z", WEIGHTED, None, [], "auto"),
}


def made(name):
    formula, arguments, prior, relations, backend = CASES[name]
    here = design(formula, table(), **arguments)
    return here, density_of(here, prior, backend), relations


def point(density, seed):
    rng = np.random.default_rng(seed)
    psi = rng.normal(size=density.size)
    psi[-1] = rng.normal() + 1.0
    return psi


def natural(density, psi):
    """Standard deviations and correlation matrices by term, and sigma."""
    values = list(density.describe(psi)[1])
    out = []
    for term in density.priors.terms:
        sd = np.array([values.pop(0) for _ in range(term.k)])
        R = np.eye(term.k)
        for c in range(term.k if term.coupled else 0):
            for r in range(c + 1, term.k):
                R[r, c] = R[c, r] = values.pop(0)
        out.append((sd, R))
    return out, values[0]


def log_prior_of_sd(prior, sd):
    if isinstance(prior, mf.priors.HalfT):
        spread = stats.norm if np.isinf(prior.df) else stats.t(prior.df)
        return np.log(2.0) + spread.logpdf(sd / prior.scale) - np.log(prior.scale)
    if isinstance(prior, mf.priors.InverseWishart):
        rate = prior.scale[0, 0] / 2.0
        variance = stats.invgamma(prior.df / 2.0, scale=rate)
        return variance.logpdf(sd**2) + np.log(2.0 * sd)
    return {"sd": 0.0, "variance": np.log(2.0 * sd)}[prior.on]


def log_lkj(R, eta):
    """Lewandowski, Kurowicka and Joe (2009): the constant as a product of betas."""
    k = len(R)
    constant = 0.0
    for j in range(1, k):
        b = eta + (k - 1 - j) / 2.0
        constant += (k - j) * ((2.0 * b - 1.0) * np.log(2.0) + betaln(b, b))
    return (eta - 1.0) * np.linalg.slogdet(R)[1] - constant


def log_prior(density, psi):
    """At standard deviations and correlations, from scipy's densities."""
    terms, sigma = natural(density, psi)
    total = log_prior_of_sd(density.priors.residual, sigma)
    for (sd, R), prior in zip(terms, density.priors.terms, strict=True):
        for one, value in zip(prior.sds, sd, strict=False):
            total += log_prior_of_sd(one, value)
        if prior.correlation is not None:
            total += log_lkj(R, prior.correlation.eta)
        if prior.covariance is not None:
            # |dSigma / d(sd, R)|: 2 sd each, and sd_i sd_j for each covariance
            total += np.log(2.0 * sd).sum() + (len(sd) - 1) * np.log(sd).sum()
        if isinstance(prior.covariance, mf.priors.InverseWishart):
            wishart = stats.invwishart(prior.covariance.df, prior.covariance.scale)
            total += wishart.logpdf(R * np.outer(sd, sd))
    return total


@pytest.mark.parametrize("name", CASES)
def test_density_is_that_of_dense_algebra(name):
    here, density, relations = made(name)
    for seed in range(3):
        psi = point(density, seed)
        terms, sigma = natural(density, psi)
        covariances = [R * np.outer(sd, sd) for sd, R in terms]
        V = dense_covariance(here, covariances, sigma, relations)
        expected = log_restricted_likelihood(here, V)
        assert density.log_likelihood(psi) == pytest.approx(expected, rel=1e-9)
        _, _, prior, jacobian = density.describe(psi)
        assert prior == pytest.approx(log_prior(density, psi), rel=1e-9, abs=1e-9)
        total = density(psi)[0]
        assert total == pytest.approx(expected + prior + jacobian, rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_that_of_differences(name):
    _, density, _ = made(name)
    for seed in range(3):
        psi = point(density, seed)
        differences = [
            (density(psi + h)[0] - density(psi - h)[0]) / 2e-5
            for h in 1e-5 * np.eye(density.size)
        ]
        gradient = density(psi)[1]
        assert gradient == pytest.approx(differences, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ["us", "three", "diag", "crossed", "no random term"])
def test_jacobian_is_that_of_differences(name):
    _, density, _ = made(name)
    psi = point(density, 5)

    def values(at):
        return density.describe(at)[1]

    J = np.array(
        [
            (values(psi + h) - values(psi - h)) / 2e-6
            for h in 1e-6 * np.eye(density.size)
        ]
    )
    expected = np.linalg.slogdet(J)[1]
    assert density.describe(psi)[3] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("name", ["one", "us", "three", "diag", "nested"])
def test_sums_formed_once_give_the_same(name):
    _, density, _ = made(name)
    psi = point(density, 1)
    assert density.components is not None
    value, gradient = density(psi)
    density.components = None
    other, slope = density(psi)
    assert value == pytest.approx(other, rel=1e-12)
    assert gradient == pytest.approx(slope, rel=1e-9, abs=1e-9)


def test_density_moves_with_the_units():
    data = table()
    prior = {"g": [half_t(3.0, 10.0), lkj(2.0)], "residual": half_t(3.0, 5.0)}
    one = density_of(design("y ~ x + (x | g)", data), prior)
    data["y"] *= 100.0
    data["x"] /= 1000.0
    prior = {
        "g": [lkj(2.0)],
        "g[Intercept]": half_t(3.0, 1e3),
        "g[x]": half_t(3.0, 1e6),
        "residual": half_t(3.0, 500.0),
    }
    two = density_of(design("y ~ x + (x | g)", data), prior)
    psi = point(one, 3)
    moved = psi + np.log([100.0, 1e5, 1.0, 100.0])
    assert two(moved)[1] == pytest.approx(one(psi)[1], rel=1e-8, abs=1e-8)


def test_coordinates_of_a_covariance_give_it_back():
    _, density, _ = made("three")
    term = density.coordinates[0]
    psi = point(density, 2)
    T = density.at(psi).factors[0]
    own = psi[: term.size]
    assert term.from_covariance(T @ T.T) == pytest.approx(own, rel=1e-8)


@pytest.mark.parametrize("name", ["three", "crossed", "sparse", "pedigree"])
def test_density_vanishes_where_numbers_end(name):
    _, density, _ = made(name)
    for j in range(density.size):
        for far in (-800.0, -200.0, 200.0, 800.0):
            psi = point(density, 1)
            psi[j] = far
            value, gradient = density(psi)
            assert value < -20.0
            assert np.isneginf(value) or np.all(np.isfinite(gradient))
