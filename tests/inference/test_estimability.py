"""Contrasts as users write them, and whether the data determine them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mixform.design.fixed import orthonormalize
from mixform.design.model_matrix import Coded
from mixform.errors import InferenceError, RankDeficiencyWarning
from mixform.inference.estimability import read_contrast, require_estimable

NAMES = ("Intercept", "trt[T.b]", "trt[T.c]", "x", "trt[T.b]:x", "log(`a b`)")


def row(**values):
    found = np.zeros(len(NAMES))
    for name, value in values.items():
        found[int(name[1:])] = value
    return found


@pytest.mark.parametrize(
    ("text", "expected", "right"),
    [
        ("x", [row(_3=1)], [0]),
        ("x = 2", [row(_3=1)], [2]),
        ("trt[T.b] - trt[T.c] = 0", [row(_1=1, _2=-1)], [0]),
        ("trt[T.b] = trt[T.c]", [row(_1=1, _2=-1)], [0]),
        ("Intercept + 2 * x = 1.5", [row(_0=1, _3=2)], [1.5]),
        ("trt[T.b]:x", [row(_4=1)], [0]),
        ("trt[T.b] + trt[T.b]:x = 0", [row(_1=1, _4=1)], [0]),
        ("log(`a b`) = 0", [row(_5=1)], [0]),
        ("`x` - `trt[T.b]` = 0", [row(_3=1, _1=-1)], [0]),
        ("trt[T.b] = 0, trt[T.c] = 1", [row(_1=1), row(_2=1)], [0, 1]),
    ],
)
def test_equations_become_rows(text, expected, right):
    L, rhs, labels = read_contrast(text, 0, NAMES)
    np.testing.assert_allclose(L, expected)
    np.testing.assert_allclose(rhs, right)
    assert labels == tuple(part.strip() for part in text.split(","))


@pytest.mark.parametrize(
    ("L", "expected", "labels"),
    [
        (row(_1=1), [row(_1=1)], ("row 1",)),
        ([row(_1=1), row(_2=1)], [row(_1=1), row(_2=1)], ("row 1", "row 2")),
        ({"x": 2, "trt[T.b]": -1}, [row(_1=-1, _3=2)], ("contrast",)),
        (
            {"b": {"trt[T.b]": 1}, "c": {"trt[T.c]": 1}},
            [row(_1=1), row(_2=1)],
            ("b", "c"),
        ),
    ],
    ids=str,
)
def test_matrix_and_mapping_become_rows(L, expected, labels):
    found, rhs, names = read_contrast(L, 3, NAMES)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(rhs, [3] * len(expected))
    assert names == labels


@pytest.mark.parametrize(
    ("L", "message", "hint"),
    [
        ({"trt[T.d]": 1}, "There is no coefficient 'trt[T.d]'.", "Did you mean"),
        (
            [1.0, 2.0],
            "L has 2 columns, the model has 6 coefficients.",
            "Intercept, trt",
        ),
        ("trt[T.d] = 0", "The contrast 'trt[T.d] = 0' cannot be read.", "Did you mean"),
        ("x = = 2", "The contrast 'x = = 2' cannot be read.", "Write coefficients"),
        ([np.nan] * 6, "L holds values that are not finite.", None),
    ],
    ids=str,
)
def test_bad_contrast_is_refused(L, message, hint):
    with pytest.raises(InferenceError) as caught:
        read_contrast(L, 0, NAMES)
    assert caught.value.message == message
    if hint:
        assert hint in caught.value.hint


def test_right_hand_side_is_given_once():
    with pytest.raises(InferenceError, match="in the string"):
        read_contrast("x = 2", 3, NAMES)


@pytest.fixture
def fixed():
    """X with c = a + b (aliased) beside a free column d."""
    random = np.random.default_rng(2)
    a, b, d = random.normal(size=(3, 12))
    X = np.column_stack([a, b, a + b, d])
    coded = Coded(values=X, names=("a", "b", "c", "d"), terms=(), spec=None)
    return orthonormalize(coded, None)


@pytest.mark.parametrize(
    "L", [[0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 2, 5], [2, -1, 1, 0]]
)
def test_row_in_the_row_space_of_X_is_estimable(fixed, L):
    assert fixed.aliased_names == ("c",)
    kept = require_estimable(np.array([L], dtype=float), fixed)
    np.testing.assert_array_equal(kept, [[L[0], L[1], L[3]]])


@pytest.mark.parametrize("L", [[1, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0], [1, -1, 1, 0]])
def test_other_rows_are_not_and_what_changes_them_is_named(fixed, L):
    with pytest.raises(InferenceError, match=r"Row 2 .* not estimable: adding .* c"):
        require_estimable(np.array([[0, 0, 0, 1], L], dtype=float), fixed)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units_do_not_decide_what_is_estimable(fixed, scale):
    X = fixed.coded.values * np.array([1.0, scale, scale, 1.0])
    X[:, 2] = X[:, 0] + X[:, 1]
    coded = Coded(values=X, names=("a", "b", "c", "d"), terms=(), spec=None)
    rescaled = orthonormalize(coded, None)
    assert rescaled.aliased_names == ("c",)
    require_estimable(np.array([[1.0, 0, 1, 0]]), rescaled)
    with pytest.raises(InferenceError):
        require_estimable(np.array([[0.0, 0, 1, 0]]), rescaled)


def test_contrast_over_an_empty_cell_is_refused():
    import mixform as mf

    data = pd.DataFrame(
        {
            "y": np.random.default_rng(1).normal(size=30),
            "a": np.tile(["p", "q", "q"], 10),
            "b": np.tile(["u", "u", "v"], 10),
        }
    )
    with pytest.warns(RankDeficiencyWarning):
        m = mf.fit("y ~ a * b", data)
    with pytest.raises(InferenceError, match=r"1 to .*a\[T.q\]:b"):
        m.test("b[T.v] = 0")
    assert m.test("a[T.q] = 0").num_df == 1
