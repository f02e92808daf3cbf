"""Is it a minimum: the one-sided derivative, false zeros, and the exact boundary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixform as mf
from mixform.design import build_design
from mixform.estimate import certificate as module
from mixform.estimate.certificate import (
    canonical_signs,
    certify,
    interior_parameters,
    leave_along,
    snap_to_boundary,
)
from mixform.estimate.criterion import evaluate
from mixform.estimate.problem import build_problem
from mixform.formula import parse_formula
from tests import dense_oracle as oracle

designs = settings(max_examples=25, deadline=None, derandomize=True)


def problem_of(formula, data, reml=True):
    formula = parse_formula(formula, ("us", "diag"))
    return build_problem(build_design(formula, data), reml=reml)


def dense_one_sided(model, theta, j, space):
    """Return N'SN and N'E N for block j: S = dcriterion/dSigma, E its trace part."""
    dense = oracle.solve(model, theta)
    term = model.terms[j]
    Z = term.Z()
    ZtPZ, ZtPy = Z.T @ dense.P @ Z, Z.T @ dense.P @ model.y
    if not model.reml:
        ZtPZ = Z.T @ np.linalg.inv(model.relative_V(theta)) @ Z
    S, E = np.zeros((2, term.k, term.k))
    for level in range(term.m):
        own = slice(level * term.k, (level + 1) * term.k)
        E += ZtPZ[own, own]
        S += ZtPZ[own, own] - np.outer(ZtPy[own], ZtPy[own]) / dense.sigma2
    return space.T @ S @ space, space.T @ E @ space


@designs
@given(seed=st.integers(0, 10_000), reml=st.booleans())
def test_one_sided_derivative_at_a_zero_block_is_the_dense_one(seed, reml):
    model, data, formula, _ = oracle.random_model(
        seed, reml=reml, terms=2, weighted=False
    )
    problem = problem_of(formula, data, reml)
    terms = tuple(
        oracle.Term(term.codes, term.covariates @ np.linalg.inv(scale), term.diagonal)
        for term, scale in zip(model.terms, problem.Z_scales, strict=True)
    )
    model = oracle.Model(model.y, model.X, terms, model.weights, reml)
    theta = oracle.random_theta(model, seed)
    theta[problem.theta_slices[1]] = 0.0
    S, E = dense_one_sided(model, theta, 1, np.eye(terms[1].k))
    if terms[1].diagonal:
        at = int(np.argmin(np.diag(S)))
        expected = S[at, at] / E[at, at]
    else:
        values, vectors = np.linalg.eigh(S)
        expected = values[0] / (vectors[:, 0] @ E @ vectors[:, 0])
    found = certify(problem, theta, evaluate(problem, theta))
    assert found.smallest_eigenvalue == pytest.approx(expected, rel=1e-4, abs=1e-5)


@designs
@given(seed=st.integers(0, 10_000))
def test_one_sided_derivative_at_a_singular_block_is_the_dense_one(seed):
    rng = np.random.default_rng(seed)
    n, m = 40, 6
    data = {
        "y": rng.normal(size=n),
        "x": rng.normal(size=n),
        "g": np.append(np.arange(m), rng.integers(0, m, n - m)),
    }
    problem = problem_of("y ~ x + (x | g)", data)
    design = np.column_stack([np.ones(n), data["x"]]) @ np.linalg.inv(
        problem.Z_scales[0]
    )
    X = np.column_stack([np.ones(n), data["x"]])
    term = oracle.Term(data["g"], design)
    model = oracle.Model(data["y"], X, (term,), np.ones(n), True)
    theta = np.array([rng.uniform(0.2, 1.0), rng.normal(), 0.0])
    null = np.array([[-theta[1]], [theta[0]]]) / np.hypot(theta[0], theta[1])
    S, E = dense_one_sided(model, theta, 0, null)
    found = certify(problem, theta, evaluate(problem, theta))
    expected = S[0, 0] / E[0, 0]
    assert found.smallest_eigenvalue == pytest.approx(expected, rel=1e-4, abs=1e-5)


REACHED_FROM_ZERO = [
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    ("sleepstudy", "Reaction ~ Days + (Days || Subject)"),
    ("Dyestuff", "Yield ~ 1 + (1 | Batch)"),
    ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    ("Pastes", "strength ~ 1 + (1 | batch/cask)"),
    ("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)"),
    ("Machines", "score ~ Machine + (Machine | Worker)"),
]


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize(("name", "formula"), REACHED_FROM_ZERO)
def test_search_leaves_the_false_zero(name, formula, method):
    data = mf.datasets.load(name)
    best = mf.fit(formula, data, method=method)
    m = mf.fit(formula, data, method=method, start=np.zeros(len(best.theta)))
    assert m.converged
    assert m.criterion == pytest.approx(best.criterion, abs=1e-7)
    np.testing.assert_allclose(m.theta, best.theta, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("start", [[0.0], [1e-6], [0.7], [20.0]])
def test_true_zero_is_certified_from_any_start(start):
    m = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff2"), start=start)
    assert m.converged
    assert m.theta[0] == 0.0
    assert m.singular
    assert m.convergence.smallest_eigenvalue > 0.0


def test_zero_column_at_a_false_zero_is_not_certified():
    data = mf.datasets.load("sleepstudy")
    problem = problem_of("Reaction ~ Days + (Days | Subject)", data)
    theta = np.zeros(3)
    found = certify(problem, theta, evaluate(problem, theta))
    assert found.predicted_decrease == 0.0
    assert found.smallest_eigenvalue < -0.5
    assert found.direction is not None
    moved, count = leave_along(
        problem, theta, evaluate(problem, theta), found.direction
    )
    assert count >= 1
    assert evaluate(problem, moved).criterion < evaluate(problem, theta).criterion


def test_model_without_random_terms_is_certified():
    problem = problem_of("Yield ~ 1", mf.datasets.load("Dyestuff"))
    found = certify(problem, np.empty(0), evaluate(problem, np.empty(0)))
    assert (found.predicted_decrease, found.smallest_eigenvalue) == (0.0, np.inf)


@pytest.mark.parametrize(
    ("theta", "interior"),
    [
        ([1.0, 0.5, 0.3], [True, True, True]),
        ([1.0, 0.5, 0.0], [True, True, False]),
        ([0.0, 0.0, 0.3], [False, False, True]),
        ([0.0, 0.0, 0.0], [False, False, False]),
        ([1.0, 0.0, 0.0], [True, True, False]),
    ],
)
def test_parameters_of_a_zero_column_are_on_the_boundary(theta, interior):
    data = mf.datasets.load("sleepstudy")
    problem = problem_of("Reaction ~ Days + (Days | Subject)", data)
    assert interior_parameters(problem, np.array(theta)).tolist() == interior


def test_each_zero_of_a_diagonal_structure_is_on_the_boundary():
    data = mf.datasets.load("sleepstudy")
    problem = problem_of("Reaction ~ Days + (Days || Subject)", data)
    assert interior_parameters(problem, np.array([0.0, 0.5])).tolist() == [False, True]


def test_canonical_signs_keep_the_covariance():
    data = mf.datasets.load("sleepstudy")
    problem = problem_of("Reaction ~ Days + (Days | Subject)", data)
    theta = np.array([-1.0, 0.5, -0.3])
    signed = canonical_signs(problem, theta)
    np.testing.assert_allclose(signed, [1.0, -0.5, 0.3])
    (T,), (U,) = problem.factors(theta), problem.factors(signed)
    np.testing.assert_allclose(T @ T.T, U @ U.T)


def test_small_pivot_is_put_to_zero_where_the_criterion_allows():
    problem = problem_of("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff2"))
    theta = np.array([1e-3])
    snapped, _, count = snap_to_boundary(problem, theta, evaluate(problem, theta))
    assert snapped[0] == 0.0
    assert count == 1


def test_small_pivot_stays_where_zero_is_worse():
    data = mf.datasets.load("Dyestuff")
    problem = problem_of("Yield ~ 1 + (1 | Batch)", data)
    theta = np.array([0.9 * module.SMALL_PIVOT])
    snapped, _, _ = snap_to_boundary(problem, theta, evaluate(problem, theta))
    assert snapped[0] == theta[0]


def test_loose_column_is_moved_onto_its_own_pivot():
    # T = [[0, 0], [1, 0]] is Sigma = diag(0, 1); its Cholesky factor is that.
    data = mf.datasets.load("sleepstudy")
    problem = problem_of("Reaction ~ Days + (Days | Subject)", data)
    theta = np.array([0.0, 1.0, 0.0])
    snapped, here, _ = snap_to_boundary(problem, theta, evaluate(problem, theta))
    np.testing.assert_allclose(snapped, [0.0, 0.0, 1.0])
    assert here.criterion == pytest.approx(evaluate(problem, theta).criterion)


def test_nearly_zero_variance_beside_a_large_one_is_not_a_false_zero():
    """Groups that all but agree within, and a second grouping without any effect."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(200), 3)
    h = np.tile(np.arange(30), 20)
    y = 1e-2 * rng.normal(size=200)[g] + rng.normal(size=600)
    data = {"y": y, "g": g, "h": h}
    for start in ([0.0, 0.0], [0.7, 0.7], [5.0, 1e-8], [1e-8, 5.0]):
        m = mf.fit("y ~ 1 + (1 | g) + (1 | h)", data, start=start)
        assert m.converged
        assert m.criterion == pytest.approx(
            mf.fit("y ~ 1 + (1 | g) + (1 | h)", data).criterion, abs=1e-7
        )


