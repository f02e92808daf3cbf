"""Backward elimination against lmerTest's step."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError
from mixform.formula import parse_formula
from mixform.inference.selection.step import step
from mixform.report.comparison import Selection
from tests.comparison_references import canonical, column, fit_of, tables

RANDOM, FIXED = tables("step_random"), tables("step_fixed")


def fit_reference(reference):
    return fit_of(reference["formulas"][0], reference["dataset"], reference["method"])


def parts(formula):
    """Return the terms of a formula in any order."""
    parsed = parse_formula(formula, ("us", "diag"))
    from mixform.formula import formulaic_formula

    fixed = {frozenset(str(t).split(":")) for t in formulaic_formula(parsed.fixed.code)}
    random = {
        (
            frozenset(map(str, formulaic_formula(term.coefficients))),
            frozenset(term.group),
        )
        for term in parsed.random
    }
    return fixed, random


@pytest.mark.parametrize("name", FIXED)
def test_path_is_lmertests(name):
    found = step(fit_reference(FIXED[name]))
    assert parts(found.fit.design.formula.source) == parts(FIXED[name]["final"])
    for reference, table, names in (
        (RANDOM[name], found.random, {"llf": "logLik", "lrt": "LRT", "num_df": "Df"}),
        (FIXED[name], found.fixed, {"f_value": "F value", "num_df": "NumDF"}),
    ):
        table = table.set_axis([canonical(label) for label in table.index])
        labels = [canonical(label) for label in reference["rows"]]
        assert sorted(table.index) == sorted(labels)
        table = table.loc[labels]
        gone = np.nan_to_num(column(reference, "Eliminated"))
        np.testing.assert_array_equal(table["eliminated"], gone)
        for ours, theirs in names.items():
            expected = column(reference, theirs)
            np.testing.assert_allclose(table[ours], expected, rtol=2e-5, atol=2e-6)
    den_df = column(FIXED[name], "DenDF")
    np.testing.assert_allclose(found.fixed["den_df"], den_df, rtol=1e-3)


def test_last_model_is_the_fit_of_its_formula():
    reference = FIXED["ham"]
    found = step(fit_reference(reference)).fit
    again = fit_of(found.design.formula.source, "ham", "REML")
    assert found.criterion == pytest.approx(again.criterion, abs=1e-7)
    np.testing.assert_allclose(found.beta, again.beta, atol=1e-7)


def test_everything_may_go():
    rng = np.random.default_rng(11)
    data = pd.DataFrame({"y": rng.normal(size=60), "x": rng.normal(size=60)})
    data["g"] = np.arange(60) % 6
    data["y"] -= data.groupby("g")["y"].transform("mean")
    found = step(mf.fit("y ~ x + (1|g)", data)._fit, alpha_fixed=0.0)
    assert found.random.loc["(1|g)", "eliminated"] == 1
    assert len(found.fit.design.blocks) == 0
    if found.fixed.loc["x", "eliminated"]:
        assert found.fit.design.formula.source == "y ~ 1"


def test_nothing_goes_if_nothing_may():
    fit = fit_reference(FIXED["ham"])
    found = step(fit, reduce_random=False, reduce_fixed=False)
    assert (found.random["eliminated"] == 0).all()
    assert (found.fixed["eliminated"] == 0).all()
    assert found.fit is fit


@pytest.mark.parametrize("keep", [["Gender"], "Gender", ["Gender:Product"]])
def test_kept_terms_stay(keep):
    found = step(fit_reference(FIXED["ham"]), keep=keep)
    term = "Gender" if "Gender" in keep else "Product:Gender"
    names = [t.name for t in found.fit.design.fixed.coded.terms]
    assert term in names


def test_kept_random_term_stays_however_it_is_written():
    fit = fit_reference(RANDOM["tv"])
    assert step(fit, reduce_fixed=False).random["eliminated"].max() == 1
    found = step(fit, keep=["(1|Picture:Assessor)"], reduce_fixed=False)
    assert found.random["eliminated"].max() == 0
    assert len(found.fit.design.blocks) == 3


def test_mixture_eliminates_less():
    # ham: (1 | Consumer) has LRT 3.01, naive p 0.083, mixture p 0.041.
    fit = fit_reference(RANDOM["ham"])
    options = {"alpha_random": 0.05, "reduce_fixed": False}
    assert step(fit, **options).random.loc["(1 | Consumer)", "eliminated"] == 1
    kept = step(fit, p="mixture", **options).random
    assert kept.loc["(1 | Consumer)", "eliminated"] == 0


def test_bad_input():
    fit = fit_of("Reaction ~ Days + (Days | Subject)", "sleepstudy", "REML")
    with pytest.raises(InferenceError, match="keep names 'Dys'") as caught:
        step(fit, keep=["Dys"])
    assert "Did you mean 'Days'?" in str(caught.value)
    with pytest.raises(InferenceError, match="keep names"):
        step(fit, keep=["Days + ("])
    with pytest.raises(InferenceError, match=r"alpha_fixed is 1\.5"):
        step(fit, alpha_fixed=1.5)
    with pytest.raises(InferenceError, match="Unknown p 'half'"):
        step(fit, p="half")
    with pytest.raises(InferenceError, match="Unknown ddf"):
        step(fit, ddf="exact")


def test_printed_path():
    found = step(fit_reference(FIXED["oats"]))
    text = str(Selection(found, None))
    assert "Backward elimination of random effects:" in text
    assert "Backward elimination of fixed effects:" in text
    lines = text.splitlines()
    assert any(line.startswith(" nitro:Variety          1") for line in lines)
    assert lines[lines.index("Model found:") + 1] == found.fit.design.formula.source
    assert "conservative at the boundary" in text
