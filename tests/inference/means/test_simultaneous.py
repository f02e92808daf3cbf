"""The studentized range and the multivariate t against SciPy and against each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mixform.inference.means.simultaneous import (
    max_t_quantiles,
    max_t_tails,
    product_loadings,
    studentized_range_quantile,
    studentized_range_tail,
)


def equal(k, r):
    return np.full((k, k), r) + (1.0 - r) * np.eye(k)


@pytest.mark.parametrize("nu", [1.0, 2.5, 7.3, 48.0, 1e4, np.inf])
@pytest.mark.parametrize("k", [2, 3, 10, 50])
def test_studentized_range_agrees_with_scipy(k, nu):
    q = np.array([0.5, 3.0, 6.0])
    want = stats.studentized_range.sf(q, k, nu)
    found = [studentized_range_tail(x, k, nu) for x in q]
    assert found == pytest.approx(want, abs=1e-10)


def test_quantiles_of_the_studentized_range_in_tables():
    """Harter 1960: 5 % points of 3 means with 10 df, 5 means with 20 df."""
    assert studentized_range_quantile(0.95, 3, 10.0) == pytest.approx(3.877, abs=5e-4)
    assert studentized_range_quantile(0.95, 5, 20.0) == pytest.approx(4.232, abs=5e-4)


def test_dunnett_quantiles_in_tables():
    """Dunnett 1964: two-sided 5 % points, equal groups: 2 and 4 treatments, 20 df."""
    found = [max_t_quantiles(0.95, equal(k, 0.5), np.array([20.0]))[0] for k in (2, 4)]
    assert found == pytest.approx([2.38, 2.65], abs=5.1e-3)


@pytest.mark.parametrize("nu", [4.0, 30.0, np.inf])
def test_independent_normals_are_sidak(nu):
    c = np.array([2.0])
    p = max_t_tails(c, np.eye(4), np.array([np.inf]))[0]
    assert p == pytest.approx(1.0 - (1.0 - 2.0 * stats.norm.sf(2.0)) ** 4, rel=1e-12)
    assert max_t_tails(c, np.eye(1), np.array([nu]))[0] == pytest.approx(
        2.0 * stats.t.sf(2.0, nu)
    )


@pytest.mark.parametrize("k", [3, 4, 6])
def test_all_pairs_of_equal_means_are_the_studentized_range(k):
    """The correlation is singular."""
    first, second = np.triu_indices(k, 1)
    C = (np.eye(k)[first] - np.eye(k)[second]) / np.sqrt(2.0)
    for c, nu in ((1.0, 9.0), (2.5, 20.0), (3.0, np.inf)):
        found = max_t_tails(np.array([c]), C @ C.T, np.array([nu]))[0]
        want = studentized_range_tail(np.sqrt(2.0) * c, k, nu)
        assert found == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("r", [0.2, 0.5, 0.9])
def test_the_two_ways_to_integrate_agree(r):
    R = equal(4, r)
    bent = R.copy()
    bent[0, 1] = bent[1, 0] = r + 1e-7  # no product any more, by next to nothing
    assert product_loadings(R) is not None
    assert product_loadings(bent) is None
    c, nu = np.array([0.5, 2.0, 3.0]), np.array([5.0, 17.3, np.inf])
    assert max_t_tails(c, bent, nu) == pytest.approx(max_t_tails(c, R, nu), abs=5e-5)


def test_quantile_inverts_the_tail():
    R = np.array([[1.0, -0.5, 0.0], [-0.5, 1.0, -0.5], [0.0, -0.5, 1.0]])
    nu = np.array([8.0, 50.0])
    c = max_t_quantiles(0.9, R, nu)
    assert max_t_tails(c, R, nu) == pytest.approx(0.1, abs=1e-8)


def test_loadings_keep_signs():
    loadings = np.array([0.9, -0.4, 0.5, -0.7])
    R = np.outer(loadings, loadings)
    np.fill_diagonal(R, 1.0)
    found = product_loadings(R)
    assert np.outer(found, found) == pytest.approx(np.outer(loadings, loadings))
