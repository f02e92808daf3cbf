"""Reading residual structures and dispersion formulas."""

import re

import pytest

from mixform.errors import FormulaError
from mixform.formula import parse_dispersion, parse_residual

NAMES = ("us", "ar1", "exp")

READ = {
    "us(visit | id)": (("visit",), ("id",), (), ()),
    " us( visit|id ) ": (("visit",), ("id",), (), ()),
    "us(visit | arm/id)": (("visit",), ("arm", "id"), ("arm",), ()),
    "us(visit | site:id)": (("visit",), ("site", "id"), (), ()),
    "us(visit | arm/site:id)": (("visit",), ("arm", "site", "id"), ("arm",), ()),
    "exp(lat + lon)": (("lat", "lon"), (), (), ()),
    "exp(lat + lon | field, nugget=True)": (
        ("lat", "lon"), ("field",), (), (("nugget", True),),
    ),
    "ar1(`study day` | id)": (("study day",), ("id",), (), ()),
}  # fmt: skip


@pytest.mark.parametrize("source", READ)
def test_parts_of_a_structure(source):
    term = parse_residual(source, NAMES)
    assert (term.coordinates, term.group, term.strata, term.options) == READ[source]


REFUSED = {
    "visit | id": ("not a call", "visit | id"),
    "foo(visit | id)": ("Unknown residual structure 'foo'", "foo"),
    "us(visit | id": ("is not closed", "("),
    "us(visit | id) + x": ("one residual structure", "+ x"),
    "us(| id)": ("position is missing", "(|"),
    "us(visit + | id)": ("position is missing", "(visit +"),
    "us(visit |)": ("subject is missing", "|)"),
    "us(visit | a//b)": ("subject is missing", " a//b"),
    "us(log(visit) | id)": ("'log(visit)' is not a column", "log(visit)"),
    "us(visit:arm | id)": ("'visit:arm' is not a column", "visit:arm"),
    "exp(time | id, nugget)": ("name=value", "nugget"),
    "exp(time | id, nugget=id)": ("name=value", "nugget=id"),
}


@pytest.mark.parametrize("source", REFUSED)
def test_refused_structures_are_underlined(source):
    message, underlined = REFUSED[source]
    with pytest.raises(FormulaError, match=re.escape(message)) as caught:
        parse_residual(source, NAMES)
    start, end = caught.value.span
    assert source[start:end] == underlined


def test_what_is_no_string_is_refused():
    with pytest.raises(FormulaError, match="residual is a int, not a string"):
        parse_residual(3, NAMES)
    with pytest.raises(FormulaError, match="dispersion is a list, not a string"):
        parse_dispersion(["~ sex"])


def test_dispersion_formula():
    part = parse_dispersion("~ sex + log(age)")
    assert (part.text, part.code) == ("sex + log(age)", "sex + log(age)")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("sex", "starts with '~'"),
        ("~", "has fixed effects, and those only"),
        ("~ sex +", "cannot be read"),
        ("~ (1 | id)", "cannot be read"),
    ],
)
def test_refused_dispersion_formulas(source, message):
    with pytest.raises(FormulaError, match=message):
        parse_dispersion(source)