@pytest.mark.parametrize("seed", range(12))
def test_certified_point_is_a_local_minimum_of_the_covariance_matrix(seed):
    """Any small step of Sigma inside the cone raises the dense criterion."""
    rng = np.random.default_rng(seed)
    n, m = 48, 8
    g, x = np.repeat(np.arange(m), 6), rng.normal(size=n)
    b = rng.normal(size=(m, 1)) @ rng.normal(size=(1, 2)) * rng.choice([0.0, 0.5, 2.0])
    data = {"y": b[g, 0] + b[g, 1] * x + rng.normal(size=n), "x": x, "g": g}
    fit = mf.fit("y ~ x + (x | g)", data)
    assert fit.converged
    design = np.column_stack([np.ones(n), x])
    model = oracle.Model(data["y"], design, (oracle.Term(g, design),), np.ones(n), True)
    (T,) = fit._fit.T
    best = oracle.solve(model, fit.theta).criterion
    for _ in range(40):
        half = np.hstack([T, 10.0 ** rng.uniform(-4, -1) * rng.normal(size=(2, 1))])
        half[:, :2] *= 1.0 + 10.0 ** rng.uniform(-4, -1) * rng.normal()
        moved = np.linalg.qr(half.T)[1].T
        theta = moved[[0, 1, 1], [0, 0, 1]]
        assert oracle.solve(model, theta).criterion >= best - 1e-8


def test_search_beside_a_singular_covariance_does_not_crawl():
    """The first variance is nearly zero: turning T's other columns costs nothing."""
    rng = np.random.default_rng(1093)
    rng.random()
    m, k = rng.integers(2, 7, 2)
    n = int(rng.integers(15, 60))
    g, h = rng.integers(0, m, n), rng.integers(0, k, n)
    g[:m], h[:k] = np.arange(m), np.arange(k)
    x = rng.normal(size=n)
    b = rng.normal(size=(m, 2)) * rng.choice([0, 0.5, 2], 2)
    c = rng.normal(size=k) * rng.choice([0, 0.5, 2])
    y = b[g, 0] + b[g, 1] * x + c[h] + rng.normal(size=n)
    data = {"y": y, "x": x, "g": g, "h": h}
    fit = mf.fit("y ~ x + (x | g) + (x | h)", data, method="ML")
    assert fit.converged
    assert fit.convergence.n_evaluations < 120
