"""Smaller designs equal those that the reduced formula gives on the same rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.design import build_design
from mixform.design.reduce import (
    droppable_coefficients,
    droppable_terms,
    is_within,
    with_coefficients,
    without_block,
    without_fixed_term,
)
from mixform.errors import DesignError
from mixform.formula import parse_formula


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    n = 96
    frame = pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "z": rng.uniform(1.0, 2.0, size=n),
            "w": rng.uniform(0.5, 2.0, size=n),
            "my x": rng.normal(size=n),
            "f": np.tile(["a", "b", "c"], n // 3),
            "h": np.repeat(["u", "v"], n // 2),
            "g": np.tile(np.repeat(list("pqrstuvw"), 6), 2),
        }
    )
    frame.loc[[3, 40], "x"] = np.nan
    return frame


def design_of(formula, data, **options):
    return build_design(parse_formula(formula, ("us", "diag")), data, **options)


def assert_equal_designs(found, expected):
    assert found.formula.fixed.code == expected.formula.fixed.code
    assert found.fixed.names == expected.fixed.names
    np.testing.assert_allclose(found.fixed.coded.values, expected.fixed.coded.values)
    np.testing.assert_allclose(
        np.abs(found.fixed.R), np.abs(expected.fixed.R), atol=1e-9
    )
    assert len(found.blocks) == len(expected.blocks)
    for mine, theirs in zip(found.blocks, expected.blocks, strict=True):
        assert mine.columns == theirs.columns
        assert mine.term.structure == theirs.term.structure
        assert mine.term.group == theirs.term.group
        np.testing.assert_array_equal(mine.codes, theirs.codes)
        np.testing.assert_allclose(mine.design, theirs.design)
    assert set(found.columns) == set(expected.columns)
    assert found.terms == expected.terms


#: formula, term left out, formula that is left; all on rows where x is known.
FIXED = [
    ("y ~ x + z + (1|g)", "z", "y ~ x + (1|g)"),
    ("y ~ f*x + (1|g)", "f:x", "y ~ f + x + (1|g)"),
    ("y ~ f*x + (1|g)", "f", "y ~ x + f:x + (1|g)"),
    ("y ~ f*h + x + (1|g)", "f", "y ~ h + f:h + x + (1|g)"),
    ("y ~ f*h + x", "1", "y ~ 0 + f*h + x"),
    ("y ~ poly(x, 2) + log(z)", "log(z)", "y ~ poly(x, 2)"),
    ("y ~ x + `my x` + (1|g)", "my x", "y ~ x + (1|g)"),
    ("y ~ x + z + offset(z) + (1|h/g)", "z", "y ~ x + offset(z) + (1|h/g)"),
    ("y ~ factor(h) + I(x^2) + x", "C(h)", "y ~ I(x^2) + x"),
    ("y ~ x", "1", "y ~ 0 + x"),
]


@pytest.mark.parametrize(("formula", "term", "left"), FIXED)
@pytest.mark.parametrize("options", [{}, {"weights": "w", "contrasts": {"h": "sum"}}])
def test_without_fixed_term_is_the_smaller_formula(data, formula, term, left, options):
    if "h" not in formula.replace("(1|h/g)", ""):
        options = {k: v for k, v in options.items() if k != "contrasts"}
    full = design_of(formula, data.dropna(), **options)
    if "h" not in left.replace("(1|h/g)", ""):
        options = {k: v for k, v in options.items() if k != "contrasts"}
    assert_equal_designs(
        without_fixed_term(full, term), design_of(left, data.dropna(), **options)
    )


def test_rows_stay_when_the_variable_that_dropped_them_goes(data):
    full = design_of("y ~ x + z + (1|g)", data)
    small = without_fixed_term(full, "x")
    assert len(small.y) == len(full.y) == 94
    assert small.row_index.equals(full.row_index)
    assert small.formula.source == "y ~ z + (1|g)"


def test_coding_changes_when_a_main_effect_goes(data):
    small = without_fixed_term(design_of("y ~ f*h", data), "f")
    # As in R: h, and f within each level of h: the same space in other columns.
    full = design_of("y ~ f*h", data).fixed
    assert len(small.fixed.kept) == len(full.kept) == 6
    assert is_within(small.fixed.X, full.X)


def test_unknown_fixed_term_is_an_error(data):
    with pytest.raises(DesignError, match="no fixed term 'q'") as caught:
        without_fixed_term(design_of("y ~ x + z", data), "q")
    assert "Terms: 1, x, z" in str(caught.value)


@pytest.mark.parametrize(
    ("formula", "j", "left"),
    [
        ("y ~ x + (1|g) + (1|h)", 0, "y ~ x + (1|h)"),
        ("y ~ x + (1|g) + (z|h)", 1, "y ~ x + (1|g)"),
        ("y ~ x + (1|h/g)", 0, "y ~ x + (1 | h:g)"),
        ("y ~ x + (1|h/g)", 1, "y ~ x + (1 | h)"),
        ("y ~ x + (1|g)", 0, "y ~ x"),
    ],
)
def test_without_block_is_the_smaller_formula(data, formula, j, left):
    small = without_block(design_of(formula, data), j)
    assert small.formula.source == left
    assert_equal_designs(small, design_of(left, data))


@pytest.mark.parametrize(
    ("formula", "terms", "left"),
    [
        ("y ~ x + (x|g)", ["1"], "y ~ x + (1 | g)"),
        ("y ~ x + (x + z|g)", ["1", "z"], "y ~ x + (z | g)"),
        ("y ~ x + (x + z||g)", ["x", "z"], "y ~ x + (0 + x + z || g)"),
        ("y ~ x + (f*x|g)", ["1", "f", "x"], "y ~ x + (f + x | g)"),
        ("y ~ x + (0 + f|g)", ["1"], "y ~ x + (1 | g)"),
        ("y ~ x + (I(z^2) + z|g)", ["1", "I(z ** 2)"], "y ~ x + (I(z^2) | g)"),
        ("y ~ x + (0 + x + z|g)", ["x"], "y ~ x + (0 + x | g)"),
    ],
)
def test_with_coefficients_is_the_smaller_formula(data, formula, terms, left):
    small = with_coefficients(design_of(formula, data), 0, terms)
    assert small.formula.source == left
    assert_equal_designs(small, design_of(left, data.dropna()))


def test_reduced_fit_is_the_fit_of_the_reduced_formula(data):
    full = mf.fit("y ~ f*x + z + (x|g) + (1|h:f)", data)
    small = without_fixed_term(with_coefficients(full.design, 0, ["1"]), "f:x")
    again = mf.fit(small.formula.source, data)
    from mixform.estimate import Control, estimate

    found = estimate(small, method="REML", control=Control())
    assert found.criterion == pytest.approx(again.criterion, abs=1e-7)
    np.testing.assert_allclose(found.beta, again.params, atol=1e-6)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("y ~ x + z", ("x", "z")),
        ("y ~ f*h + x", ("x", "f:h")),
        ("y ~ f/x", ("f:x",)),
        ("y ~ x + f:x", ("x:f",)),
        ("y ~ 1", ()),
    ],
)
def test_droppable_terms_are_in_no_other(data, formula, expected):
    found = droppable_terms(design_of(formula, data))
    assert {frozenset(t.split(":")) for t in found} == {
        frozenset(t.split(":")) for t in expected
    }


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("(1|g)", ()),
        ("(x|g)", ("x",)),
        ("(x*z|g)", ("x:z",)),
        ("(0 + f|g)", ("f",)),
        ("(x||g)", ("1", "x")),
        ("(f||g)", ("f",)),
    ],
)
def test_droppable_coefficients(data, term, expected):
    block = design_of(f"y ~ x + {term}", data).blocks[0]
    assert droppable_coefficients(block) == expected
