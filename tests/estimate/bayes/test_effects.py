"""Draws of beta and b: exactly the mean and the covariance of Henderson's equations."""

from __future__ import annotations

import numpy as np
import pytest

from mixform.estimate.bayes import effects
from mixform.estimate.bayes.effects import draw_effects, related
from tests.estimate.bayes.models import dense_covariance
from tests.estimate.bayes.test_density import CASES, made, natural, point


def conditional(here, density, psi, relations):
    """Mean and covariance of (beta, b) given the variances, by dense algebra."""
    terms, sigma = natural(density, psi)
    covariances = [R * np.outer(sd, sd) for sd, R in terms]
    V = dense_covariance(here, covariances, sigma, relations)
    inverse = np.linalg.inv(V)
    X, y = here.X.to_numpy(), here.y - (0.0 if here.offset is None else here.offset)
    Z = here.Z.toarray()
    G = np.zeros((Z.shape[1], Z.shape[1]))
    start = 0
    for block, Sigma, A in zip(here.blocks, covariances, relations, strict=True):
        part = np.kron(np.eye(block.m) if A is None else A, Sigma)
        end = start + len(part)
        G[start:end, start:end] = part
        start = end
    V_beta = np.linalg.inv(X.T @ inverse @ X)
    beta = V_beta @ X.T @ inverse @ y
    GZVi = G @ Z.T @ inverse
    b = GZVi @ (y - X @ beta)
    C_bb = G - GZVi @ Z @ G + GZVi @ X @ V_beta @ X.T @ GZVi.T
    C_xb = -V_beta @ X.T @ GZVi.T
    covariance = np.block([[V_beta, C_xb], [C_xb.T, C_bb]])
    return np.append(beta, b), covariance


class Units:
    """In the place of a random generator: the numbers that are asked for, in order."""

    def __init__(self, arrays):
        self.arrays = list(arrays)

    def standard_normal(self, shape):
        array = self.arrays.pop(0)
        assert array.shape == tuple(np.atleast_1d(shape))
        return array


def linear_map(here, density, psi):
    """What zero numbers give, and the matrix that normal ones are mapped by."""
    n, q = density.problem.n, density.problem.equations.q
    count = 1 + n + q
    units = np.hstack([np.zeros((n + q, 1)), np.eye(n + q)])
    draws = np.tile(psi, (count, 1))
    rng = Units([units[:n], units[n:]])
    beta, b = draw_effects(here, density, draws, rng, lambda done: None)
    out = np.column_stack([beta, *(one.reshape(count, -1) for one in b)])
    return out[0], (out[1:] - out[0]).T


@pytest.mark.parametrize("name", CASES)
def test_draws_are_an_exact_linear_map_of_normal_numbers(name, monkeypatch):
    monkeypatch.setattr(effects, "CHUNK", 1000)
    here, density, relations = made(name)
    psi = point(density, 4)
    mean, L = linear_map(here, density, psi)
    expected, covariance = conditional(here, density, psi, relations)
    size = np.sqrt(np.diag(covariance))
    assert np.abs((mean - expected) / size).max() < 1e-7
    error = (L @ L.T - covariance) / np.outer(size, size)
    assert np.abs(error).max() < 1e-7


@pytest.mark.parametrize("name", ["us", "nested"])
def test_components_together_give_the_draws_of_one_by_one(name):
    here, density, _ = made(name)
    draws = np.array([point(density, seed) for seed in range(9)])
    found = []
    for compact in (density.compact, None):
        density.compact = compact
        rng = np.random.default_rng(1)
        done = []
        found.append(draw_effects(here, density, draws, rng, done.append))
        assert sum(done) == 9
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-7, abs=1e-7)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        assert one == pytest.approx(two, rel=1e-7, abs=1e-7)


def test_related_draws_have_the_covariance_of_the_relationship():
    _, density, relations = made("pedigree, sparse")
    q = density.problem.equations.q
    L = related(density.problem, np.eye(q))
    A = np.kron(relations[0], np.eye(2))
    covariance = L @ L.T
    assert covariance[: len(A), : len(A)] == pytest.approx(A, abs=1e-12)
    assert covariance[len(A) :, len(A) :] == pytest.approx(np.eye(q - len(A)))


def test_many_draws_have_the_moments_of_the_equations():
    here, density, relations = made("pedigree")
    psi = point(density, 4)
    count = 4000
    rng = np.random.default_rng(3)
    draws = np.tile(psi, (count, 1))
    beta, b = draw_effects(here, density, draws, rng, lambda done: None)
    out = np.column_stack([beta, *(one.reshape(count, -1) for one in b)])
    mean, covariance = conditional(here, density, psi, relations)
    z = (out.mean(axis=0) - mean) / np.sqrt(np.diag(covariance) / count)
    assert np.abs(z).max() < 4.0
    ratio = out.var(axis=0, ddof=1) / np.diag(covariance)
    assert np.abs(ratio - 1.0).max() < 5.0 * np.sqrt(2.0 / count)
