"""Residuals against dense matrices, least squares, and lme4."""

from __future__ import annotations

import numpy as np
import pytest

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.diagnostics.residuals import (
    KINDS,
    cooks_distance,
    marginal_variances,
    residuals,
)
from tests import dense_oracle as oracle
from tests.diagnostics_references import (
    MODELS,
    dense,
    numbers,
    random_fit,
    reference_fit,
)

SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_studentized_residuals_divide_by_the_variances_of_dense_matrices(seed):
    model, fit = random_fit(seed, p=3)
    V, X, y = dense(model, fit)
    there = oracle.solve(model, fit.theta)
    R = np.diag(1.0 / model.weights)
    marginal = y - X @ fit.beta
    conditional = R @ np.linalg.solve(V, marginal)
    Q = X @ np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T)
    for level, raw, data, own in (
        ("marginal", marginal, V, V - Q),
        ("conditional", conditional, R, R @ there.P @ R),
    ):
        np.testing.assert_allclose(
            residuals(fit, "response", level), raw, rtol=1e-7, atol=1e-9
        )
        np.testing.assert_allclose(
            residuals(fit, "pearson", level),
            raw / (fit.sigma * np.sqrt(np.diag(data))),
            rtol=1e-7,
            atol=1e-9,
        )
        np.testing.assert_allclose(
            residuals(fit, "studentized", level),
            raw / (fit.sigma * np.sqrt(np.diag(own))),
            rtol=1e-6,
            atol=1e-9,
        )


@pytest.mark.parametrize("reml", [True, False])
def test_deleted_residuals_have_sigma_of_the_other_rows_at_the_same_theta(reml):
    model, fit = random_fit(3, reml=reml, p=3)
    V, X, y = dense(model, fit)
    n = len(y)
    found = residuals(fit, "deleted")
    for i in (0, 7, n - 1):
        keep = np.arange(n) != i
        W = np.linalg.inv(V[np.ix_(keep, keep)])
        beta = np.linalg.solve(X[keep].T @ W @ X[keep], X[keep].T @ W @ y[keep])
        rest = y[keep] - X[keep] @ beta
        sigma2 = rest @ W @ rest / (n - 1 - (X.shape[1] if reml else 0))
        # The standard error of y_i - (its prediction without it), sigma that of the
        # others, is what a deleted residual divides by.
        v = V[i, keep]
        prediction = X[i] @ beta + v @ W @ rest
        gap = X[i] - X[keep].T @ W @ v
        variance = V[i, i] - v @ W @ v
        variance += gap @ np.linalg.solve(X[keep].T @ W @ X[keep], gap)
        expected = (y[i] - prediction) / np.sqrt(sigma2 * variance)
        assert found.iloc[i] == pytest.approx(expected, rel=1e-6)


def test_without_random_effects_deleted_residuals_are_those_of_statsmodels():
    import statsmodels.api as sm

    data = mf.datasets.load("sleepstudy")
    fit = mf.fit("Reaction ~ Days", data)._fit
    ols = sm.OLS(data["Reaction"], sm.add_constant(data["Days"])).fit()
    influence = ols.get_influence()
    np.testing.assert_allclose(
        residuals(fit, "deleted"), influence.resid_studentized_external, rtol=1e-9
    )
    for level in ("marginal", "conditional"):
        np.testing.assert_allclose(
            residuals(fit, "studentized", level),
            influence.resid_studentized_internal,
            rtol=1e-9,
        )
    np.testing.assert_allclose(
        cooks_distance(fit), influence.cooks_distance[0], rtol=1e-8
    )


@pytest.mark.parametrize("name", MODELS)
def test_pearson_residuals_and_cooks_distance_agree_with_lme4(name):
    fit, reference = reference_fit(name), MODELS[name]
    scaled = numbers(reference["scaled"])
    np.testing.assert_allclose(residuals(fit, "pearson"), scaled, atol=2e-5)
    np.testing.assert_allclose(residuals(fit, "scaled"), scaled, atol=2e-5)
    cooks = numbers(reference["cooks"])
    np.testing.assert_allclose(
        cooks_distance(fit), cooks, rtol=1e-4, atol=1e-5 * cooks.max()
    )


def test_a_row_alone_in_its_factor_level_has_no_standard_error():
    data = mf.datasets.load("sleepstudy")
    data["odd"] = np.where(np.arange(len(data)) == 17, "one", "other")
    fit = mf.fit("Reaction ~ Days + odd + (1 | Subject)", data)._fit
    for kind, level in (
        ("studentized", "conditional"),
        ("deleted", "conditional"),
        ("studentized", "marginal"),
    ):
        found = residuals(fit, kind, level)
        assert np.isnan(found.iloc[17]) == (level == "conditional")
        assert found.drop(index=found.index[17]).notna().all()
    assert np.isnan(cooks_distance(fit).iloc[17])


@pytest.mark.parametrize("kind", KINDS)
def test_residuals_keep_the_index_and_follow_the_units_of_y(kind):
    data = mf.datasets.load("sleepstudy").iloc[::-1]
    data.loc[3, "Days"] = np.nan
    fit = mf.fit("Reaction ~ Days + (Days | Subject)", data)._fit
    found = residuals(fit, kind)
    assert list(found.index) == [i for i in data.index if i != 3]
    scaled = data.assign(Reaction=1000.0 * data["Reaction"])
    other = residuals(mf.fit("Reaction ~ Days + (Days | Subject)", scaled)._fit, kind)
    factor = 1000.0 if kind == "response" else 1.0
    np.testing.assert_allclose(other, factor * found, rtol=1e-5, atol=1e-6 * factor)


def test_marginal_variances_of_a_weighted_model_are_the_diagonal_of_V():
    model, fit = random_fit(2, p=2)
    V, _, _ = dense(model, fit)
    np.testing.assert_allclose(
        marginal_variances(fit), fit.sigma**2 * np.diag(V), rtol=1e-9
    )


def test_unknown_kinds_levels_and_deleted_marginal_residuals_are_refused():
    fit = reference_fit("sleep")
    with pytest.raises(InferenceError, match=r"kind of residuals 'student'"):
        residuals(fit, "student")
    with pytest.raises(InferenceError, match="Did you mean 'marginal'"):
        residuals(fit, "pearson", "margin")
    with pytest.raises(InferenceError, match="Deleted residuals are conditional"):
        residuals(fit, "deleted", "marginal")
    empty = mf.fit("Reaction ~ 0 + (1|Subject)", mf.datasets.load("sleepstudy"))._fit
    with pytest.raises(InferenceError, match="needs a fixed effect"):
        cooks_distance(empty)
