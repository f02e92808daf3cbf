"""Principal components of random effects against rePCA, and what may be dropped."""

from __future__ import annotations

import numpy as np
import pytest

import mixform as mf
from mixform.inference.diagnostics.pca import random_components
from tests.diagnostics_references import MODELS, matrix, numbers, reference_fit


@pytest.mark.parametrize("name", MODELS)
def test_components_agree_with_lme4(name):
    found = random_components(reference_fit(name))
    for group, reference in MODELS[name]["pca"].items():
        label = "Block:Variety" if group == "Variety:Block" else group
        table = found.table[found.table["grp"] == label]
        np.testing.assert_allclose(table["sd"], numbers(reference["sdev"]), rtol=1e-4)
        np.testing.assert_allclose(
            np.abs(found.loadings[label]), matrix(reference["rotation"]), atol=1e-4
        )


def test_components_rebuild_the_covariance():
    m = mf.fit("score ~ Machine + (0 + Machine | Worker)", mf.datasets.load("Machines"))
    found = random_components(m._fit)
    vectors = found.loadings["Worker"].to_numpy()
    Sigma = m.sigma**2 * vectors * found.table["sd"].to_numpy() ** 2 @ vectors.T
    T = m._fit.T[0]
    np.testing.assert_allclose(Sigma, m.sigma**2 * T @ T.T, rtol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert found.table["cumulative"].iloc[-1] == pytest.approx(1.0)
    assert found.suggestions == ()


def test_terms_of_one_grouping_factor_are_taken_together():
    data = mf.datasets.load("sleepstudy")
    found = random_components(
        mf.fit("Reaction ~ Days + (1|Subject) + (0 + Days|Subject)", data)._fit
    )
    assert list(found.loadings) == ["Subject"]
    assert list(found.loadings["Subject"].index) == ["Intercept", "Days"]


def simulated(intercept, slope, correlated):
    """Data whose slopes vary by ``slope`` and follow the intercepts, or not."""
    rng = np.random.default_rng(5)
    data = mf.datasets.load("sleepstudy")
    codes = data["Subject"].astype("category").cat.codes.to_numpy()
    b = rng.normal(size=18)
    c = b if correlated else rng.normal(size=18)
    noise = rng.normal(size=180)
    effects = intercept * b[codes] + slope * c[codes] * data["Days"]
    return data.assign(Reaction=250.0 + 10.0 * data["Days"] + effects + 3.0 * noise)


def test_a_perfect_correlation_names_both_coefficients_and_smaller_terms():
    data = simulated(30.0, 0.2, correlated=True)
    fit = mf.fit("Reaction ~ Days + (1 + Days | Subject)", data)._fit
    assert fit.singular_terms == (0,)
    (text,) = random_components(fit).suggestions
    assert text == (
        "(1 + Days | Subject) has rank 1, 2 coefficients: 'Intercept' and 'Days' have "
        "correlation 1; try (1 | Subject) or (1 + Days || Subject)."
    )


def test_a_term_without_variance_may_go():
    fit = mf.fit("Yield ~ 1 + (1|Batch)", mf.datasets.load("Dyestuff2"))._fit
    found = random_components(fit)
    assert found.suggestions == (
        "(1 | Batch) has no variance: the model without it fits as well; drop it.",
    )
    assert found.table["proportion"].isna().all()


def test_a_coefficient_without_variance_goes_from_a_diagonal_term():
    data = simulated(30.0, 0.0, correlated=False)
    days = data["Days"] - 4.5
    for rows in data.groupby("Subject", observed=True).groups.values():
        slope = days[rows] @ data.loc[rows, "Reaction"] / (days[rows] @ days[rows])
        data.loc[rows, "Reaction"] -= (slope - 10.0) * days[rows]
    fit = mf.fit("Reaction ~ Days + (1 + Days || Subject)", data)._fit
    assert fit.singular_terms == (0,)  # the subjects' slopes are all equal
    (text,) = random_components(fit).suggestions
    assert text == (
        "(1 + Days || Subject) has rank 1, 2 coefficients: 'Days' has no variance; "
        "try (1 | Subject)."
    )


def test_the_suggested_model_fits_as_well():
    data = simulated(30.0, 0.2, correlated=True)
    full = mf.fit("Reaction ~ Days + (1 + Days | Subject)", data)
    one = mf.fit("Reaction ~ Days + (1 | Subject)", data)
    assert one.criterion >= full.criterion - 1e-6


def test_a_factor_is_dropped_whole():
    rng = np.random.default_rng(3)
    data = mf.datasets.load("Machines")
    worker = data["Worker"].astype("category").cat.codes.to_numpy()
    data["score"] = 50.0 + 5.0 * rng.normal(size=6)[worker] + rng.normal(size=54)
    fit = mf.fit("score ~ Machine + (Machine | Worker)", data)._fit
    assert fit.singular_terms == (0,)
    (text,) = random_components(fit).suggestions
    assert text.startswith("(Machine | Worker) has rank ")
    assert "try (1 | Worker) or (Machine || Worker)." in text


def test_a_model_without_random_effects_has_none():
    found = random_components(
        mf.fit("Reaction ~ Days", mf.datasets.load("sleepstudy"))._fit
    )
    assert len(found.table) == 0
    assert str(found) == "The model has no random effects."
