"""BLUPs, their conditional variances, and coefficients of levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.random_effects import (
    caterpillar,
    conditional_variances,
    condvar,
    prediction_error_variances,
    ranef,
)
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


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_prediction_error_variances_are_the_dense_ones(seed):
    # Var(b^ - b) = G - G Z'P Z G: b^ = G Z'P y, and Cov(b^, b) = Var(b^).
    model, data, formula, keywords = oracle.random_model(seed)
    theta = oracle.random_theta(model, seed)
    record = fit_at(theta, data, formula, keywords)._fit
    G, Z = model.relative_G(theta), model.Z()
    here = oracle.solve(model, theta)
    dense = here.sigma2 * (G - G @ Z.T @ here.P @ Z @ G)
    start = 0
    for term, stack in zip(
        model.terms, prediction_error_variances(record), strict=True
    ):
        for level in stack:
            own = slice(start, start + term.k)
            scale = np.sqrt(np.outer(*2 * (np.diag(G[own, own]),)))
            np.testing.assert_allclose(
                level / scale, dense[own, own] / scale, rtol=1e-6, atol=1e-8
            )
            start += term.k


def test_prediction_errors_are_entries_of_the_inverse_of_hendersons_matrix():
    data = mf.datasets.load("sleepstudy").iloc[:-13]
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data, method="ML")
    X, Z = m.design.X.to_numpy(), m.design.Z.toarray()
    W, T = np.hstack([X, Z]), m._fit.T[0]
    C = W.T @ W
    C[2:, 2:] += np.kron(np.eye(Z.shape[1] // 2), np.linalg.inv(T @ T.T))
    dense = m.sigma**2 * np.linalg.inv(C).diagonal()[2:]
    table = ranef(m._fit, pev=True)
    for c, name in enumerate(["Intercept", "Days"]):
        found = table[table["term"] == name]["pev"]
        np.testing.assert_allclose(found, dense[c::2], rtol=1e-8)


def test_prediction_error_in_a_balanced_one_way_layout():
    # b^_j = h (mean_j - mean), h = n v / (n v + s2), a groups of n:
    # Var(b^) = h v (1 - 1/a), so pev = v - that, reliability = h (1 - 1/a).
    m = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff"))
    v, s2 = m.varcorr["vcov"]
    h = 5 * v / (5 * v + s2)
    table = ranef(m._fit, pev=True, reliability=True)
    np.testing.assert_allclose(table["pev"], v - h * v * (1 - 1 / 6))
    np.testing.assert_allclose(table["reliability"], h * (1 - 1 / 6))
    # Given beta, it is smaller: v s2 / (n v + s2) = v - h v.
    np.testing.assert_allclose(table["se"] ** 2, v - h * v)
    pd.testing.assert_frame_equal(table[m.ranef().columns], m.ranef())


def test_levels_with_less_data_are_less_reliable():
    data = mf.datasets.load("Dyestuff")
    m = mf.fit("Yield ~ 1 + (1 | Batch)", data.drop(index=[0, 1, 2, 5]))
    table = ranef(m._fit, reliability=True).set_index("level")["reliability"]
    assert "pev" not in ranef(m._fit, reliability=True)
    assert table["A"] < table["B"] < table["C"] == pytest.approx(table["F"])
    assert table.between(0.0, 1.0).all()


def test_reliability_does_not_depend_on_units():
    data = mf.datasets.load("sleepstudy")
    moved = data.assign(Reaction=data["Reaction"] / 1000, Days=data["Days"] * 24)
    formula = "Reaction ~ Days + (Days | Subject)"
    once, other = (
        ranef(mf.fit(formula, d)._fit, pev=True, reliability=True)
        for d in (data, moved)
    )
    np.testing.assert_allclose(other["reliability"], once["reliability"], rtol=1e-5)
    scale = np.repeat([1e-6, 1e-6 / 24**2], 18)
    np.testing.assert_allclose(other["pev"], once["pev"] * scale, rtol=1e-5)


def test_covariances_of_levels_are_by_label_of_the_term():
    data = mf.datasets.load("sleepstudy")
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data)
    found = condvar(m._fit)
    assert list(found) == ["Subject"]
    assert found["Subject"].shape == (18, 2, 2)
    se = np.sqrt(np.diagonal(found["Subject"], axis1=1, axis2=2)).T.ravel()
    np.testing.assert_allclose(se, m.ranef()["se"])
    assert list(condvar(mf.fit("Reaction ~ Days + (Days || Subject)", data)._fit)) == [
        "Subject"
    ]
    assert condvar(mf.fit("Reaction ~ Days", data)._fit) == {}


def test_random_effects_of_a_zero_variance_have_no_reliability():
    m = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff2"))
    table = ranef(m._fit, pev=True, reliability=True)
    np.testing.assert_array_equal(table["pev"], 0.0)
    assert table["reliability"].isna().all()


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
    m = mf.fit("gain ~ group", mf.datasets.load("pigs"))
    assert "pev" in ranef(m._fit, pev=True)
    assert caterpillar(m._fit).empty


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


#: coef(lmer(score ~ 0 + Machine + (0 + Machine | Worker), nlme::Machines))$Worker of
#: lme4 1.1-31: workers 6, 2, 4, 1, 3, 5; machines A, B, C.
MACHINES = """
    46.7639989 43.7384146 61.2421555
    52.5394162 59.5189077 61.9899365
    51.3316173 62.6507109 64.8575724
    52.6675263 62.8754529 67.2025128
    59.3248770 68.1015069 70.7457729
    51.5058977 65.0483404 71.5953832
