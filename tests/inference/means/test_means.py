"""Marginal means: cell averages, dense algebra, invariance, R's emmeans, bad input."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError

REFERENCES = Path(__file__).parents[2] / "references"
TABLES: dict[str, dict[str, Any]] = {
    table["id"]: table
    for table in json.loads((REFERENCES / "means.json").read_text())["tables"]
}
#: Column of R's table -> ours.
COLUMNS = {
    "emmean": "emmean",
    "response": "response",
    "estimate": "estimate",
    "ratio": "ratio",
    "x.trend": "x.trend",
    "SE": "se",
    "df": "df",
    "lower.CL": "lower",
    "upper.CL": "upper",
    "null": "null",
    "t.ratio": "t_value",
    "p.value": "p_value",
}
#: emmeans integrates the multivariate t to 1e-3, with df cut to whole numbers.
INTEGRATED = {"method_consec", "method_mean_chg"}


def means_of(m, specs, by=None, **options):
    return m.emmeans(specs, by=by, **options)


@cache
def factorial(which):
    """The data sets that means.R makes of sim_factorial."""
    data = pd.read_csv(REFERENCES / "data" / "sim_factorial.csv")
    row = np.arange(len(data))
    data["two"] = (data["c"] == "c2").astype(int)
    data["site"] = data["a"] + data["b"]
    data["x"] = (7 * row) % 11 / 2
    data["known"] = row % 5
    if which == "unbalanced":
        return data.iloc[7:]
    if which == "no_cell":
        return data[~((data["a"] == "a1") & (data["b"] == "b2"))]
    return data[data["site"] != "a3b1"]


@cache
def fitted(formula, which):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mf.RankDeficiencyWarning)
        return mf.fit(formula, factorial(which))


def numbers(values):
    return np.array([np.nan if v is None else float(v) for v in values])


def ours(table):
    m = fitted(table["formula"], table["data"])
    options = {"at": table["at"], "weights": table["weights"], "type": table["type"]}
    specs, by = table["specs"], table["by"]
    specs = "1" if specs == ["1"] else specs
    if table["var"]:
        options.pop("type")
        return m.slopes(table["var"], specs, by=by, **options)
    found = means_of(m, specs, by, **options)
    return found.contrast(table["method"]) if table["method"] else found


@pytest.mark.parametrize("name", TABLES)
def test_means_agree_with_emmeans(name):
    table = TABLES[name]
    frame = ours(table).to_frame()
    rows = pd.DataFrame(table["rows"])
    for label in [*table["specs"], *table["by"], "contrast"]:
        if label in rows and label != "1":
            assert [str(v) for v in frame[label]] == [str(v) for v in rows[label]]
    for column, own in COLUMNS.items():
        if column not in rows:
            continue
        simulated = name in INTEGRATED and column in {"lower.CL", "upper.CL"}
        tolerance = {"rel": 1e-6, "abs": 1e-9}
        if column == "p.value":
            tolerance = {"rel": 0.0, "abs": 2e-3 if name in INTEGRATED else 1e-7}
        elif simulated:
            tolerance = {"rel": 5e-3, "abs": 5e-3}
        elif table["var"]:
            tolerance = {"rel": 2e-5, "abs": 1e-6}  # emtrends differences once
        assert frame[own].to_numpy(float) == pytest.approx(
            numbers(rows[column]), nan_ok=True, **tolerance
        ), column


# Exact.


@pytest.fixture(scope="module")
def stools():
    return mf.fit("effort ~ Type + (1 | Subject)", mf.datasets.load("ergoStool"))


def test_balanced_means_are_averages(stools):
    data = mf.datasets.load("ergoStool")
    table = means_of(stools, "Type").table
    averages = data.groupby("Type", observed=True)["effort"].mean()
    assert table["emmean"].to_numpy() == pytest.approx(averages.to_numpy(), rel=1e-10)
    # Var(mean) = (variance of subjects + residual variance) / 9.
    subjects = float(stools._fit.T[0][0, 0]) ** 2 * stools.sigma**2
    se = np.sqrt((subjects + stools.sigma**2) / 9.0)
    assert table["se"].to_numpy() == pytest.approx(se, rel=1e-8)


def test_balanced_pairs_have_the_df_of_the_residual(stools):
    table = means_of(stools, "Type").pairs().table
    assert table["se"].to_numpy() == pytest.approx(stools.sigma * np.sqrt(2 / 9))
    assert table["df"].to_numpy() == pytest.approx(24.0, rel=1e-5)


def test_means_of_an_additive_model_by_dense_algebra():
    """Equal weights: predictions at every combination, averaged by hand."""
    m = fitted("y ~ a + b + x", "unbalanced")
    data = factorial("unbalanced")
    X = np.column_stack(
        [
            np.ones(len(data)),
            *((data["a"] == level) for level in ("a2", "a3")),
            data["b"] == "b2",
            data["x"],
        ]
    ).astype(float)
    y = data["y"].to_numpy()
    beta = np.linalg.solve(X.T @ X, X.T @ y)
    sigma2 = ((y - X @ beta) ** 2).sum() / (len(y) - 5)
    L = np.array([[1, i == 1, i == 2, 0.5, data["x"].mean()] for i in range(3)], float)
    table = means_of(m, "a").table
    assert table["emmean"].to_numpy() == pytest.approx(L @ beta, rel=1e-10)
    V = sigma2 * np.linalg.inv(X.T @ X)
    se = np.sqrt(np.einsum("ij,jk,ik->i", L, V, L))
    assert table["se"].to_numpy() == pytest.approx(se, rel=1e-10)
    assert pytest.approx(L) == means_of(m, "a").L


def test_covariates_inside_transformations_are_at_the_mean_of_the_variable():
    m = fitted("y ~ a + poly(x, 2) + np.exp(x)", "unbalanced")
    x = factorial("unbalanced")["x"].mean()
    data = factorial("unbalanced").iloc[:3].assign(a=["a1", "a2", "a3"], x=x)
    with_predict = m.predict(data).to_numpy()
    assert means_of(m, "a").table["emmean"].to_numpy() == pytest.approx(with_predict)


def test_random_terms_and_their_variables_do_not_enter():
    data = mf.datasets.load("sleepstudy")
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data)
    row = means_of(m, "1").table.iloc[0]
    assert row["emmean"] == pytest.approx(data["Reaction"].mean(), rel=1e-10)
    with pytest.raises(InferenceError, match="'Subject' is in the random part only"):
        means_of(m, "Subject")


def test_pastes_pairs_as_multcomp_prints_them():
    m = mf.fit("strength ~ cask + (1 | batch)", mf.datasets.load("Pastes"))
    means = means_of(m, "cask", ddf="asymptotic")
    table = means.table
    assert table["emmean"].to_numpy() == pytest.approx([59.295, 60.145, 60.720])
    assert table["se"].to_numpy() == pytest.approx(0.837667, abs=1e-5)
    pairs = means.pairs().table
    assert pairs["estimate"].to_numpy() == pytest.approx([-0.85, -1.425, -0.575])
    assert pairs["se"].to_numpy() == pytest.approx(0.854752, abs=1e-5)
    p = pairs["p_value"].to_numpy()
    assert p == pytest.approx([0.580369, 0.217910, 0.779377], abs=1e-4)
    holm = means.pairs(adjust="holm").table["p_value"].to_numpy()
    assert holm == pytest.approx([0.640017, 0.286453, 0.640017], abs=1e-4)


# Invariance.


@pytest.mark.parametrize("coding", ["sum", "helmert", "poly"])
def test_means_do_not_depend_on_the_coding(coding):
    formula, data = "y ~ a * b + x + (1 | block)", factorial("unbalanced")
    plain = mf.fit(formula, data)
    coded = mf.fit(formula, data, contrasts={"a": coding, "b": coding})
    columns = ["emmean", "se", "df", "lower", "upper"]
    for specs in ("a", "a:b", "1"):
        one = means_of(plain, specs, ddf="kenward-roger").table[columns]
        two = means_of(coded, specs, ddf="kenward-roger").table[columns]
        assert two.to_numpy() == pytest.approx(one.to_numpy(), rel=1e-6)


def test_means_and_letters_follow_the_order_of_levels():
    data = mf.datasets.load("ergoStool")
    order = ["T3", "T1", "T4", "T2"]
    other = data.assign(Type=pd.Categorical(data["Type"], categories=order))
    one = mf.fit("effort ~ Type + (1 | Subject)", data)
    two = mf.fit("effort ~ Type + (1 | Subject)", other)
    first = means_of(one, "Type").letters().set_index("Type").loc[order]
    second = means_of(two, "Type").letters().set_index("Type")
    assert list(second.index) == order
    assert list(first["letters"]) == list(second["letters"])
    assert second["emmean"].to_numpy() == pytest.approx(first["emmean"].to_numpy())


def test_ddf_decides_df_and_se(stools):
    wald = means_of(stools, "Type", ddf="asymptotic").to_frame()
    assert np.all(np.isinf(wald["df"]))
    width = wald["upper"] - wald["emmean"]
    assert (width / wald["se"]).to_numpy() == pytest.approx(1.959963984540054)


# What cannot be estimated.


def test_a_mean_over_an_empty_cell_says_which():
    m = fitted("y ~ a * b + c", "no_cell")
    found = means_of(m, "b")
    assert np.isnan(found.table["emmean"].to_numpy()).tolist() == [False, True]
    said = "\n".join(found.notes)
    assert "b = b2 is not estimable: the data have no row with a = a1, b = b2" in said
    assert "nonEst" in str(found)
    # The difference that is estimable is estimated.
    pairs = means_of(m, "b", by="a").pairs().table
    assert np.isnan(pairs["estimate"].to_numpy()).tolist() == [True, False, False]


def test_an_aliased_covariate_is_named():
    data = factorial("unbalanced").assign(twice=lambda d: 2 * d["x"])
    with pytest.warns(mf.RankDeficiencyWarning):
        m = mf.fit("y ~ a + x + twice", data)
    x, twice = data["x"].mean(), data["twice"].mean()
    assert np.isfinite(means_of(m, "a").table["emmean"]).all()
    found = means_of(m, "a", at={"x": [x + 1.0], "twice": [twice]})
    assert np.isnan(found.table["emmean"]).all()
    assert "it needs twice, which the data do not tell" in "\n".join(found.notes)
    # Both moved together, the prediction does not depend on how they are told apart.
    moved = means_of(m, "a", at={"x": [x + 1.0], "twice": [twice + 2.0]})
    assert np.isfinite(moved.table["emmean"]).all()


# The ways to ask.


@pytest.mark.parametrize(
    ("specs", "by"),
    [("a | b", None), ("~ a | b", None), (["a"], ["b"]), ("a", "b")],
)
def test_specs_can_be_written_as_in_r(specs, by):
    m = fitted("y ~ a * b", "unbalanced")
    want = means_of(m, "a", by="b")
    found = means_of(m, specs, by)
    assert found.estimates.by == want.estimates.by == ("b",)
    pd.testing.assert_frame_equal(pd.DataFrame(found.table), pd.DataFrame(want.table))


@pytest.mark.parametrize("specs", ["a:b", "a * b", ["a", "b"], "~ a + b", ["a:b"]])
def test_several_variables(specs):
    table = means_of(fitted("y ~ a * b", "unbalanced"), specs).table
    assert list(table.columns[:2]) == ["a", "b"]
    assert list(table["a"]) == ["a1", "a2", "a3"] * 2  # the first varies fastest


def test_a_column_whose_name_is_no_word_can_be_named():
    data = factorial("unbalanced").rename(columns={"a": "a : b"})
    m = mf.fit("y ~ `a : b` + x", data)
    assert list(means_of(m, "a : b").table["a : b"]) == ["a1", "a2", "a3"]


def test_levels_may_be_given_as_numbers_or_text():
    m = fitted("y ~ C(two) * a", "unbalanced")
    for level in (1, 1.0, "1"):
        table = means_of(m, "a", at={"two": level}).table
        want = means_of(m, "a", by="two").table.iloc[3:]
        assert table["emmean"].to_numpy() == pytest.approx(want["emmean"].to_numpy())


def test_weights_may_be_given_by_level():
    m = fitted("y ~ a * b", "unbalanced")
    cells = means_of(m, "a:b").table.set_index(["b", "a"])["emmean"].unstack(0)
    table = means_of(m, "a", weights={"b": {"b1": 1, "b2": 3}}).table
    assert table["emmean"].to_numpy() == pytest.approx(
        (cells["b1"] / 4 + 3 * cells["b2"] / 4).to_numpy()
    )


# Bad input.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"specs": "trt"}, ["no variable 'trt'", "Variables: a, b, x"]),
        ({"specs": "y"}, ["no variable 'y'"]),
        ({"specs": ""}, ["No variable is named", "a, b, x"]),
        ({"specs": []}, ["No variable is named"]),
        ({"specs": None}, ["None names no variable"]),
        ({"specs": "block"}, ["'block' is in the random part only"]),
        ({"specs": "z"}, ["'z' is in the random part only"]),
        ({"specs": "pairwise ~ a"}, ["left-hand side", ".pairs()"]),
        ({"specs": "a", "by": "bb"}, ["no variable 'bb'", "Did you mean 'b'?"]),
        ({"specs": "a", "by": "a"}, ["'a' is both in specs and in by"]),
        ({"specs": "a", "at": {"u": 1}}, ["no variable 'u'"]),
        ({"specs": "a", "at": {"b": ["b3"]}}, ["'b' has no level 'b3'", "b1, b2"]),
        ({"specs": "a", "at": {"b": []}}, ["at names no value of 'b'"]),
        ({"specs": "a", "at": {"x": "high"}}, ["'high'", "is not numeric"]),
        ({"specs": "a", "at": {"x": [np.nan]}}, ["is not numeric"]),
        ({"specs": "a", "at": ["x"]}, ["at is of type 'list'"]),
        ({"specs": "a", "weights": "equals"}, ["Did you mean 'equal'?"]),
        ({"specs": "a", "weights": {"a": {}}}, ["'a', which the means are not"]),
        ({"specs": "a", "weights": {"b": {"b1": 1}}}, ["each of its levels", "b1, b2"]),
        (
            {"specs": "a", "weights": {"b": {"b1": 1, "b2": -2}}},
            ["weights of 'b' must be positive"],
        ),
        ({"specs": "a", "type": "data"}, ["Unknown type 'data'"]),
        ({"specs": "a", "adjust": "turkey"}, ["Did you mean 'tukey'?"]),
        ({"specs": "a", "level": 95}, ["level is 95, not between 0 and 1"]),
    ],
)
def test_bad_input_is_named(options, words):
    data = factorial("unbalanced").assign(z=lambda d: d["known"] / 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mf.SingularFitWarning)
        m = mf.fit("y ~ a * b + x + (z | block)", data)
    with pytest.raises(InferenceError) as caught:
        means_of(m, **options)
    for word in words:
        assert word in str(caught.value)
    assert str(caught.value).count("\n") <= 1  # one message, one hint


def test_a_transformation_that_cannot_be_undone_is_named():
    m = fitted("I(y**2) ~ a", "unbalanced")
    with pytest.raises(
        InferenceError, match=r"response 'I\(y\*\*2\)' cannot be undone"
    ):
        means_of(m, "a", type="response")
    assert means_of(m, "a").table["emmean"].notna().all()


def test_a_model_without_fixed_effects_has_no_means():
    m = mf.fit("y ~ 0 + (1 | block)", factorial("unbalanced"))
    with pytest.raises(InferenceError, match="no fixed effects"):
        means_of(m, "1")


def test_values_outside_a_transformation_are_named():
    m = fitted("y ~ np.log(x + 1) + a", "unbalanced")
    with pytest.raises(InferenceError, match=r"log\(x \+ 1\) is not defined"):
        means_of(m, "a", at={"x": -2.0})


# Print.


def test_printed_as_emmeans_prints():
    text = str(means_of(fitted("y ~ a * b", "unbalanced"), "a").pairs())
    assert "Results are averaged over the levels of: b" in text
    assert "tukey method for comparing a family of 3 estimates" in text
    assert text.startswith(" contrast estimate")
    grouped = str(means_of(fitted("y ~ a * b", "unbalanced"), "a", by="b"))
    assert "b = b1:" in grouped
    assert "Confidence level used: 0.95" in grouped


def test_html_and_latex_escape_levels():
    data = factorial("unbalanced").assign(a=lambda d: d["a"].map(lambda v: f"<{v}&"))
    found = means_of(mf.fit("y ~ a", data), "a")
    assert "&lt;a1&amp;" in found._repr_html_()
    assert r"\&" in found.summary().as_latex()


def test_the_table_belongs_to_the_user(stools):
    found = means_of(stools, "Type")
    table = found.table
    table["emmean"] = 0.0
    found.L[:] = 0.0
    assert (found.table["emmean"] > 0.0).all()
