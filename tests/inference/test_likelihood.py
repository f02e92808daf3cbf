"""Likelihoods and information criteria."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixform as mf
from tests import dense_oracle as oracle
from tests.estimate.test_criterion import fit_at

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module", params=["REML", "ML"])
def fitted(request):
    return mf.fit(FORMULA, mf.datasets.load("sleepstudy"), method=request.param)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), reml=st.booleans())
def test_deviance_is_that_of_ml_at_the_same_theta(seed, reml):
    model, data, formula, keywords = oracle.random_model(seed, reml=reml)
    theta = oracle.random_theta(model, seed)
    m = fit_at(theta, data, formula, keywords)
    ml = oracle.Model(model.y, model.X, model.terms, model.weights, False)
    assert m.deviance == pytest.approx(oracle.solve(ml, theta).criterion, abs=1e-7)


def test_deviance_under_ml_is_the_criterion():
    m = mf.fit(FORMULA, mf.datasets.load("sleepstudy"), method="ML")
    assert m.deviance == m.criterion


def test_deviance_under_reml_is_above_the_minimum_of_ml():
    data = mf.datasets.load("sleepstudy")
    reml, ml = (mf.fit(FORMULA, data, method=method) for method in ("REML", "ML"))
    assert reml.deviance > ml.deviance
    assert reml.deviance - ml.deviance < 1.0


def test_information_criteria_count_all_parameters(fitted):
    assert fitted.npar == 6
    assert fitted.aic == pytest.approx(-2.0 * fitted.llf + 12.0)
    assert fitted.bic == pytest.approx(-2.0 * fitted.llf + 6.0 * np.log(180.0))


def test_log_likelihood_is_half_the_criterion(fitted):
    assert fitted.llf == -0.5 * fitted.criterion


def test_likelihood_of_a_model_without_random_terms_is_the_normal_one():
    # Within groups: 53, 46, 58 about 157/3 and 61, 66, 57 about 184/3.
    data = mf.datasets.load("pigs")
    rss = sum(
        np.var(values, ddof=0) * len(values)
        for _, values in data.groupby("group", observed=True)["gain"]
    )
    m = mf.fit("gain ~ group", data, method="ML")
    n = len(data)
    assert m.criterion == pytest.approx(n * (1.0 + np.log(2.0 * np.pi * rss / n)))


def test_weights_enter_the_likelihood():
    # + 0.5 sum log w, as the density of y_i has variance sigma^2 / w_i.
    data = mf.datasets.load("pigs")
    data["w"] = np.array([1.0, 2.0, 4.0, 1.0, 2.0, 4.0])
    m = mf.fit("gain ~ 1", data, weights="w", method="ML")
    w, y = data["w"].to_numpy(), data["gain"].to_numpy()
    mean = w @ y / w.sum()
    s2 = w @ (y - mean) ** 2 / 6
    density = -0.5 * np.log(2 * np.pi * s2 / w) - 0.5 * w * (y - mean) ** 2 / s2
    assert m.llf == pytest.approx(density.sum())
