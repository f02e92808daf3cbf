"""Every kind of bad input: one clear error, or the stated right answer."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import (
    DesignError,
    FormulaError,
    InferenceError,
    MixformError,
    RankDeficiencyWarning,
)


def make_table():
    random = np.random.default_rng(3)
    n = 40
    table = pd.DataFrame(
        {
            "x": random.normal(size=n),
            "trt": np.tile(["a", "b"], 20),
            "id": np.repeat(np.arange(8), 5),
            "row": np.arange(n),
            "gap": np.nan,
        }
    )
    table["y"] = table["x"] + random.normal(size=8)[table["id"]] + random.normal(size=n)
    return table


TABLE = make_table()


def with_y(value):
    y = TABLE["y"].copy()
    y.iloc[3] = value
    return TABLE.assign(y=y)


CASES = {
    "unknown column": (
        "y ~ tret + (1 | id)",
        TABLE,
        "Unknown column 'tret' in formula.",
        "tret",
        "Did you mean 'trt'? Columns: x, trt, id, row, gap, y.",
    ),
    "unknown column in a call": (
        "y ~ log(xx) + (1 | id)",
        TABLE,
        "Unknown column 'xx' in formula.",
        "xx",
        "Did you mean 'x'?",
    ),
    "unknown group": (
        "y ~ x + (1 | idd)",
        TABLE,
        "Unknown column 'idd' in formula.",
        "idd",
        "Did you mean 'id'?",
    ),
    "unknown column in a random term": (
        "y ~ x + (z | id)",
        TABLE,
        "Unknown column 'z' in formula.",
        "z",
        "Columns: x, trt,",
    ),
    "unknown response": (
        "Y ~ x",
        TABLE,
        "Unknown column 'Y' in formula.",
        "Y",
        "Did you mean 'y'?",
    ),
    "unknown function": (
        "y ~ foo(x)",
        TABLE,
        "Unknown function 'foo' in the formula.",
        "foo",
        "Compute the column in the data first",
    ),
    "function of R": (
        "y ~ stats.sd(x)",
        TABLE,
        "Unknown function 'stats.sd' in the formula.",
        "stats.sd",
        "Compute the column in the data first",
    ),
    "function of the wrong type": (
        "y ~ log(trt)",
        TABLE,
        "'log(trt)' cannot be evaluated: ",
        "log",
        "Check the types",
    ),
    "one number for all rows": (
        "y ~ max(x)",
        TABLE,
        "This part of the formula does not give a number for each row.",
        "max(x)",
        "Compute the column",
    ),
    "syntax": ("y ~ x + * z", TABLE, "The formula cannot be read.", "*", "Terms are"),
    "bar outside brackets": (
        "y ~ x | id",
        TABLE,
        "A bar must stand inside brackets.",
        "|",
        "(coefficients | group)",
    ),
    "no rows": (
        "y ~ x",
        TABLE.iloc[:0],
        "The data have no rows.",
        None,
        "Check how they were read.",
    ),
    "all rows missing": (
        "y ~ x + gap",
        TABLE,
        "No row is complete; missing values by column: gap 40 (of 40 rows).",
        None,
        "Leave the column",
    ),
    "all rows missing together": (
        "y ~ x + even + odd",
        TABLE.assign(
            even=TABLE["x"].where(TABLE["row"] % 2 == 0),
            odd=TABLE["x"].where(TABLE["row"] % 2 == 1),
        ),
        "No row is complete; missing values by column: even 20, odd 20",
        None,
        "Leave the column",
    ),
    "response of words": (
        "trt ~ x + (1 | id)",
        TABLE,
        "The response 'trt' is not numeric; it has the levels a, b.",
        "trt",
        "needs a numeric response",
    ),
    "response that is a factor": (
        "C(y) ~ x",
        TABLE,
        "The response 'C(y)' is not numeric.",
        "C(y)",
        "numeric response",
    ),
    "response of several columns": (
        "y + x ~ trt",
        TABLE,
        "The response 'y + x' has 2 columns.",
        "y + x",
        "I(a + b)",
    ),
    "constant response": (
        "y ~ x + (1 | id)",
        TABLE.assign(y=3.0),
        "The response 'y' is constant.",
        "y",
        "check the response",
    ),
    "response without a residual": (
        "y ~ x + (1 | id)",
        TABLE.assign(y=2 * TABLE["x"] + 1),
        "The fixed effects fit the response 'y' exactly.",
        "y",
        "check the response",
    ),
    "infinite response": (
        "y ~ x",
        with_y(np.inf),
        "'y' is infinite in 1 row.",
        "y",
        "Mark such values",
    ),
    "infinite covariate": (
        "y ~ log(w)",
        TABLE.assign(w=np.where(TABLE["row"] < 2, 0.0, 1.0)),
        "'log(w)' is infinite in 2 rows.",
        "log(w)",
        "Mark such values",
    ),
    "infinite offset": (
        "y ~ x + offset(w)",
        TABLE.assign(w=np.where(TABLE["row"] < 2, np.inf, 1.0)),
        "'offset(w)' is infinite in 2 rows.",
        "w",
        "Mark such values",
    ),
    "offset of words": (
        "y ~ x + offset(trt)",
        TABLE,
        "The offset is not one numeric column.",
        "trt",
        "Give numbers.",
    ),
    "one level": (
        "y ~ x + (1 | one)",
        TABLE.assign(one="a"),
        "Grouping by 'one' needs at least 2 levels, got 1.",
        "(1 | one)",
        "Drop the term",
    ),
    "as many levels as rows": (
        "y ~ x + (1 | row)",
        TABLE,
        "The random term (1 | row) has 40 effects for 40 rows",
        "(1 | row)",
        "Drop the term",
    ),
    "the same term twice": (
        "y ~ x + (1 | id) + (x | id)",
        TABLE,
        "'Intercept' of 'id' is in two terms, (1 | id) and (x | id)",
        "(x | id)",
        "Keep one of them",
    ),
    "the same term twice by nesting": (
        "y ~ x + (1 | trt) + (1 | trt/id)",
        TABLE,
        "'Intercept' of 'trt' is in two terms",
        "(1 | trt/id)",
        "Keep one of them",
    ),
    "term without coefficients": (
        "y ~ x + (0 | id)",
        TABLE,
        "The random term (0 | id) has no coefficients.",
        "(0 | id)",
        "Write (1 | id)",
    ),
    "dates": (
        "y ~ day",
        TABLE.assign(day=pd.date_range("2020-01-01", periods=40)),
        "Column 'day' has type datetime64",
        None,
        "days since a start date",
    ),
    "complex numbers": (
        "y ~ x",
        TABLE.assign(x=TABLE["x"] + 1j),
        "Column 'x' has type complex128",
        None,
        "Convert it",
    ),
    "lists": (
        "y ~ x + (1 | id)",
        TABLE.assign(id=[[1]] * 40),
        "Column 'id' has type object with values that are no labels",
        None,
        "Convert it",
    ),
    "levels that print alike": (
        "y ~ x + (1 | id)",
        TABLE.assign(id=[1, "1"] * 20),
        "Column 'id' has two levels that print alike",
        None,
        "Convert the column to one type",
    ),
    "duplicate column names": (
        "y ~ x",
        pd.concat([TABLE, TABLE[["x"]]], axis=1),
        "The data have 2 columns named 'x'.",
        None,
        "Rename or drop",
    ),
    "n < p": (
        "y ~ x + trt + (1 | id)",
        TABLE.iloc[[0, 7]],
        "2 rows cannot estimate 2 fixed effects and a residual variance.",
        None,
        "Use fewer fixed effects",
    ),
    "n = p": (
        "y ~ trt * part",
        pd.DataFrame(
            {"y": [1.0, 2, 4, 3], "trt": list("aabb"), "part": ["p", "q", "p", "q"]}
        ),
        "4 rows cannot estimate 4 fixed effects and a residual variance.",
        None,
        "Use fewer fixed effects",
    ),
    "numbers read as text": (
        "y ~ x + (1 | id)",
        TABLE.assign(x=TABLE["x"].astype(str)),
        "40 rows cannot estimate 40 fixed effects and a residual variance.",
        None,
        "'x' is a factor with 40 levels; convert it to numbers",
    ),
    "ragged columns": (
        "y ~ x",
        {"y": [1.0, 2.0], "x": [1.0]},
        "The mapping is not a table: All arrays must be of the same length.",
        None,
        "Give one value for each row",
    ),
    "no table": ("y ~ x", 3, "Data of type 'int' are not a table.", None, "Pass a"),
    "no file": ("y ~ x", "none.csv", "There is no file 'none.csv'.", None, "path"),
    "unknown format": (
        "y ~ x",
        "data.xlsx",
        "Cannot tell the format of the file 'data.xlsx'.",
        None,
        ".csv",
    ),
}


@pytest.mark.parametrize(
    ("formula", "data", "message", "marked", "hint"), CASES.values(), ids=CASES
)
def test_bad_input_gets_one_clear_error(formula, data, message, marked, hint):
    with pytest.raises(MixformError) as caught:
        mf.fit(formula, data)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.message.startswith(message)
    assert hint in error.hint
    assert "\n" not in error.one_line
    if marked is None:
        assert error.span is None
    else:
        assert error.span
        start, end = error.span
        assert formula[start:end] == marked
        assert str(error).splitlines()[2] == "    " + " " * start + "^" * (end - start)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lmer"}, "Unknown method 'LMER'."),
        ({"missing": "omit"}, "Unknown missing 'omit'."),
        ({"weights": [1.0]}, "weights has 1 values, the data have 40 rows."),
        ({"weights": "w"}, "Unknown column 'w'."),
        ({"offset": "trt"}, "'trt', given as offset, is not numeric"),
        ({"offset": [np.inf] + [0.0] * 39}, "'offset' is infinite in 1 row."),
        ({"subset": "x > 99"}, "subset selects no row."),
        ({"contrasts": {"id": "sum"}}, "contrasts names 'id'"),
    ],
    ids=str,
)
def test_bad_option_gets_one_clear_error(options, message):
    with pytest.raises(DesignError) as caught:
        mf.fit("y ~ x + (1 | id)", TABLE, **options)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_formula_that_is_no_string_is_refused():
    with pytest.raises(FormulaError, match="The formula is a int, not a string"):
        mf.fit(3, TABLE)


def test_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("")
    with pytest.raises(DesignError, match="cannot be read"):
        mf.fit("y ~ x", path)


def test_lazy_table_is_told_to_collect():
    polars = pytest.importorskip("polars")
    lazy = polars.DataFrame({"y": [1.0], "x": [1.0]}).lazy()
    with pytest.raises(DesignError, match=r"Call collect\(\)"):
        mf.fit("y ~ x", lazy)


def test_error_survives_pickling():
    with pytest.raises(FormulaError) as caught:
        mf.fit("y ~ tret", TABLE)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.span == caught.value.span


# What looks bad and is not.


def test_duplicated_index_works():
    data = TABLE.set_index(np.zeros(40, dtype=int))
    m = mf.fit("y ~ x + (1 | id)", data)
    assert m.criterion == mf.fit("y ~ x + (1 | id)", TABLE).criterion
    assert m.resid.index.equals(data.index)


def test_group_that_is_float_with_nan_works():
    data = TABLE.assign(id=TABLE["id"].where(TABLE["id"] != 3))
    m = mf.fit("y ~ x + (1 | id)", data)
    assert m.nobs == 35
    assert m.ranef()["level"].tolist() == ["0", "1", "2", "4", "5", "6", "7"]


@pytest.mark.parametrize("formula", ["y ~ 0 + (1 | id)", "y ~ -1 + (1 | id)", "y ~ 0"])
def test_X_of_rank_zero_works(formula):
    m = mf.fit(formula, TABLE)
    assert m.params.empty
    assert m.converged
    assert "No fixed effects." in str(m)
    np.testing.assert_allclose(m.predict(TABLE), m.fittedvalues)


def test_X_of_zeros_is_aliased_away():
    with pytest.warns(RankDeficiencyWarning, match="zero"):
        m = mf.fit("y ~ 0 + zero + (1 | id)", TABLE.assign(zero=0.0))
    assert m.params.isna().all()


def test_collinear_columns_are_dropped_with_a_warning():
    with pytest.warns(RankDeficiencyWarning, match="double"):
        m = mf.fit("y ~ x + double + (1 | id)", TABLE.assign(double=2 * TABLE["x"]))
    assert m.params.isna().tolist() == [False, False, True]


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_enormous_and_tiny_units_give_the_same_model(unit):
    m = mf.fit("y ~ x + (1 | id)", TABLE)
    scaled = mf.fit("y ~ x + (1 | id)", TABLE.assign(y=TABLE["y"] * unit))
    np.testing.assert_allclose(scaled.params, m.params * unit, rtol=1e-6)
    np.testing.assert_allclose(scaled.tvalues, m.tvalues, rtol=1e-5)
    np.testing.assert_allclose(scaled.ddf, m.ddf, rtol=1e-4)


def test_one_observation_per_cell_works():
    data = TABLE.assign(part=np.tile(np.arange(5), 8))
    m = mf.fit("y ~ x + (1 | id) + (1 | part)", data)
    assert m.converged
    assert m.nobs == 40


@pytest.mark.parametrize("call", [mf.datasets.load, mf.datasets.describe])
def test_unknown_data_set_suggests_the_nearest(call):
    with pytest.raises(DesignError) as caught:
        call("sleepstdy")
    assert caught.value.message == "Unknown data set 'sleepstdy'."
    assert caught.value.hint
    assert caught.value.hint.startswith("Did you mean 'sleepstudy'? Data sets: ")


def test_what_is_no_model_is_said():
    m = mf.fit("gain ~ group", mf.datasets.load("pigs"))
    for call in (
        lambda: mf.compare(m, 3),
        lambda: mf.bootstrap_lrt(m, "m"),
        lambda: mf.compare_lme4(None),
    ):
        with pytest.raises(InferenceError, match=r"is no fitted model[\s\S]*fit\(\)"):
            call()
