"""The reference grid, nesting, weights, and the scale of the response."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.means.averaging import WEIGHTS, average
from mixform.inference.means.nesting import find_nesting
from mixform.inference.means.reference_grid import code_grid, reference_grid
from mixform.inference.means.response_scale import TRANSFORMATIONS, response_scale


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    n = 120
    table = pd.DataFrame(
        {
            "a": rng.choice(["a1", "a2", "a3"], n, p=[0.5, 0.3, 0.2]),
            "b": rng.choice(["b1", "b2"], n),
            "x": rng.normal(10.0, 2.0, n),
            "two": rng.integers(0, 2, n),
            "dose": rng.choice([0.5, 1.0, 2.0], n),
            "flag": rng.random(n) > 0.4,
            "y": rng.uniform(1.0, 3.0, n),
        }
    )
    table["site"] = table["a"] + table["b"]
    return table


def grid_of(m, at=None, **options):
    return reference_grid(m._fit, at, **options)


def test_the_grid_is_all_levels_and_the_mean(data):
    grid = grid_of(mf.fit("y ~ a * x + C(dose) + flag + two", data))
    levels = {name: v.levels for name, v in grid.variables.items()}
    assert levels["a"] == ("a1", "a2", "a3")
    assert levels["x"] == (pytest.approx(data["x"].mean()),)
    assert levels["dose"] == (0.5, 1, 2)
    assert levels["flag"] == (False, True)
    assert levels["two"] == (0, 1)
    assert len(grid.places) == 3 * 3 * 2 * 2


def test_counts_are_those_of_the_data(data):
    grid = grid_of(mf.fit("y ~ a * b + C(dose) + x", data))
    cells = data.groupby(["a", "b", "dose"]).size()
    for i, count in enumerate(grid.counts):
        key = tuple(
            grid.variables[name].levels[places[i]]
            for name, places in grid.columns(["a", "b", "dose"]).items()
        )
        assert count == cells.get(key, 0)
    assert grid.counts.sum() == len(data)


def test_only_rows_in_the_model_count(data):
    some = data.copy()
    some.loc[:49, "x"] = np.nan
    m = mf.fit("y ~ a + x", some)
    grid = grid_of(m)
    assert grid.counts.sum() == len(data) - 50
    assert grid.variables["x"].levels[0] == pytest.approx(some["x"].mean())


def test_at_restricts_levels_and_sets_covariates(data):
    m = mf.fit("y ~ a * x + two", data)
    grid = grid_of(m, {"a": ["a3", "a1"], "x": [1, 2.5], "two": 0.5})
    assert grid.variables["a"].levels == ("a3", "a1")
    assert grid.variables["x"].levels == (1, 2.5)
    assert not grid.variables["two"].is_factor
    X = code_grid(m._fit, grid.values(), len(grid.places))
    names = list(m.design.fixed.names)
    assert set(X[:, names.index("x")]) == {1.0, 2.5}
    assert set(X[:, names.index("two")]) == {0.5}


def test_x_over_the_grid_is_the_x_of_the_fit(data):
    """Every row of the data, as a grid of one point, has its row of X."""
    m = mf.fit("y ~ a * poly(x, 2) + C(dose) + flag", data, contrasts={"a": "sum"})
    for i in (0, 17, 63):
        row = data.iloc[i]
        at = {name: [row[name]] for name in ("a", "x", "dose", "flag")}
        grid = grid_of(m, at)
        X = code_grid(m._fit, grid.values(), 1)
        assert X[0] == pytest.approx(m.design.X.iloc[i].to_numpy())


def test_a_grid_too_large_is_refused(monkeypatch, data):
    m = mf.fit("y ~ a * b", data)
    monkeypatch.setattr("mixform.inference.means.reference_grid.LARGEST", 10)
    with pytest.raises(InferenceError, match=r"6 combinations of a \(3\), b \(2\)"):
        m.emmeans("a")


# Nesting.


def test_nesting_is_seen_in_the_data(data):
    codes = {
        name: data[name].astype("category").cat.codes.to_numpy(np.int64)
        for name in ("a", "b", "site")
    }
    assert find_nesting({k: codes[k] for k in ("a", "site")}, []) == {"site": ("a",)}
    assert find_nesting(codes, []) == {"site": ("a", "b")}
    assert find_nesting({k: codes[k] for k in ("a", "b")}, []) == {}


@pytest.mark.parametrize(
    ("terms", "nested"),
    [
        ([{"a"}, {"a", "b"}], {"b": ("a",)}),
        ([{"a"}, {"b"}, {"a", "b"}], {}),
        ([{"a", "b"}], {}),
        ([{"a"}, {"a", "b"}, {"a", "b", "c"}], {"b": ("a",), "c": ("a", "b")}),
        ([{"x"}, {"x", "a"}, {"b"}, {"c"}], {}),
    ],
)
def test_nesting_is_read_from_the_terms(terms, nested):
    crossed = np.array(
        [[i, j, k] for i in range(2) for j in range(2) for k in range(2)]
    )
    observed = dict(zip("abc", crossed.T.astype(np.int64), strict=True))
    assert find_nesting(observed, [frozenset(t) for t in terms]) == nested


def test_one_to_one_factors_are_nested_one_way_only():
    codes = np.array([0, 1, 2, 0])
    assert find_nesting({"a": codes, "b": codes}, []) == {"a": ("b",)}


# Weights.


def test_weights_in_words(data):
    m = mf.fit("y ~ a * b * C(dose)", data)
    grid = grid_of(m)
    X = code_grid(m._fit, grid.values(), len(grid.places))
    cells = (X @ m.params.to_numpy()).reshape(3, 2, 3, order="F")  # a, b, dose
    n = grid.counts.reshape(3, 2, 3, order="F")
    joint, b, dose = n.sum(axis=0), n.sum(axis=(0, 2)), n.sum(axis=(0, 1))
    by_hand = {
        "equal": np.ones_like(n),
        "proportional": joint[None] * np.ones_like(n),
        "outer": (b[:, None] * dose)[None] * np.ones_like(n),
        "cells": n,
        "flat": (n > 0).astype(float),
    }
    for name in WEIGHTS:
        _, L, _ = average(grid, X, ["a"], name)
        w = by_hand[name]
        want = (w * cells).sum(axis=(1, 2)) / w.sum(axis=(1, 2))
        assert L @ m.params.to_numpy() == pytest.approx(want), name
    # Weighted by cells, the means of a saturated model are the averages of the data.
    table = m.emmeans("a", weights="cells").table
    averages = data.groupby("a")["y"].mean()
    assert table["emmean"].to_numpy() == pytest.approx(averages.to_numpy())


# The scale of the response.


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_every_transformation_is_undone(name):
    function = getattr(np, name)
    y = np.array([0.3, 1.0, 2.5])
    undo = TRANSFORMATIONS[name]
    eta = function(y)
    assert undo.inverse(eta) == pytest.approx(y)
    h = 1e-6
    slope = (undo.inverse(eta + h) - undo.inverse(eta - h)) / (2 * h)
    assert undo.slope(eta) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(
    ("response", "name", "shift"),
    [
        ("log(y)", "log", 0.0),
        ("np.log10(y)", "log10", 0.0),
        ("sqrt(y + 2)", "sqrt", 2.0),
        ("log(1 + y)", "log", 1.0),
        ("log(y - 0.5)", "log", -0.5),
        ("I(log(y))", "log", 0.0),
        ("log(y / 3)", "log", 0.0),
    ],
)
def test_responses_are_read(data, response, name, shift):
    m = mf.fit(f"{response} ~ a", data)
    scale = response_scale(m._fit.design.formula, required=True)
    assert scale is not None
    assert (scale.name, scale.shift) == (name, shift)


def test_a_plain_response_has_no_other_scale(data):
    m = mf.fit("y ~ a", data)
    assert response_scale(m._fit.design.formula, required=True) is None
    one, two = (m.emmeans("a", type=t).table for t in ("link", "response"))
    assert list(two.columns) == list(one.columns)


def test_limits_below_the_root_of_zero_are_zero(data):
    small = data.assign(y=np.where(np.arange(len(data)) % 9 == 0, data["y"], 0.0))
    m = mf.fit("sqrt(y) ~ a * b", small)
    found = m.emmeans("a", type="response", level=0.9999).table
    assert (m.emmeans("a", level=0.9999).table["lower"] < 0.0).any()
    assert found["lower"].min() == 0.0


def test_ratios_do_not_depend_on_the_base_of_the_logarithm(data):
    tables = [
        mf.fit(f"{name}(y) ~ a", data)
        .emmeans("a", type="response")
        .pairs()
        .to_frame()
        .drop(columns="contrast")
        for name in ("log", "log2", "log10")
    ]
    for other in tables[1:]:
        assert other.to_numpy() == pytest.approx(tables[0].to_numpy(), rel=1e-9)
    assert (tables[0]["null"] == 1.0).all()
