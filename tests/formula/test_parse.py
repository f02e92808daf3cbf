"""Every form of the formula, and one clear error for each mistake in it."""

from __future__ import annotations

import pytest

from mixform.errors import FormulaError
from mixform.formula import parse_formula

STRUCTURES = ("us", "diag")


def parse(source):
    return parse_formula(source, STRUCTURES)


def terms_of(source):
    return [(t.coefficients, t.group_label, t.structure) for t in parse(source).random]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("y ~ (1 | g)", [("1", "g", "us")]),
        ("y ~ (x | g)", [("x", "g", "us")]),
        ("y ~ (0 + x | g)", [("0 + x", "g", "us")]),
        ("y ~ (x - 1 | g)", [("x - 1", "g", "us")]),
        ("y ~ (x || g)", [("x", "g", "diag")]),
        ("y ~ (1 | a/b)", [("1", "a", "us"), ("1", "a:b", "us")]),
        (
            "y ~ (1 | a/b/c)",
            [("1", "a", "us"), ("1", "a:b", "us"), ("1", "a:b:c", "us")],
        ),
        ("y ~ (x || a/b)", [("x", "a", "diag"), ("x", "a:b", "diag")]),
        ("y ~ (1 | a:b)", [("1", "a:b", "us")]),
        ("y ~ (1 | a) + (1 | b)", [("1", "a", "us"), ("1", "b", "us")]),
        ("y ~ (1 | a + b)", [("1", "a", "us"), ("1", "b", "us")]),
        ("y ~ (1 | g) + (0 + x | g)", [("1", "g", "us"), ("0 + x", "g", "us")]),
        ("y ~ us(x | g)", [("x", "g", "us")]),
        ("y ~ diag(x | g)", [("x", "g", "diag")]),
        ("y ~ diag(x || g)", [("x", "g", "diag")]),
        ("y ~ (log(x) | g)", [("log(x)", "g", "us")]),
        ("y ~ (1 | factor(g))", [("1", "g", "us")]),
        ("y ~ (1 | `my g`)", [("1", "my g", "us")]),
        ("y ~ (1 | my.g)", [("1", "my.g", "us")]),
        ("y ~ (1 | class)", [("1", "class", "us")]),
        ("y ~ (x + (1 | g))", [("1", "g", "us")]),
        ("y~(1|g)", [("1", "g", "us")]),
        ("y ~\n\tx +\n\t(1 |\n g)", [("1", "g", "us")]),
    ],
)
def test_random_terms_are_read(source, expected):
    assert terms_of(source) == expected


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("y ~ x", "+x"),
        ("y ~ (1 | g)", "1"),
        ("y ~ x + (1 | g) + z", "+x + z"),
        ("y ~ (1 | g) - 1", "-1"),
        ("y ~ 0 + (1 | g)", "+0"),
        ("y ~ x + offset(z)", "+x"),
        ("y ~ I(x^2) + factor(t)", "+I(x**2) + C(t)"),
        ("y ~ as.factor(t)", "+C(t)"),
        ("y ~ (a + b)^2", "+(a + b)^2"),
        ("y ~ (a + b) * (c + d)", "+(a + b) * (c + d)"),
        ("y ~ poly(x, 2, raw=TRUE)", "+poly(x, 2, raw=True)"),
    ],
)
def test_fixed_part_is_what_is_left(source, code):
    assert parse(source).fixed.code == code


def test_parts_keep_what_the_user_wrote():
    model = parse("log(y) ~ factor(t) + offset(z^2) + (1 | g)")
    assert model.response.text == "log(y)"
    assert model.fixed.text == "factor(t) + offset(z^2) + (1 | g)"
    assert [(part.text, part.code) for part in model.offsets] == [("z^2", "I(z**2)")]
    assert model.random[0].source == "(1 | g)"


