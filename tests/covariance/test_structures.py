"""Every structure of the registry keeps the promises of its protocol."""

from __future__ import annotations

import numpy as np
import pytest

from mixform.covariance import STRUCTURES, semidefinite_cholesky

every = pytest.mark.parametrize(
    ("structure", "k"),
    [(s, k) for s in STRUCTURES.values() for k in (1, 2, 3, 4, 6) if k >= s.least],
    ids=lambda value: getattr(value, "name", value),
)
registered = pytest.mark.parametrize(
    "structure", STRUCTURES.values(), ids=list(STRUCTURES)
)


def draw(structure, k, seed=0):
    """Parameters within every range: angles of a quarter turn at most."""
    return np.random.default_rng(seed).uniform(0.2, 1.5, structure.n_parameters(k))


@registered
def test_structure_is_registered_under_its_name(structure):
    assert STRUCTURES[structure.name] is structure


@every
def test_start_has_a_moderate_variance_for_each_coefficient(structure, k):
    theta = structure.start(k)
    assert theta.shape == (structure.n_parameters(k),)
    variances = np.diag(structure.factor(theta, k) @ structure.factor(theta, k).T)
    assert np.all((variances > 0.1) & (variances < 10.0))


@every
def test_factor_is_lower_triangular(structure, k):
    T = structure.factor(draw(structure, k), k)
    assert T.shape == (k, k)
    np.testing.assert_array_equal(np.triu(T, 1), 0.0)


@every
def test_parameters_come_back_from_the_factor(structure, k):
    theta = draw(structure, k)
    found = structure.from_factor(structure.factor(theta, k))
    if structure.curved:
        np.testing.assert_allclose(found, theta, rtol=1e-10)
    else:
        np.testing.assert_array_equal(found, theta)


@every
def test_derivatives_are_differences_of_the_factor(structure, k):
    theta = draw(structure, k)
    dT = structure.derivatives(theta, k)
    assert dT.shape == (structure.n_parameters(k), k, k)
    for j, step in enumerate(1e-6 * np.eye(len(theta))):
        sides = structure.factor(theta + step, k) - structure.factor(theta - step, k)
        np.testing.assert_allclose(dT[j], sides / 2e-6, atol=1e-8)


@every
def test_covariance_comes_back_from_its_parameters(structure, k):
    T = structure.factor(draw(structure, k), k)
    theta = structure.from_covariance(T @ T.T, 1e-12)
    U = structure.factor(theta, k)
    np.testing.assert_allclose(U @ U.T, T @ T.T, rtol=1e-12, atol=1e-13)


@every
def test_zero_covariance_has_a_factor_of_zero(structure, k):
    theta = structure.from_covariance(np.zeros((k, k)), 1e-12)
    np.testing.assert_array_equal(structure.factor(theta, k), 0.0)
    if not structure.curved:
        np.testing.assert_array_equal(theta, 0.0)


@every
def test_spanning_matrices_hold_every_covariance_of_a_linear_family(structure, k):
    if not structure.linear:
        pytest.skip("holds no sum of two of its covariances")
    basis = structure.spanning(k)
    flat = basis.reshape(len(basis), -1).T
    for seed in range(5):
        T = structure.factor(draw(structure, k, seed), k)
        Sigma = (T @ T.T).ravel()
        coefficients = np.linalg.lstsq(flat, Sigma, rcond=None)[0]
        np.testing.assert_allclose(flat @ coefficients, Sigma, atol=1e-12)


@every
def test_scaling_columns_stays_in_the_family(structure, k):
    if not structure.scales_columns:
        pytest.skip("rescaled as a whole")
    T = structure.factor(draw(structure, k), k) / np.arange(1.0, k + 1)[:, None]
    np.testing.assert_allclose(structure.factor(structure.from_factor(T), k), T)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("us", 10),
        ("diag", 4),
        ("cs", 2),
        ("csh", 5),
        ("ar1", 2),
        ("arh1", 5),
        ("toep", 4),
        ("toeph", 7),
        ("exp", 2),
        ("fa1", 8),
        ("rr", 7),
    ],
)
def test_number_of_parameters(name, expected):
    assert STRUCTURES[name].n_parameters(4) == expected


def test_unstructured_parameters_are_in_the_order_of_lme4():
    T = STRUCTURES["us"].factor(np.arange(1.0, 7.0), 3)
    expected = [[1.0, 0.0, 0.0], [2.0, 4.0, 0.0], [3.0, 5.0, 6.0]]
    np.testing.assert_array_equal(T, expected)


def test_singular_covariance_has_a_zero_column():
    v = np.array([1.0, -2.0, 3.0])
    theta = STRUCTURES["us"].from_covariance(np.outer(v, v), 1e-12)
    np.testing.assert_allclose(theta, [1.0, -2.0, 3.0, 0.0, 0.0, 0.0])


def test_diagonal_drops_variances_below_the_tolerance():
    theta = STRUCTURES["diag"].from_covariance(np.diag([4.0, 1e-20, 9.0]), 1e-12)
    np.testing.assert_array_equal(theta, [2.0, 0.0, 3.0])


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
def test_semidefinite_cholesky_reproduces_a_matrix_of_any_rank(rank):
    A = np.random.default_rng(rank).normal(size=(4, rank))
    T = semidefinite_cholesky(A @ A.T, 1e-12)
    np.testing.assert_allclose(T @ T.T, A @ A.T, atol=1e-12)
    assert int(np.any(T, axis=0).sum()) == rank
    np.testing.assert_array_equal(np.triu(T, 1), 0.0)


def test_semidefinite_cholesky_leaves_its_argument_alone():
    Sigma = np.array([[4.0, 2.0], [2.0, 5.0]])
    semidefinite_cholesky(Sigma, 1e-12)
    np.testing.assert_array_equal(Sigma, [[4.0, 2.0], [2.0, 5.0]])


@every
def test_stacks_of_parameters_give_stacks_of_factors(structure, k):
    theta = np.array(
        [[draw(structure, k, 10 * i + j) for j in range(3)] for i in (0, 1)]
    )
    T = structure.factor(theta, k)
    assert T.shape == (2, 3, k, k)
    np.testing.assert_allclose(structure.from_factor(T), theta, rtol=1e-10)
    dT = np.broadcast_to(
        structure.derivatives(theta, k), (2, 3, structure.n_parameters(k), k, k)
    )
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(T[i, j], structure.factor(theta[i, j], k))
        np.testing.assert_array_equal(dT[i, j], structure.derivatives(theta[i, j], k))
