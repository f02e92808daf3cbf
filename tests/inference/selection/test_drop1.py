"""Single term deletions against lmerTest and lme4."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.selection.drop1 import drop1
from mixform.report.comparison import comparison_table
from tests.comparison_references import column, data_of, fit_of, tables

F, LRT = tables("drop1"), tables("drop1_lrt")


def fit_reference(reference):
    return fit_of(reference["formulas"][0], reference["dataset"], reference["method"])


@pytest.mark.parametrize("name", F)
def test_f_tests_are_lmertests(name):
    reference = F[name]
    table, heading, _ = drop1(fit_reference(reference))
    assert "Satterthwaite" in heading
    table = table.loc[reference["rows"]]
    names = {"sum_sq": "Sum Sq", "mean_sq": "Mean Sq", "num_df": "NumDF"}
    for ours, theirs in {**names, "f_value": "F value"}.items():
        np.testing.assert_allclose(table[ours], column(reference, theirs), rtol=1e-5)
    np.testing.assert_allclose(table["den_df"], column(reference, "DenDF"), rtol=1e-3)
    np.testing.assert_allclose(table["p_value"], column(reference, "Pr(>F)"), rtol=1e-3)


@pytest.mark.parametrize("name", LRT)
def test_likelihood_ratios_are_lme4s(name):
    reference = LRT[name]
    table, _, _ = drop1(fit_reference(reference), test="lrt")
    table = table.loc[reference["rows"]]
    names = {"num_df": "npar", "aic": "AIC", "lrt": "LRT"}
    for ours, theirs in names.items():
        expected = column(reference, theirs)
        np.testing.assert_allclose(table[ours], expected, rtol=1e-8, atol=2e-6)
    np.testing.assert_allclose(
        table["p_value"], column(reference, "Pr(Chi)"), rtol=1e-5
    )


def test_linear_model_f_is_the_textbook_f():
    data = mf.datasets.load("pigs")
    table, _, _ = drop1(mf.fit("gain ~ group", data)._fit)
    parts = data.groupby("group", observed=True)["gain"]
    groups = [part.to_numpy(float) for _, part in parts]
    within = sum(((g - g.mean()) ** 2).sum() for g in groups)
    n, total = len(data), data["gain"].to_numpy(float)
    between = ((total - total.mean()) ** 2).sum() - within
    row = table.loc["group"]
    assert row["f_value"] == pytest.approx(between / (within / (n - 2)))
    assert row["den_df"] == pytest.approx(n - 2)


@pytest.mark.parametrize("coding", ["sum", "helmert"])
def test_coding_of_factors_does_not_matter(coding):
    formula = "yield ~ nitro * Variety + (1|Block/Variety)"
    data = mf.datasets.load("Oats")
    one = drop1(mf.fit(formula, data)._fit)[0]
    other = mf.fit(formula, data, contrasts={"Variety": coding})._fit
    pd.testing.assert_frame_equal(one, drop1(other)[0], rtol=1e-6)


def test_terms_inside_others_stay():
    table, _, _ = drop1(fit_reference(F["ham"]))
    assert list(table.index) == ["Product:Information:Gender"]


def test_empty_cells_leave_fewer_degrees_of_freedom():
    # No data for one cell of the 2 x 3 layout: the interaction has 1 df, not 2; and a
    # main effect that goes gives its aliased columns back.
    data = data_of("ham").query("not (Information == '2' and Product == '3')")
    with pytest.warns(mf.RankDeficiencyWarning):
        fit = mf.fit("`Informed.liking` ~ Product*Information + (1|Consumer)", data)
    table, _, _ = drop1(fit._fit)
    assert table.loc["Product:Information", "num_df"] == 2
    smaller = mf.fit("`Informed.liking` ~ Product+Information + (1|Consumer)", data)
    lrt, _, _ = drop1(fit._fit, test="lrt")
    assert lrt.loc["Product:Information", "num_df"] == 2
    assert fit.npar - smaller.npar == 2


def test_kenward_roger_is_asked_for_by_name():
    fit = fit_of("Reaction ~ Days + (Days | Subject)", "sleepstudy", "REML")
    table, heading, _ = drop1(fit, ddf="kenward-roger")
    assert "Kenward-Roger" in heading
    # Balanced: F(1, 17) whatever the method.
    assert table.loc["Days", "den_df"] == pytest.approx(17.0, rel=1e-5)
    assert table.loc["Days", "f_value"] == pytest.approx(45.853, abs=5e-4)


def test_bad_input():
    fit = fit_of("Reaction ~ Days + (Days | Subject)", "sleepstudy", "REML")
    with pytest.raises(InferenceError, match="Unknown test 'chi'"):
        drop1(fit, test="chi")
    with pytest.raises(InferenceError, match="Unknown ddf 'kenward'"):
        drop1(fit, ddf="kenward")
    empty = fit_of("Reaction ~ 1 + (1 | Subject)", "sleepstudy", "REML")
    with pytest.raises(InferenceError, match="no fixed term that could be left out"):
        drop1(empty)


def test_printed_tables():
    fit = fit_of("Reaction ~ Days + (Days | Subject)", "sleepstudy", "REML")
    text = str(comparison_table(*drop1(fit)))
    assert "Single term deletions with Satterthwaite's method\nModel: Reaction" in text
    assert "NumDF DenDF F value" in text
    assert "Pr(>F)" in text
    text = str(comparison_table(*drop1(fit, test="lrt")))
    assert " Days    1 1785.48 23.5365   1.23e-06 ***" in text
