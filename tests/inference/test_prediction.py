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
from mixform.inference.prediction import predict_frame


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


def frame(m, newdata=None, **options):
    """Predict with uncertainty."""
    chosen = {"random": True, "new_levels": "raise", "interval": None, "level": 0.95}
    approximation = m._approximation("satterthwaite")
    return predict_frame(
        m._fit, newdata, approximation=approximation, **chosen | options
    )


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


def test_prediction_that_aliased_columns_leave_open_is_nan_with_a_warning():
    data = TABLE.assign(twice=2 * TABLE["x"])
    with pytest.warns(RankDeficiencyWarning):
        m = mf.fit("y ~ x + twice + trt + (1 | g)", data)
    rows = data.iloc[:3].assign(twice=[2 * data["x"][0], 1.0, 2.0])
    with pytest.warns(RankDeficiencyWarning, match="of 2 of 3 rows") as caught:
        found = m.predict(rows)
    assert found.isna().tolist() == [False, True, True]
    assert found.iloc[0] == pytest.approx(m.fittedvalues.iloc[0])
    assert caught[0].message.columns == ("twice",)
    assert caught[0].filename == __file__
    with pytest.warns(RankDeficiencyWarning, match="twice"):
        table = frame(m, rows, interval="confidence")
    assert table.isna().all(axis=1).tolist() == [False, True, True]


def test_empty_cell_of_two_factors_is_not_predicted():
    data = TABLE[~((TABLE["trt"] == "c") & TABLE["flag"])]
    with pytest.warns(RankDeficiencyWarning):
        m = mf.fit("y ~ trt * flag + (1 | g)", data)
    np.testing.assert_allclose(m.predict(data), m.fittedvalues)
    with pytest.warns(RankDeficiencyWarning, match="do not determine"):
        found = m.predict(TABLE)
    assert found.isna().equals((TABLE["trt"] == "c") & TABLE["flag"])


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


# The frame; its numbers are tested in test_prediction_error.


def test_frame_has_the_columns_asked_for_and_the_index_of_new_data():
    m = mf.fit("y ~ x + (x | g)", TABLE)
    rows = TABLE.sample(frac=0.3, random_state=1)
    plain, limits = frame(m, rows), frame(m, rows, interval="confidence")
    assert list(plain.columns) == ["estimate", "se", "df"]
    assert list(limits.columns) == ["estimate", "se", "df", "lower", "upper"]
    assert limits.index.equals(rows.index)
    pd.testing.assert_frame_equal(limits[plain.columns], plain)
    np.testing.assert_allclose(plain["estimate"], m.predict(rows))
    np.testing.assert_array_equal(frame(m)["estimate"], m.fittedvalues)
    alone = frame(m, rows.iloc[[3]], interval="confidence")
    pd.testing.assert_frame_equal(alone, limits.iloc[[3]])


@pytest.mark.parametrize("formula", [FORMULAS[j] for j in (1, 3, 4, 6, 7, 9)])
def test_the_data_as_new_data_have_the_same_errors(formula):
    m = mf.fit(formula, TABLE)
    for options in ({}, {"random": False, "interval": "prediction"}):
        pd.testing.assert_frame_equal(
            frame(m, TABLE, **options), frame(m, **options), rtol=1e-7
        )


def test_rows_with_missing_values_are_nan_throughout():
    m = mf.fit("y ~ x + trt + (1 | g)", TABLE)
    rows = TABLE.iloc[:4].copy()
    rows.loc[0, "x"] = np.nan
    rows.loc[2, "g"] = None
    found = frame(m, rows, interval="confidence")
    assert found.isna().all(axis=1).tolist() == [True, False, True, False]
    assert found.isna().any(axis=1).tolist() == [True, False, True, False]
    fixed = frame(m, rows, interval="prediction", random=False)
    assert fixed.isna().all(axis=1).tolist() == [True, False, False, False]


def test_transformation_undefined_in_new_data_has_no_error_either():
    m = mf.fit("y ~ log(x) + (log(x) | g)", TABLE)
    rows = TABLE.iloc[:2].assign(x=[-1.0, 2.0])
    for options in ({"random": True}, {"random": False}):
        found = frame(m, rows, **options)
        assert found.isna().all(axis=1).tolist() == [True, False]


def test_new_level_set_to_nan_has_no_error():
    m = mf.fit("y ~ x + (1 | g)", TABLE)
    rows = TABLE.iloc[:2].assign(g=["g0", "new"])
    found = frame(m, rows, new_levels="nan", interval="prediction")
    assert found.isna().all(axis=1).tolist() == [False, True]
    with pytest.raises(InferenceError, match="level 'new' of 'g'"):
        frame(m, rows)


def test_empty_new_data_give_an_empty_frame():
    m = mf.fit("y ~ x * trt + (x | g) + (1 | h)", TABLE)
    for random in (True, False):
        for interval in ("confidence", "prediction"):
            found = frame(m, TABLE.iloc[:0], random=random, interval=interval)
            assert found.shape == (0, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": "both"}, "Unknown interval 'both'"),
        ({"interval": True}, "Unknown interval True"),
        ({"level": 95}, "confidence level is 95"),
        ({"random": "q"}, "no random term 'q'"),
        ({"new_levels": "zero"}, "Unknown new_levels 'zero'"),
    ],
)
def test_unknown_options_are_named(options, message):
    m = mf.fit("y ~ x + (1 | g)", TABLE)
    with pytest.raises(InferenceError, match=message):
        frame(m, TABLE, **options)


def test_weights_are_those_of_the_new_rows():
    m = mf.fit("y ~ x + (1 | g)", TABLE, weights="z")
    rows = TABLE.iloc[:2].assign(z=[0.5, np.nan])
    known = frame(m, rows)
    found = frame(m, rows, interval="prediction")
    extra = found["se"] ** 2 - known["se"] ** 2
    assert extra.iloc[0] == pytest.approx(m.sigma**2 / 0.5)
    assert found.isna().iloc[1].tolist() == [False, True, True, True, True]
    with pytest.raises(DesignError, match="Unknown column 'z'"):
        frame(m, rows.drop(columns="z"), interval="prediction")
    frame(m, rows.drop(columns="z"), interval="confidence")
    with pytest.raises(DesignError, match="weights must be positive"):
        frame(m, rows.assign(z=[1.0, -1.0]), interval="prediction")


def test_array_of_weights_has_no_values_for_new_observations():
    m = mf.fit("y ~ x + (1 | g)", TABLE, weights=TABLE["z"].to_numpy())
    with pytest.raises(InferenceError, match="array of weights"):
        frame(m, TABLE, interval="prediction")
    own = frame(m, interval="prediction")["se"] ** 2 - frame(m)["se"] ** 2
    np.testing.assert_allclose(own, m.sigma**2 / TABLE["z"])


def test_terms_left_out_need_their_covariates_for_a_new_observation_only():
    m = mf.fit("y ~ trt + (x | g)", TABLE)
    without_group = TABLE.iloc[:3].drop(columns="g")
    only_fixed = without_group.drop(columns="x")
    frame(m, only_fixed, random=False, interval="confidence")
    frame(m, without_group, random=False, interval="prediction")
    with pytest.raises(DesignError, match="Unknown column 'x'"):
        frame(m, only_fixed, random=False, interval="prediction")
