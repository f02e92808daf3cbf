"""Reference: 109 models against lme4 and lmerTest (tests/references/README.md)."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest

import mixform as mf
from mixform.errors import MixformWarning

from .reference_models import MODELS, data_of, fit_reference

ALL = sorted(MODELS)
MIXED = [name for name in ALL if MODELS[name]["program"] == "lmerTest::lmer"]
F_TESTS = [
    (name, kind)
    for name in ALL
    for kind in ("I", "II", "III")
    if MODELS[name]["anova"][kind] and MODELS[name]["anova"][kind]["rows"]
]

#: `lm` reports the unbiased variance under ML as well; these use n in place of n - p.
ML_WITHOUT_RANDOM_TERM = {"weights_wls_ml"}


#: lmerTest's rows of L, and so its den_df of several df, change with the coding of X
#: in types I and II (in the third digit here). Ours do not: these are compared with
#: the same model in treatment coding, which is compared with lmerTest.
OTHER_ROWS = {
    ("nested_helmert", "I"),
    ("nested_helmert", "II"),
    ("ratpup_helmert", "I"),
    ("ratpup_helmert", "II"),
}

#: A variance so near zero that its theta's standard error is 130 times its value; df
#: then move by 2e-3 within the 2e-5 SE to which lme4's optimizers find theta.
AT_THEIR_THETA = {"crossed_maximal_ml"}


def numbers(rows, key):
    return np.array([np.nan if row[key] is None else float(row[key]) for row in rows])


@pytest.mark.parametrize("name", ALL)
def test_criterion_is_not_above_lme4(name):
    m = fit_reference(name)
    assert m.converged
    assert m.criterion <= float(MODELS[name]["criterion"]) + 1e-6
    assert m.criterion >= float(MODELS[name]["criterion"]) - 1e-5, "not the same model"


def result_of(name):
    """Fit a model, or solve it at lme4's theta where df cannot be compared else."""
    if name not in AT_THEIR_THETA:
        return fit_reference(name)
    model = MODELS[name]
    theta = [float(value) for value in model["theta"].values()]
    control = {"max_evaluations": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixformWarning)
        return mf.fit(
            model["mixform_formula"],
            data_of(model),
            method=model["method"],
            start=theta,
            control={**control, "certified_decrease": 1e-30},
        )


@pytest.mark.parametrize("name", ALL)
def test_fixed_effects_agree_with_lme4(name):
    m, rows = fit_reference(name), MODELS[name]["fixed"]
    kept = m.params.dropna()
    assert len(kept) == len(rows)
    assert len(m.params) - len(kept) == len(MODELS[name]["aliased"])
    se = numbers(rows, "se")
    assert np.abs(kept.to_numpy() - numbers(rows, "estimate")).max() < 1e-3 * se.min()
    if name not in ML_WITHOUT_RANDOM_TERM:
        np.testing.assert_allclose(m.bse.dropna(), se, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in ALL if n not in ML_WITHOUT_RANDOM_TERM])
def test_t_tests_agree_with_lmertest(name):
    m, rows = result_of(name), MODELS[name]["fixed"]
    np.testing.assert_allclose(m.ddf.dropna(), numbers(rows, "df"), rtol=1e-3)
    t = numbers(rows, "t")
    np.testing.assert_allclose(m.tvalues.dropna(), t, rtol=1e-3, atol=1e-4)
    p = numbers(rows, "p")
    np.testing.assert_allclose(m.pvalues.dropna(), p, rtol=5e-3, atol=1e-12)


@pytest.mark.parametrize("name", MIXED)
def test_variance_components_agree_with_lme4(name):
    m, rows = fit_reference(name), MODELS[name]["varcorr"]
    ours = m.varcorr
    by_name = {
        key_of(g, a, b): (v, s) for g, a, b, v, s in ours.itertuples(index=False)
    }
    sigma = float(MODELS[name]["sigma"])
    np.testing.assert_allclose(m.sigma, sigma, rtol=1e-4)
    for row in rows:
        _, sdcor = by_name[key_of(row["grp"], row["var1"], row["var2"])]
        if row["sdcor"] is None:
            assert np.isnan(sdcor)
        elif row["var2"] is None and float(row["sdcor"]) > 1e-3 * sigma:
            assert sdcor == pytest.approx(float(row["sdcor"]), rel=1e-4)
        else:
            assert sdcor == pytest.approx(float(row["sdcor"]), abs=1e-3)


def key_of(group, first, second):
    """Name a component alike in R's and formulaic's spelling."""
    group = ":".join(sorted(group.split(".")[0].split(":")))
    names = [str(x) for x in (first, second) if isinstance(x, str)]
    for old, new in (("(Intercept)", "Intercept"), ("T.", ""), ("[", ""), ("]", "")):
        names = [x.replace(old, new) for x in names]
    return (group, *(x.replace(" ", "") for x in names))


