"""Options of random terms: what is read, and where the caret stands."""

import pytest

from mixform.covariance import STRUCTURES
from mixform.errors import FormulaError
from mixform.formula import parse_formula
from mixform.formula.options import OPTIONS

NAMES = tuple(STRUCTURES)


@pytest.mark.parametrize("spelling", ["d=2", "d = 2", " d =2 "])
def test_rank_is_read_as_glmmtmb_writes_it(spelling):
    (term,) = parse_formula(f"y ~ rr(0 + env | g,{spelling})", NAMES).random
    assert term.options == (("d", 2),)
    assert (term.coefficients, term.group) == ("0 + env", ("g",))


def test_every_nested_term_has_the_options():
    terms = parse_formula("y ~ rr(0 + env | a/b, d = 1)", NAMES).random
    assert [term.options for term in terms] == [(("d", 1),), (("d", 1),)]


@pytest.mark.parametrize(
    ("formula", "message", "caret"),
    [
        ("y ~ cs(0 + f | g, d = 2)", "'cs' has no options", 18),
        ("y ~ (1 | g, h)", "'us' has no options", 12),
        ("y ~ rr(0 + f | g, k = 2)", "no option 'k'", 18),
        ("y ~ rr(0 + f | g, d = 0)", "'0', not a whole number", 22),
        ("y ~ rr(0 + f | g, d = x)", "'x', not a whole number", 22),
        ("y ~ rr(0 + f | g, 2)", "no option of 'rr'", 18),
        ("y ~ rr(0 + f | g, )", "no option of 'rr'", 16),
        ("y ~ rr(0 + f | g, d = 1, d = 2)", "given twice", 25),
    ],
)
def test_bad_options_are_underlined(formula, message, caret):
    with pytest.raises(FormulaError, match=message) as caught:
        parse_formula(formula, NAMES)
    assert caught.value.span is not None
    assert caught.value.span[0] == caret


def test_unknown_structures_suggest_names():
    with pytest.raises(FormulaError, match="Unknown covariance structure") as caught:
        parse_formula("y ~ ar(0 + f | g)", NAMES)
    assert "ar1" in str(caught.value)
    assert caught.value.span == (4, 6)


def test_options_are_those_of_registered_structures():
    assert set(OPTIONS) <= set(STRUCTURES)
