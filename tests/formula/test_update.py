"""Formulas changed by formulas, as R's update() changes them."""

from __future__ import annotations

import pytest

from mixform.errors import FormulaError
from mixform.formula.update import update_formula

#: (old, new) -> what R's rules give, terms as the user wrote them.
CHANGES = {
    ("y ~ x + (1|g)", ". + z"): "y ~ x + z + (1|g)",
    ("y ~ x + (1|g)", ". ~ . + z"): "y ~ x + z + (1|g)",
    ("y ~ x + (1|g)", "~ . + z"): "y ~ x + z + (1|g)",
    ("y ~ x*z", ". ~ . - x:z"): "y ~ x + z",
    ("y ~ x*z", ". - z:x"): "y ~ x + z",
    ("y ~ x*z", ". - x*z"): "y ~ 1",
    ("y ~ (a + b + c)^2", ". - b:c"): "y ~ a + b + c + a:b + a:c",
    ("y ~ a/b + c", ". - a:b"): "y ~ a + c",
    ("y ~ x + (1|g)", ". - (1 | g)"): "y ~ x",
    ("y ~ x + (Days|g)", ". - (1 + Days | g) + (1|g)"): "y ~ x + (1|g)",
    ("y ~ x + (1|g)", ". - x + (x|g)"): "y ~ 1 + (1|g) + (x|g)",
    ("y ~ x + (1|a:b)", ". - (1|b:a)"): "y ~ x",
    ("y ~ x + (x || g)", ". - (x||g) + (0 + x | g)"): "y ~ x + (0 + x | g)",
    ("y ~ x + (1|a/b)", ". - (1|a)"): "y ~ x + (1 | a:b)",
    ("y ~ x + (1|a/b)", ". - (1|a/b)"): "y ~ x",
    ("y ~ x", ". + cs(0 + t | g)"): "y ~ x + cs(0 + t | g)",
    ("y ~ x + cs(0+t|g)", ". - cs(0 + t|g)"): "y ~ x",
    ("y ~ x + (1|g)", ". + iid(1|g)"): "y ~ x + (1|g) + iid(1|g)",
    ("y ~ x + (1|g) + iid(1|g)", ". - (1|g)"): "y ~ x + iid(1|g)",
    ("y ~ x", "log(y) ~ ."): "log(y) ~ x",
    ("y ~ x + (1|g)", "log(.) ~ . - x"): "log(y) ~ 1 + (1|g)",
    ("sqrt(y) ~ x", ". + z"): "sqrt(y) ~ x + z",
    ("y ~ x + (1|g)", "z ~ w"): "z ~ w",
    ("y ~ x + (1|g)", "w + (1|h)"): "y ~ w + (1|h)",
    ("y ~ x", ". + x"): "y ~ x",
    ("y ~ x + z", ". + x*z"): "y ~ x + z + x:z",
    ("y ~ x", ". - 1"): "y ~ 0 + x",
    ("y ~ 0 + x", ". + 1"): "y ~ x",
    ("y ~ x - 1", ". + z"): "y ~ 0 + x + z",
    ("y ~ 1 + (1|g)", ". + x"): "y ~ 1 + x + (1|g)",
    ("y ~ x + (1|g)", ". ~ . * w"): "y ~ x * w + (1|g)",
    ("y ~ x + z + (1|g)", ". * w - x:w"): "y ~ x + z + w + z:w + (1|g)",
    ("y ~ a - b + (1|g)", ". + c"): "y ~ a + c + (1|g)",
    ("y ~ x + (z + (1|g))", ". + w"): "y ~ x + z + w + (1|g)",
    ("y ~ . + (1|g)", ". - x"): "y ~ . - x + (1|g)",
    # What the user wrote stays as it was written.
    ("y ~ poly(x, 2) + C(g)", ". + I(x^2)"): "y ~ poly(x, 2) + C(g) + I(x^2)",
    ("y ~ factor(g)*I(x^2)", ". - I( x^2 )"): "y ~ factor(g) + factor(g):I(x^2)",
    ("y ~ log(x) + offset(z)", ". - log(x)"): "y ~ offset(z)",
    ("y ~ x + offset(2*z)", ". - offset(2 * z)"): "y ~ x",
    ("y ~ `my x` + a.b", ". - `my x` + (1|a.b)"): "y ~ a.b + (1|a.b)",
    ("y ~ I(x + -1)", ". + z"): "y ~ I(x + -1) + z",
}


@pytest.mark.parametrize(("given", "expected"), CHANGES.items(), ids=map(str, CHANGES))
def test_change(given, expected):
    assert update_formula(*given) == expected


@pytest.mark.parametrize("old", [old for old, _ in CHANGES])
def test_no_change_is_stable(old):
    once = update_formula(old, ".")
    assert update_formula(once, ". ~ .") == once


@pytest.mark.parametrize(
    ("old", "new", "start", "message", "hint"),
    [
        ("y ~ age", ". - agee", 4, "no term agee to remove", "Did you mean 'age'?"),
        ("y ~ x + z", ". - x:z", 4, "no term x:z to remove", "Terms: x, z."),
        (
            "y ~ x + (1|id)",
            ". - (1|idd)",
            4,
            "no random term (1|idd) to remove",
            "Did you mean '(1|id)'?",
        ),
        ("y ~ x + (1|g)", ". - (x|g)", 4, "no random term (x|g)", "(1|g)"),
        ("y ~ 0 + x", ". - 1", 4, "no intercept to remove", ""),
        ("y ~ x", "+ z", 0, "does not say from what", "Write '. + z'"),
        ("y ~ x", ". +", 2, "A term is missing", "Write a term"),
        ("y ~ x", "", 0, "is empty", "Write '. + x'"),
        ("y ~ x", ". - .", 4, "can only be added", ""),
        ("y ~ x", ". + (1|g", 4, "not closed", "Add the missing"),
        ("y ~ x", ". + x:", 5, "cannot be read", ""),
        ("y ~ x", ". + (1|)", 6, "Nothing stands right of the bar", "(1 | id)"),
    ],
)
def test_bad_change_is_underlined(old, new, start, message, hint):
    with pytest.raises(FormulaError) as caught:
        update_formula(old, new)
    assert message in str(caught.value)
    assert hint in str(caught.value)
    assert caught.value.formula == new
    assert caught.value.span is not None
    assert caught.value.span[0] == start


def test_old_formula_without_tilde_is_an_error():
    with pytest.raises(FormulaError, match="has no '~'"):
        update_formula("x", ". + z")
