"""Frames: broom.mixed's columns, and nothing in them that is not in the fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import DesignError, InferenceError
from mixform.inference.model_view import ModelView
from mixform.inference.tidy import augment, glance, tidy

# Printed by broom.mixed 0.2.9.4 with lmerTest 3.1-3, lme4 1.1-31, R 4.2.2:
# m <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy); tidy(m, conf.int = TRUE);
# tidy(m, effects = "ran_vals", conf.int = TRUE); glance(m); augment(m). `Intercept`
# stands for `(Intercept)`.
TIDY = """
effect group term estimate std.error statistic df p.value conf.low conf.high
fixed . Intercept 251.4051 6.824597 36.83809 16.99973 1.171558e-17 237.0064 265.8038
fixed . Days 10.46729 1.545790 6.771481 16.99998 3.263824e-6 7.205955 13.72862
ran_pars Subject sd__Intercept 24.74066 . . . . . .
ran_pars Subject cor__Intercept.Days 0.06555124 . . . . . .
ran_pars Subject sd__Days 5.922138 . . . . . .
ran_pars Residual sd__Observation 25.59180 . . . . . .
"""
RAN_VALS = """
effect group level term estimate std.error conf.low conf.high
ran_vals Subject 308 Intercept 2.258551 12.070857 -21.399894 25.916996
ran_vals Subject 309 Intercept -40.398738 12.070857 -64.057183 -16.740293
ran_vals Subject 308 Days 9.198976 2.304839 4.681574 13.716377
ran_vals Subject 309 Days -8.619681 2.304839 -13.137082 -4.102279
"""
GLANCE = """
nobs sigma logLik AIC BIC REMLcrit df.residual
180 25.59180 -871.8141 1755.628 1774.786 1743.628 174
"""
GLANCE_ML = """
nobs sigma logLik AIC BIC deviance df.residual
180 25.59191 -875.9697 1763.939 1783.097 1751.939 174
"""
AUGMENT = """
Reaction Days Subject .fitted .resid .hat .cooksd .fixed .mu .offset .sqrtXwt \
.sqrtrwt .weights .wtres
249.5600 0 308 253.6637 -4.103656 0.2293040 0.004963133 251.4051 253.6637 0 1 1 1 \
-4.103656
258.7047 1 308 273.3299 -14.625218 0.1697300 0.040206202 261.8724 273.3299 0 1 1 1 \
-14.625218
250.8006 2 308 292.9962 -42.195579 0.1268237 0.226099185 272.3397 292.9962 0 1 1 1 \
-42.195579
"""


def printed(text: str) -> pd.DataFrame:
    lines = [line.split() for line in text.strip().replace("\\\n", "").splitlines()]
    return pd.DataFrame(lines[1:], columns=lines[0]).map(_value)


def _value(text: str) -> object:
    if text == ".":
        return np.nan
    try:
        return float(text)
    except ValueError:
        return text


def assert_as_printed(ours: pd.DataFrame, text: str, rtol: float = 2e-5) -> None:
    theirs = printed(text)
    assert list(ours.columns) == list(theirs.columns)
    for name in theirs.columns:
        for one, two in zip(ours[name], theirs[name], strict=True):
            if isinstance(two, str):
                assert one == two
            elif np.isnan(two):
                assert one is None or np.isnan(one)
            else:
                assert float(one) == pytest.approx(two, rel=rtol)


@pytest.fixture(scope="module")
def m():
    return mf.fit("Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy"))


def rows(m, **options):
    return tidy(m._fit, m._coefficients, **options)


def test_tidy_is_broom_mixeds(m):
    # lme4 stops 2e-4 from the optimum in theta: p moves by 6e-4.
    assert_as_printed(rows(m, conf_int=True), TIDY, rtol=1e-3)
    assert_as_printed(rows(m, conf_int=True).iloc[:, :6], _columns(TIDY, 6))


def _columns(text: str, count: int) -> str:
    lines = text.strip().splitlines()
    return "\n".join(" ".join(line.split()[:count]) for line in lines)


def test_random_effects_are_broom_mixeds(m):
    table = rows(m, effects="ran_vals", conf_int=True).iloc[[0, 1, 18, 19]]
    assert_as_printed(table, RAN_VALS)


def test_glance_is_broom_mixeds(m):
    assert_as_printed(glance(m._fit), GLANCE)
    ml = mf.fit(m.formula, mf.datasets.load("sleepstudy"), method="ML")
    assert_as_printed(glance(ml._fit), GLANCE_ML)


def test_augment_is_broom_mixeds(m):
    assert_as_printed(augment(m._fit).head(3), AUGMENT)
    data = mf.datasets.load("sleepstudy")
    assert_as_printed(augment(m._fit, data).head(3), AUGMENT)


def test_variances_and_covariances_on_request(m):
    table = rows(m, effects="ran_pars", scale="vcov").set_index("term")["estimate"]
    assert list(table.index) == [
        "var__Intercept",
        "cov__Intercept.Days",
        "var__Days",
        "var__Observation",
    ]
    sd = rows(m, effects="ran_pars").set_index("term")["estimate"]
    assert table["cov__Intercept.Days"] == pytest.approx(
        sd["cor__Intercept.Days"] * sd["sd__Intercept"] * sd["sd__Days"]
    )


def test_coefficients_of_the_levels(m):
    table = rows(m, effects=["ran_coefs"])
    assert list(table.columns) == ["effect", "group", "level", "term", "estimate"]
    wide = table.pivot(index="level", columns="term", values="estimate")
    expected = m.coef()["Subject"]
    np.testing.assert_array_equal(wide.loc[expected.index, "Days"], expected["Days"])


def test_effects_stand_in_one_order_whatever_was_asked_first(m):
    pd.testing.assert_frame_equal(
        rows(m, effects=("ran_pars", "fixed")), rows(m, effects=("fixed", "ran_pars"))
    )


def test_wald_limits_are_normal(m):
    wald = rows(m, effects="fixed", conf_int=True, conf_method="wald", level=0.9)
    assert wald["conf.high"][1] == pytest.approx(10.467286 + 1.644854 * 1.545789)


def test_weights_offset_rows_and_index():
    data = mf.datasets.load("sleepstudy")
    data["w"], data["o"] = 1.0 + data["Days"] % 3, np.sqrt(data["Days"])
    data.index = [f"r{i}" for i in range(180)]
    data.loc["r3", "Days"] = np.nan
    formula = "Reaction ~ Days + (1 | Subject)"
    m = mf.fit(formula, data, weights="w", offset="o", subset="w < 3")
    table = augment(m._fit, data)
    assert "r3" not in table.index
    used = data.loc[table.index]
    for name in ("Reaction", "Days", "Subject", "w", "o"):
        pd.testing.assert_series_equal(table[name], used[name])
    np.testing.assert_allclose(table[".fitted"] + table[".resid"], used["Reaction"])
    np.testing.assert_array_equal(table[".offset"], used["o"])
    np.testing.assert_allclose(table[".wtres"] ** 2, used["w"] * table[".resid"] ** 2)
    fixed = m.params["Intercept"] + m.params["Days"] * used["Days"] + used["o"]
    np.testing.assert_allclose(table[".fixed"], fixed)


def test_aliased_coefficients_and_models_without_random_terms():
    data = mf.datasets.load("sleepstudy")
    with pytest.warns(mf.RankDeficiencyWarning):
        m = mf.fit("Reaction ~ Days + I(2 * Days)", data)
    table = rows(m, effects=("fixed", "ran_pars", "ran_vals", "ran_coefs"))
    assert table["term"].tolist() == [*m.params.index, "sd__Observation"]
    assert np.isnan(table["estimate"][2])
    assert len(augment(m._fit)) == 180


def test_repeated_groups_keep_lme4s_labels():
    m = mf.fit(
        "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
        mf.datasets.load("sleepstudy"),
    )
    table = rows(m, effects=("ran_pars", "ran_vals"))
    assert table["group"][:3].tolist() == ["Subject", "Subject.1", "Residual"]
    assert set(table["group"][3:]) == {"Subject"}


def test_diagonal_term_has_no_correlations():
    m = mf.fit("Reaction ~ (Days || Subject)", mf.datasets.load("sleepstudy"))
    terms = rows(m, effects="ran_pars")["term"].tolist()
    assert terms == ["sd__Intercept", "sd__Days", "sd__Observation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effects": "random"}, r"Unknown effects 'random'\.\n.*ran_pars"),
        ({"effects": ()}, "No effects"),
        ({"scale": "sd"}, r"Unknown scale 'sd'\.\n.*sdcor"),
        ({"conf_int": True, "level": 95}, "level is 95"),
        ({"conf_int": True, "conf_method": "profil"}, "Unknown interval method"),
    ],
)
def test_bad_requests(m, options, message):
    with pytest.raises(InferenceError, match=message):
        rows(m, **options)


def test_other_data_are_refused(m):
    with pytest.raises(DesignError, match="have 10 rows, those of the fit 180"):
        augment(m._fit, mf.datasets.load("sleepstudy").head(10))


# What tools around statsmodels read.


def test_model_view_has_the_fixed_part(m):
    view = ModelView(fit=m._fit)
    assert view.formula == "Reaction ~ 1 + Days"
    assert (view.endog_names, view.exog_names) == ("Reaction", ["Intercept", "Days"])
    np.testing.assert_allclose(
        view.predict(m.params), m.predict(random=False).to_numpy()
    )
    assert list(view.data.frame.columns) == ["Reaction", "Days", "Subject"]
    assert view.endog.shape == (180,)


@pytest.mark.parametrize(
    ("formula", "options", "message"),
    [
        ("Reaction ~ C(Days)", {"contrasts": {"Days": "sum"}}, "contrasts of Days"),
        ("Reaction ~ poly(Days, 2)", {}, "depends on the rows"),
    ],
)
def test_model_view_refuses_what_others_would_code_otherwise(formula, options, message):
    m = mf.fit(formula, mf.datasets.load("sleepstudy"), **options)
    with pytest.raises(InferenceError, match=message):
        _ = ModelView(fit=m._fit).formula


class Read:
    """A result as marginaleffects' adapter for statsmodels reads it."""

    def __init__(self, m):
        self.model = ModelView(fit=m._fit)
        self.params, self.cov_params = m.params, m.cov_params
        self.formula, self.df_resid = m.formula, m._fit.n - len(m._fit.beta)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of polars, in there
