"""Predictions: for the data, for new data, and what cannot be predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import mixform as mf
from mixform.errors import (
    DesignError,
    FormulaError,
    InferenceError,
    RankDeficiencyWarning,
)


def make_table():
    random = np.random.default_rng(5)
    n = 72
    table = pd.DataFrame(
        {
            "x": random.uniform(1.0, 3.0, n),
            "z": random.uniform(1.0, 2.0, n),
            "trt": np.tile(["a", "b", "c"], 24),
            "k": np.tile([1, 2, 3, 4], 18),
            "flag": np.tile([True, True, False], 24)[random.permutation(72)],
            "g": np.repeat([f"g{i}" for i in range(12)], 6),
            "h": np.tile(np.arange(6), 12),
        }
    )
    u = random.normal(size=12)
    table["y"] = 3 + table["x"] + np.repeat(u, 6) + random.normal(size=n)
    return table


TABLE = make_table()
FORMULAS = [
    "y ~ x + (1 | g)",
    "y ~ x * trt + (x | g)",
    "y ~ poly(x, 2) * trt + (0 + scale(x) | g)",
    "y ~ bs(x, df=5) + (1 | g) + (1 | h)",
    "y ~ scale(x) + center(z) + (scale(x) || g)",
    "y ~ C(k) + flag + (1 | g:trt)",
    "y ~ C(trt, contr.sum) + (C(trt) | h)",
    "y ~ x + offset(log(z)) + (1 | g/flag)",
    "log(y + 9) ~ factor(k) + I(x^2) + (1 | h)",
    "y ~ 0 + (1 | g)",
    "y ~ trt",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_data_as_new_data_give_the_fitted_values(formula):
    m = mf.fit(formula, TABLE)
    np.testing.assert_allclose(m.predict(TABLE), m.fittedvalues, rtol=1e-9)
    np.testing.assert_array_equal(m.predict(), m.fittedvalues)


@pytest.mark.parametrize("formula", FORMULAS)
def test_one_row_is_predicted_as_it_is_among_others(formula):
    m = mf.fit(formula, TABLE)
    for row in (0, 40):
        alone = m.predict(TABLE.iloc[[row]])
        assert alone.iloc[0] == pytest.approx(m.fittedvalues.iloc[row], rel=1e-9)


@pytest.mark.parametrize(
    "contrasts", ["sum", "helmert", "poly", [[1, 0], [0, 1], [2, 1]]]
)
def test_contrasts_of_the_fit_are_used_again(contrasts):
    m = mf.fit("y ~ trt * x + (1 | g)", TABLE, contrasts={"trt": contrasts})
    rows = TABLE[TABLE["trt"] != "b"]
    np.testing.assert_allclose(m.predict(rows), m.fittedvalues[rows.index], rtol=1e-9)


def test_random_effects_are_all_none_or_those_named():
    m = mf.fit("y ~ x + (1 | g) + (1 | h)", TABLE)
    X = m.design.X.to_numpy()
    fixed = X @ m.params.to_numpy()
    effects = m.ranef().set_index(["grp", "level"])["estimate"]
    g = effects.loc["g"].reindex(TABLE["g"]).to_numpy()
    h = effects.loc["h"].reindex(TABLE["h"].astype(str)).to_numpy()
    for newdata in (None, TABLE):
        for random, expected in [
            (False, fixed),
            ([], fixed),
            (["g"], fixed + g),
            ("h", fixed + h),
            (["(1 | h)"], fixed + h),
            (["g", "h"], fixed + g + h),
            (True, fixed + g + h),
        ]:
            found = m.predict(newdata, random=random)
            np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_unknown_random_term_is_named():
    m = mf.fit("y ~ x + (1 | g)", TABLE)
    with pytest.raises(InferenceError, match="no random term 'q'") as caught:
        m.predict(TABLE, random=["q"])
    assert caught.value.hint == "Random terms: g."


def test_index_and_order_of_new_data_are_kept():
    m = mf.fit("y ~ x + (1 | g)", TABLE)
    rows = TABLE.sample(frac=1, random_state=1)
    assert m.predict(rows).index.equals(rows.index)
    np.testing.assert_allclose(m.predict(rows), m.fittedvalues[rows.index])
    same = TABLE.set_index(np.zeros(72, dtype=int))
    assert m.predict(same).index.equals(same.index)


def test_polars_new_data_have_a_plain_index():
    m = mf.fit("y ~ x * trt + (1 | g)", TABLE)
    found = m.predict(pl.DataFrame(TABLE.to_dict("list")))
    assert found.index.equals(pd.RangeIndex(72))
    np.testing.assert_allclose(found, m.fittedvalues)


def test_missing_values_give_nan_in_their_rows_only():
    m = mf.fit("y ~ x + trt + offset(z) + (1 | g)", TABLE, offset="h")
    rows = TABLE.astype({"h": float})
    for row, name in enumerate(["x", "trt", "z", "g", "h"]):
        rows.loc[row, name] = None
    found = m.predict(rows)
    assert np.flatnonzero(found.isna()).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found[5:], m.fittedvalues[5:])
    without_group = m.predict(rows, random=False)
    assert np.flatnonzero(without_group.isna()).tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("name", ["x", "trt", "g"])
def test_column_that_is_all_missing_gives_nan(name):
    m = mf.fit("y ~ x + trt + (1 | g)", TABLE)
    assert m.predict(TABLE.assign(**{name: None})).isna().all()


@pytest.mark.parametrize("name", ["x", "trt", "g", "z", "h"])
def test_missing_column_is_named(name):
    m = mf.fit("y ~ x + trt + offset(z) + (1 | g)", TABLE, offset="h")
    with pytest.raises(DesignError, match=f"Unknown column '{name}'"):
        m.predict(TABLE.drop(columns=name))


def test_columns_not_needed_may_be_missing():
    m = mf.fit("y ~ x + (1 | g)", TABLE, weights="z")
    found = m.predict(TABLE[["x"]], random=False)
    np.testing.assert_allclose(found, m.predict(random=False))


def test_unseen_fixed_level_is_named_with_the_known_ones():
    m = mf.fit("y ~ trt + (1 | g)", TABLE)
    with pytest.raises(DesignError) as caught:
        m.predict(TABLE.assign(trt="d"))
    assert caught.value.message == (
        "Column 'trt' has the level 'd', which the fit has not seen."
    )
    assert "Levels: a, b, c." in caught.value.hint


def test_unseen_level_of_a_factor_made_in_the_formula_is_refused():
    m = mf.fit("y ~ C(k) + (1 | g)", TABLE)
    with pytest.raises((DesignError, FormulaError), match="not seen"):
        m.predict(TABLE.assign(k=9))


def test_level_of_the_data_that_the_fit_did_not_use_is_unseen():
    m = mf.fit("y ~ trt + (1 | g)", TABLE, subset="trt != 'c'")
    with pytest.raises(DesignError, match="level 'c'"):
        m.predict(TABLE)


@pytest.mark.parametrize(
    ("fitted", "new"),
    [
        (pd.Categorical(TABLE["trt"], list("cab")), TABLE["trt"]),
        (TABLE["trt"], TABLE["trt"].astype("category")),
        (TABLE["flag"], TABLE["flag"].astype(object)),
        (TABLE["flag"], TABLE["flag"].astype("boolean")),
        (TABLE["k"].astype("category"), TABLE["k"]),
        (TABLE["k"].astype("category"), TABLE["k"].astype(float)),
        (TABLE["k"].astype(str), TABLE["k"]),
        (TABLE["k"].astype(str), TABLE["k"].astype(str).astype("category")),
    ],
)
def test_levels_are_matched_by_their_labels(fitted, new):
    m = mf.fit("y ~ f + (1 | g)", TABLE.assign(f=fitted))
    rows = TABLE.assign(f=pd.Series(new))
    np.testing.assert_allclose(m.predict(rows), m.fittedvalues)
    np.testing.assert_allclose(m.predict(rows.iloc[[3]]), m.fittedvalues.iloc[[3]])


def test_numbers_for_a_boolean_factor_are_refused_not_guessed():
    m = mf.fit("y ~ flag + (1 | g)", TABLE)
    with pytest.raises(DesignError, match="which the fit has not seen"):
        m.predict(TABLE.assign(flag=TABLE["flag"].astype(int)))


def test_words_for_a_number_are_refused():
    m = mf.fit("y ~ x + (1 | g)", TABLE)
    with pytest.raises(DesignError, match="'x' is not numeric"):
        m.predict(TABLE.assign(x="low"))


def test_new_random_level_raises_is_the_population_or_nan():
    m = mf.fit("y ~ x + (x | g)", TABLE)
    rows = TABLE.iloc[:4].assign(g=["g0", "new", "g1", "newer"])
    with pytest.raises(InferenceError, match="level 'new' of 'g'") as caught:
        m.predict(rows)
    assert 'new_levels="population"' in caught.value.hint
    fixed = m.predict(rows, random=False)
    known = m.predict(rows.iloc[[0, 2]])
    found = m.predict(rows, new_levels="population")
    np.testing.assert_allclose(found.iloc[[1, 3]], fixed.iloc[[1, 3]])
    np.testing.assert_allclose(found.iloc[[0, 2]], known)
    found = m.predict(rows, new_levels="nan")
    assert found.isna().tolist() == [False, True, False, True]
    with pytest.raises(InferenceError, match="Unknown new_levels 'zero'"):
        m.predict(rows, new_levels="zero")


def test_new_combination_of_known_levels_is_a_new_level():
    data = TABLE.assign(trt=np.where(TABLE["g"] == "g0", "a", TABLE["trt"]))
    m = mf.fit("y ~ x + (1 | g:trt)", data)
    with pytest.raises(InferenceError, match="level 'g0:b' of 'g:trt'"):
        m.predict(TABLE.iloc[[1]])


def test_labels_with_colons_are_not_confused():
    data = TABLE.assign(
        a=np.where(TABLE["flag"], "a:b", "a"), b=np.where(TABLE["flag"], "c", "b:c")
    )
    m = mf.fit("y ~ x + (1 | a:b)", data)
    assert m.design.blocks[0].m == 2
    np.testing.assert_allclose(m.predict(data), m.fittedvalues)


@pytest.mark.parametrize("value", [2.0, 1.5])
def test_number_that_groups_is_found_alone(value):
    m = mf.fit("y ~ x + (1 | r)", TABLE.assign(r=np.tile([1.0, 1.5, 2.0], 24)))
    row = TABLE.iloc[[0]].assign(r=value)
    expected = m.ranef().set_index("level")["estimate"][f"{value:g}"]
    found = m.predict(row) - m.predict(row, random=False)
    assert found.iloc[0] == pytest.approx(expected)


def test_offset_is_evaluated_on_new_data():
    rows = TABLE.assign(z=TABLE["z"] + 1.0)
    by_column = mf.fit("y ~ x + (1 | g)", TABLE, offset="z")
    in_formula = mf.fit("y ~ x + offset(z) + (1 | g)", TABLE)
    for m in (by_column, in_formula):
        np.testing.assert_allclose(m.predict(rows), m.fittedvalues + 1.0)


def test_offset_array_has_no_values_for_new_data():
    m = mf.fit("y ~ x + (1 | g)", TABLE, offset=TABLE["z"].to_numpy())
    with pytest.raises(InferenceError, match="offset array") as caught:
        m.predict(TABLE)
    assert "column name" in caught.value.hint


def test_aliased_columns_do_not_disturb_predictions():
    data = TABLE.assign(twice=2 * TABLE["x"])
    with pytest.warns(RankDeficiencyWarning):
        m = mf.fit("y ~ x + twice + trt + (1 | g)", data)
    np.testing.assert_allclose(m.predict(data), m.fittedvalues)


def test_transformation_undefined_in_new_data_is_nan():
    m = mf.fit("y ~ log(x) + (1 | g)", TABLE)
    found = m.predict(TABLE.iloc[:2].assign(x=[-1.0, 2.0]))
    assert found.isna().tolist() == [True, False]


def test_new_data_are_not_changed():
    m = mf.fit("y ~ x * trt + (1 | g)", TABLE)
    rows = TABLE.copy(deep=True)
    m.predict(rows)
    pd.testing.assert_frame_equal(rows, TABLE)


def test_empty_new_data_give_an_empty_prediction():
    m = mf.fit("y ~ x * trt + (1 | g)", TABLE)
    assert m.predict(TABLE.iloc[:0]).empty
