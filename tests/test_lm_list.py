"""What `lm_list` refuses and says, and what it prints."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from tests.estimate.test_subjects import uneven


def few():
    """Subject p has two rows, q one time only, r is complete, as s and t."""
    return pd.DataFrame(
        {
            "id": list("ppqqqrrrrsssstttt"),
            "t": [0, 1, 3, 3, 3, 0, 1, 2, 3, 0, 1, 2, 4, 0, 1, 2, 5],
            "y": [1.0, 2, 3, 4, 5, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8],
            "arm": list("aabbbaaaabbbbaaaa"),
        }
    )


def message_of(call, error):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


# Formulas.


@pytest.mark.parametrize(
    ("formula", "message", "under"),
    [
        ("y ~ time", "no '|' outside brackets", "y ~ time"),
        ("y ~ (time | id)", "no '|' outside brackets", "y ~ (time | id)"),
        ("y ~ time | id | arm", "has one bar", "|"),
        ("y ~ time || id", "has one bar", "|"),
        ("y ~ time |", "Nothing stands right of the bar", "|"),
        ("y ~ time + (1 | arm) | id", "has no random terms", None),
        ("y ~ time | arm/id", "one grouping factor", "arm/id"),
        ("y ~ . | id", "which columns belong to which stage", None),
        ("y ~ time + | id", "A term is missing", None),
        ("y ~ tme | id", "Unknown column 'tme'", "tme"),
        ("y ~ time | idd", "Unknown column 'idd'", "idd"),
        ("z ~ time | id", "Unknown column 'z'", "z"),
        ("time | id", "no '~'", None),
        ("y ~ 0 | id", "no coefficients", "0"),
        ("y ~ time | log(id)", "'log(id)' is not a column", "log(id)"),
        ("y ~ time + arm | arm", "'arm' is the grouping factor", "arm"),
        ("y ~ factor(id) + time | id", "'id' is the grouping factor", "id"),
    ],
)
def test_first_formula_is_refused_with_the_place(formula, message, under):
    with pytest.raises(mf.MixformError) as caught:
        mf.lm_list(formula, uneven())
    assert message in caught.value.message
    assert caught.value.formula == formula
    if under is not None:
        start, end = caught.value.span
        assert formula[start:end] == under


def test_formula_is_a_string():
    assert "not a string" in message_of(
        lambda: mf.lm_list(3, uneven()), mf.FormulaError
    )


@pytest.mark.parametrize(
    ("between", "message", "under"),
    [
        ("arm", "starts with '~'", "arm"),
        ("y ~ arm", "has no response", "y"),
        ("~ arm + (1 | id)", "has no random terms", None),
        ("~ offset(age)", "has no offset", None),
        ("~ .", "which columns belong to which stage", None),
        ("~", "A term is missing", None),
        ("~ trm", "Unknown column 'trm'", "trm"),
        ("~ arm + time", "'time' varies within id", "time"),
        ("~ foo(arm)", "Unknown function 'foo'", None),
        ("~ 0", "has no columns", "0"),
        ("~ age + I(2 * age)", "are combinations of others: I(2 * age)", None),
        ("~ log(age - 1000)", "is not finite", None),
    ],
)
def test_second_formula_is_refused_with_the_place(between, message, under):
    m = mf.lm_list("y ~ time | id", uneven())
    for method in (m.second_stage, m.single_stage, m.compare):
        with pytest.raises(mf.MixformError) as caught:
            method(between)
        assert message in caught.value.message
        assert caught.value.formula == between
        if under is not None:
            start, end = caught.value.span
            assert between[start:end] == under


def test_second_formula_by_coefficient_names_known_ones():
    m = mf.lm_list("y ~ time | id", uneven())
    text = message_of(lambda: m.second_stage({"tim": "~ arm"}), mf.FormulaError)
    assert "names 'tim', no coefficient of the first" in text
    assert "Did you mean 'time'?" in text
    text = message_of(lambda: m.second_stage({"time": 3}), mf.FormulaError)
    assert "is a int, not a string" in text


def test_columns_of_a_term_with_two_formulas_make_no_single_stage():
    data = uneven(m=30).assign(part=lambda d: np.resize(list("abc"), len(d)))
    data = data.sort_values(["id", "time"])
    data["part"] = np.resize(list("abcd"), len(data))
    data["part"] = data.groupby("id").cumcount().map(lambda i: "abc"[i % 3])
    m = mf.lm_list("y ~ part | id", data)
    between = {"part[T.b]": "~ arm"}
    assert len(m.second_stage(between).naive) == 5
    text = message_of(lambda: m.single_stage(between), mf.DesignError)
    assert "'part' (part[T.b], part[T.c]) have different formulas" in text


def test_factors_that_the_mixed_model_codes_otherwise_make_no_single_stage():
    data = uneven(m=30)
    middle = data.groupby("id")["time"].transform("median")
    data["late"] = np.where(data["time"] > middle, "yes", "no")
    m = mf.lm_list("y ~ late | id", data)
    for between in ({"late[T.yes]": "~ 0 + arm"}, {"late[T.yes]": "~ 0 + age"}):
        text = message_of(lambda b=between: m.single_stage(b), mf.DesignError)
        assert "keep the intercept in the second stage" in text


# Subjects.


def test_subjects_with_too_few_rows_are_named_with_the_reason():
    text = message_of(lambda: mf.lm_list("y ~ t + I(t^2) | id", few()), mf.DesignError)
    assert "2 of 5 levels of 'id' have too few distinct rows for 3 coefficients" in text
    assert "p (2 rows), q ('t' is constant in 3 rows)" in text
    assert 'too_few="drop"' in text


def test_many_subjects_with_too_few_rows_are_counted():
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 2), "t": [0.0, 1.0] * 30})
    data["y"] = np.arange(60.0) ** 2
    text = message_of(
        lambda: mf.lm_list("y ~ poly(t, 1) + I(t^2) | id", data), ValueError
    )
    assert "30 of 30 levels" in text
    assert "0 (2 rows), 1 (2 rows), 2 (2 rows), 3 (2 rows), 4 (2 rows), ..." in text


def test_own_variance_needs_a_row_more():
    data = few().query("id != 'q'")
    assert mf.lm_list("y ~ t | id", data).df_resid == 6
    text = message_of(
        lambda: mf.lm_list("y ~ t | id", data, pool=False), mf.DesignError
    )
    assert "2 coefficients and a residual variance of their own: p (2 rows)" in text


def test_covariate_of_the_subject_in_the_first_stage_is_named():
    data = uneven(m=6)
    text = message_of(lambda: mf.lm_list("y ~ age + time | id", data), mf.DesignError)
    assert "s00 ('age' is constant in" in text
    assert "constant within subjects belongs in second_stage()" in text


def test_combination_of_other_covariates_is_named():
    data = uneven(m=6).assign(t=lambda d: 3 * d["time"] + d["time"].mean())
    text = message_of(lambda: mf.lm_list("y ~ time + t | id", data), mf.DesignError)
    assert "s00 ('t' is a combination of others in" in text


def test_dropped_subjects_are_named_everywhere():
    m = mf.lm_list("y ~ t + I(t^2) | id", few(), too_few="drop")
    assert list(m.coefficients.index) == ["r", "s", "t"]
    reasons = "p (2 rows), q ('t' is constant in 3 rows)"
    note = f"2 subjects dropped for too few rows: {reasons}."
    second = m.second_stage(D=np.eye(3))
    for notes, text in ((m.notes, str(m)), (second.notes, str(second))):
        assert note in notes
        assert f"Note: {note}" in text
    rest = mf.lm_list("y ~ t + I(t^2) | id", few().query("id in ['r', 's', 't']"))
    pd.testing.assert_frame_equal(m.coefficients, rest.coefficients)


def test_dropping_recodes_polynomials_on_what_is_left():
    m = mf.lm_list("y ~ poly(t, 2) | id", few(), too_few="drop")
    rest = mf.lm_list("y ~ poly(t, 2) | id", few().query("id in ['r', 's', 't']"))
    pd.testing.assert_frame_equal(m.coefficients, rest.coefficients)
    assert len(m.single_stage().params) == 3


def test_dropping_must_leave_two_subjects():
    data = few().query("id in ['p', 'q', 'r']")
    with pytest.raises(mf.DesignError, match="2 of 3 levels of 'id' have too few"):
        mf.lm_list("y ~ t + I(t^2) | id", data, too_few="drop")


def test_missing_values_drop_rows_and_are_counted():
    data = uneven(m=10)
    data.iloc[0, data.columns.get_loc("y")] = np.nan
    m = mf.lm_list("y ~ time | id", data)
    assert m.nobs == len(data) - 1
    assert m.notes == (f"1 of {len(data)} rows dropped for missing values (y 1).",)
    with pytest.raises(mf.DesignError, match=r"1 of .* rows have missing values"):
        mf.lm_list("y ~ time | id", data, missing="raise")
    with pytest.raises(mf.DesignError, match="No row is complete"):
        mf.lm_list("y ~ time | id", data.assign(y=np.nan))


def test_missing_covariates_of_subjects():
    data = uneven(m=20)
    data.loc[data["id"] == "s03", "arm"] = None
    m = mf.lm_list("y ~ time | id", data)
    second = m.second_stage("~ arm")
    assert "1 subject dropped for missing covariates: s03." in second.notes
    rest = mf.lm_list("y ~ time | id", data[data["id"] != "s03"])
    # sigma is of all subjects; with it given the others are all that counts.
    one = m.second_stage("~ arm", sigma=1.0).gls
    two = rest.second_stage("~ arm", sigma=1.0).gls
    pd.testing.assert_frame_equal(one, two)
    model, direct = m.single_stage("~ arm"), rest.single_stage("~ arm")
    assert model.criterion == pytest.approx(direct.criterion, rel=1e-12)
    strict = mf.lm_list("y ~ time | id", data, missing="raise")
    with pytest.raises(
        mf.DesignError, match="'arm' is missing for 1 of 20 subjects: s03"
    ):
        strict.second_stage("~ arm")


def test_covariate_missing_in_part_of_a_subject_is_refused():
    data = uneven(m=20)
    data.loc[data.index[data["id"] == "s03"][0], "age"] = np.nan
    m = mf.lm_list("y ~ time | id", data)
    with pytest.raises(
        mf.DesignError, match=r"'age' is missing in 1 of \d rows of id 's03'"
    ):
        m.second_stage("~ age")


def test_coding_that_depends_on_the_rows_is_refused_when_they_differ():
    data = uneven(m=20)
    data.loc[data["id"] == "s03", "arm"] = None
    m = mf.lm_list("y ~ poly(time, 2) | id", data)
    with pytest.raises(mf.DesignError, match="is not the product of"):
        m.single_stage("~ arm")


def test_covariate_that_varies_names_column_and_subject():
    data = uneven(m=20)
    data.loc[data.index[data["id"] == "s04"][0], "arm"] = "zzz"
    m = mf.lm_list("y ~ time | id", data)
    text = message_of(lambda: m.second_stage("~ arm"), mf.DesignError)
    assert "'arm' varies within id 's04'" in text
    assert "zzz" in text
    assert "^^^" in text


def test_too_few_subjects_for_the_second_stage():
    data = uneven(m=4)
    m = mf.lm_list("y ~ time | id", data)
    with pytest.raises(mf.DesignError, match="4 subjects cannot estimate 4 effects"):
        m.second_stage("~ id")
    with pytest.raises(mf.DesignError, match="'arm' has one level only"):
        mf.lm_list("y ~ time | id", data.assign(arm="a")).second_stage("~ arm")


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"too_few": "ignore"}, "Unknown too_few 'ignore'"),
        ({"missing": "ignore"}, "Unknown missing 'ignore'"),
        ({"weights": "v"}, "Unknown column 'v'"),
        ({"weights": "y"}, "weights must be positive"),
        ({"subset": "nothing > 3"}, "cannot be evaluated"),
    ],
)
def test_arguments_are_checked(arguments, message):
    data = uneven(m=6).assign(y=lambda d: d["y"] - 10)
    with pytest.raises(mf.DesignError, match=message):
        mf.lm_list("y ~ time | id", data, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"correct": "naive"}, "Unknown correct 'naive'"),
        ({"D": np.eye(3)}, "D is not a covariance of 2 coefficients"),
        ({"D": "one"}, "D is not a covariance of 2 coefficients"),
        ({"D": [[1.0, 2.0], [0.0, 1.0]]}, "D is not symmetric"),
        ({"D": pd.DataFrame(np.eye(2))}, "labels of D are not the coefficients"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"sigma": np.nan}, "sigma is nan"),
    ],
)
def test_arguments_of_the_second_stage_are_checked(arguments, message):
    m = mf.lm_list("y ~ time | id", uneven(m=10))
    with pytest.raises(ValueError, match=message):
        m.second_stage("~ 1", **arguments)


def test_other_arguments_are_checked():
    m = mf.lm_list("y ~ time | id", uneven(m=10))
    with pytest.raises(mf.DesignError, match="Unknown method 'Bayes'"):
        m.single_stage(method="Bayes")
    with pytest.raises(mf.DesignError, match="Unknown estimator 'ols'"):
        m.second_stage().conf_int(estimator="ols")
    with pytest.raises(mf.InferenceError, match="confidence level"):
        m.conf_int(95)
    with pytest.raises(mf.InferenceError, match=r"no regression for id 'zz'"):
        m.cov("zz")
    with pytest.raises(mf.InferenceError, match=r"no regression for id 'zz'"):
        m.predict({"id": ["zz"], "time": [1.0]})
    with pytest.raises(mf.DesignError, match="Unknown column 'time'"):
        m.predict({"id": ["s01"]})


def test_covariance_given_as_a_frame_is_taken_by_labels():
    m = mf.lm_list("y ~ time | id", uneven())
    D = np.array([[4.0, 0.5], [0.5, 0.3]])
    names = ["time", "Intercept"]
    frame = pd.DataFrame(D[::-1, ::-1], index=names, columns=names)
    one, two = m.second_stage(D=D), m.second_stage(D=frame)
    pd.testing.assert_frame_equal(one.gls, two.gls)
    pd.testing.assert_frame_equal(one.D, two.D)


def test_intervals_of_the_second_stage():
    second = mf.lm_list("y ~ time | id", uneven()).second_stage("~ arm")
    for estimator in ("gls", "naive"):
        limits, table = second.conf_int(0.9, estimator), getattr(second, estimator)
        width = (limits["upper"] - limits["lower"]) / 2 / table["se"]
        # t quantile with 40 - 3 degrees of freedom
        assert width.to_numpy() == pytest.approx(np.full(6, 1.687094), abs=1e-6)


# Data.


def test_data_are_not_changed_and_kept():
    data = uneven()
    before = data.copy()
    m = mf.lm_list("y ~ time | id", data)
    expected = m.compare("~ arm").frame
    pd.testing.assert_frame_equal(data, before)
    data["arm"] = "gone"
    pd.testing.assert_frame_equal(m.compare("~ arm").frame, expected)
    coefficients, rss = m.coefficients, m.rss
    coefficients.loc[:, "time"] = 0.0
    rss.loc[:] = 0.0
    assert (m.coefficients["time"] != 0.0).all()
    assert (m.rss > 0.0).all()


def test_files_and_mappings_are_tables_too(tmp_path):
    data = uneven()
    expected = mf.lm_list("y ~ time | id", data).compare("~ arm").frame
    data.to_csv(tmp_path / "d.csv", index=False)
    for table in (str(tmp_path / "d.csv"), data.to_dict("list")):
        frame = mf.lm_list("y ~ time | id", table).compare("~ arm").frame
        pd.testing.assert_frame_equal(frame, expected)


def test_columns_may_have_any_name():
    data = uneven().rename(columns={"time": "the time", "arm": "class", "id": "a.b"})
    m = mf.lm_list("y ~ `the time` | `a.b`", data)
    expected = mf.lm_list("y ~ time | id", uneven()).compare("~ arm")
    both = m.compare("~ class")
    assert both.formula == "y ~ `the time` * class + (`the time` | a.b)"
    assert both.frame.to_numpy() == pytest.approx(expected.frame.to_numpy())


# Printing.


def test_printing_is_by_coefficient_as_in_nlme():
    m = mf.lm_list("distance ~ age | Subject", mf.datasets.load("Orthodont"))
    text = str(m)
    assert "Formula: distance ~ age | Subject" in text
    assert " M13    2.800      3.288   0.852   0.3982" in text
    assert " M13   1.9500     0.2929   6.657 1.49e-08" in text
    assert "Residual standard error: 1.310 on 54 degrees of freedom" in text
    assert "Number of obs: 108, groups: Subject, 27" in text
    assert repr(m) == text
    assert "<table" in m._repr_html_()
    assert "tabular" in m.summary().as_latex()


def test_many_subjects_are_not_all_printed():
    text = str(mf.lm_list("y ~ time | id", uneven(m=100), weights="w", pool=False))
    assert "... and 90 more" in text
    assert "Weights: w" in text
    assert "Residual standard error" not in text


def test_second_stage_prints_both_estimates():
    m = mf.lm_list("y ~ time | id", uneven())
    text = str(m.second_stage({"time": "~ arm"}, correct="reml"))
    for piece in (
        "Intercept: ~ 1",
        "time: ~ arm",
        "naive",
        "D by REML, sampling errors known",
        "Number of subjects: 40",
    ):
        assert piece in text


def on_a_line(values):
    """Three subjects, the second of which has these values."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame(
        {"id": np.repeat(["a", "b", "c", "d"], 4), "t": [0, 1, 2, 3] * 4}
    )
    data["y"] = rng.normal(5.0, 2.0, 4).repeat(4) + data["t"] + rng.normal(size=16)
    data.loc[data["id"] == "b", "y"] = values
    return data