@pytest.mark.parametrize(
    ("source", "message", "marked"),
    [
        ("", "The formula is empty.", ""),
        ("y", "The formula has no '~'.", "y"),
        ("~ x", "The formula has no response.", "~"),
        ("y ~ x ~ z", "A formula has one '~' only.", "~"),
        ("y ~", "A term is missing here.", "~"),
        ("y ~ x +", "A term is missing here.", "+"),
        ("y ~ x | g", "A bar must stand inside brackets.", "|"),
        ("y ~ x + 1 | g", "A bar must stand inside brackets.", "|"),
        ("y ~ x*(1 | g)", "A random term can only be added", "x*(1 | g)"),
        ("y | g ~ x", "The response cannot hold a bar.", "y | g"),
        ("y ~ (1 | g) * x", "A random term can only be added to the model.", "* x"),
        ("y ~ (1 | g) # a", "A random term can only be added to the model.", "# a"),
        ("y ~ x - (1 | g)", "A random term cannot be subtracted.", "(1 | g)"),
        ("y ~ (1 | g", "The bracket '(' is not closed.", "("),
        ("y ~ (1 | g))", "')' closes no bracket.", ")"),
        ("y ~ log(x", "The bracket '(' is not closed.", "("),
        ("y ~ `x", "The quote ` is not closed.", "`x"),
        ("y ~ (| g)", "Nothing stands left of the bar.", "|"),
        ("y ~ (1 |)", "Nothing stands right of the bar.", "|"),
        ("y ~ (1 | g | h)", "A random term has one bar.", "|"),
        ("y ~ (1 | 1)", "The term has no grouping factor.", "1"),
        ("y ~ (1 | log(g))", "The grouping factor 'log(g)' is not a column.", "log(g)"),
        ("y ~ ar1(0 + t | g)", "Unknown covariance structure 'ar1'.", "ar1"),
        ("y ~ dig(x | g)", "Unknown covariance structure 'dig'.", "dig"),
        ("y ~ us(x || g)", "'||' means independent coefficients, which 'us'", "us"),
        ("y ~ log((x | g))", "Brackets with a bar cannot be nested", "log((x | g))"),
        ("y ~ x - offset(z)", "An offset can only be added.", "offset(z)"),
        ("y ~ offset(z):x", "An offset can only be added.", "offset(z):x"),
        ("y ~ x + * z", "The formula cannot be read. Operator '*'", "*"),
        ("y ~ x z", "The formula cannot be read. Missing operator", "x z"),
        ("y ~ 2 * x", "The formula cannot be read. Numeric literals", "2"),
        ("y ~ x > 2", "The formula cannot be read. Unknown operator '>'", ">"),
        ("y ~ log(x y)", "The formula cannot be read. Invalid syntax", "log(x y)"),
        ("y^2 ~ x", "The response 'y^2' is not one column.", "^"),
        ("y / z ~ x", "The response 'y / z' is not one column.", "/"),
        ("-y ~ x", "The response '-y' is not one column.", "-"),
    ],
)
def test_mistake_is_named_underlined_and_answered(source, message, marked):
    with pytest.raises(FormulaError) as caught:
        parse(source)
    error = caught.value
    assert error.message.startswith(message)
    assert error.span
    start, end = error.span
    assert source[start:end] == marked
    assert error.hint
    line, caret = str(error).splitlines()[1:3]
    assert line == "    " + source
    assert caret == "    " + " " * start + "^" * max(end - start, 1)


def test_unknown_structure_suggests_a_known_one():
    with pytest.raises(FormulaError, match="Did you mean 'diag'"):
        parse("y ~ dig(x | g)")


def test_second_bar_is_marked_not_the_first():
    with pytest.raises(FormulaError) as caught:
        parse("y ~ (1 | g | h)")
    assert caught.value.span == (11, 12)


def test_carets_stand_under_the_line_of_the_mistake():
    with pytest.raises(FormulaError) as caught:
        parse("y ~ x\n\t+ (1 | log(g))\n  + z")
    assert str(caught.value).splitlines()[1:3] == [
        "     + (1 | log(g))",
        "            ^^^^^^",
    ]


def test_bars_in_quotes_are_no_signs():
    model = parse("y ~ `a|b` + C(t, levels=['p|q', 'r']) + (1 | `g|h`)")
    assert [t.group_label for t in model.random] == ["g|h"]
