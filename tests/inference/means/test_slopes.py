"""Slopes: exact derivatives, closed forms of balanced data, bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    n = 90
    return pd.DataFrame(
        {
            "g": np.repeat([f"g{i}" for i in range(9)], 10),
            "f": np.tile(["a", "b", "c"], 30),
            "x": rng.uniform(0.5, 6.0, n),
            "year": 2000.0 + rng.integers(0, 12, n),
            "y": rng.normal(size=n),
        }
    )


def coefficients(m):
    return m.params.to_dict()


def test_a_slope_is_its_coefficient_with_its_test():
    m = mf.fit("Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy"))
    row = m.slopes("Days").to_frame().iloc[0]
    assert row["Days.trend"] == pytest.approx(m.params["Days"], rel=1e-9)
    assert row["se"] == pytest.approx(m.bse["Days"], rel=1e-9)
    assert row["df"] == pytest.approx(17.0, rel=1e-5)  # balanced: 18 subjects
    assert row["p_value"] == pytest.approx(m.pvalues["Days"], rel=1e-7)


@pytest.mark.parametrize("x", [0.7, 2.0, 5.5])
@pytest.mark.parametrize(
    ("formula", "derivative"),
    [
        ("x + I(x**2) + I(x**3)", lambda b, x: b[1] + 2 * b[2] * x + 3 * b[3] * x**2),
        ("np.log(x)", lambda b, x: b[1] / x),
        ("np.exp(x / 3)", lambda b, x: b[1] * np.exp(x / 3) / 3),
        ("I(x**5)", lambda b, x: 5 * b[1] * x**4),
        ("sqrt(x)", lambda b, x: b[1] / (2 * np.sqrt(x))),
    ],
)
def test_derivatives_are_exact(data, formula, derivative, x):
    m = mf.fit(f"y ~ {formula} + (1 | g)", data)
    found = m.slopes("x", at={"x": x}).table["x.trend"].iloc[0]
    assert found == pytest.approx(derivative(m.params.to_numpy(), x), rel=1e-8)


def test_orthogonal_polynomials_and_raw_ones_have_the_same_slopes(data):
    raw = mf.fit("y ~ x + I(x**2) + I(x**3) + (1 | g)", data)
    poly = mf.fit("y ~ poly(x, 3) + (1 | g)", data)
    at = {"x": [1.0, 3.0, 5.0]}
    one, two = (m.slopes("x", "x", at=at).to_frame() for m in (raw, poly))
    assert two.to_numpy() == pytest.approx(one.to_numpy(), rel=1e-6)


def test_a_covariate_far_from_zero_keeps_its_digits(data):
    m = mf.fit("y ~ year + f + (1 | g)", data)
    row = m.slopes("year").table.iloc[0]
    assert row["year.trend"] == pytest.approx(m.params["year"], rel=1e-8)
    assert row["se"] == pytest.approx(m.bse["year"], rel=1e-8)


def test_slopes_by_a_factor_and_their_differences(data):
    m = mf.fit("y ~ f * x + (1 | g)", data)
    slopes = m.slopes("x", by="f")
    b = m.params
    want = [b["x"], b["x"] + b["f[T.b]:x"], b["x"] + b["f[T.c]:x"]]
    assert slopes.table["x.trend"].to_numpy() == pytest.approx(want, rel=1e-8)
    pairs = slopes.pairs("none").table
    assert pairs["estimate"].iloc[0] == pytest.approx(-b["f[T.b]:x"], rel=1e-7)
    assert pairs["p_value"].iloc[0] == pytest.approx(m.pvalues["f[T.b]:x"], rel=1e-6)
    assert slopes.joint_tests()["f_value"].iloc[0] == pytest.approx(
        m.anova().loc["f:x", "f_value"], rel=1e-6
    )
    overall = m.slopes("x").table["x.trend"].iloc[0]
    assert overall == pytest.approx(np.mean(want))


def test_by_makes_groups_where_specs_are_given(data):
    m = mf.fit("y ~ f * x * I(year - 2000) + (1 | g)", data)
    at = {"year": [2000, 2010]}
    found = m.slopes("x", "f", by="year", at=at)
    assert found.estimates.by == ("year",)
    assert len(found.pairs().table) == 6


def test_a_covariate_with_two_values_has_a_slope(data):
    two = data.assign(x=(data["x"] > 3).astype(float))
    m = mf.fit("y ~ f + x + (1 | g)", two)
    assert m.slopes("x").table["x.trend"].iloc[0] == pytest.approx(m.params["x"])


def test_slopes_of_a_spline_follow_its_curve(data):
    m = mf.fit("y ~ bs(x, df=5) + (1 | g)", data)
    h = 1e-4
    at = np.array([2.0 - h, 2.0 + h])
    curve = m.emmeans("x", at={"x": at}).table["emmean"].to_numpy()
    found = m.slopes("x", at={"x": 2.0}).table["x.trend"].iloc[0]
    assert found == pytest.approx(np.diff(curve)[0] / (2 * h), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"x": "f"}, ["'f' is a factor, which has no slope", "emmeans('f')"]),
        ({"x": "z"}, ["no variable 'z'", "Variables: f, x"]),
        ({"x": "g"}, ["'g' is in the random part only"]),
        ({"x": "x", "by": "ff"}, ["no variable 'ff'", "Did you mean 'f'?"]),
        ({"x": "x", "at": {"x": "low"}}, ["is not numeric"]),
        ({"x": "x", "at": {"x": [0.0]}}, ["log(x) is not defined"]),
        ({"x": "x", "adjust": "no"}, ["Unknown adjustment 'no'"]),
    ],
)
def test_bad_input_is_named(data, call, words):
    m = mf.fit("y ~ f * np.log(x) + (1 | g)", data)
    with pytest.raises(InferenceError) as caught:
        m.slopes(**call)
    for word in words:
        assert word in str(caught.value)
