"""Models without a bar: RSS, R2, F and likelihood are those of least squares."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy.stats import chi2
from statsmodels.regression.linear_model import GLS

import mixform as mf
from mixform.errors import InferenceError

REFERENCE = Path(__file__).parent.parent / "references" / "general_linear.txt"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    n = 40
    return pd.DataFrame(
        {
            "y": rng.normal(size=n) + 3.0,
            "x": rng.normal(size=n),
            "g": rng.choice(list("abc"), n),
            "h": rng.choice(list("uv"), n),
            "v": rng.uniform(0.3, 3.0, n),
        }
    ).assign(w=lambda d: 1.0 / d["v"], twice=lambda d: 2.0 * d["x"] + 1.0)


FORMULAS = ["y ~ x + g * h", "y ~ 0 + g + x", "y ~ x", "y ~ 0 + x", "y ~ g + I(x**2)"]


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_agrees_with_statsmodels(data, formula, weights):
    if weights is None:
        other = smf.ols(formula, data).fit()
    else:
        other = smf.wls(formula, data, weights=data["w"]).fit()
    m = mf.fit(formula, data, weights=weights)
    names = m.params.index
    theirs = other.params.reindex(names)
    assert theirs.notna().all()
    np.testing.assert_allclose(m.params, theirs, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(m.bse, other.bse[names], rtol=1e-9)
    np.testing.assert_allclose(m.pvalues, other.pvalues[names], rtol=1e-7)
    assert m.rss == pytest.approx(other.ssr, rel=1e-10)
    assert m.sigma**2 == pytest.approx(other.scale, rel=1e-10)
    assert m.r2().marginal == pytest.approx(other.rsquared, rel=1e-9)
    assert m.r2().adjusted == pytest.approx(other.rsquared_adj, rel=1e-9)
    found = m.overall_test()
    assert found.f_value == pytest.approx(other.fvalue, rel=1e-9)
    assert found.p_value == pytest.approx(other.f_pvalue, rel=1e-7)
    assert (found.num_df, found.den_df) == (other.df_model, other.df_resid)
    ml = mf.fit(formula, data, weights=weights, method="ML")
    assert ml.llf == pytest.approx(other.llf, rel=1e-10)
    assert ml.aic == pytest.approx(other.aic + 2.0)  # sigma counts as a parameter
    assert ml.sigma**2 == pytest.approx(other.ssr / len(data))
    assert ml.rss == pytest.approx(other.ssr, rel=1e-10)
    assert ml.r2() == m.r2()
    exact = ml.overall_test()
    assert exact.f_value == pytest.approx(found.f_value)
    assert exact.den_df == found.den_df


def test_rank_deficient_agrees_with_statsmodels(data):
    with pytest.warns(mf.RankDeficiencyWarning, match="twice"):
        m = mf.fit("y ~ x + twice + g", data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = smf.ols("y ~ x + twice + g", data).fit()
    assert m.rss == pytest.approx(other.ssr)
    assert m.r2().adjusted == pytest.approx(other.rsquared_adj)
    assert m.overall_test().f_value == pytest.approx(other.fvalue)
    np.testing.assert_allclose(m.fittedvalues, other.fittedvalues)
    assert "one of many solutions: Intercept, x." in str(m)
    same = mf.fit("y ~ x + g", data)
    assert m.llf != pytest.approx(0.0)
    assert m.overall_test().p_value == pytest.approx(same.overall_test().p_value)


def test_residual_structure_is_gls_with_its_v():
    data = mf.datasets.load("Orthodont")
    m = mf.fit("distance ~ age * Sex", data, residual="ar1(age | Subject)", method="ML")
    parts = m.matrices()
    other = GLS(parts.y, parts.X, sigma=parts.R.toarray() / m.sigma**2).fit()
    np.testing.assert_allclose(m.params, other.params, rtol=1e-7)
    # sigma^2 by ML is RSS / n, statsmodels takes RSS / (n - k).
    n, k = parts.X.shape
    np.testing.assert_allclose(m.bse, other.bse * np.sqrt((n - k) / n), rtol=1e-7)
    assert m.llf == pytest.approx(other.llf, rel=1e-9)
    assert m.rss == pytest.approx(other.ssr, rel=1e-8)
    assert m.rss / n == pytest.approx(m.sigma**2)
    ours = mf.gls(parts.y, parts.X, parts.R / m.sigma**2)
    assert ours.llf == pytest.approx(m.llf)
    assert np.isnan(m.r2().adjusted)


def test_offset_is_subtracted_first(data):
    m = mf.fit("y ~ x + g", data, offset="v")
    other = smf.ols("I(y - v) ~ x + g", data).fit()
    assert m.rss == pytest.approx(other.ssr)
    assert m.r2().adjusted == pytest.approx(other.rsquared_adj)
    assert m.overall_test().f_value == pytest.approx(other.fvalue)


def test_rss_of_a_mixed_model_is_about_its_fitted_values():
    m = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff"))
    assert m.rss == pytest.approx(float((m.resid**2).sum()))


def test_overall_test_of_a_mixed_model_is_that_of_its_terms():
    m = mf.fit("effort ~ Type + (1 | Subject)", mf.datasets.load("ergoStool"))
    found, row = m.overall_test(), m.anova().loc["Type"]
    assert found.f_value == pytest.approx(row["f_value"])
    assert found.den_df == pytest.approx(row["den_df"])
    cells = mf.fit("effort ~ 0 + Type + (1 | Subject)", mf.datasets.load("ergoStool"))
    with_mean = cells.overall_test()
    assert with_mean.f_value == pytest.approx(row["f_value"])
    assert with_mean.num_df == 3


def test_given_variance_makes_chi_square():
    m = mf.fit("gain ~ group", mf.datasets.load("pigs"), varcomp={"residual": 25.0})
    found = m.overall_test()
    assert found.p_value == pytest.approx(chi2.sf(81.0 / (50.0 / 3.0), 1))
    assert "Residual standard deviation: 5.000 (known)" in str(m)
    assert "F-statistic: 4.86 on 1 and inf DF" in str(m)


def test_a_constant_alone_has_nothing_to_test(data):
    m = mf.fit("y ~ 1", data)
    with pytest.raises(InferenceError, match="no fixed effect beside a constant"):
        m.overall_test()
    assert "F-statistic" not in str(m)


def test_large_mean_loses_no_digits(data):
    far = data.assign(y=data["y"] + 1e7)
    near, m = mf.fit("y ~ x + g", data), mf.fit("y ~ x + g", far)
    assert m.r2().marginal == pytest.approx(near.r2().marginal, rel=1e-6)


def printed(name):
    lines = REFERENCE.read_text().splitlines()
    (line,) = [row for row in lines if row.startswith(name)]
    return [float(v) for v in line.removeprefix(name).split()]


def test_pigs_agree_with_rs_lm():
    m = mf.fit("gain ~ group", mf.datasets.load("pigs"))
    assert [m.sigma, m.r2().marginal, m.r2().adjusted] == pytest.approx(
        printed("lm sigma r2 adj"), rel=1e-9
    )
    found = m.overall_test()
    assert [found.f_value, found.num_df, found.den_df] == pytest.approx(
        printed("lm fstatistic"), rel=1e-9
    )
    ml = mf.fit("gain ~ group", mf.datasets.load("pigs"), method="ML")
    assert [ml.aic] == pytest.approx(printed("lm AIC"), rel=1e-9)
    assert ml.sigma == pytest.approx(np.sqrt(340.0 / 18.0))
    assert "Residual standard deviation: 4.346 by ML, RSS / n; unbiased 5.323" in str(
        ml
    )


@pytest.fixture(scope="module")
def oats():
    table = mf.datasets.load("Oats")
    table = table.drop(index=table.index[[0, 5, 19, 36]])
    return mf.fit("yield ~ nitro * Variety + (1 | Block / Variety)", table)


ROWS = {
    "a": {"nitro": 1},
    "b": {"nitro:Variety[T.Marvellous]": 1},
    "both": {"nitro": 1, "nitro:Variety[T.Marvellous]": 1},
    "twice": {"nitro": 2, "nitro:Variety[T.Marvellous]": 2},
}


@pytest.mark.parametrize("ddf", ["Satterthwaite", "Kenward-Roger"])
def test_dependent_rows_agree_with_contestMD(oats, ddf):
    found = oats.test(ROWS, ddf=ddf.lower())
    assert found.num_df == 2
    assert found.method == ddf
    # lmerTest differentiates numerically, lmer's optimum has 7 digits.
    assert [found.num_df, found.den_df, found.f_value, found.p_value] == pytest.approx(
        printed(f"contestMD {ddf}"), rel=1e-6
    )


def test_how_much_larger_the_standard_errors_of_kenward_and_roger_are(oats):
    naive, adjusted = printed("vcov se"), printed("vcovAdj se")
    order = ["Intercept", "nitro", "Variety[T.Marvellous]", "Variety[T.Victory]"]
    found = oats.test({name: {name: 1} for name in order}, ddf="kenward-roger")
    ratio = np.array(adjusted[:4]) / naive[:4]
    np.testing.assert_allclose(found.se_ratio, ratio, rtol=1e-6)
    assert "standard errors are 0.027 to 0.18 % larger." in str(found)
    np.testing.assert_allclose(
        np.sqrt(np.diag(found.covariance)), found.table["se"], rtol=1e-12
    )
    plain = oats.test({name: {name: 1} for name in order})
    np.testing.assert_allclose(plain.se_ratio, 1.0)
    assert "Note" not in str(plain)


def test_kenward_and_roger_of_least_squares_are_no_larger():
    m = mf.fit("gain ~ group", mf.datasets.load("pigs"))
    found = m.test("group[T.Treatment] = 0", ddf="kenward-roger")
    assert "standard errors are the same here." in str(found)
