"""Tests of random terms against lmerTest's ranova, and by closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.selection.comparison import compare
from mixform.inference.selection.ranova import ranova
from mixform.report.comparison import comparison_table
from tests.comparison_references import canonical, column, fit_of, tables

RANOVA, WHOLE = tables("ranova"), tables("ranova_whole")
NAMES = {"npar": "npar", "llf": "logLik", "aic": "AIC", "lrt": "LRT", "num_df": "Df"}


def check(reference, reduce_terms):
    fit = fit_of(reference["formulas"][0], reference["dataset"], reference["method"])
    table, _, _ = ranova(fit, reduce_terms=reduce_terms)
    table.index = pd.Index([canonical(label) for label in table.index])
    labels = [canonical(label) for label in reference["rows"]]
    assert set(table.index) == set(labels)
    table = table.loc[labels]
    for ours, theirs in NAMES.items():
        np.testing.assert_allclose(
            table[ours], column(reference, theirs), rtol=1e-8, atol=2e-6
        )
    p = column(reference, "Pr(>Chisq)")
    np.testing.assert_allclose(table["p_value"], p, rtol=1e-5)


@pytest.mark.parametrize("name", RANOVA)
def test_reduced_terms_are_lmertests(name):
    check(RANOVA[name], True)


@pytest.mark.parametrize("name", [n for n in WHOLE if n != "sleepstudy_bars"])
def test_whole_terms_are_lmertests(name):
    check(WHOLE[name], False)


def test_independent_coefficients_go_one_by_one():
    # lme4 reads (Days || Subject) as two terms.
    fit = fit_of("Reaction ~ Days + (Days || Subject)", "sleepstudy", "REML")
    table, _, _ = ranova(fit)
    assert list(table.index) == [
        "<none>",
        "1 in (Days || Subject)",
        "Days in (Days || Subject)",
    ]
    reference = WHOLE["sleepstudy_bars"]
    np.testing.assert_allclose(table["lrt"], column(reference, "LRT"), atol=1e-6)
    p = column(reference, "Pr(>Chisq)")
    np.testing.assert_allclose(table["p_value"], p, rtol=1e-5)
    np.testing.assert_allclose(table["p_mixture"], 0.5 * p, rtol=1e-5)


def test_balanced_one_way_layout_in_closed_form():
    data = mf.datasets.load("Dyestuff")
    fit = mf.fit("Yield ~ 1 + (1|Batch)", data)._fit
    y = data["Yield"].to_numpy(dtype=float)
    means = data.groupby("Batch", observed=True)["Yield"].transform("mean").to_numpy()
    within, between = ((y - means) ** 2).sum(), ((means - y.mean()) ** 2).sum()
    expected = 29 * np.log((within + between) / 29)
    expected -= 24 * np.log(within / 24) + 5 * np.log(between / 5)
    row = ranova(fit)[0].loc["(1|Batch)"]
    assert row["lrt"] == pytest.approx(expected, abs=1e-7)
    assert row["p_value"] == pytest.approx(stats.chi2.sf(expected, 1))
    assert row["p_mixture"] == pytest.approx(0.5 * stats.chi2.sf(expected, 1))


def test_singular_fit_loses_nothing_with_its_zero_variance():
    data = mf.datasets.load("Dyestuff2")
    row = ranova(mf.fit("Yield ~ 1 + (1|Batch)", data)._fit)[0].loc["(1|Batch)"]
    assert row["lrt"] == 0.0
    assert row["p_value"] == 1.0
    assert row["p_mixture"] == 1.0


def test_slope_without_intercept_goes_as_a_whole():
    # lmerTest would make (1 | Subject) of it, which is no smaller model.
    fit = fit_of("Reaction ~ Days + (0 + Days | Subject)", "sleepstudy", "REML")
    table, _, _ = ranova(fit)
    assert list(table.index) == ["<none>", "(0 + Days | Subject)"]
    assert table["num_df"].iloc[1] == 1


def test_row_is_the_comparison_of_the_two_models():
    fit = fit_of("Reaction ~ Days + (Days | Subject)", "sleepstudy", "ML")
    small = fit_of("Reaction ~ Days + (1 | Subject)", "sleepstudy", "ML")
    row = ranova(fit)[0].iloc[1]
    other = compare([small, fit])[0].loc["m2"]
    assert row["lrt"] == pytest.approx(other["chisq"], abs=1e-6)
    assert row["p_mixture"] == pytest.approx(other["p_mixture"], rel=1e-5)


def test_coding_and_order_do_not_matter():
    data = mf.datasets.load("Machines")
    one = mf.fit("score ~ Machine + (1|Worker) + (1|Worker:Machine)", data)
    two = mf.fit(
        "score ~ (1|Machine:Worker) + Machine + (1|Worker)",
        data,
        contrasts={"Machine": "sum"},
    )
    first = ranova(one._fit)[0]["lrt"].to_numpy()
    second = ranova(two._fit)[0]["lrt"].to_numpy()
    np.testing.assert_allclose(first[[0, 2, 1]], second, rtol=1e-7)


def test_nested_terms_are_told_apart():
    fit = mf.fit("strength ~ 1 + (1|batch/cask)", mf.datasets.load("Pastes"))._fit
    table, _, _ = ranova(fit)
    assert list(table.index[1:]) == [
        "batch of (1|batch/cask)",
        "batch:cask of (1|batch/cask)",
    ]


def test_several_coefficients_have_a_note_instead_of_a_mixture():
    fit = fit_of("Reaction ~ Days + (Days | Subject)", "sleepstudy", "REML")
    table, _, notes = ranova(fit, reduce_terms=False)
    assert np.isnan(table["p_mixture"].iloc[1])
    assert "not known in closed form" in notes[0]


def test_model_without_random_terms_is_refused():
    fit = mf.fit("gain ~ group", mf.datasets.load("pigs"))._fit
    with pytest.raises(InferenceError, match="no random term"):
        ranova(fit)


def test_printed_table():
    fit = fit_of("Reaction ~ Days + (Days | Subject)", "sleepstudy", "REML")
    text = str(comparison_table(*ranova(fit)))
    assert "Single term deletions of random effects, fits by REML" in text
    assert " <none>                      6 -871.81 1755.63" in text
    assert "42.8368  2   4.99e-10 ***" in text