def test_marginaleffects_reads_a_result():
    me = pytest.importorskip("marginaleffects")
    adapter = pytest.importorskip("marginaleffects.statsmodels").ModelStatsmodels
    data = mf.datasets.load("sleepstudy")
    data["half"] = pd.Categorical(np.where(data["Days"] < 5, "first", "second"))
    data["x"] = np.sin(np.arange(180))
    m = mf.fit("Reaction ~ half * x + (1 | Subject)", data)
    model = adapter(Read(m))
    slopes = me.avg_slopes(model, variables="x", by="half")
    expected = m.params["x"] + np.array([0, m.params["half[T.second]:x"]])
    np.testing.assert_allclose(slopes["estimate"], expected, rtol=1e-5)
    V = m.cov_params()
    se = np.sqrt(V.loc["x", "x"])
    np.testing.assert_allclose(slopes["std_error"][0], se, rtol=2e-3)  # differences
    gap = me.avg_comparisons(model, variables="half")
    direct = m.predict(data.assign(half="second"), random=False).mean()
    direct -= m.predict(data.assign(half="first"), random=False).mean()
    np.testing.assert_allclose(gap["estimate"][0], direct, rtol=1e-8)
    tested = me.hypotheses(model, "x = 0")
    np.testing.assert_allclose(tested["std_error"][0], se, rtol=1e-6)
