"""Exact: what mean squares and hand algebra say the fit must be."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf

#: Degrees of freedom come from differences of the gradient.
DDF = {"rel": 1e-6}


def layout(*sizes, names="abc"):
    """A balanced layout, one row for each combination."""
    rows = list(product(*(range(size) for size in sizes)))
    return pd.DataFrame(rows, columns=[*names[: len(sizes)]])


def sum_of_squares(data, *factors) -> float:
    """Sum over rows of the squared interaction effect of the factors."""
    effect = np.zeros(len(data))
    for chosen in product([True, False], repeat=len(factors)):
        kept = [f for f, c in zip(factors, chosen, strict=True) if c]
        means = data.groupby(kept)["y"].transform("mean") if kept else data["y"].mean()
        effect += (-1.0) ** (len(factors) - len(kept)) * np.asarray(means)
    return float(effect @ effect)


def variances(m):
    return m.varcorr["vcov"].tolist()


# The pigs of the lecture: three controls, three treated, one weight gain each.


@pytest.fixture(scope="module", params=["gain ~ group", "gain ~ C(group)"])
def pigs(request):
    return mf.fit(request.param, mf.datasets.load("pigs"))


def test_pigs_treatment_difference_is_9(pigs):
    # 53 46 58 against 61 66 57: means 157/3 and 184/3.
    assert pigs.params.iloc[1] == pytest.approx(9.0, rel=1e-12)
    assert pigs.params.iloc[0] == pytest.approx(157.0 / 3.0, rel=1e-12)


def test_pigs_standard_error_is_by_hand(pigs):
    # Sums of squares 218/3 and 122/3 about the means: s^2 = 340/12 with 4 df.
    assert pigs.sigma**2 == pytest.approx(340.0 / 12.0, rel=1e-12)
    assert pigs.bse.iloc[1] == pytest.approx(np.sqrt(340.0 / 12.0 * 2.0 / 3.0))


def test_pigs_t_test_has_4_df(pigs):
    t = 9.0 / np.sqrt(170.0 / 9.0)
    assert pigs.ddf.iloc[1] == pytest.approx(4.0, rel=1e-12)
    assert pigs.tvalues.iloc[1] == pytest.approx(t, rel=1e-12)
    assert pigs.pvalues.iloc[1] == pytest.approx(2.0 * stats.t.sf(t, 4), rel=1e-10)


def test_pigs_f_test_is_the_square(pigs):
    row = pigs.anova().iloc[0]
    assert row["f_value"] == pytest.approx(81.0 * 9.0 / 170.0, rel=1e-12)
    assert (row["num_df"], row["den_df"]) == (1, pytest.approx(4.0, rel=1e-12))


# One random factor.


def one_way(seed=0, a=7, n=4, sd=2.0):
    rng = np.random.default_rng(seed)
    data = layout(a, n)
    data["y"] = 10.0 + sd * rng.normal(size=a)[data["a"]] + rng.normal(size=a * n)
    between = sum_of_squares(data, "a") / (a - 1)
    deviations = (data["y"] - data.groupby("a")["y"].transform("mean")).to_numpy()
    return data, between, float(deviations @ deviations) / (a * (n - 1))


@pytest.mark.parametrize("seed", range(4))
def test_balanced_one_way_reml_is_the_anova_estimate(seed):
    data, between, within = one_way(seed)
    m = mf.fit("y ~ 1 + (1 | a)", data)
    assert variances(m) == pytest.approx([(between - within) / 4, within], rel=1e-7)
    assert m.params.iloc[0] == pytest.approx(data["y"].mean(), rel=1e-12)
    assert m.bse.iloc[0] == pytest.approx(np.sqrt(between / 28), rel=1e-7)
    assert m.ddf.iloc[0] == pytest.approx(6.0, **DDF)


@pytest.mark.parametrize("seed", range(4))
def test_balanced_one_way_ml_has_its_closed_form(seed):
    data, between, within = one_way(seed)
    m = mf.fit("y ~ 1 + (1 | a)", data, method="ML")
    expected = [(between * 6 / 7 - within) / 4, within]
    assert variances(m) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_balanced_one_way_criterion_has_its_closed_form(seed):
    # (a-1) log MSA + a(n-1) log MSE + N - 1 + (N-1) log 2 pi, and log N of X'X.
    data, between, within = one_way(seed)
    m = mf.fit("y ~ 1 + (1 | a)", data)
    expected = 6 * np.log(between) + 21 * np.log(within)
    expected += 27 * (1.0 + np.log(2.0 * np.pi)) + np.log(28.0)
    assert m.criterion == pytest.approx(expected, abs=1e-8)


def test_negative_anova_estimate_is_zero_and_the_model_is_least_squares():
    data, between, within = one_way(1, sd=0.0)
    assert between < within
    m = mf.fit("y ~ 1 + (1 | a)", data)
    assert variances(m) == [0.0, pytest.approx(data["y"].var(), rel=1e-10)]
    assert m.converged
    assert m.singular
    assert m.ddf.iloc[0] == pytest.approx(27.0, rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_ratio_of_variances_is_found_over_twelve_orders_of_magnitude(seed):
    for sd in (1e-1, 1e1, 1e3):
        data, between, within = one_way(seed, sd=sd)
        if between <= within:
            continue
        m = mf.fit("y ~ 1 + (1 | a)", data)
        expected = [(between - within) / 4, within]
        assert variances(m) == pytest.approx(expected, rel=1e-5)


def test_dyestuff_is_as_published():
    # Davies and Goldsmith (1972): MSA 11271.5, MSE 2451.25, 6 batches of 5.
    m = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff"))
    assert variances(m) == pytest.approx([1764.05, 2451.25], rel=1e-7)
    assert m.params.iloc[0] == pytest.approx(1527.5, rel=1e-12)
    assert m.ddf.iloc[0] == pytest.approx(5.0, **DDF)


# Several random factors.


def mean_squares_of_nested(data, a, b, n):
    between = sum_of_squares(data, "a") / (a - 1)
    cells = data.groupby(["a", "b"])["y"].transform("mean")
    inner = cells - data.groupby("a")["y"].transform("mean")
    rest = data["y"] - cells
    return (
        between,
        inner @ inner / (a * (b - 1)),
        rest @ rest / (a * b * (n - 1)),
    )


@pytest.mark.parametrize("seed", range(4))
def test_balanced_nested_reml_is_the_anova_estimate(seed):
    rng = np.random.default_rng(seed)
    a, b, n = 6, 4, 3
    data = layout(a, b, n)
    data["y"] = 5.0 * rng.normal(size=a)[data["a"]] + rng.normal(size=a * b * n)
    data["y"] += 2.0 * rng.normal(size=(a, b))[data["a"], data["b"]]
    msa, msb, mse = mean_squares_of_nested(data, a, b, n)
    m = mf.fit("y ~ 1 + (1 | a/b)", data)
    found = m.varcorr.set_index("grp")["vcov"]
    assert found["a"] == pytest.approx((msa - msb) / (b * n), rel=1e-6)
    assert found["a:b"] == pytest.approx((msb - mse) / n, rel=1e-6)
    assert found["Residual"] == pytest.approx(mse, rel=1e-7)
    assert m.bse.iloc[0] == pytest.approx(np.sqrt(msa / (a * b * n)), rel=1e-7)
    assert m.ddf.iloc[0] == pytest.approx(a - 1, **DDF)


def crossed(seed, a=5, b=6, n=1):
    rng = np.random.default_rng(seed)
    data = layout(a, b, n)
    data["y"] = 3.0 * rng.normal(size=a)[data["a"]] + rng.normal(size=len(data))
    data["y"] += 2.0 * rng.normal(size=b)[data["b"]]
    data["y"] += 1.5 * (n > 1) * rng.normal(size=(a, b))[data["a"], data["b"]]
    return data


@pytest.mark.parametrize("seed", range(4))
def test_balanced_crossed_reml_is_the_anova_estimate(seed):
    data = crossed(seed)
    msa = sum_of_squares(data, "a") / 4
    msb = sum_of_squares(data, "b") / 5
    mse = sum_of_squares(data, "a", "b") / 20
    m = mf.fit("y ~ 1 + (1 | a) + (1 | b)", data)
    expected = [(msa - mse) / 6, (msb - mse) / 5, mse]
    assert variances(m) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_mean_of_a_crossed_layout_has_satterthwaites_df(seed):
    # Var of the mean is (MSA + MSB - MSE) / ab.
    data = crossed(seed)
    squares = np.array(
        [
            sum_of_squares(data, "a") / 4,
            sum_of_squares(data, "b") / 5,
            -sum_of_squares(data, "a", "b") / 20,
        ]
    )
    m = mf.fit("y ~ 1 + (1 | a) + (1 | b)", data)
    total = squares.sum()
    assert m.bse.iloc[0] == pytest.approx(np.sqrt(total / 30), rel=1e-7)
    df = total**2 / np.sum(squares**2 / [4, 5, 20])
    assert m.ddf.iloc[0] == pytest.approx(df, **DDF)


def test_crossed_with_interaction_is_the_anova_estimate():
    data = crossed(0, n=3)
    msa = sum_of_squares(data, "a") / 4
    msb = sum_of_squares(data, "b") / 5
    msab = sum_of_squares(data, "a", "b") / 20
    rest = data["y"] - data.groupby(["a", "b"])["y"].transform("mean")
    mse = rest @ rest / 60
    m = mf.fit("y ~ 1 + (1 | a) + (1 | b) + (1 | a:b)", data)
    expected = [(msa - msab) / 18, (msb - msab) / 15, (msab - mse) / 3, mse]
    assert variances(m) == pytest.approx(expected, rel=1e-6)


# Fixed effects in the strata of a balanced design.


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_randomized_blocks_f_is_the_ratio_of_mean_squares(kind):
    data = crossed(2)
    m = mf.fit("y ~ C(b) + (1 | a)", data)
    mse = sum_of_squares(data, "a", "b") / 20
    row = m.anova(kind).loc["C(b)"]
    f = sum_of_squares(data, "b") / 5 / mse
    assert row["f_value"] == pytest.approx(f, rel=1e-8)
    assert row["mean_sq"] == pytest.approx(f * mse, rel=1e-7)
    assert (row["num_df"], row["den_df"]) == (5, pytest.approx(20.0, **DDF))


def split_plot(seed):
    """Blocks r x whole plots a x subplots b."""
    rng = np.random.default_rng(seed)
    data = layout(5, 3, 4, names="rab")
    r, a, b = (data[name].to_numpy() for name in "rab")
    y = 3.0 * rng.normal(size=5)[r] + 2.0 * rng.normal(size=(5, 3))[r, a]
    data["y"] = y + rng.normal(size=60) + a + 0.5 * b * (a == 1)
    return data


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_split_plot_f_tests_use_the_error_of_their_stratum(seed, kind):
    data = split_plot(seed)
    error_a = sum_of_squares(data, "r", "a") / 8
    error_b = sum_of_squares(data, "r", "b") + sum_of_squares(data, "r", "a", "b")
    error_b /= 3 * 4 * 3
    table = mf.fit("y ~ C(a) * C(b) + (1 | r/a)", data).anova(kind)
    expected = {
        "C(a)": (sum_of_squares(data, "a") / 2 / error_a, 2, 8),
        "C(b)": (sum_of_squares(data, "b") / 3 / error_b, 3, 36),
        "C(a):C(b)": (sum_of_squares(data, "a", "b") / 6 / error_b, 6, 36),
    }
    for term, (f, num_df, den_df) in expected.items():
        row = table.loc[term]
        assert row["f_value"] == pytest.approx(f, rel=1e-8)
        assert (row["num_df"], row["den_df"]) == (num_df, pytest.approx(den_df, **DDF))
        p = stats.f.sf(f, num_df, den_df)
        assert row["p_value"] == pytest.approx(p, rel=1e-5)


@pytest.fixture(scope="module")
def stroup():
    """SAS/STAT User's Guide, PROC MIXED example 1: 24 subplots."""
    data = mf.datasets.load("stroup")
    return mf.fit("Y ~ A * B + (1 | Block) + (1 | A:Block)", data)


