"""Formula and data to arrays: names, rows, arguments, and what each refuses."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from formulaic import model_matrix

import mixform as mf
from mixform.covariance import STRUCTURES
from mixform.design import build_design
from mixform.errors import DesignError, FormulaError, RankDeficiencyWarning
from mixform.formula import parse_formula


@pytest.fixture
def table():
    random = np.random.default_rng(7)
    n = 48
    return pd.DataFrame(
        {
            "y": random.normal(10.0, 1.0, n),
            "x": random.uniform(1.0, 3.0, n),
            "z": random.uniform(1.0, 2.0, n),
            "t": np.tile(["a", "b", "c"], 16),
            "k": np.tile([3, 1, 2, 1], 12),
            "g": np.repeat([f"g{i}" for i in range(8)], 6),
        }
    )


def design_of(formula, data, **options):
    return build_design(parse_formula(formula, tuple(STRUCTURES)), data, **options)


def names_of(formula, data, **options):
    return list(design_of(formula, data, **options).fixed.names)


# Names and values are formulaic's.


@pytest.mark.parametrize(
    "right",
    [
        "1",
        "x",
        "x + z",
        "t",
        "0 + t",
        "x - 1",
        "t * x",
        "t / x",
        "t + t:x",
        "(x + z + t)**2",
        "poly(x, 2) * t",
        "bs(x, df=4)",
        "scale(x) + center(z)",
        "log(x) + np.exp(z)",
        "C(k) + I(x**2)",
        "C(t, contr.sum)",
        "x:z",
        "C(t, levels=['c', 'b', 'a'])",
    ],
)
def test_X_and_its_names_are_formulaics(table, right):
    expected = model_matrix(right, table)
    found = design_of(f"y ~ {right} + (1 | g)", table).X
    assert list(found.columns) == list(expected.columns)
    np.testing.assert_allclose(found, np.asarray(expected, dtype=float), rtol=1e-12)


@pytest.mark.parametrize(
    ("ours", "same"),
    [
        ("I(x^2)", "I(x**2)"),
        ("factor(k)", "C(k)"),
        ("as.numeric(k)", "k"),
        (". - g - k", "x + z + t"),
        ("(x + z)^2", "x * z"),
        ("x + -1", "x - 1"),
        ("x + 0", "x - 1"),
        ("sqrt(x)", "np.sqrt(x)"),
    ],
)
def test_R_spelling_gives_the_same_columns(table, ours, same):
    left, right = design_of(f"y ~ {ours}", table), design_of(f"y ~ {same}", table)
    np.testing.assert_array_equal(left.fixed.X, right.fixed.X)


def test_dot_is_all_columns_but_the_response(table):
    data = table.drop(columns="k")
    assert names_of("log(y) ~ .", data)[:3] == ["Intercept", "x", "z"]
    assert "y" not in names_of("log(y) ~ . - g", data)


def test_as_numeric_reads_the_levels_not_their_codes(table):
    data = table.assign(k=table["k"].astype(str))
    design = design_of("y ~ as.numeric(k)", data)
    np.testing.assert_array_equal(design.fixed.X[:, 1], table["k"])


def test_as_numeric_of_words_is_refused(table):
    with pytest.raises(FormulaError, match="levels a, b, c are not all numbers"):
        design_of("y ~ as.numeric(t)", table)


# Column names that Python or formulaic would misread.

ODD = [
    "yield",
    "class",
    "lambda",
    "in",
    "body.mass",
    "my column",
    "a-b",
    "1st",
    "C",
    "log",
    "I",
    "np",
    "contr",
    "scale",
    "poly",
    "offset",
    "factor",
    "True",
    "µ",
    "größe",
    "x:y",
    "a|b",
    "a(b",
    "a'b",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_name_works_as_covariate_in_calls_and_as_group(table, name):
    data = table.rename(columns={"x": name})
    plain = design_of("y ~ x + log(x) + C(t) + scale(z) + (log(x) | g)", table)
    odd = design_of(
        f"y ~ `{name}` + log(`{name}`) + C(t) + scale(z) + (log(`{name}`) | g)", data
    )
    np.testing.assert_array_equal(odd.fixed.X, plain.fixed.X)
    np.testing.assert_array_equal(odd.blocks[0].design, plain.blocks[0].design)
    quoted = name if name.isidentifier() else f"`{name}`"
    assert [n for n in odd.fixed.names if "log" in n and "(" in n][-1] in {
        f"log({quoted})",
        "a(b",
    }
    assert name in odd.fixed.names
    grouped = table.rename(columns={"g": name})
    assert design_of(f"y ~ x + (1 | `{name}`)", grouped).blocks[0].m == 8


@pytest.mark.parametrize("name", ["yield", "class", "lambda", "body.mass", "log", "µ"])
def test_odd_name_needs_no_quotes(table, name):
    data = table.rename(columns={"y": name})
    design = design_of(f"log({name}) ~ x + (1 | g)", data)
    np.testing.assert_allclose(design.y, np.log(table["y"]))
    data = table.rename(columns={"t": name})
    assert names_of(f"y ~ C({name})", data)[1].startswith("C(")


def test_column_and_function_of_one_name_live_together(table):
    data = table.rename(columns={"x": "C", "z": "log"})
    expected = design_of("y ~ x + C(t) + log(z)", table).fixed.X
    np.testing.assert_array_equal(
        design_of("y ~ C + C(t) + log(log)", data).fixed.X, expected
    )


def test_names_that_begin_alike_are_kept_apart(table):
    data = table.rename(columns={"x": "my x", "z": "my x z"})
    assert names_of("y ~ log(`my x`) + log(`my x z`)", data) == [
        "Intercept",
        "log(`my x`)",
        "log(`my x z`)",
    ]


def test_column_called_intercept_is_refused_beside_the_intercept(table):
    data = table.rename(columns={"x": "Intercept"})
    with pytest.raises(DesignError) as caught:
        design_of("y ~ Intercept + (1 | g)", data)
    assert caught.value.message == "Two coefficients are named 'Intercept'."
    assert caught.value.span == (4, 13)
    assert names_of("y ~ 0 + Intercept", data) == ["Intercept"]


# Random terms.


@pytest.mark.parametrize(
    ("term", "columns", "structure"),
    [
        ("(1 | g)", ("Intercept",), "us"),
        ("(x | g)", ("Intercept", "x"), "us"),
        ("(0 + x | g)", ("x",), "us"),
        ("(x - 1 | g)", ("x",), "us"),
        ("(x || g)", ("Intercept", "x"), "diag"),
        ("(t || g)", ("Intercept", "t[T.b]", "t[T.c]"), "diag"),
        ("(0 + t || g)", ("t[a]", "t[b]", "t[c]"), "diag"),
        ("(0 + scale(x) | g)", ("scale(x)",), "us"),
        ("(poly(x, 2) | g)", ("Intercept", "poly(x, 2)[1]", "poly(x, 2)[2]"), "us"),
        ("diag(t | g)", ("Intercept", "t[T.b]", "t[T.c]"), "diag"),
    ],
)
def test_random_term_has_these_coefficients(table, term, columns, structure):
    (block,) = design_of(f"y ~ 1 + {term}", table).blocks
    assert block.columns == columns
    assert block.term.structure == structure


def test_transformation_is_evaluated_in_the_random_part_alone(table):
    (block,) = design_of("y ~ 1 + (0 + log(x) | g)", table).blocks
    np.testing.assert_allclose(block.design[:, 0], np.log(table["x"]))


def test_double_bar_over_a_factor_says_its_columns(table):
    m = mf.fit("y ~ t + (t || g)", table)
    assert any("t[T.b], t[T.c]" in note for note in m.notes)
    Sigma = m.varcorr.query("grp == 'g'")
    assert Sigma["var2"].isna().all()


def test_nested_groups_with_reused_labels_are_crossed_inside(table):
    data = table.assign(cask=np.tile([1, 2, 3], 16))
    outer, inner = design_of("y ~ 1 + (1 | g/cask)", data).blocks
    assert (outer.m, inner.m) == (8, 24)
    assert list(inner.levels[:3]) == ["g0:1", "g0:2", "g0:3"]


def test_combinations_that_do_not_occur_have_no_level(table):
    data = table.assign(h=np.where(table["g"] == "g0", "u", "v"))
    assert design_of("y ~ 1 + (1 | g:h)", data).blocks[0].m == 8


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([3, 1, 2], ["1", "2", "3"]),
        ([True, False, True], ["False", "True"]),
        (["b", "a", "c"], ["a", "b", "c"]),
        ([1.0, np.nan, 2.0], ["1", "2"]),
        ([1.5, np.nan, 2.0], ["1.5", "2"]),
        (["", "a", "b"], ["", "a", "b"]),
        ([2**62, 2**62 + 1, 5], ["5", str(2**62), str(2**62 + 1)]),
        ([2**70, 1, 2], ["1", "2", str(2**70)]),
        ([1, "a", 2], ["1", "2", "a"]),
        (pd.Categorical(["a", "c", "a"], list("dcba")), ["c", "a"]),
        (pd.array([2, None, 1], dtype="Int64"), ["1", "2"]),
        (pd.array(["b", None, "a"], dtype="string"), ["a", "b"]),
        (pd.to_datetime(["2020-01-02", "2020-01-01", None]), None),
    ],
    ids=str,
)
def test_any_column_can_group(table, values, labels):
    data = table.assign(h=pd.Series(values).take(np.tile([0, 1, 2], 16)).array)
    design = design_of("y ~ 1 + (1 | h)", data)
    found = list(design.blocks[0].levels)
    expected = labels or ["2020-01-01 00:00:00", "2020-01-02 00:00:00"]
    assert found == expected
    assert design.used.sum() == 48 - 16 * int(pd.Series(values).isna().sum())


def test_one_column_can_be_covariate_and_group(table):
    design = design_of("y ~ k + (1 | k)", table)
    assert design.fixed.names == ("Intercept", "k")
    assert list(design.blocks[0].levels) == ["1", "2", "3"]


# Rows.


def test_one_mask_over_everything_the_model_uses(table):
    data = table.copy()
    for row, name in enumerate(["y", "x", "t", "g"]):
        data.loc[row, name] = None
    data["w"] = np.where(data.index == 4, np.nan, 1.0)
    data["o"] = np.where(data.index == 5, np.nan, 1.0)
    data["unused"] = np.nan
    data.loc[6, "z"] = -1.0
    design = design_of("y ~ x + t + log(z) + (1 | g)", data, weights="w", offset="o")
    assert np.flatnonzero(~design.used).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert design.n_missing == 7
    assert design.missing_columns == {
        "y": 1,
        "x": 1,
        "t": 1,
        "g": 1,
        "weights": 1,
        "offset": 1,
        "log(z)": 1,
    }
    assert list(design.row_index) == list(range(7, 48))


@pytest.mark.parametrize(
    "formula",
    [
        "log(z) ~ x + (1 | g)",
        "y ~ log(z) + (1 | g)",
        "y ~ x + (log(z) | g)",
        "y ~ x + offset(log(z)) + (1 | g)",
        "y ~ scale(x) + log(z) * t + (1 | g)",
    ],
)
def test_transformation_that_is_not_defined_is_a_missing_value(table, formula):
    data = table.copy()
    data.loc[[3, 9], "z"] = -1.0
    design = design_of(formula, data)
    assert design.n_missing == 2
    expected = design_of(formula, data.drop(index=[3, 9]))
    np.testing.assert_array_equal(design.fixed.X, expected.fixed.X)
    assert sum(design.missing_columns.values()) == 2


def test_transformation_that_depends_on_the_rows_left_is_refused(table):
    with pytest.raises(DesignError, match="depends on which rows") as caught:
        design_of("y ~ lag(x) + (1 | g)", table)
    assert caught.value.span == (4, 10)


def test_missing_raise_names_rows_and_columns(table):
    data = table.copy()
    data.loc[:4, "x"] = np.nan
    data.loc[3:5, "y"] = np.nan
    with pytest.raises(DesignError) as caught:
        design_of("y ~ x + (1 | g)", data, missing="raise")
    assert caught.value.message == "6 of 48 rows have missing values (y 3, x 5)."


def test_dropped_rows_are_counted_in_the_printout(table):
    data = table.copy()
    data.loc[:2, "x"] = np.nan
    data.loc[10, "z"] = -1.0
    text = str(mf.fit("y ~ x + log(z) + (1 | g)", data))
    assert (
        "4 of 48 rows dropped for missing values (x 3, log(z) is undefined in 1)"
        in text
    )
    assert "Number of obs: 44" in text


def test_levels_that_no_row_uses_are_dropped(table):
    data = table.assign(
        t=pd.Categorical(table["t"], list("abcd")),
        g=pd.Categorical(table["g"], [f"g{i}" for i in range(20)]),
    )
    design = design_of("y ~ t + (1 | g)", data)
    assert design.fixed.names == ("Intercept", "t[T.b]", "t[T.c]")
    assert design.blocks[0].m == 8
    design = design_of("y ~ t + (1 | g)", data, subset="t != 'a' and x > 0")
    assert design.fixed.names == ("Intercept", "t[T.c]")


INDEXES = {
    "strings": [f"row{i}" for i in range(48)],
    "duplicated": [0] * 48,
    "shuffled": list(np.random.default_rng(1).permutation(48)),
    "dates": pd.date_range("2020-01-01", periods=48),
    "multi": pd.MultiIndex.from_product([range(8), range(6)]),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_output_keeps_index_and_order(table, index):
    expected = mf.fit("y ~ x + (1 | g)", table)
    data = table.set_index(pd.Index(index))
    data.iloc[5, data.columns.get_loc("z")] = np.nan
    m = mf.fit("y ~ x + (1 | g)", data)
    assert m.fittedvalues.index.equals(data.index)
    np.testing.assert_array_equal(m.fittedvalues, expected.fittedvalues)
    with_gap = mf.fit("y ~ x + z + (1 | g)", data)
    assert with_gap.resid.index.equals(data.index.delete(5))
    assert with_gap.design.X.index.equals(data.index.delete(5))


def test_fit_does_not_depend_on_the_order_of_rows(table):
    m = mf.fit("y ~ t * x + (x | g)", table)
    shuffled = mf.fit("y ~ t * x + (x | g)", table.sample(frac=1, random_state=3))
    assert shuffled.criterion == pytest.approx(m.criterion, abs=1e-8)
    again = shuffled.fittedvalues.loc[table.index]
    np.testing.assert_allclose(again, m.fittedvalues, rtol=1e-5)


# Subset.


@pytest.mark.parametrize(
    "make",
    [
        lambda data: "x > 2",
        lambda data: "x > 2 and z > 0",
        lambda data: "keep",
        lambda data: data["x"] > 2,
        lambda data: (data["x"] > 2).to_numpy(),
        lambda data: list(data["x"] > 2),
        lambda data: pd.array(data["x"] > 2, dtype="boolean"),
        lambda data: (data["x"] > 2).sample(frac=1, random_state=1),
    ],
)
def test_subset_in_any_form_selects_the_rows(table, make):
    data = table.assign(keep=table["x"] > 2, **{"a(b": 1})
    design = design_of("y ~ x", data, subset=make(data))
    np.testing.assert_array_equal(design.used, data["x"] > 2)
    assert design.n_missing == 0


def test_subset_reads_back_quoted_names(table):
    data = table.rename(columns={"x": "my x"})
    design = design_of("y ~ z", data, subset="`my x` > 2 and t == 'a'")
    np.testing.assert_array_equal(design.used, (table["x"] > 2) & (table["t"] == "a"))


def test_missing_values_outside_the_subset_do_not_count(table):
    data = table.assign(x=table["x"].where(table["t"] != "a"))
    assert design_of("y ~ x", data, subset="t != 'a'").n_missing == 0


@pytest.mark.parametrize(
    ("subset", "message", "hint"),
    [
        ("x > 100", "subset selects no row.", "Check the condition"),
        ("xx > 1", "subset='xx > 1' cannot be evaluated", "Did you mean 'x'"),
        ("x >", "subset='x >' cannot be evaluated", "Write a condition"),
        ("x + 1", "subset is not boolean.", "True or False"),
        ([1, 0] * 24, "subset is not boolean.", "True or False"),
        ([True], "subset has 1 values, the data have 48 rows.", "one value for each"),
    ],
    ids=str,
)
def test_bad_subset_is_refused(table, subset, message, hint):
    with pytest.raises(DesignError) as caught:
        design_of("y ~ x", table, subset=subset)
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


# Weights and offset.

ARRAYS = {
    "array": lambda column: column.to_numpy(),
    "list": lambda column: column.tolist(),
    "series": lambda column: column,
    "shuffled series": lambda column: column.sample(frac=1, random_state=2),
    "nullable": lambda column: column.astype("Float64"),
}


@pytest.mark.parametrize("argument", ["weights", "offset"])
@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_argument_as_array_equals_argument_as_column(table, argument, make):
    by_name = design_of("y ~ x + (1 | g)", table, **{argument: "z"})
    by_array = design_of("y ~ x + (1 | g)", table, **{argument: make(table["z"])})
    np.testing.assert_array_equal(getattr(by_array, argument), table["z"])
    np.testing.assert_array_equal(by_array.fixed.Q, by_name.fixed.Q)


def test_offset_in_the_formula_equals_the_argument_and_both_add_up(table):
    in_formula = design_of("y ~ x + offset(2 * z) + offset(log(x))", table)
    expected = 2 * table["z"] + np.log(table["x"])
    np.testing.assert_allclose(in_formula.offset, expected)
    both = design_of("y ~ x + offset(z)", table, offset="z")
    np.testing.assert_allclose(both.offset, 2 * table["z"])
    m = mf.fit("y ~ x + offset(z) + (1 | g)", table)
    moved = mf.fit("y ~ x + (1 | g)", table.assign(y=table["y"] - table["z"]))
    np.testing.assert_allclose(m.params, moved.params, rtol=1e-6)
    np.testing.assert_allclose(m.fittedvalues, moved.fittedvalues + table["z"])


def test_offset_is_an_expression_not_an_interaction(table):
    design = design_of("y ~ offset(x * z)", table)
    np.testing.assert_allclose(design.offset, table["x"] * table["z"])


def test_weights_column_may_also_be_a_covariate(table):
    design = design_of("y ~ z + (1 | g)", table, weights="z")
    np.testing.assert_array_equal(design.weights, design.fixed.X[:, 1])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([-1.0] * 48, "weights must be positive and finite; 48 are not"),
        ([1.0] * 47 + [0.0], "weights must be positive and finite; 1 are not"),
        ([1.0] * 47 + [np.inf], "weights must be positive and finite; 1 are not"),
        ([1.0] * 47, "weights has 47 values, the data have 48 rows."),
        (2.0, "weights has shape (), not one dimension."),
        (np.ones((48, 1)), "weights has shape (48, 1), not one dimension."),
        ("t", "'t', given as weights, is not numeric"),
        ("zz", "Unknown column 'zz'."),
        (pd.Series(1.0, index=range(1, 49)), "The index of weights is not the index"),
    ],
    ids=str,
)
def test_bad_weights_are_refused(table, weights, message):
    with pytest.raises(DesignError) as caught:
        design_of("y ~ x", table, weights=weights)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_bad_weight_is_named_by_its_row(table):
    data = table.set_index(np.array([f"row{i}" for i in range(48)]))
    data["w"] = np.where(data.index == "row5", 0.0, 1.0)
    with pytest.raises(DesignError, match="first is 0 in row 'row5'"):
        design_of("y ~ x", data, weights="w")


def test_missing_weight_drops_its_row(table):
    weights = np.ones(48)
    weights[4] = np.nan
    assert design_of("y ~ x", table, weights=weights).missing_columns == {"weights": 1}


# Contrasts.


@pytest.mark.parametrize(
    ("contrast", "names"),
    [
        ("treatment", ["t[T.b]", "t[T.c]"]),
        ("sum", ["t[S.a]", "t[S.b]"]),
        ("helmert", ["t[H.b]", "t[H.c]"]),
        ("poly", ["t[.L]", "t[.Q]"]),
        ([[1, 0], [0, 1], [-1, -1]], ["t[1]", "t[2]"]),
        ([[-1], [0], [1]], ["t[1]"]),
    ],
    ids=str,
)
def test_contrasts_by_name_or_matrix(table, contrast, names):
    assert names_of("y ~ t", table, contrasts={"t": contrast})[1:] == names


@pytest.mark.parametrize("contrast", ["sum", "helmert", "poly"])
def test_contrasts_do_not_change_the_fit(table, contrast):
    m = mf.fit("y ~ t * x + (1 | g)", table, method="ML")
    other = mf.fit("y ~ t * x + (1 | g)", table, method="ML", contrasts={"t": contrast})
    assert other.criterion == pytest.approx(m.criterion, abs=1e-8)


def test_contrasts_reach_a_factor_made_in_the_formula(table):
    chosen = {"k": "sum", "t": "sum"}
    names = names_of("y ~ C(k) + factor(t) + k", table, contrasts=chosen)
    assert names[1:] == ["C(k)[S.1]", "C(k)[S.2]", "C(t)[S.a]", "C(t)[S.b]", "k"]


@pytest.mark.parametrize("dtype", ["int8", "int64", "float64", "Int64", "Float32"])
def test_whole_numbers_are_levels_without_a_point(table, dtype):
    names = names_of("y ~ C(k)", table.astype({"k": dtype}))
    assert names == ["Intercept", "C(k)[T.2]", "C(k)[T.3]"]


def test_contrasts_written_in_the_formula_come_first(table):
    formula = "y ~ C(t, contr.helmert)"
    names = names_of(formula, table, contrasts={"t": "sum"})
    assert names == names_of(formula, table)


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        ({"t": "summ"}, "Unknown contrast 'summ' for 't'."),
        ({"q": "sum"}, "contrasts names 'q', which is no variable of the formula."),
        ({"x": "sum"}, "contrasts names 'x', which is numeric and has no levels."),
        ({"t": [[1], [2]]}, "The contrast matrix of 't' has shape (2, 1)"),
        ({"t": [1, 2, 3]}, "The contrast matrix of 't' has shape (3,)"),
        ({"t": [["a"]] * 3}, "The contrast matrix of 't' holds values that are no"),
        ({"t": [[np.nan]] * 3}, "The contrast matrix of 't' holds values that are no"),
        ("sum", "contrasts is of type 'str', not a mapping."),
    ],
    ids=str,
)
def test_bad_contrasts_are_refused(table, contrasts, message):
    with pytest.raises(DesignError) as caught:
        design_of("y ~ t + x", table, contrasts=contrasts)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


# Aliased columns.


def test_aliased_columns_are_named_warned_of_and_kept_as_nan(table):
    data = table.assign(twice=2 * table["x"] + 1)
    with pytest.warns(RankDeficiencyWarning, match="twice") as caught:
        m = mf.fit("y ~ x + twice + z + (1 | g)", data)
    assert caught[0].message.columns == ("twice",)
    assert caught[0].filename == __file__
    assert list(m.params.index) == ["Intercept", "x", "twice", "z"]
    assert np.isnan(m.params["twice"])
    assert np.isnan(m.bse["twice"])
    expected = mf.fit("y ~ x + z + (1 | g)", data)
    np.testing.assert_allclose(m.params.drop("twice"), expected.params, rtol=1e-6)
    assert re.search(r"dropped as combinations of other columns: twice", str(m))


def test_empty_cell_of_an_interaction_is_aliased(table):
    data = table[~((table["t"] == "c") & (table["k"] == 2))].assign(
        k=lambda part: part["k"].astype(str)
    )
    with pytest.warns(RankDeficiencyWarning, match=re.escape("t[T.c]:k[T.2]")):
        m = mf.fit("y ~ t * k + (1 | g)", data)
    assert np.isnan(m.params["t[T.c]:k[T.2]"])


@pytest.mark.parametrize("shift", [0.0, 1e3])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_units_do_not_make_a_column_aliased(table, shift, scale):
    data = table.assign(x=(table["x"] + shift) * scale)
    assert design_of("y ~ x + I(x^2) + z", data).fixed.aliased == ()


def test_factor_of_one_level_is_refused_only_where_it_has_no_column(table):
    data = table.assign(t="a")
    with pytest.raises(DesignError) as caught:
        design_of("y ~ x * t + (1 | g)", data)
    assert caught.value.message == "The factor 't' has one level only."
    assert caught.value.span == (8, 9)
    assert names_of("y ~ 0 + t", data) == ["t[a]"]


def test_building_a_design_changes_no_input(table):
    before = table.copy(deep=True)
    weights, offset = table["z"].to_numpy(), table["x"].to_numpy()
    mask = (table["x"] > 1.5).to_numpy()
    copies = weights.copy(), offset.copy(), mask.copy()
    contrasts = {"t": "sum"}
    m = mf.fit(
        "log(y) ~ t * poly(x, 2) + (scale(x) | g)",
        table,
        weights=weights,
        offset=offset,
        subset=mask,
        contrasts=contrasts,
    )
    m.anova()
    for output in (m.fittedvalues, m.params, m.design.X):
        output.iloc[:] = 0.0
    pd.testing.assert_frame_equal(table, before)
    for given, copy in zip((weights, offset, mask), copies, strict=True):
        np.testing.assert_array_equal(given, copy)
    assert contrasts == {"t": "sum"}
    assert m.params.ne(0.0).all()
    assert m.fittedvalues.ne(0.0).all()
