"""contrasts="full": y = mu + delta_i and equivalents; additive-dominance coding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(6)
    n = 60
    table = pd.DataFrame(
        {
            "a": rng.choice(list("pqr"), n),
            "b": rng.choice(list("uv"), n),
            "k": rng.integers(1, 4, n),
            "x": rng.normal(size=n),
            "g": np.arange(n) % 6,
        }
    )
    effect = rng.normal(size=6)[table["g"]]
    return table.assign(y=effect + rng.normal(size=n))


def test_every_level_has_a_column_beside_the_intercept():
    m = mf.fit("gain ~ group", mf.datasets.load("pigs"), contrasts={"group": "full"})
    assert list(m.params.index) == ["Intercept", "group[Control]", "group[Treatment]"]
    np.testing.assert_allclose(m.params, [184.0 / 3.0, -9.0, np.nan])
    said = str(m)
    assert "dropped as combinations of other columns: group[Treatment]." in said
    assert (
        "not estimable by themselves, one of many solutions: Intercept, group" in said
    )


FULL_OF = {
    "y ~ a": {"a": "full"},
    "y ~ a * b": {"a": "full", "b": "full"},
    "y ~ a * b + x": {"a": "full"},
    "y ~ a:b": {"a": "full", "b": "full"},
    "y ~ a * x": {"a": "full"},
    "y ~ 0 + a * b": {"a": "full", "b": "sum"},
    "y ~ C(k) + x": {"k": "full"},
    "y ~ a * b + (1 | g)": {"a": "full", "b": "full"},
    "y ~ a + (a | g)": {"a": "full"},
}


@pytest.mark.parametrize("formula", FULL_OF)
def test_full_coding_is_an_equivalent_model(data, formula):
    m = mf.fit(formula, data, contrasts=FULL_OF[formula])
    plain = mf.fit(formula, data)
    np.testing.assert_allclose(m.fittedvalues, plain.fittedvalues, atol=1e-6)
    pd.testing.assert_frame_equal(m.anova(), plain.anova(), rtol=1e-5, atol=1e-8)
    assert len(m.design.fixed.kept) == len(plain.params)
    ml, ml_plain = (f.update(method="ML") for f in (m, plain))
    assert ml.llf == pytest.approx(ml_plain.llf, abs=1e-6)
    new = data.head(7)
    np.testing.assert_allclose(m.predict(new), plain.predict(new), atol=1e-6)
    names = [b.columns for b in m.design.blocks]
    assert names == [b.columns for b in plain.design.blocks]


def test_estimable_functions_do_not_depend_on_the_parameterization(data):
    full = mf.fit("y ~ a + (1 | g)", data, contrasts={"a": "full"})
    cells = mf.fit("y ~ 0 + a + (1 | g)", data)
    reference = mf.fit("y ~ a + (1 | g)", data)
    tests = [
        full.test("a[q] - a[p] = 0, a[r] - a[p] = 0"),
        cells.test("a[q] - a[p] = 0, a[r] - a[p] = 0"),
        reference.test("a[T.q] = 0, a[T.r] = 0"),
    ]
    for found in tests[:2]:
        assert found.f_value == pytest.approx(tests[2].f_value, rel=1e-5)
        assert found.den_df == pytest.approx(tests[2].den_df, rel=1e-4)
        np.testing.assert_allclose(found.table, tests[2].table, rtol=1e-4)
    mean = full.test("Intercept + a[p] = 0").table["estimate"].iloc[0]
    assert mean == pytest.approx(cells.params["a[p]"], rel=1e-6)
    np.testing.assert_allclose(
        full.emmeans("a").table["emmean"], cells.params, rtol=1e-6
    )


def test_updates_and_saved_models_keep_it(data, tmp_path):
    m = mf.fit("y ~ a * b + (1 | g)", data, contrasts={"a": "full", "b": "full"})
    smaller = m.update(". ~ . - a:b")
    assert list(smaller.params.index) == [
        "Intercept", "a[p]", "a[q]", "a[r]", "b[u]", "b[v]",
    ]  # fmt: skip
    m.save(tmp_path / "m.mixform")
    again = mf.load(tmp_path / "m.mixform")
    pd.testing.assert_series_equal(again.params, m.params)
    pd.testing.assert_frame_equal(again.anova(), m.anova())


def test_only_what_full_coding_does_not_explain_is_warned_of(data):
    twice = data.assign(twice=2.0 * data["x"])
    with pytest.warns(mf.RankDeficiencyWarning, match="twice"):
        mf.fit("y ~ a + x + twice", twice, contrasts={"a": "full"})


def test_lme4_has_no_such_contrasts(data):
    m = mf.fit("y ~ a + (1 | g)", data, contrasts={"a": "full"})
    with pytest.raises(InferenceError, match="a column for each level"):
        mf.compare_lme4(m, program_only=True)


def test_additive_and_dominance_coding_of_genotypes():
    # x = -1, 0, 1 for qq, Qq, QQ; cell means 1, 4, 5: mu = 3, a = 2, d = 1.
    table = pd.DataFrame(
        {"x": [-1, -1, 0, 0, 0, 1, 1], "y": [0.5, 1.5, 3.0, 4.0, 5.0, 4.5, 5.5]}
    )
    m = mf.fit("y ~ x + I(1 - abs(x))", table)
    np.testing.assert_allclose(m.params, [3.0, 2.0, 1.0])
    cells = mf.fit("y ~ 0 + C(x)", table)
    np.testing.assert_allclose(cells.params, [1.0, 4.0, 5.0])
    assert cells.rss == pytest.approx(m.rss)
    np.testing.assert_allclose(m.fittedvalues, cells.fittedvalues)
    additive = cells.test({"C(x)[1]": 0.5, "C(x)[-1]": -0.5})
    dominance = cells.test({"C(x)[0]": 1, "C(x)[1]": -0.5, "C(x)[-1]": -0.5})
    assert additive.f_value == pytest.approx(m.test("x = 0").f_value)
    assert dominance.table["estimate"].iloc[0] == pytest.approx(1.0)
    assert dominance.p_value == pytest.approx(m.pvalues.iloc[2])
    np.testing.assert_allclose(m.predict({"x": [-1, 0, 1]}), [1.0, 4.0, 5.0])