def test_sas_split_plot_components_are_as_printed(stroup):
    expected = [62.395833, 15.381944, 9.361111]
    assert variances(stroup) == pytest.approx(expected, rel=0.0, abs=5e-7)


@pytest.mark.parametrize(
    ("term", "f", "num_df", "den_df"),
    [("A", "4.07", 2, 6), ("B", "19.39", 1, 9), ("A:B", "4.02", 2, 9)],
)
def test_sas_split_plot_f_tests_are_as_printed(stroup, term, f, num_df, den_df):
    row = stroup.anova().loc[term]
    assert row["f_value"] == pytest.approx(float(f), rel=0.0, abs=0.005)
    assert (row["num_df"], row["den_df"]) == (num_df, pytest.approx(den_df, **DDF))


# Zero variance is the model without the term.


@pytest.fixture(scope="module")
def without_effect():
    """Groups that differ less than they would by chance."""
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"g": np.arange(40) % 8, "x": rng.normal(size=40)})
    y = rng.normal(size=40)
    data["h"] = data["g"] // 2
    data["y"] = y - 0.8 * pd.Series(y).groupby(data["g"]).transform("mean") + data["x"]
    return data


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("term", ["(1 | g)", "(1 | g) + (1 | h)", "(1 | h/g)"])
def test_zero_variance_equals_least_squares(without_effect, term, method):
    m = mf.fit(f"y ~ x + {term}", without_effect, method=method)
    ols = mf.fit("y ~ x", without_effect, method=method)
    np.testing.assert_array_equal(m.theta, 0.0)
    np.testing.assert_allclose(m.params, ols.params, rtol=1e-12)
    np.testing.assert_allclose(m.bse, ols.bse, rtol=1e-12)
    np.testing.assert_allclose(m.ddf, ols.ddf, rtol=1e-12)
    np.testing.assert_allclose(m.anova(), ols.anova(), rtol=1e-10)
    assert m.criterion == pytest.approx(ols.criterion, abs=1e-10)