"""


def test_coefficients_of_a_factor_agree_with_lme4():
    printed = np.array(MACHINES.split(), dtype=float).reshape(6, 3)
    data = mf.datasets.load("Machines")
    cells = mf.fit("score ~ 0 + Machine + (0 + Machine | Worker)", data)
    found = cells.coef()["Worker"].loc[list("624135")]
    assert list(found.columns) == ["Machine[A]", "Machine[B]", "Machine[C]"]
    np.testing.assert_allclose(found, printed, rtol=2e-6)
    # With contrasts, differences from A: the same model.
    contrasts = mf.fit("score ~ Machine + (Machine | Worker)", data)
    found = contrasts.coef()["Worker"].loc[list("624135")]
    expected = printed - [[0.0, 1.0, 1.0]] * printed[:, [0]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_coefficients_of_differently_coded_parts_stand_beside_each_other():
    # lme4 adds the cell effect of B to the contrast of B, because it names both alike.
    data = mf.datasets.load("Machines")
    m = mf.fit("score ~ Machine + (0 + Machine | Worker)", data)
    table = m.coef()["Worker"]
    printed = np.array(MACHINES.split(), dtype=float).reshape(6, 3)
    names = ["Machine[T.B]", "Machine[B]"]
    cell = table["Intercept"] + table[names].sum(axis=1)
    np.testing.assert_allclose(cell[list("624135")], printed[:, 1], rtol=2e-6)


def test_coef_of_levels_that_print_alike():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=40), "x": rng.normal(size=40)})
    data["a"] = np.tile(["a", "a:b", "c", "d"], 10)
    data["b"] = np.tile(["b:c", "c", "e", "e"], 10)
    m = mf.fit("y ~ x + (1 | a:b) + (0 + x | a:b)", data)
    table = m.coef()["a:b"]
    assert table.index.tolist() == ["a:b:c", "a:b:c", "c:e", "d:e"]
    b = np.hstack(m._fit.b)
    np.testing.assert_allclose(table, m.params.to_numpy() + b)


# Caterpillars.


def test_caterpillar_is_sorted_within_each_coefficient():
    data = mf.datasets.load("Pastes")
    m = mf.fit("strength ~ 1 + (1 | batch/cask)", data)
    table = caterpillar(m._fit)
    assert list(table.columns) == [
        *["grp", "term", "level", "estimate", "se"],
        *["lower", "upper", "rank", "quantile"],
    ]
    known = m.ranef().set_index(["grp", "level"])["estimate"]
    for name, part in table.groupby("grp"):
        assert part["estimate"].is_monotonic_increasing
        assert part["rank"].tolist() == list(range(1, len(part) + 1))
        np.testing.assert_array_equal(part["estimate"], known[name][part["level"]])
        np.testing.assert_allclose(
            part["quantile"], -part["quantile"][::-1], atol=1e-12
        )
    np.testing.assert_allclose(
        norm.cdf(table[table["grp"] == "batch"]["quantile"]), np.arange(0.05, 1, 0.1)
    )


def test_caterpillar_limits_are_normal():
    m = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff"))
    for level, z in [(0.95, 1.959963984540054), (0.5, 0.6744897501960817)]:
        table = caterpillar(m._fit, level=level)
        np.testing.assert_allclose(table["upper"] - table["estimate"], z * table["se"])
        np.testing.assert_allclose(table["estimate"] - table["lower"], z * table["se"])


def test_caterpillar_of_one_term():
    data = mf.datasets.load("Pastes")
    m = mf.fit("strength ~ 1 + (1 | batch/cask)", data)
    assert set(caterpillar(m._fit, "batch")["grp"]) == {"batch"}
    assert set(caterpillar(m._fit, ["batch", "batch:cask"])["grp"]) == {
        "batch",
        "batch:cask",
    }
    with pytest.raises(InferenceError, match="no random term 'cask'"):
        caterpillar(m._fit, "cask")
    with pytest.raises(InferenceError, match="level is 95"):
        caterpillar(m._fit, level=95)
