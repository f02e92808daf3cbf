"""BLUPs, their conditional variances, and coefficients of levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixform as mf
from mixform.inference.random_effects import conditional_variances
from tests import dense_oracle as oracle
from tests.estimate.test_criterion import fit_at


def test_balanced_intercepts_are_shrunken_deviations():
    # b_j = n v / (n v + s2) (mean_j - mean), Var(b_j | y) = v s2 / (n v + s2).
    data = mf.datasets.load("Dyestuff")
    m = mf.fit("Yield ~ 1 + (1 | Batch)", data)
    v, s2 = m.varcorr["vcov"]
    means = data.groupby("Batch", observed=True)["Yield"].mean()
    table = m.ranef()
    shrunken = 5 * v / (5 * v + s2) * (means - means.mean())
    np.testing.assert_allclose(table["estimate"], shrunken, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(table["se"], np.sqrt(v * s2 / (5 * v + s2)))
    assert table["level"].tolist() == means.index.tolist()
    assert set(table["grp"]) == {"Batch"}
    assert set(table["term"]) == {"Intercept"}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_conditional_variances_are_the_dense_ones(seed):
    # Var(b | y, beta) = G - G Z'V^-1 Z G.
    model, data, formula, keywords = oracle.random_model(seed)
    theta = oracle.random_theta(model, seed)
    record = fit_at(theta, data, formula, keywords)._fit
    G, Z = model.relative_G(theta), model.Z()
    dense = G - G @ Z.T @ np.linalg.solve(model.relative_V(theta), Z @ G)
    dense = oracle.solve(model, theta).sigma2 * dense
    start = 0
    for term, stack in zip(model.terms, conditional_variances(record), strict=True):
        for level in stack:
            own = slice(start, start + term.k)
            scale = np.sqrt(np.outer(*2 * (np.diag(G[own, own]),)))
            np.testing.assert_allclose(
                level / scale, dense[own, own] / scale, rtol=1e-6, atol=1e-8
            )
            start += term.k


def test_random_effects_of_a_zero_variance_are_zero():
    m = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff2"))
    np.testing.assert_array_equal(m.ranef()["estimate"], 0.0)
    np.testing.assert_array_equal(m.ranef()["se"], 0.0)


def test_ranef_lists_terms_then_coefficients_then_levels():
    data = pd.DataFrame({"y": np.random.default_rng(0).normal(size=24)})
    data["x"] = np.linspace(-1.0, 1.0, 24)
    data["g"], data["h"] = np.arange(24) % 3, np.arange(24) // 6
    table = mf.fit("y ~ x + (x || g) + (1 | h)", data).ranef()
    rows = table[["grp", "term", "level"]].itertuples(index=False, name=None)
    assert list(rows) == [
        *[("g", "Intercept", level) for level in "012"],
        *[("g", "x", level) for level in "012"],
        *[("h", "Intercept", level) for level in "0123"],
    ]


def test_model_without_random_terms_has_an_empty_table():
    table = mf.fit("gain ~ group", mf.datasets.load("pigs")).ranef()
    assert list(table.columns) == ["grp", "term", "level", "estimate", "se"]
    assert len(table) == 0


def test_coef_adds_fixed_and_random_effects():
    m = mf.fit("Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy"))
    coefficients = m.coef()["Subject"]
    table = m.ranef()
    for name in ("Intercept", "Days"):
        b = table[table["term"] == name].set_index("level")["estimate"]
        np.testing.assert_allclose(coefficients[name], m.params[name] + b)


def test_coef_without_a_fixed_effect_is_the_random_effect():
    m = mf.fit("Reaction ~ 1 + (Days | Subject)", mf.datasets.load("sleepstudy"))
    table = m.ranef()
    slopes = table[table["term"] == "Days"].set_index("level")["estimate"]
    np.testing.assert_allclose(m.coef()["Subject"]["Days"], slopes)


def test_coef_of_two_terms_of_one_group_is_one_table():
    data = mf.datasets.load("sleepstudy")
    one = mf.fit("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", data)
    other = mf.fit("Reaction ~ Days + (Days || Subject)", data)
    np.testing.assert_allclose(
        one.coef()["Subject"], other.coef()["Subject"], rtol=1e-6
    )


@pytest.mark.parametrize("name", ["plate", "sample"])
def test_random_effects_of_each_grouping_sum_to_zero(name):
    # X has an intercept, so Z'V^-1(y - X beta) sums to zero over a factor's levels.
    data = mf.datasets.load("Penicillin")
    table = mf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", data).ranef()
    b = table[table["grp"] == name]["estimate"]
    assert b.sum() == pytest.approx(0.0, abs=1e-8)