def test_model_without_random_terms_is_least_squares(without_effect):
    m = mf.fit("y ~ x", without_effect)
    line = stats.linregress(without_effect["x"], without_effect["y"])
    assert m.params["x"] == pytest.approx(line.slope, rel=1e-12)
    assert m.bse["x"] == pytest.approx(line.stderr, rel=1e-12)
    assert m.pvalues["x"] == pytest.approx(line.pvalue, rel=1e-9)
    assert m.bse["Intercept"] == pytest.approx(line.intercept_stderr, rel=1e-12)
    np.testing.assert_allclose(m.ddf, 38.0, rtol=1e-12)


def test_paired_observations_are_the_paired_t_test():
    rng = np.random.default_rng(3)
    data = layout(12, 2, names="gt")
    data["y"] = 2.0 * rng.normal(size=12)[data["g"]] + rng.normal(size=24) + data["t"]
    m = mf.fit("y ~ t + (1 | g)", data)
    pairs = data.pivot_table(index="g", columns="t", values="y")
    paired = stats.ttest_rel(pairs[1], pairs[0])
    assert m.tvalues["t"] == pytest.approx(paired.statistic, rel=1e-7)
    assert m.ddf["t"] == pytest.approx(11.0, **DDF)
    assert m.pvalues["t"] == pytest.approx(paired.pvalue, rel=1e-5)


def test_random_slopes_of_a_balanced_design_are_the_summary_measures_analysis():
    """Slopes tested among subjects: mean slope over its SE, subjects - 1 df."""
    data = mf.datasets.load("sleepstudy")
    m = mf.fit("Reaction ~ Days + (Days | Subject)", data)
    slopes = [
        stats.linregress(rows["Days"], rows["Reaction"]).slope
        for _, rows in data.groupby("Subject", observed=True)
    ]
    assert m.params["Days"] == pytest.approx(np.mean(slopes), rel=1e-9)
    se = np.std(slopes, ddof=1) / np.sqrt(18)
    assert m.bse["Days"] == pytest.approx(se, rel=1e-6)
    assert m.ddf["Days"] == pytest.approx(17.0, **DDF)


def test_estimates_of_a_balanced_design_do_not_depend_on_the_variances():
    data = mf.datasets.load("sleepstudy")
    fits = [
        mf.fit(f"Reaction ~ Days + {term}", data)
        for term in ("(1 | Subject)", "(Days | Subject)", "(Days || Subject)")
    ]
    for m in fits[1:]:
        np.testing.assert_allclose(m.params, fits[0].params, rtol=1e-9)
