"""Mixed model equations of given matrices: GLS, estimability, conjugate gradients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

import mixform as mf
from mixform.errors import DesignError, InferenceError


def matrices(seed=0, n=12, q=6):
    rng = np.random.default_rng(seed)
    groups = np.eye(3)[np.arange(n) % 3]
    X = np.column_stack([np.ones(n), groups])  # rank 3 of 4
    Z = np.eye(q)[rng.integers(0, q, n)]
    root = rng.normal(size=(q, q))
    G = root @ root.T + np.eye(q)
    R = rng.uniform(0.5, 2.0, n)
    return rng.normal(size=n) + 3.0, X, Z, G, R


@pytest.mark.parametrize("solver", ["direct", "cg"])
@pytest.mark.parametrize("sparse", [False, True])
def test_solutions_are_generalized_least_squares_and_blup(solver, sparse):
    y, X, Z, G, R = matrices()
    give = csr_array if sparse else np.asarray
    equations = mf.MixedModelEquations(y, give(X), give(Z), G=G, R=R)
    s = equations.solve(solver)
    V = Z @ G @ Z.T + np.diag(R)
    inverse = np.linalg.inv(V)
    full = X[:, 1:]
    C = np.linalg.inv(full.T @ inverse @ full)
    means = C @ full.T @ inverse @ y
    K = np.column_stack([np.ones(3), np.eye(3)])
    estimates, variances = s.estimate(K)
    np.testing.assert_allclose(estimates, means, rtol=1e-7)
    u = G @ Z.T @ inverse @ (y - full @ means)
    np.testing.assert_allclose(s.u, u, atol=1e-7)
    assert s.residual < 1e-9
    if solver == "direct":
        P = inverse - inverse @ full @ C @ full.T @ inverse
        np.testing.assert_allclose(variances, C.diagonal())
        np.testing.assert_allclose(s.pev, (G - G @ Z.T @ P @ Z @ G).diagonal())
    with pytest.raises(InferenceError, match=r"Row 1 .* is not estimable: adding 1"):
        s.estimate([1.0, 0.0, 0.0, 0.0])


def test_inverses_can_be_given():
    y, X, Z, G, R = matrices()
    one = mf.MixedModelEquations(y, X, Z, G=G, R=np.diag(R)).solve()
    two = mf.MixedModelEquations(
        y, X, Z, Ginv=np.linalg.inv(G), Rinv=csr_array(np.diag(1.0 / R))
    ).solve()
    np.testing.assert_allclose(one.beta, two.beta)
    np.testing.assert_allclose(one.u, two.u)


def test_what_is_refused():
    y, X, Z, G, R = matrices()
    with pytest.raises(DesignError, match="G or Ginv"):
        mf.MixedModelEquations(y, X, Z)
    with pytest.raises(DesignError, match="G is not positive definite"):
        mf.MixedModelEquations(y, X, Z, G=np.zeros((6, 6)))
    with pytest.raises(DesignError, match="Z has 5 rows"):
        mf.MixedModelEquations(y, X, Z[:5], G=G)
    with pytest.raises(DesignError, match="Unknown solver 'qr'"):
        mf.MixedModelEquations(y, X, Z, G=G, R=R).solve("qr")


@pytest.mark.parametrize("name", ["G", "Ginv", "R", "Rinv"])
def test_asymmetric_matrices_are_refused(name):
    """Half of one would be read, and the other half left out without a word."""
    y, X, Z, G, R = matrices()
    given = {"G": G, "R": np.diag(R)}
    if name.endswith("inv"):
        given = {f"{key}inv": np.linalg.inv(value) for key, value in given.items()}
    given[name] = given[name].copy()
    given[name][0, 1] += 0.1
    with pytest.raises(DesignError, match=rf"^{name} is not symmetric: .* by 0\.1\."):
        mf.MixedModelEquations(y, X, Z, **given)


@pytest.mark.parametrize("name", ["y", "X", "Z", "G", "R"])
def test_missing_values_are_refused_by_name(name):
    given = dict(zip("yXZGR", matrices(), strict=True))
    given[name] = given[name].copy()
    given[name].flat[0] = np.nan
    with pytest.raises(DesignError, match=f"^{name} has missing or infinite values"):
        mf.MixedModelEquations(**given)


def test_a_solution_prints_without_its_large_matrices():
    y, X, Z, G, R = matrices()
    shown = repr(mf.MixedModelEquations(y, X, Z, G=G, R=R).solve())
    assert "beta=" in shown
    assert "C_inverse" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": ["a", "b"]}, "y is not numeric"),
        ({"X": [["a"], ["b"]]}, "X is not numeric"),
        ({"Z": np.eye(2) * 1j}, "Z is not numeric"),
        ({"G": [["a", 1], [1, 2]]}, "G is not numeric"),
        ({"R": [1.0, 2.0, 3.0]}, r"R has shape \(3,\), not \(2, 2\)"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_named(arguments, message):
    given = {"y": [1.0, 2.0], "X": np.ones((2, 1)), "Z": np.eye(2), "G": np.eye(2)}
    with pytest.raises(DesignError, match=message):
        mf.MixedModelEquations(**{**given, **arguments})


def test_rows_to_estimate_are_numbers():
    solved = mf.MixedModelEquations(
        [1.0, 2.0], np.ones((2, 1)), np.eye(2), G=np.eye(2)
    ).solve()
    with pytest.raises(DesignError, match="K is not numeric"):
        solved.estimate(["a"])
