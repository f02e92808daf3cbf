"""Satterthwaite's degrees of freedom: by hand, by dense algebra, at the boundary."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixform as mf
from mixform.errors import ConvergenceWarning, InferenceError, MixformWarning
from mixform.inference.satterthwaite import (
    satterthwaite,
    satterthwaite_f,
    variance_model,
)
from tests import dense_oracle as oracle

designs = settings(max_examples=25, deadline=None, derandomize=True)


def test_df_of_a_single_variance_is_its_own():
    # Var(beta) = sigma^2 c, Var(sigma^2) = 2 sigma^4 / nu: df = nu.
    c, sigma2, nu = 0.25, 3.0, 7.0
    df = satterthwaite(
        np.array([1.0]),
        np.array([[c * sigma2]]),
        np.array([[[c]]]),
        np.array([[2.0 * sigma2**2 / nu]]),
    )
    assert df == pytest.approx(nu)


def test_df_of_two_independent_mean_squares_is_the_formula_of_1946():
    # (a1 s1 + a2 s2)^2 / ((a1 s1)^2 / nu1 + (a2 s2)^2 / nu2), Welch's df.
    a, s, nu = np.array([0.1, 0.3]), np.array([4.0, 2.0]), np.array([5.0, 12.0])
    df = satterthwaite(
        np.array([1.0]),
        np.array([[a @ s]]),
        a.reshape(2, 1, 1),
        np.diag(2.0 * s**2 / nu),
    )
    assert df == pytest.approx((a @ s) ** 2 / np.sum((a * s) ** 2 / nu))


def test_df_does_not_depend_on_the_length_of_the_contrast():
    rng = np.random.default_rng(0)
    V, dV, V_phi = np.eye(3), rng.normal(size=(2, 3, 3)), np.eye(2)
    dV = dV + dV.transpose(0, 2, 1)
    ell = np.array([1.0, -2.0, 0.5])
    once = satterthwaite(ell, V, dV, V_phi)
    assert satterthwaite(1e-6 * ell, V, dV, V_phi) == pytest.approx(once)


def test_no_variance_of_the_variance_is_an_error():
    one = np.ones((1, 1))
    with pytest.raises(InferenceError, match="is 0, not > 0"):
        satterthwaite(one[0], one, np.zeros((1, 1, 1)), one)


@pytest.mark.parametrize(
    ("nu", "expected"),
    [
        ([7.0], 7.0),
        ([1.5], 1.5),  # a single t needs no expectation
        ([7.0, 7.0, 7.0], 7.0),
        # E = 10/8 + 5/3 = 35/12; 2 E / (E - 2) = (70/12) / (11/12)
        ([10.0, 5.0], 70.0 / 11.0),
        ([10.0, 2.0], 2.0),
        ([1.0, 30.0, 30.0], 2.0),
    ],
)
def test_df_of_f_matches_the_expectation_of_its_parts(nu, expected):
    assert satterthwaite_f(np.array(nu)) == pytest.approx(expected)


def test_df_of_f_of_many_chi_squares_is_large():
    assert satterthwaite_f(np.array([1e8, 2e8])) > 1e8


def fit_quietly(formula, data, keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixformWarning)
        return mf.fit(formula, data, **keywords)


def effective_draw(seed, reml):
    """Draw a model with true variances, so that its optimum is often inside."""
    model, data, formula, keywords = oracle.random_model(
        seed, reml=reml, terms=1 + seed % 2, p=2, n=40
    )
    rng = np.random.default_rng(seed + 1)
    y = model.y.copy()
    for term in model.terms:
        size = np.sqrt(np.mean(term.covariates**2, axis=0))
        b = 4.0 * rng.normal(size=(term.m, term.k)) / size
        y += np.einsum("ij,ij->i", term.covariates, b[term.codes])
    data["y"] = y + data.get("o", 0.0)
    model = oracle.Model(y, model.X, model.terms, model.weights, reml)
    return model, data, formula, keywords


@designs
@given(seed=st.integers(0, 10_000), reml=st.booleans())
def test_df_are_those_of_dense_differences(seed, reml):
    model, data, formula, keywords = effective_draw(seed, reml)
    m = fit_quietly(formula, data, keywords)
    if variance_model(m._fit).V_phi is None or not m.converged:
        return
    values = np.linalg.eigvalsh(variance_model(m._fit).V_phi)
    if values[-1] > 1e6:  # a nearly flat direction: differences of what?
        return
    # At the boundary the zero columns stay zero.
    interior = np.flatnonzero(m._fit.interior)
    for j, ell in enumerate(np.eye(len(m.params))):
        df = oracle.satterthwaite_df(model, m.theta, m.sigma, ell, interior)
        assert m.ddf.iloc[j] == pytest.approx(df, rel=1e-4)


@designs
@given(seed=st.integers(0, 10_000), reml=st.booleans())
def test_derivatives_of_V_beta_are_the_dense_ones(seed, reml):
    model, data, formula, keywords = effective_draw(seed, reml)
    m = fit_quietly(formula, data, keywords)
    record = m._fit
    # phi of the record: the theta of the scaled problem, sigma relative to its value.
    scaled = tuple(
        oracle.Term(term.codes, term.covariates @ np.linalg.inv(scale), term.diagonal)
        for term, scale in zip(
            model.terms, record.evaluation.problem.Z_scales, strict=True
        )
    )
    model = oracle.Model(model.y, model.X, scaled, model.weights, reml)
    phi = np.append(record.scaled_theta, record.sigma)
    free = np.flatnonzero(np.append(record.interior, True))
    exact = oracle.derivatives(lambda at: oracle.V_beta(model, at), phi, free)
    exact[-1] *= record.sigma
    se = m.bse.to_numpy()
    scale = np.outer(se, se)
    ours = variance_model(record).dV_beta
    np.testing.assert_allclose(ours / scale, exact / scale, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("term", ["(1 | h)", "(0 + Days | h)", "(Days || h)"])
def test_term_with_zero_variance_does_not_change_the_tests(term):
    data = mf.datasets.load("sleepstudy")
    # Levels that share out the rows of each subject and day alike explain nothing.
    data["h"] = np.arange(180) % 5
    without = mf.fit("Reaction ~ Days + (Days | Subject)", data)
    m = mf.fit(f"Reaction ~ Days + (Days | Subject) + {term}", data)
    np.testing.assert_array_equal(m.theta[3:], 0.0)
    np.testing.assert_allclose(m.ddf, without.ddf, rtol=1e-5)
    np.testing.assert_allclose(m.bse, without.bse, rtol=1e-6)
    np.testing.assert_allclose(m.anova(), without.anova(), rtol=1e-5)


def test_zero_variance_is_as_in_lmertests_zerovar_example():
    """(Days | Subject) + (1 | g2), g2 two levels without effect (test_zerovar.R)."""
    data = mf.datasets.load("sleepstudy")
    data["g2"] = np.resize(["a", "b"], 180)
    without = mf.fit("Reaction ~ Days + (Days | Subject)", data)
    m = mf.fit("Reaction ~ Days + (Days | Subject) + (1 | g2)", data)
    assert m.theta[3] == 0.0
    np.testing.assert_allclose(m.ddf, without.ddf, rtol=1e-5)
    np.testing.assert_allclose(m.pvalues, without.pvalues, rtol=1e-5)
    np.testing.assert_allclose(m.anova(), without.anova(), rtol=1e-5)


def test_model_without_random_terms_has_n_minus_p_df():
    m = mf.fit("gain ~ group", mf.datasets.load("pigs"))
    np.testing.assert_allclose(m.ddf, 4.0)


def test_ml_without_random_terms_has_n_df():
    # Var(sigma^2) = 2 sigma^4 / n under ML.
    m = mf.fit("gain ~ group", mf.datasets.load("pigs"), method="ML")
    np.testing.assert_allclose(m.ddf, 6.0)


def test_point_that_is_no_minimum_has_no_df_and_says_why():
    data = mf.datasets.load("Dyestuff")
    with pytest.warns(ConvergenceWarning):
        m = mf.fit(
            "Yield ~ 1 + (1 | Batch)",
            data,
            start=[0.05],
            control={"max_evaluations": 1},
        )
    assert variance_model(m._fit).V_phi is None
    assert "not positive definite" in m._approximation("satterthwaite").note
    assert m.ddf.isna().all()
    assert m.pvalues.isna().all()
    assert m.bse.notna().all()