@pytest.mark.parametrize("values", [[0.1, 0.4, 0.7, 1.0], [7.1] * 4])
def test_subject_without_residuals_is_named(values):
    own = mf.lm_list("y ~ t | id", on_a_line(values), pool=False)
    note = "The rows of b lie on the regression: standard errors are rounding."
    assert own.notes == (note,)
    assert f"Note: {note}" in str(own)
    constant = values[0] == values[-1]
    assert np.isnan(own.r2["b"]) if constant else own.r2["b"] == pytest.approx(1.0)
    assert note in own.second_stage().notes  # D by moments needs no weights
    for correct in ("reml", "ml"):
        with pytest.raises(mf.InferenceError, match="of id 'b' leaves no residual"):
            own.second_stage(correct=correct)
    # The pooled variance is that of the others.
    assert mf.lm_list("y ~ t | id", on_a_line(values)).notes == ()


def test_subjects_that_all_lie_on_their_lines_are_noted():
    data = on_a_line([0.0, 1.0, 2.0, 3.0])
    found = mf.lm_list("z ~ t | id", data.assign(z=0.3 * data["t"] + 1.7))
    assert found.notes[0].startswith("The rows of a, b, c, d lie on")


def test_correction_may_be_written_as_methods_are():
    data = mf.datasets.load("Orthodont")
    found = mf.lm_list("distance ~ age | Subject", data)
    assert str(found.second_stage(correct="REML")) == str(
        found.second_stage(correct="reml")
    )
