"""R^2 and intraclass correlations: by hand, least squares, and R's performance."""

from __future__ import annotations

import numpy as np
import pytest

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.diagnostics.fit_measures import icc, r2
from tests.diagnostics_references import (
    MODELS,
    dense,
    numbers,
    random_fit,
    reference_fit,
)

UNWEIGHTED = [name for name, model in MODELS.items() if model["weights"] is None]


def test_balanced_intercepts_are_ratios_of_the_anova_components():
    data = mf.datasets.load("Rail")
    rails = data.groupby("Rail", observed=True)["travel"]
    means = rails.mean()
    within = data["travel"] - rails.transform("mean")
    error = float(np.sum(within**2)) / 12
    between = float(means.var()) - error / 3
    found = icc(mf.fit("travel ~ 1 + (1|Rail)", data)._fit)
    assert found.adjusted == pytest.approx(between / (between + error), rel=1e-6)
    assert found.unadjusted == found.adjusted  # a constant explains no variance
    assert list(found.by_group.index) == ["Rail"]


@pytest.mark.parametrize("name", UNWEIGHTED)
def test_r2_and_icc_agree_with_performance(name):
    reference = MODELS[name]["fit"]
    share, correlation = r2(reference_fit(name)), icc(reference_fit(name))
    expected = numbers(
        [
            reference[key]
            for key in ("marginal", "conditional", "adjusted", "unadjusted")
        ]
    )
    found = [
        share.marginal,
        share.conditional,
        correlation.adjusted,
        correlation.unadjusted,
    ]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-12)
    for group, value in reference.get("by_group", {}).items():
        label = "Block:Variety" if group == "Variety:Block" else group
        ours = correlation.by_group.loc[label, "adjusted"]
        assert ours == pytest.approx(float(value), rel=2e-5)


@pytest.mark.parametrize("seed", range(6))
def test_variances_are_means_of_the_dense_diagonals(seed):
    model, fit = random_fit(seed, p=3)
    V, X, _ = dense(model, fit)
    found = r2(fit)
    fixed = np.var(X @ fit.beta, ddof=1)
    total = fixed + fit.sigma**2 * np.mean(np.diag(V))
    assert found.residual == pytest.approx(fit.sigma**2 * np.mean(1.0 / model.weights))
    assert found.marginal == pytest.approx(fixed / total, rel=1e-9)
    assert found.fixed + found.random + found.residual == pytest.approx(total)
    parts = icc(fit)
    assert parts.by_group["adjusted"].sum() == pytest.approx(parts.adjusted)
    assert parts.by_group["unadjusted"].sum() == pytest.approx(parts.unadjusted)


@pytest.mark.parametrize(
    "formula", ["Reaction ~ Days", "Reaction ~ 0 + Days", "Reaction ~ 0 + Subject"]
)
def test_least_squares_has_the_r2_of_statsmodels(formula):
    import statsmodels.formula.api as smf

    data = mf.datasets.load("sleepstudy")
    weights = 1.0 + data["Days"]
    found = r2(mf.fit(formula, data, weights=weights)._fit)
    expected = smf.wls(formula, data, weights=weights).fit().rsquared
    assert found.marginal == found.conditional == pytest.approx(expected, rel=1e-10)


def test_r2_does_not_depend_on_units_or_an_offset_taken_out_of_y():
    data = mf.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    expected = r2(mf.fit(formula, data)._fit)
    moved = data.assign(
        Reaction=10.0 * data["Reaction"] + 7.0 * data["Days"], Days=data["Days"] / 24.0
    )
    found = r2(mf.fit(formula, moved, offset=7.0 * data["Days"])._fit)
    assert found.marginal == pytest.approx(expected.marginal, rel=1e-6)
    assert found.conditional == pytest.approx(expected.conditional, rel=1e-6)


def test_a_model_without_random_effects_has_no_icc():
    fit = mf.fit("Reaction ~ Days", mf.datasets.load("sleepstudy"))._fit
    with pytest.raises(InferenceError, match="need a random effect"):
        icc(fit)


def test_measures_print():
    fit = reference_fit("oats")
    assert str(r2(fit)).startswith("R2 marginal 0.393")
    assert "Block:Variety" in str(icc(fit))
