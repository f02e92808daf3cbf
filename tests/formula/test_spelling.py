"""R's spellings and odd column names, in formulaic's grammar."""

from __future__ import annotations

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixform.formula import alias, readable
from mixform.formula.spelling import to_formulaic


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", "x"),
        ("I(x^2)", "I(x**2)"),
        ("x^2", "x^2"),
        ("(a + b)^2", "(a + b)^2"),
        ("factor(x)", "C(x)"),
        ("as.factor(x)", "C(x)"),
        ("as.numeric(x)", "as_numeric(x)"),
        ("poly(x, 2, raw=TRUE)", "poly(x, 2, raw=True)"),
        ("C(t, contr.sum)", "C(t, contr.sum)"),
        ("np.log(x)", "np.log(x)"),
        ("bs(x, df=4)", "bs(x, df=4)"),
        ("I(x == 2)", "I(x == 2)"),
        ("I(x * 1.5e-3 + .5)", "I(x * 1.5e-3 + .5)"),
        ("C(t, levels=['a^b', 'TRUE'])", "C(t, levels=['a^b', 'TRUE'])"),
        ("exp(`x`)", "exp(x)"),
        (". - id", ". - id"),
    ],
)
def test_spelling_is_translated(text, expected):
    assert to_formulaic(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "body.mass",
        "log(class)",
        "log(yield) + lambda",
        "C(C)",
        "log(log)",
        "µ",
        "np.log(np)",
        "poly(scale, degree=2)",
    ],
)
def test_odd_names_are_hidden_from_formulaic_and_read_back(text):
    hidden = to_formulaic(text)
    assert hidden != text
    assert readable(hidden) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log(body.mass)", "log(`body.mass`)"),
        ("log(`my x`)", "log(`my x`)"),
        ("`my x`", "my x"),
        ("`my x`:log(`my x`)", "my x:log(`my x`)"),
    ],
)
def test_names_are_back_quoted_inside_calls_only(text, expected):
    assert readable(to_formulaic(text)) == expected


@given(st.text(min_size=1))
def test_alias_is_a_name_that_reads_back(column):
    try:
        column.encode()
    except UnicodeEncodeError:
        return
    name = alias(column)
    assert name.isidentifier()
    assert not keyword.iskeyword(name)
    assert readable(name) == column
