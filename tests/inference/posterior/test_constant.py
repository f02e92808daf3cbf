"""A posterior all of whose draws are the REML estimates gives what REML gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal

import mixform as mf
from tests.posteriors import MODELS, constant

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    result = MODELS[request.param]()
    return result, constant(result)


def test_estimates_are_those_of_reml(pair):
    result, m = pair
    assert_series_equal(m.params, result.params, **TIGHT)
    assert_series_equal(m.fittedvalues, result.fittedvalues, **TIGHT)
    assert_series_equal(m.resid, result.resid, **TIGHT)
    assert_frame_equal(m.varcorr, result.varcorr, **TIGHT)
    assert m.sigma == pytest.approx(result.sigma, rel=1e-12)
    assert (m.nobs, m.formula, m.method) == (result.nobs, result.formula, "Bayes")


def test_random_effects_are_those_of_reml(pair):
    result, m = pair
    names = ["grp", "term", "level", "estimate"]
    assert_frame_equal(m.ranef()[names], result.ranef()[names], **TIGHT)
    assert m.coef().keys() == result.coef().keys()
    for group, table in m.coef().items():
        assert_frame_equal(table, result.coef()[group], **TIGHT)
    names = [*names, "rank", "quantile"]
    assert_frame_equal(m.caterpillar()[names], result.caterpillar()[names], **TIGHT)


def test_errors_are_zero_and_limits_the_estimates(pair):
    _, m = pair
    assert np.all(m.bse == 0.0)
    assert np.all(m.cov_params() == 0.0)
    for method in ("eti", "hdi"):
        limits = m.conf_int(method=method)
        wanted = pd.concat([m.params, m.variance_parameters()["estimate"]])
        assert np.allclose(limits["lower"], wanted, rtol=1e-12)
        assert np.allclose(limits["upper"], wanted, rtol=1e-12)
    assert np.all(m.ranef()["se"] == 0.0)


def test_predictions_are_those_of_reml(pair):
    result, m = pair
    assert_series_equal(m.predict(), result.predict(), **TIGHT)
    assert_series_equal(m.predict(random=False), result.predict(random=False), **TIGHT)
    table = m.predict(interval="confidence")
    for name in ("estimate", "lower", "upper"):
        assert_series_equal(
            table[name], result.predict(), check_names=False, rtol=1e-9, atol=1e-9
        )
    assert np.allclose(m.predict(draws=True), result.predict().to_numpy(), rtol=1e-9)


def test_functions_of_the_variances_are_those_of_reml(pair):
    result, m = pair
    own, other = m.r2()["estimate"], result.r2()
    if not result.design.blocks:
        with pytest.raises(mf.InferenceError, match="need a random effect"):
            m.icc()
        return
    assert own["marginal"] == pytest.approx(other.marginal, rel=1e-10)
    assert own["conditional"] == pytest.approx(other.conditional, rel=1e-10)
    own, other = m.icc()["estimate"], result.icc()
    assert own["adjusted"] == pytest.approx(other.adjusted, rel=1e-10)
    assert own["unadjusted"] == pytest.approx(other.unadjusted, rel=1e-10)
    for group, row in other.by_group.iterrows() if len(other.by_group) > 1 else ():
        assert own[f"adjusted: {group}"] == pytest.approx(row["adjusted"], rel=1e-10)


def test_variance_functions_are_those_of_reml():
    result = MODELS["slopes"]()
    m = constant(result)
    for expression in (
        "residual",
        "Subject[Days] / (Subject[Days] + residual)",
        "var(Subject, Days=3) / total(Days=3)",
        "cor(Subject, Days=(0, 9))",
        "sqrt(Subject[Intercept])",
    ):
        found, known = m.vcfun(expression), result.vcfun(expression)
        assert found.estimate == pytest.approx(known.estimate, rel=1e-10)
        assert found.se == 0.0


@pytest.mark.parametrize("kind", ["link", "response"])
def test_means_and_contrasts_are_those_of_reml(kind):
    result = MODELS["log"]()
    m = constant(result)
    own, other = (x.emmeans("half", type=kind) for x in (m, result))
    column = own.table.columns[1]
    assert own.table[column].to_numpy() == pytest.approx(
        other.table[column].to_numpy(), rel=1e-10
    )
    assert own.L.tolist() == other.L.tolist()
    own, other = own.pairs(), other.pairs()
    assert own.table.iloc[0, :2].tolist() == pytest.approx(
        other.table.iloc[0, :2].tolist()
    )


def test_slopes_and_tests_are_those_of_reml():
    result = MODELS["weighted"]()
    m = constant(result)
    own, other = (x.slopes("Days", by="half").table for x in (m, result))
    assert own["Days.trend"].tolist() == pytest.approx(other["Days.trend"].tolist())
    text = "Days = 3, half[T.odd] - 2 * Days = 0"
    own, other = m.test(text), result.test(text).table
    assert own["estimate"].tolist() == pytest.approx(other["estimate"].tolist())
    assert own["rhs"].tolist() == [3.0, 0.0]
    assert own.index.tolist() == other.index.tolist()


def test_new_rows_are_predicted_as_by_reml():
    result = MODELS["weighted"]()
    m = constant(result)
    new = pd.DataFrame(
        {
            "half": ["odd", "even", "odd"],
            "Days": [1.0, 2.0, np.nan],
            "shift": [1.0, 2.0, 3.0],
            "w": [1.0, 2.0, 3.0],
            "Subject": ["308", "new", "309"],
        },
        index=["a", "b", "c"],
    )
    for choice in ("population", "nan"):
        options = {"new_levels": choice}
        assert_series_equal(
            m.predict(new, **options), result.predict(new, **options), **TIGHT
        )
        table = m.predict(new, interval="prediction", **options)
        assert np.isnan(table.loc["c", "estimate"])
        assert_series_equal(
            table["estimate"],
            result.predict(new, **options),
            check_names=False,
            **TIGHT,
        )
    with pytest.raises(mf.InferenceError, match="level 'new' of 'Subject'"):
        m.predict(new)
    outside = new.assign(half="neither")
    with pytest.raises(mf.DesignError, match="level 'neither'"):
        m.predict(outside, new_levels="population")


def test_aliased_coefficients_are_missing_and_not_estimable():
    data = MODELS["slopes"]()._call.data
    data = data.assign(twice=2.0 * data["Days"])
    with pytest.warns(mf.RankDeficiencyWarning):
        result = mf.fit("Reaction ~ Days + twice + (1|Subject)", data)
    m = constant(result)
    assert_series_equal(m.params, result.params, **TIGHT)
    assert np.isnan(m.bse["twice"])
    assert np.isnan(m.cov_params().loc["twice", "Days"])
    with pytest.raises(mf.InferenceError, match="not estimable: adding -2 to Days"):
        m.test({"twice": 1})
    assert "twice" in str(m)