@pytest.mark.parametrize("name", ALL)
def test_information_criteria_agree_with_lme4(name):
    m, model = fit_reference(name), MODELS[name]
    assert (m.nobs, m.npar) == (model["nobs"], model["npar"])
    assert m.llf == pytest.approx(float(model["logLik"]), abs=1e-5)
    if model["AIC"] is not None:
        assert m.aic == pytest.approx(float(model["AIC"]), abs=1e-5)
        assert m.bic == pytest.approx(float(model["BIC"]), abs=1e-5)
    assert m.singular == model["isSingular"]


@pytest.mark.parametrize(("name", "kind"), F_TESTS)
def test_f_tests_agree_with_lmertest(name, kind):
    scale = 1.0
    if name in ML_WITHOUT_RANDOM_TERM:  # lm's F tests use the unbiased variance
        m = fit_reference(name)
        scale = m.nobs / (m.nobs - len(m.params))
    ours = result_of(name).anova(kind)
    theirs = {norm(row["term"]): row for row in MODELS[name]["anova"][kind]["rows"]}
    assert {norm(term) for term in ours.index} == set(theirs)
    for term, row in ours.iterrows():
        their = theirs[norm(term)]
        if their["F"] is None:
            assert np.isnan(row["f_value"])
            continue
        assert row["num_df"] == float(their["NumDF"])
        assert row["f_value"] / scale == pytest.approx(
            float(their["F"]), rel=1e-3, abs=1e-6
        )
        if scale == 1.0 and (name, kind) not in OTHER_ROWS:
            assert row["den_df"] == pytest.approx(float(their["DenDF"]), rel=1e-3)
            p = float(their["p"])
            assert row["p_value"] == pytest.approx(p, rel=1e-2, abs=1e-12)
        if scale == 1.0:
            assert row["mean_sq"] == pytest.approx(
                float(their["MeanSq"]), rel=1e-3, abs=1e-9
            )


def norm(term):
    """Name a term alike in R's and formulaic's spelling, whatever the order."""
    term = term.replace(" ", "").replace("C(", "factor(").replace("**", "^")
    return ":".join(sorted(term.replace("`", "").split(":")))


@pytest.mark.parametrize("name", MIXED)
def test_random_effects_agree_with_lme4(name):
    m, rows = fit_reference(name), MODELS[name]["ranef"]
    ours = {
        (*key_of(g, t, None), level_key(g, level)): (b, se)
        for g, t, level, b, se in m.ranef().itertuples(index=False)
    }
    sigma = m.sigma
    for row in rows:
        key = (
            *key_of(row["grp"], row["term"], None),
            level_key(row["grp"], row["level"]),
        )
        b, se = ours[key]
        assert b == pytest.approx(float(row["estimate"]), rel=1e-3, abs=2e-4 * sigma)
        assert se == pytest.approx(float(row["condSD"]), rel=1e-3, abs=2e-4 * sigma)


def level_key(group, level):
    """Name a level by the level of each grouping column: lme4 writes b:a for a/b."""
    columns = group.split(".")[0].split(":")
    if len(columns) == 1:
        return level
    return tuple(sorted(zip(columns, str(level).split(":"), strict=True)))


@pytest.mark.parametrize("name", ALL)
def test_fitted_values_agree_with_lme4(name):
    m = fit_reference(name)
    theirs = np.array([float(value) for value in MODELS[name]["fitted"]])
    ours = m.fittedvalues.to_numpy()[: len(theirs)]
    np.testing.assert_allclose(ours, theirs, atol=2e-4 * m.sigma)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *pairwise(["cake_factorial", "cake_factorial_sum", "cake_factorial_helmert"]),
        *pairwise(["ergostool", "ergostool_sum", "ergostool_helmert"]),
        ("stroup", "stroup_sum"),
        ("nested_interaction", "nested_helmert"),
        ("ratpup", "ratpup_helmert"),
        ("orthodont_sex", "orthodont_sum"),
        ("factorial_empty_cell", "factorial_empty_cell_sum"),
    ],
)
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_f_tests_do_not_depend_on_the_coding(first, second, kind):
    one, two = fit_reference(first).anova(kind), fit_reference(second).anova(kind)
    np.testing.assert_allclose(one["f_value"], two["f_value"], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(one["den_df"], two["den_df"], rtol=1e-5)


@pytest.mark.parametrize("name", ["sleepstudy_slopes", "crossed_maximal", "dyestuff2"])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_fit_does_not_depend_on_the_unit_of_y(name, scale):
    model = MODELS[name]
    data = data_of(model)
    response = model["mixform_formula"].split("~")[0].strip()
    data[response] = data[response] * scale
    m, base = mf.fit(model["mixform_formula"], data), fit_reference(name)
    np.testing.assert_allclose(m.params / scale, base.params, rtol=1e-6)
    np.testing.assert_allclose(m.theta, base.theta, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(m.ddf, base.ddf, rtol=1e-5)
