"""Invariance: what a fit must not depend on, and what it must follow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf

METHODS = pytest.mark.parametrize("method", ["REML", "ML"])


def simulate(seed=0, n=120):
    """Crossed and unbalanced, with slopes, a factor, weights."""
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, 10, n), rng.integers(0, 6, n)
    x = rng.normal(size=n)
    f = np.array(list("abc"))[rng.integers(0, 3, n)]
    b = rng.normal(size=(10, 2)) @ np.array([[1.5, 0.4], [0.0, 0.7]])
    y = 3.0 + x + (f == "b") + b[g, 0] + b[g, 1] * x + 0.8 * rng.normal(size=6)[h]
    return pd.DataFrame(
        {
            "y": y + rng.normal(size=n),
            "x": x,
            "f": f,
            "g": [f"g{j}" for j in g],
            "h": [f"h{j}" for j in h],
            "w": rng.uniform(0.3, 3.0, n),
        }
    )


FORMULA = "y ~ f + x + (x | g) + (1 | h)"


@pytest.fixture(scope="module")
def data():
    return simulate()


@pytest.fixture(scope="module")
def base(data):
    return mf.fit(FORMULA, data)


def assert_same_fit(m, base):
    """Equal in everything that has no unit and no order."""
    assert m.converged
    assert m.criterion == pytest.approx(base.criterion, abs=1e-7)
    np.testing.assert_allclose(m.params, base.params, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(m.bse, base.bse, rtol=1e-5)
    np.testing.assert_allclose(m.ddf, base.ddf, rtol=1e-4)
    assert m.sigma == pytest.approx(base.sigma, rel=1e-6)


# Rows and labels.


@METHODS
@pytest.mark.parametrize("seed", range(3))
def test_row_order_does_not_matter(data, method, seed):
    base = mf.fit(FORMULA, data, method=method)
    shuffled = data.sample(frac=1.0, random_state=seed)
    m = mf.fit(FORMULA, shuffled, method=method)
    assert_same_fit(m, base)
    np.testing.assert_allclose(m.theta, base.theta, rtol=1e-5)
    expected = base.fittedvalues.loc[shuffled.index]
    np.testing.assert_allclose(m.fittedvalues, expected, rtol=1e-5)
    assert m.fittedvalues.index.equals(shuffled.index)


@pytest.mark.parametrize(
    "rename",
    [
        lambda label: f"z{9 - int(label[1:])}",
        lambda label: int(label[1:]) * 1000 - 7,
        lambda label: f"Größe {label}:x ",
    ],
    ids=["reversed", "numbers", "odd"],
)
def test_labels_of_groups_do_not_matter(data, base, rename):
    m = mf.fit(FORMULA, data.assign(g=data["g"].map(rename)))
    assert_same_fit(m, base)
    before = base.ranef().query("grp == 'g' and term == 'x'").set_index("level")
    after = m.ranef().query("grp == 'g' and term == 'x'").set_index("level")
    for label in data["g"].unique():
        expected = before.loc[label, "estimate"]
        found = after.loc[str(rename(label)), "estimate"]
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_groups_may_be_categorical(data, base):
    levels = [f"g{j}" for j in (3, 1, 2, 0, 9, 8, 7, 5, 6, 4, 11)]  # one unused
    m = mf.fit(FORMULA, data.assign(g=pd.Categorical(data["g"], categories=levels)))
    assert_same_fit(m, base)
    order = m.ranef().query("grp == 'g' and term == 'x'")["level"].tolist()
    assert order == levels[:-1]


def test_order_of_levels_of_a_factor_changes_the_reference_only(data, base):
    f = pd.Categorical(data["f"], categories=["c", "a", "b"])
    m = mf.fit(FORMULA, data.assign(f=f))
    # The new reference is c: b against a is (b - c) - (a - c).
    found = m.params["f[T.b]"] - m.params["f[T.a]"]
    assert found == pytest.approx(base.params["f[T.b]"], rel=1e-6)
    ours, theirs = m.anova(), base.anova()
    np.testing.assert_allclose(ours["f_value"], theirs["f_value"], rtol=1e-6)
    # The df of several rows follow the rows, which are differences to the reference.
    np.testing.assert_allclose(ours["den_df"], theirs["den_df"], rtol=1e-2)
    np.testing.assert_allclose(m.fittedvalues, base.fittedvalues, rtol=1e-6)


# The response.


@METHODS
@pytest.mark.parametrize("scale", [-1.0, 1e-12, 1e-6, 37.0, 1e6, 1e12])
def test_rescaled_response_rescales_the_fit(data, method, scale):
    base = mf.fit(FORMULA, data, method=method)
    m = mf.fit(FORMULA, data.assign(y=data["y"] * scale), method=method)
    df = 120 - 4 * (method == "REML")
    assert m.criterion == pytest.approx(
        base.criterion + 2.0 * df * np.log(abs(scale)), abs=1e-6
    )
    np.testing.assert_allclose(m.params / scale, base.params, rtol=1e-6)
    np.testing.assert_allclose(m.bse / abs(scale), base.bse, rtol=1e-6)
    np.testing.assert_allclose(m.theta, base.theta, rtol=1e-5)
    np.testing.assert_allclose(m.ddf, base.ddf, rtol=1e-5)
    np.testing.assert_allclose(m.pvalues, base.pvalues, rtol=1e-4)


@METHODS
@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_adding_fixed_effects_to_the_response_adds_them_to_beta(data, method, size):
    base = mf.fit(FORMULA, data, method=method)
    beta = size * np.array([1.0, -2.0, 0.5, 3.0])
    m = mf.fit(FORMULA, data.assign(y=data["y"] + base.design.X @ beta), method=method)
    np.testing.assert_allclose(m.params - beta, base.params, rtol=1e-4)
    np.testing.assert_allclose(m.bse, base.bse, rtol=1e-6)
    np.testing.assert_allclose(m.theta, base.theta, rtol=1e-5)
    assert m.criterion == pytest.approx(base.criterion, abs=1e-6)


def test_mean_a_hundred_million_times_the_sd_costs_nothing_but_rounding(data, base):
    m = mf.fit(FORMULA, data.assign(y=data["y"] + 1e8 * data["y"].std()))
    assert m.converged
    np.testing.assert_allclose(m.bse, base.bse, rtol=1e-6)
    np.testing.assert_allclose(m.theta, base.theta, rtol=1e-4)
    np.testing.assert_allclose(m.params.iloc[1:], base.params.iloc[1:], rtol=1e-4)


def test_offset_is_subtracted_from_the_response(data):
    offset = 5.0 * data["x"] + 1.0
    base = mf.fit(FORMULA, data.assign(y=data["y"] - offset))
    m = mf.fit(FORMULA, data, offset=offset)
    np.testing.assert_allclose(m.params, base.params, rtol=1e-8)
    assert m.criterion == pytest.approx(base.criterion, abs=1e-8)
    np.testing.assert_allclose(m.fittedvalues, base.fittedvalues + offset, rtol=1e-8)


# Covariates.


@pytest.mark.parametrize("unit", [-1.0, 1e-12, 1e-6, 1e-3, 1e3, 1e6, 1e12])
def test_unit_of_a_covariate_changes_its_own_coefficients_only(data, base, unit):
    m = mf.fit(FORMULA, data.assign(x=data["x"] * unit))
    assert m.converged
    scale = np.array([1.0, 1.0, 1.0, unit])
    np.testing.assert_allclose(m.params * scale, base.params, rtol=1e-5)
    np.testing.assert_allclose(m.bse * abs(scale), base.bse, rtol=1e-5)
    np.testing.assert_allclose(m.ddf, base.ddf, rtol=1e-4)
    np.testing.assert_allclose(m.anova(), base.anova(), rtol=1e-4)
    # log|X'X| moves with the unit of x.
    expected = base.criterion + 2.0 * np.log(abs(unit))
    assert m.criterion == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(m.fittedvalues, base.fittedvalues, rtol=1e-5)


@pytest.mark.parametrize("shift", [-5.0, 10.0, 100.0])
def test_shifted_covariate_is_the_same_model(data, base, shift):
    m = mf.fit(FORMULA, data.assign(x=data["x"] + shift))
    assert m.converged
    assert m.criterion == pytest.approx(base.criterion, abs=1e-6)
    assert m.params["x"] == pytest.approx(base.params["x"], rel=1e-5)
    assert m.bse["x"] == pytest.approx(base.bse["x"], rel=1e-5)
    assert m.ddf["x"] == pytest.approx(base.ddf["x"], rel=1e-3)
    np.testing.assert_allclose(m.fittedvalues, base.fittedvalues, rtol=1e-5)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_unit_of_a_covariate_does_not_change_a_diagonal_term(data, unit):
    formula = "y ~ f + x + (x || g) + (1 | h)"
    base = mf.fit(formula, data)
    m = mf.fit(formula, data.assign(x=data["x"] * unit))
    assert m.criterion == pytest.approx(base.criterion + 2.0 * np.log(unit), abs=1e-6)
    expected = base.theta / [1.0, unit, 1.0]
    np.testing.assert_allclose(m.theta, expected, rtol=1e-5)


# Coding.


@pytest.mark.parametrize("coding", ["sum", "helmert", "poly"])
def test_coding_transforms_the_coefficients(data, base, coding):
    m = mf.fit(FORMULA, data, contrasts={"f": coding})
    # X beta is the same, so beta follows from the columns of X.
    change = np.linalg.lstsq(m.design.X, base.design.X, rcond=None)[0]
    np.testing.assert_allclose(m.params, change @ base.params, rtol=1e-5)
    V = change @ base.cov_params() @ change.T
    np.testing.assert_allclose(m.cov_params(), V, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(m.fittedvalues, base.fittedvalues, rtol=1e-6)
    np.testing.assert_allclose(m.theta, base.theta, rtol=1e-5)


@pytest.mark.parametrize("coding", ["sum", "helmert", "poly"])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_coding_does_not_change_f_tests(data, coding, kind):
    formula = "y ~ f * x + (x | g) + (1 | h)"
    base = mf.fit(formula, data).anova(kind)
    m = mf.fit(formula, data, contrasts={"f": coding}).anova(kind)
    np.testing.assert_allclose(m, base, rtol=1e-4, atol=1e-9)


def test_model_without_intercept_is_the_cell_means_model(data, base):
    m = mf.fit("y ~ 0 + f + x + (x | g) + (1 | h)", data)
    assert m.criterion == pytest.approx(base.criterion, abs=1e-6)
    found = m.params["f[b]"] - m.params["f[a]"]
    assert found == pytest.approx(base.params["f[T.b]"], rel=1e-6)


def test_factor_of_random_coefficients_may_be_cell_means_or_differences(data):
    one = mf.fit("y ~ x + (0 + f | g)", data)
    other = mf.fit("y ~ x + (f | g)", data)
    assert one.criterion == pytest.approx(other.criterion, abs=1e-6)
    np.testing.assert_allclose(one.fittedvalues, other.fittedvalues, atol=1e-4)


# Weights.


@METHODS
@pytest.mark.parametrize("factor", [1e-6, 0.5, 1e6])
def test_common_factor_of_the_weights_scales_the_residual_variance(
    data, method, factor
):
    base = mf.fit(FORMULA, data, weights="w", method=method)
    m = mf.fit(FORMULA, data.assign(w=data["w"] * factor), weights="w", method=method)
    assert m.criterion == pytest.approx(base.criterion, abs=1e-6)
    assert m.sigma**2 == pytest.approx(factor * base.sigma**2, rel=1e-5)
    np.testing.assert_allclose(m.params, base.params, rtol=1e-6)
    np.testing.assert_allclose(m.bse, base.bse, rtol=1e-5)
    np.testing.assert_allclose(m.ddf, base.ddf, rtol=1e-4)
    ours, theirs = (fit.varcorr["vcov"].to_numpy()[:-1] for fit in (m, base))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_weights_of_one_are_no_weights(data, base):
    m = mf.fit(FORMULA, data, weights=np.ones(len(data)))
    assert_same_fit(m, base)


def test_weight_of_two_is_a_mean_of_two(data):
    """Pairs of equal rows of X and Z and their mean: V differs inside pairs only."""
    twice = pd.concat([data, data])
    twice["y"] = np.concatenate([data["y"] + 1.0, data["y"] - 1.0])
    base = mf.fit("y ~ f + x", data, weights=np.full(len(data), 2.0))
    m = mf.fit("y ~ f + x", twice)
    np.testing.assert_allclose(m.params, base.params, rtol=1e-10)


# The formula.


@METHODS
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ f + x + (1 | h) + (x | g)",
        "y ~ (x | g) + f + (1 | h) + x",
        "y ~ f + x + (1 + x | g) + (1 | h)",
        "y ~ 1 + f + x + us(1 + x | g) + (1 | h)",
    ],
)
def test_order_and_spelling_of_terms_do_not_matter(data, method, formula):
    base = mf.fit(FORMULA, data, method=method)
    m = mf.fit(formula, data, method=method)
    assert m.criterion == pytest.approx(base.criterion, abs=1e-7)
    np.testing.assert_allclose(m.params[base.params.index], base.params, rtol=1e-5)
    ours, theirs = (
        fit.varcorr.set_index(["grp", "var1", "var2"])["vcov"].sort_index()
        for fit in (m, base)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@METHODS
def test_double_bar_is_two_terms(data, method):
    one = mf.fit("y ~ f + x + (x || g)", data, method=method)
    two = mf.fit("y ~ f + x + (1 | g) + (0 + x | g)", data, method=method)
    diag = mf.fit("y ~ f + x + diag(x | g)", data, method=method)
    for m in (two, diag):
        assert m.criterion == pytest.approx(one.criterion, abs=1e-8)
        np.testing.assert_allclose(m.theta, one.theta, rtol=1e-5)
        np.testing.assert_allclose(m.ddf, one.ddf, rtol=1e-5)


def test_nesting_is_two_groupings(data):
    one = mf.fit("y ~ x + (1 | h/g)", data)
    two = mf.fit("y ~ x + (1 | h) + (1 | h:g)", data)
    assert two.criterion == pytest.approx(one.criterion, abs=1e-8)
    found = mf.fit("y ~ x + (1 | g:h) + (1 | h)", data)
    assert found.criterion == pytest.approx(one.criterion, abs=1e-7)


# Extremes.


@pytest.mark.parametrize("share", [1e-4, 1e-6, 1e-8])
def test_random_effects_may_explain_nearly_all(share):
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(8), 6)
    e = rng.normal(size=48)
    y = rng.normal(size=8)[g] + np.sqrt(share) * e
    m = mf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g})
    assert m.converged
    within = y - pd.Series(y).groupby(g).transform("mean")
    assert m.sigma**2 == pytest.approx(within @ within / 40, rel=1e-5)
    assert m.ddf.iloc[0] == pytest.approx(7.0, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_two_levels_are_enough(seed):
    rng = np.random.default_rng(seed)
    g = np.arange(14) % 2
    y = 3.0 * g + rng.normal(size=14)
    m = mf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g})
    assert m.converged
    assert m.ddf.iloc[0] == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_weights_over_eight_orders_of_magnitude(seed):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(8), 6)
    w = 10.0 ** rng.uniform(-4, 4, 48)
    y = rng.normal(size=8)[g] + rng.normal(size=48) / np.sqrt(w)
    m = mf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g}, weights=w)
    assert m.converged
    assert 0.5 < m.sigma < 2.0


def test_groups_may_be_of_very_unequal_size():
    rng = np.random.default_rng(6)
    g = np.repeat(np.arange(6), [1, 1, 2, 5, 100, 3000])
    y = rng.normal(size=6)[g] + rng.normal(size=len(g))
    m = mf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g})
    assert m.converged
    assert not m.singular


@METHODS
def test_one_residual_degree_of_freedom_is_no_crash(method):
    data = {"y": [1.0, 2.5, 1.7, 4.0], "x": [0.0, 1.0, 2.5, 3.0], "g": list("aabb")}
    formula = "y ~ x + I(x**2) + (1 | g)"
    if method == "ML":
        m = mf.fit(formula, data, method="ML")
    else:
        with pytest.warns(mf.ConvergenceWarning, match="1 residual degrees of freedom"):
            m = mf.fit(formula, data)
        assert m.ddf.isna().all()
        assert "no degrees of freedom" in str(m)
    assert np.all(np.isfinite(m.params))


@pytest.mark.parametrize("shift", [1e3, 1e6, 1e8])
def test_covariate_far_from_its_origin_gives_the_same_fit(shift):
    data = mf.datasets.load("sleepstudy")
    base = mf.fit("Reaction ~ Days + (Days | Subject)", data)
    far = data.assign(Days=data["Days"] + shift)
    m = mf.fit("Reaction ~ Days + (Days | Subject)", far)
    assert m.converged
    assert m.convergence.n_evaluations <= 12
    assert m.criterion == pytest.approx(base.criterion, abs=1e-6)
    slopes = [fit.varcorr["sdcor"][1] for fit in (m, base)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-5)
    assert m.bse["Days"] == pytest.approx(base.bse["Days"], rel=1e-6)
    assert m.ddf["Days"] == pytest.approx(17.0, rel=1e-5)
