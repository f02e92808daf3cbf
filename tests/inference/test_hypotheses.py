"""Types I, II and III against sums of squares of nested linear models."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.design.model_matrix import Term
from mixform.inference.hypotheses import contains


def unbalanced(seed=0):
    """A 3 x 2 layout with 2 to 5 rows in a cell, and a covariate."""
    rng = np.random.default_rng(seed)
    counts = iter([4, 2, 5, 3, 2, 4])
    rows = [cell for cell in product("abc", "uv") for _ in range(next(counts))]
    data = pd.DataFrame(rows, columns=["f", "g"])
    data["x"] = rng.normal(size=len(data))
    data["y"] = (
        rng.normal(size=len(data)) + data["f"].map({"a": 0, "b": 1, "c": 3}) + data["x"]
    )
    return data


def coded(data, *terms, coding="treatment"):
    """Columns of X: treatment or sum coding, products for interactions."""

    def one(name):
        if name == "x":
            return data[["x"]].to_numpy()
        levels = sorted(set(data[name]))
        if coding == "sum":
            columns = [
                (data[name] == level).astype(float) - (data[name] == levels[-1])
                for level in levels[:-1]
            ]
        else:
            columns = [(data[name] == level).astype(float) for level in levels[1:]]
        return np.column_stack(columns)

    parts = [np.ones((len(data), 1))]
    for term in terms:
        part = np.ones((len(data), 1))
        for name in term.split(":"):
            part = np.einsum("ij,ik->ijk", part, one(name)).reshape(len(data), -1)
        parts.append(part)
    return parts


def rss(data, parts):
    X, y = np.hstack(parts), data["y"].to_numpy()
    rest = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    return rest @ rest, len(y) - X.shape[1]


def f_between(data, smaller, larger, full):
    (rss_0, df_0), (rss_1, df_1) = rss(data, smaller), rss(data, larger)
    rss_full, df_full = rss(data, full)
    return (rss_0 - rss_1) / (df_0 - df_1) / (rss_full / df_full)


TERMS = ["f", "g", "f:g"]


@pytest.mark.parametrize("term", TERMS)
def test_type_one_is_the_reduction_by_each_term_in_turn(term):
    data = unbalanced()
    parts = coded(data, *TERMS)
    at = TERMS.index(term) + 1
    expected = f_between(data, parts[:at], parts[: at + 1], parts)
    table = mf.fit("y ~ f * g", data).anova(1)
    assert table.loc[term, "f_value"] == pytest.approx(expected)
    assert table.loc[term, "den_df"] == pytest.approx(len(data) - 6)


def test_type_one_depends_on_the_order_of_the_terms():
    data = unbalanced()
    one = mf.fit("y ~ f + g", data).anova(1)
    other = mf.fit("y ~ g + f", data).anova(1)
    assert abs(one.loc["f", "f_value"] - other.loc["f", "f_value"]) > 1e-3


@pytest.mark.parametrize(
    ("term", "others"), [("f", ["g"]), ("g", ["f"]), ("f:g", ["f", "g"])]
)
def test_type_two_is_the_reduction_given_terms_that_do_not_contain_it(term, others):
    data = unbalanced()
    smaller, larger = coded(data, *others), coded(data, *others, term)
    expected = f_between(data, smaller, larger, coded(data, *TERMS))
    table = mf.fit("y ~ f * g", data).anova(2)
    assert table.loc[term, "f_value"] == pytest.approx(expected)


@pytest.mark.parametrize("term", TERMS)
def test_type_three_is_the_drop_of_sum_coded_columns(term):
    data = unbalanced()
    full = coded(data, *TERMS, coding="sum")
    smaller = [part for j, part in enumerate(full) if j != TERMS.index(term) + 1]
    expected = f_between(data, smaller, full, full)
    table = mf.fit("y ~ f * g", data).anova(3)
    assert table.loc[term, "f_value"] == pytest.approx(expected)


def test_type_three_of_a_factor_beside_its_slopes_is_at_covariate_zero():
    data = unbalanced()
    full = coded(data, "f", "x", "f:x")
    smaller = [full[0], *full[2:]]
    expected = f_between(data, smaller, full, full)
    table = mf.fit("y ~ f * x", data).anova(3)
    assert table.loc["f", "f_value"] == pytest.approx(expected)
    assert "f is tested at x = 0." in str(table)


def test_type_three_of_a_slope_beside_its_factor_is_the_mean_slope():
    data = unbalanced()
    m = mf.fit("y ~ f * x", data)
    mean = {"x": 1.0, "f[T.b]:x": 1 / 3, "f[T.c]:x": 1 / 3}
    assert m.anova(3).loc["x", "f_value"] == pytest.approx(m.test(mean).f_value)


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("coding", ["sum", "helmert", "poly"])
def test_f_tests_do_not_depend_on_the_coding_of_factors(kind, coding):
    data = unbalanced()
    data["h"] = np.arange(len(data)) % 4
    formula = "y ~ f * g + x + (1 | h)"
    one = mf.fit(formula, data).anova(kind)
    other = mf.fit(formula, data, contrasts={"f": coding, "g": coding}).anova(kind)
    np.testing.assert_allclose(other, one, rtol=1e-6)


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_types_agree_for_a_model_of_one_term(kind):
    data = unbalanced()
    table = mf.fit("y ~ f", data).anova(kind)
    expected = f_between(data, coded(data), coded(data, "f"), coded(data, "f"))
    assert table.loc["f", "f_value"] == pytest.approx(expected)


def test_types_agree_in_a_balanced_layout():
    data = unbalanced().groupby(["f", "g"]).head(2)
    m = mf.fit("y ~ f * g", data)
    np.testing.assert_allclose(m.anova(1), m.anova(2), rtol=1e-8)
    np.testing.assert_allclose(m.anova(1), m.anova(3), rtol=1e-8)


def test_sums_of_squares_add_up_to_the_model_in_type_one():
    data = unbalanced()
    table = mf.fit("y ~ f * g", data).anova(1)
    total, _ = rss(data, coded(data))
    rest, _ = rss(data, coded(data, *TERMS))
    assert table["sum_sq"].sum() == pytest.approx(total - rest)


def term(factors="", covariates=""):
    return Term(
        name="",
        factors=frozenset(factors),
        covariates=frozenset(covariates),
        columns=(),
    )


@pytest.mark.parametrize(
    ("larger", "smaller", "expected"),
    [
        (("fg", ""), ("f", ""), True),
        (("f", ""), ("fg", ""), False),
        (("f", ""), ("f", ""), False),
        (("f", "x"), ("f", ""), False),  # other covariates
        (("f", "x"), ("", "x"), True),
        (("gh", ""), ("f", ""), False),
        (("f", ""), ("", ""), True),
    ],
)
def test_term_contains_another_with_fewer_factors(larger, smaller, expected):
    assert contains(term(*larger), term(*smaller)) is expected


def test_covariate_beside_its_slopes_by_level_is_tested_as_their_mean():
    """SAS's type III of x in x + f:x; lmerTest tests the slope of one level."""
    rng = np.random.default_rng(4)
    n = 90
    data = pd.DataFrame({"f": np.tile(list("abc"), n // 3), "x": rng.normal(size=n)})
    data["g"] = rng.integers(0, 9, n)
    slopes = data["f"].map({"a": 0.2, "b": 1.0, "c": 2.5})
    data["y"] = slopes * data["x"] + rng.normal(size=n) + rng.normal(size=9)[data["g"]]
    m = mf.fit("y ~ x + f:x + (1 | g)", data)
    cells = mf.fit("y ~ 0 + f:x + (1 | g) + I(x * 0 + 1)", data)
    mean = cells.test(
        dict.fromkeys([c for c in cells.params.index if "f[" in c], 1 / 3)
    )
    assert m.anova().loc["x", "f_value"] == pytest.approx(mean.f_value, rel=1e-6)


def test_factor_with_another_nested_in_it_is_tested_over_the_mean_of_the_latter():
    """SAS's type III of f in f/h equals that in f * h."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame(
        {"f": rng.choice(list("ab"), 80), "h": rng.choice(list("uv"), 80)}
    )
    data["g"] = rng.integers(0, 8, 80)
    data["y"] = rng.normal(size=80) + rng.normal(size=8)[data["g"]]
    nested = mf.fit("y ~ f / h + (1 | g)", data).anova()
    crossed = mf.fit("y ~ f * h + (1 | g)", data).anova()
    ours, theirs = nested.loc["f", "f_value"], crossed.loc["f", "f_value"]
    assert ours == pytest.approx(theirs, rel=1e-7)
