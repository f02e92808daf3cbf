"""Oracle: the criterion, its gradient and its information against dense algebra."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixform as mf
from mixform.design import build_design
from mixform.errors import MixformWarning, SolverError
from mixform.estimate.criterion import average_information, evaluate, gradient
from mixform.estimate.problem import build_problem
from mixform.formula import parse_formula
from tests import dense_oracle as oracle

designs = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)


def fit_at(theta, data, formula, keywords):
    """Solve a model at a given theta, without a search."""
    control = {"max_evaluations": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixformWarning)
        return mf.fit(formula, data, start=theta, control=control, **keywords)


def scaled_problem(data, formula, keywords):
    """Return the problem that a search works on, and its model by dense algebra."""
    keywords = dict(keywords)
    reml = keywords.pop("method") == "REML"
    formula = parse_formula(formula, ("us", "diag"))
    return build_problem(build_design(formula, data, **keywords), reml=reml)


def scaled_pair(seed, reml):
    model, data, formula, keywords = oracle.random_model(seed, reml=reml)
    problem = scaled_problem(data, formula, keywords)
    terms = tuple(
        oracle.Term(term.codes, term.covariates @ np.linalg.inv(scale), term.diagonal)
        for term, scale in zip(model.terms, problem.Z_scales, strict=True)
    )
    scaled = oracle.Model(model.y, model.X, terms, model.weights, reml)
    return problem, scaled, oracle.random_theta(scaled, seed)


@designs
@given(seed=seeds, reml=st.booleans())
def test_fit_at_any_theta_is_generalized_least_squares(seed, reml):
    model, data, formula, keywords = oracle.random_model(seed, reml=reml)
    theta = oracle.random_theta(model, seed)
    m, dense = (
        fit_at(theta, data, formula, keywords),
        oracle.solve(model, theta),
    )
    assert m.criterion == pytest.approx(dense.criterion, rel=1e-10, abs=1e-8)
    assert m.sigma**2 == pytest.approx(dense.sigma2, rel=1e-9)
    np.testing.assert_allclose(m.theta, theta, rtol=1e-12)
    se = np.sqrt(np.diag(dense.V_beta))
    np.testing.assert_allclose(m.params / se, dense.beta / se, rtol=1e-8, atol=1e-8)
    scaled = m.cov_params() / np.outer(se, se)
    np.testing.assert_allclose(scaled, dense.V_beta / np.outer(se, se), atol=1e-8)


@designs
@given(seed=seeds, reml=st.booleans())
def test_random_effects_at_any_theta_are_blups(seed, reml):
    model, data, formula, keywords = oracle.random_model(seed, reml=reml)
    theta = oracle.random_theta(model, seed)
    m, dense = (
        fit_at(theta, data, formula, keywords),
        oracle.solve(model, theta),
    )
    b = [part.ravel() for part in m._fit.b]
    np.testing.assert_allclose(np.concatenate(b), dense.b, rtol=1e-7, atol=1e-8)
    offset = data.get("o", 0.0)
    fitted = model.X @ dense.beta + model.Z() @ dense.b + offset
    np.testing.assert_allclose(m.fittedvalues, fitted, rtol=1e-8)


@designs
@given(seed=seeds, reml=st.booleans())
def test_gradient_is_the_derivative_of_the_dense_criterion(seed, reml):
    problem, model, theta = scaled_pair(seed, reml)
    g = gradient(evaluate(problem, theta), theta)
    exact = oracle.derivatives(lambda at: oracle.solve(model, at).criterion, theta)
    np.testing.assert_allclose(g, exact, rtol=1e-8, atol=1e-8)


@designs
@given(seed=seeds, reml=st.booleans())
def test_gradient_is_the_difference_of_the_criterion(seed, reml):
    problem, _, theta = scaled_pair(seed, reml)
    g = gradient(evaluate(problem, theta), theta)
    for k, step in enumerate(np.eye(len(theta)) * 1e-5):
        there, back = (
            evaluate(problem, theta + step),
            evaluate(problem, theta - step),
        )
        difference = (there.criterion - back.criterion) / 2e-5
        assert g[k] == pytest.approx(difference, rel=1e-6, abs=1e-6)


@designs
@given(seed=seeds, reml=st.booleans())
def test_average_information_is_its_dense_formula(seed, reml):
    problem, model, theta = scaled_pair(seed, reml)
    A = average_information(evaluate(problem, theta), theta)
    dense = oracle.solve(model, theta)
    Py = dense.P @ model.y
    dV = oracle.derivatives(model.relative_V, theta)
    q = dV @ Py
    linear = q @ Py
    r2 = model.y @ Py
    exact = (q @ dense.P @ q.T - np.outer(linear, linear) / r2) / dense.sigma2
    np.testing.assert_allclose(A, exact, rtol=1e-8, atol=1e-8)


@designs
@given(seed=seeds, reml=st.booleans())
def test_average_information_is_positive_semidefinite(seed, reml):
    problem, _, theta = scaled_pair(seed, reml)
    values = np.linalg.eigvalsh(average_information(evaluate(problem, theta), theta))
    assert values[0] >= -1e-12 * values[-1]


@pytest.mark.parametrize("reml", [True, False])
def test_criterion_of_a_zero_variance_is_that_of_the_model_without_it(reml):
    _, data, formula, keywords = oracle.random_model(3, reml=reml, terms=2)
    problem = scaled_problem(data, formula, keywords)
    shorter = scaled_problem(data, formula.rsplit(" + (", 1)[0], keywords)
    theta = problem.start()
    theta[problem.theta_slices[1]] = 0.0
    with_it = evaluate(problem, theta)
    without = evaluate(shorter, theta[: shorter.n_theta])
    assert with_it.criterion == pytest.approx(without.criterion, abs=1e-10)
    np.testing.assert_allclose(with_it.beta, without.beta, rtol=1e-9)


def test_gradient_at_a_zero_column_is_zero_by_symmetry():
    sleepstudy = mf.datasets.load("sleepstudy")
    problem = scaled_problem(
        sleepstudy, "Reaction ~ Days + (Days | Subject)", {"method": "REML"}
    )
    theta = np.array([0.9, 0.1, 0.0])
    g = gradient(evaluate(problem, theta), theta)
    assert g[2] == 0.0
    assert abs(g[1]) > 1.0


def test_nothing_left_of_y_is_an_error():
    data = {"y": [1.0, 1.0, 2.0, 2.0, 5.0, 5.0], "g": list("aabbcc")}
    with pytest.raises(SolverError, match="no residual variance is left"):
        mf.fit("y ~ 1 + (1 | g)", data)
