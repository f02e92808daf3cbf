"""Henderson's equations as printed: a text book's, and what has no equation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError
from tests.relationship.test_known_variances import MRODE, animal_model, two_traits


def test_mrode_3_1_as_the_book_has_it():
    """Mrode (2014), section 3.3.1: X'X, X'Z, Z'Z + 2 A^-1, (X'y, Z'y)."""
    e = animal_model("wwg ~ 0 + C(sex, levels=['male', 'female']) + (1|animal)")
    e = e.equations()
    order = [e.lhs.index[0], e.lhs.index[1], *(f"animal[{i}]" for i in range(1, 9))]
    A_inverse = [  # by Henderson's rules, no inbreeding; 3 x 11/6, ...
        [11 / 6, 0.5, 0, -2 / 3, 0, -1, 0, 0],
        [0.5, 2, 0.5, 0, -1, -1, 0, 0],
        [0, 0.5, 2, 0, -1, 0.5, 0, -1],
        [-2 / 3, 0, 0, 11 / 6, 0.5, 0, -1, 0],
        [0, -1, -1, 0.5, 2.5, 0, -1, 0],
        [-1, -1, 0.5, 0, 0, 2.5, 0, -1],
        [0, 0, 0, -1, -1, 0, 2, 0],
        [0, 0, -1, 0, 0, -1, 0, 2],
    ]
    expected = np.zeros((10, 10))
    expected[0, 0], expected[1, 1] = 3.0, 2.0
    expected[0, 2:] = expected[2:, 0] = [0, 0, 0, 1, 0, 0, 1, 1]
    expected[1, 2:] = expected[2:, 1] = [0, 0, 0, 0, 1, 1, 0, 0]
    expected[2:, 2:] = np.diag([0, 0, 0, 1, 1, 1, 1, 1]) + 2.0 * np.array(A_inverse)
    np.testing.assert_allclose(e.lhs.loc[order, order], expected, atol=1e-12)
    right = [13.0, 6.8, 0, 0, 0, 4.5, 2.9, 3.9, 3.5, 5.0]
    np.testing.assert_allclose(e.rhs[order], right, atol=1e-12)
    solution = np.linalg.solve(expected, right)
    np.testing.assert_allclose(e.solution[order], solution, atol=1e-12)
    assert e.multiplier == pytest.approx(40.0)
    text = str(e)
    assert "2 fixed, 8 random, multiplied by the residual variance 40" in text
    assert "3.667" in text
    assert "13.0" in text


def test_not_multiplied_it_is_henderson_s():
    m = animal_model()
    one, two = m.equations(), m.equations(multiply=False)
    np.testing.assert_allclose(one.lhs, 40.0 * two.lhs)
    inverse = np.linalg.inv(two.lhs)
    np.testing.assert_allclose(m.ranef(pev=True)["pev"], inverse.diagonal()[2:])
    assert two.multiplier == 1.0


def test_two_traits_have_the_block_that_mrode_prints():
    """Z_1'R^12 Z_2 + A^-1 g^12 of example 5.1."""
    e = two_traits("5.1").equations()
    rows, columns = (
        [f"animal[{i}]: trait[{trait}]" for i in range(1, 9)]
        for trait in ("WWG", "PWG")
    )
    printed = np.array(MRODE["5.1"]["block_of_both_traits"], dtype=float)
    np.testing.assert_allclose(e.lhs.loc[rows, columns], printed, atol=6e-4)
    np.testing.assert_allclose(e.lhs @ e.solution, e.rhs, atol=1e-12)
    assert e.multiplier == 1.0


def test_weights_offset_and_slopes():
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {"g": np.arange(40) % 5, "x": rng.normal(size=40), "w": rng.uniform(1, 2, 40)}
    )
    data["o"] = rng.normal(size=40)
    data["y"] = data["g"] * data["x"] + data["o"] + rng.normal(size=40)
    data["y"] += 3.0 * rng.normal(size=5)[data["g"]]
    m = mf.fit("y ~ x + (x | g)", data, weights="w", offset="o")
    e = m.equations()
    np.testing.assert_allclose(e.lhs @ e.solution, e.rhs, rtol=1e-9)
    W = np.diag(data["w"])
    X = np.column_stack([np.ones(40), data["x"]])
    np.testing.assert_allclose(e.lhs.iloc[:2, :2], X.T @ W @ X)
    np.testing.assert_allclose(e.rhs.iloc[:2], X.T @ W @ (data["y"] - data["o"]))
    assert e.lhs.index[2:4].tolist() == ["g[0]: Intercept", "g[0]: x"]


def test_a_variance_of_zero_has_no_equation():
    data = mf.datasets.load("sleepstudy")
    held = {"Subject": np.diag([0.0, 30.0]), "residual": 900.0}
    e = mf.fit("Reaction ~ Days + (Days | Subject)", data, varcomp=held).equations()
    assert len(e.rhs) == 2 + 18
    np.testing.assert_allclose(e.lhs @ e.solution, e.rhs)
    assert "variance of Subject Intercept is zero" in str(e)


def test_columns_that_are_combinations_have_no_equation():
    data = mf.datasets.load("sleepstudy").assign(twice=lambda d: 2.0 * d["Days"])
    with pytest.warns(mf.RankDeficiencyWarning):
        m = mf.fit("Reaction ~ Days + twice + (1 | Subject)", data)
    e = m.equations()
    assert "combinations of other columns: twice" in str(e)
    np.testing.assert_allclose(e.lhs @ e.solution, e.rhs)


def test_long_equations_are_cut_and_very_long_ones_refused():
    data = mf.datasets.load("sleepstudy")
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data)
    assert "... 14 more equations" in str(m.equations())
    many = pd.DataFrame({"g": np.repeat(np.arange(1200), 2)})
    many["y"] = np.random.default_rng(1).normal(size=2400)
    held = {"g": 1.0, "residual": 1.0}
    with pytest.raises(InferenceError, match="1201 equations"):
        mf.fit("y ~ 1 + (1 | g)", many, varcomp=held).equations()


def test_a_singular_covariance_is_refused():
    data = mf.datasets.load("sleepstudy")
    held = {"Subject": [[4.0, 2.0], [2.0, 1.0]], "residual": 900.0}
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data, varcomp=held)
    with pytest.raises(InferenceError, match="covariance of Subject is singular"):
        m.equations()
