"""What the printout says in words: notes on rows, columns, zero variances."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf


def test_singular_fit_names_the_variance_and_does_not_warn():
    m = mf.fit("Yield ~ 1 + (1|Batch)", mf.datasets.load("Dyestuff2"))
    assert m.singular
    assert m.converged
    assert "Note: singular fit: the variance of Batch Intercept" in str(m)


def test_perfect_correlation_is_named():
    m = mf.fit("yield ~ nitro + Variety + (nitro|Block)", mf.datasets.load("Oats"))
    assert "effects Intercept, nitro of Block are perfectly correlated" in str(m)
    assert m.varcorr.query("var2 == 'nitro'")["sdcor"].item() == pytest.approx(1.0)


def test_dropped_rows_are_counted_by_column():
    data = mf.datasets.load("sleepstudy").astype({"Reaction": float, "Days": float})
    data.loc[[3, 4], "Reaction"] = np.nan
    data.loc[[4, 9], "Days"] = np.nan
    m = mf.fit("Reaction ~ Days + (1 | Subject)", data)
    assert "3 of 180 rows dropped for missing values" in str(m)
    assert "Reaction 2" in str(m)
    assert "Days 2" in str(m)


def test_aliased_columns_are_named_and_kept_as_nan():
    data = mf.datasets.load("sleepstudy")
    data["twice"] = 2 * data["Days"]
    with pytest.warns(mf.RankDeficiencyWarning, match="twice"):
        m = mf.fit("Reaction ~ Days + twice + (1 | Subject)", data)
    assert "dropped as combinations of other columns: twice" in str(m)
    assert np.isnan(m.params["twice"])
    assert "NaN" in str(m).split("Fixed effects:")[1]


def test_double_bar_says_which_columns():
    m = mf.fit("Reaction ~ Days + (Days || Subject)", mf.datasets.load("sleepstudy"))
    assert "(Days || Subject) has independent effects for Intercept, Days" in str(m)


def test_model_without_fixed_effects_prints():
    m = mf.fit("Yield ~ 0 + (1 | Batch)", mf.datasets.load("Dyestuff"))
    assert "No fixed effects." in str(m)
    assert len(m.anova()) == 0
    assert "no fixed term" in str(m.anova())


def test_anova_is_a_frame_with_a_heading():
    table = mf.fit("gain ~ group", mf.datasets.load("pigs")).anova()
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == [
        "sum_sq",
        "mean_sq",
        "num_df",
        "den_df",
        "f_value",
        "p_value",
    ]
    assert str(table).startswith("Type III analysis of variance table")
    assert type(table[["f_value"]]) is pd.DataFrame


def test_factor_in_a_slope_model_is_said_to_be_tested_at_zero():
    m = mf.fit("distance ~ age * Sex + (1|Subject)", mf.datasets.load("Orthodont"))
    assert "Sex is tested at age = 0" in str(m.anova())
    assert "Sex is tested at age = 0" in str(m.anova(2))
    assert "at age" not in str(m.anova(1))


def test_uncertified_optimum_warns_and_says_what_is_left():
    data = mf.datasets.load("sleepstudy")
    with pytest.warns(mf.ConvergenceWarning, match="may still fall by"):
        m = mf.fit(
            "Reaction ~ Days + (Days | Subject)", data, control={"max_evaluations": 2}
        )
    assert not m.converged
    assert "not certified" in str(m)
    assert m.convergence.predicted_decrease > 1e-6
