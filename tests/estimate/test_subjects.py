"""Least squares by subject: batched, exact, and stable far from the origin."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from tests.lm_list_references import printed, regressions

NAMES = ("Orthodont", "sleepstudy", "unbalanced")


def uneven(seed=3, m=40, offset=0.0, weights=False):
    """Subjects with 3 to 9 rows in random order, times of their own, three arms."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, 10, m)
    ids = np.repeat([f"s{i:02d}" for i in range(m)], sizes)
    arm = np.repeat(rng.permuted(np.resize(["a", "b", "c"], m)), sizes)
    age = np.repeat(rng.normal(50.0, 9.0, m), sizes)
    n = len(ids)
    time = offset + np.concatenate([np.sort(rng.uniform(0, 8, s)) for s in sizes])
    u = np.repeat(rng.normal(size=(m, 2)) @ [[2.0, 0.3], [0.0, 0.5]], sizes, axis=0)
    y = 10 + u[:, 0] + (1 + u[:, 1]) * (time - offset) + rng.normal(size=n)
    data = {"id": ids, "arm": arm, "age": age, "time": time, "y": y}
    data["w"] = rng.uniform(0.5, 3.0, n)
    return pd.DataFrame(data).iloc[rng.permutation(n)]


def by_id(data):
    return dict(list(data.groupby("id")))


def test_coefficients_by_hand():
    # a: 2 t exactly. b: mean 4 at mean time 2, slope ((-2)(-1) + 0 + (2)(1)) / 8.
    data = pd.DataFrame(
        {
            "id": ["a", "b", "a", "b", "a", "b"],
            "t": [0, 0, 1, 2, 2, 4],
            "y": [0.0, 3.0, 2.0, 4.0, 4.0, 5.0],
        }
    )
    m = mf.lm_list("y ~ t | id", data)
    assert m.coefficients.loc["a"].to_numpy() == pytest.approx([0.0, 2.0], abs=1e-14)
    assert m.coefficients.loc["b"].to_numpy() == pytest.approx([3.0, 0.5], abs=1e-14)
    assert m.coefficients.index.name == "id"


def test_sums_of_squares_and_variances_by_hand():
    # Residuals 1, -2, 1 of b about 1 + t; slope 2 over times with sum of squares 2.
    data = {"id": list("aaabbb"), "t": [0, 1, 2] * 2, "y": [1, 2, 3, 2, 0, 4]}
    m = mf.lm_list("y ~ t | id", data)
    assert m.rss.to_numpy() == pytest.approx([0.0, 6.0], abs=1e-13)
    assert m.r2.to_numpy() == pytest.approx([1.0, 2.0 / 8.0], abs=1e-13)
    assert m.df_resid == 2
    assert m.sigma == pytest.approx(np.sqrt(3.0), rel=1e-14)
    assert m.sigmas.to_numpy() == pytest.approx([0.0, np.sqrt(6.0)], abs=1e-13)
    # (Z'Z)^-1 for times 0, 1, 2: 5/6, -1/2, 1/2.
    expected = 3.0 * np.array([[5 / 6, -1 / 2], [-1 / 2, 1 / 2]])
    assert m.cov("a").to_numpy() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("weights", [None, "w"])
def test_each_subject_agrees_with_lstsq(weights):
    data = uneven()
    m = mf.lm_list("y ~ time + I(time^2) | id", data, weights=weights, pool=False)
    for name, own in by_id(data).items():
        root = np.ones(len(own)) if weights is None else np.sqrt(own["w"].to_numpy())
        t = own["time"].to_numpy()
        Z = np.column_stack([np.ones(len(t)), t, t**2]) * root[:, None]
        y = own["y"].to_numpy() * root
        beta, rss, _, _ = np.linalg.lstsq(Z, y, rcond=None)
        assert m.coefficients.loc[name].to_numpy() == pytest.approx(beta, rel=1e-9)
        assert m.rss[name] == pytest.approx(rss[0], rel=1e-9)
        V = rss[0] / (len(y) - 3) * np.linalg.inv(Z.T @ Z)
        assert m.cov(name).to_numpy() == pytest.approx(V, rel=1e-7)
        assert m.bse.loc[name].to_numpy() == pytest.approx(
            np.sqrt(np.diag(V)), rel=1e-7
        )
        assert m.counts[name] == len(y)


def exact_quadratic(times, y):
    """Least squares of a quadratic in rational arithmetic."""
    Z = [[Fraction(1), Fraction(t), Fraction(t) ** 2] for t in times]
    A = [[sum(z[i] * z[j] for z in Z) for j in range(3)] for i in range(3)]
    b = [sum(z[i] * Fraction(v) for z, v in zip(Z, y, strict=True)) for i in range(3)]
    for i in range(3):
        for j in range(i + 1, 3):
            factor = A[j][i] / A[i][i]
            A[j] = [p - factor * q for p, q in zip(A[j], A[i], strict=True)]
            b[j] -= factor * b[i]
    x = [Fraction(0)] * 3
    for i in (2, 1, 0):
        rest = sum(A[i][j] * x[j] for j in range(i + 1, 3))
        x[i] = (b[i] - rest) / A[i][i]
    fitted = [sum(p * q for p, q in zip(z, x, strict=True)) for z in Z]
    return [float(v) for v in x], [float(v) for v in fitted]


def test_years_lose_no_digits_to_normal_equations():
    # A quadratic in years: Z'Z has a condition number of 1e24, which leaves none.
    rng = np.random.default_rng(5)
    years = np.tile(np.arange(2001.0, 2008.0), 3)
    data = pd.DataFrame({"id": np.repeat(list("abc"), 7), "year": years})
    data["y"] = np.round(rng.normal(size=21) + 0.5 * (years - 2004) ** 2, 3)
    m = mf.lm_list("y ~ year + I(year^2) | id", data)
    for name, own in by_id(data).items():
        beta, fitted = exact_quadratic(own["year"], own["y"])
        assert m.coefficients.loc[name].to_numpy() == pytest.approx(beta, rel=1e-8)
        ours = m.fittedvalues[own.index].to_numpy()
        assert ours == pytest.approx(fitted, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pool", [True, False])
def test_summary_agrees_with_nlme(name, pool):
    m, R = regressions(name), printed()
    if not pool:
        m = mf.lm_list(m.formula, m._call.data, pool=False)
    how = f"{name} {'pooled' if pool else 'own'}"
    for what, ours in (
        (f"{name} coefficients", m.coefficients),
        (f"{how} Std. Error", m.bse),
        (f"{how} t value", m.tvalues),
        (f"{how} Pr(>|t|)", m.pvalues),
    ):
        sorted_rows = ours.sort_index().to_numpy().ravel()
        assert sorted_rows == pytest.approx(R[what], rel=2e-9, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_variances_and_intervals_agree_with_nlme(name):
    m, R = regressions(name), printed()
    assert [m.sigma, m.df_resid] == pytest.approx(
        R[f"{name} pooled sigma and df"], rel=1e-11
    )
    own = m.sigmas.sort_index().to_numpy()
    assert own == pytest.approx(R[f"{name} own sigma"], rel=1e-11)
    assert m.r2.sort_index().to_numpy() == pytest.approx(
        R[f"{name} R squared"], rel=1e-11
    )
    for level in (0.95, 0.9):
        limits = m.conf_int(level).sort_index(level=0, sort_remaining=False)
        for side in ("lower", "upper"):
            theirs = R[f"{name} pooled {side} {level}"]
            # 2e-8: t quantiles of older SciPy have nine digits.
            assert limits[side].to_numpy() == pytest.approx(theirs, rel=1e-9, abs=2e-8)


def test_lme4_says_the_same():
    m, R = regressions("sleepstudy"), printed()
    assert m.coefficients.to_numpy().ravel() == pytest.approx(
        R["lme4 coefficients"], rel=1e-11
    )
    assert m.bse.to_numpy().ravel() == pytest.approx(R["lme4 pooled Std. Error"])
    own = mf.lm_list(m.formula, m._call.data, pool=False)
    for how, fit in (("pooled", m), ("own", own)):
        lower = fit.conf_int()["lower"].to_numpy()
        theirs = R[f"lme4 {how} lower 0.95"]
        assert lower == pytest.approx(theirs, rel=1e-9, abs=2e-8)


def test_weighted_regressions_agree_with_lm():
    m, R = regressions("weighted"), printed()
    assert m.coefficients.to_numpy().ravel() == pytest.approx(
        R["weighted coefficients"], rel=1e-11
    )
    assert m.sigmas.to_numpy() == pytest.approx(R["weighted own sigma"], rel=1e-11)
    assert m.r2.to_numpy() == pytest.approx(R["weighted R squared"], rel=1e-11)


def test_order_of_rows_does_not_matter():
    data = uneven()
    one = mf.lm_list("y ~ time | id", data)
    two = mf.lm_list("y ~ time | id", data.sort_values(["id", "time"]))
    assert two.coefficients.to_numpy() == pytest.approx(
        one.coefficients.to_numpy(), rel=1e-12
    )
    assert two.fittedvalues[one.resid.index].to_numpy() == pytest.approx(
        one.fittedvalues.to_numpy(), rel=1e-12
    )


def test_factors_are_coded_once_for_all_subjects():
    data = uneven()
    middle = data.groupby("id")["time"].transform("median")
    data["late"] = np.where(data["time"] > middle, "yes", "no")
    m = mf.lm_list("y ~ late | id", data)
    assert list(m.coefficients.columns) == ["Intercept", "late[T.yes]"]
    means = data.groupby(["id", "late"])["y"].mean().unstack()
    assert m.coefficients["Intercept"].to_numpy() == pytest.approx(means["no"])
    assert m.coefficients["late[T.yes]"].to_numpy() == pytest.approx(
        means["yes"] - means["no"]
    )


def test_orthogonal_polynomials_fit_as_raw_ones():
    data = uneven()
    one = mf.lm_list("y ~ poly(time, 2) | id", data)
    two = mf.lm_list("y ~ time + I(time^2) | id", data)
    assert one.fittedvalues.to_numpy() == pytest.approx(two.fittedvalues.to_numpy())
    assert one.predict(data.iloc[:5]).to_numpy() == pytest.approx(
        two.fittedvalues[:5].to_numpy()
    )


def test_offset_is_subtracted():
    data = uneven()
    one = mf.lm_list("y ~ time + offset(age) | id", data)
    two = mf.lm_list("I(y - age) ~ time | id", data)
    assert one.coefficients.to_numpy() == pytest.approx(two.coefficients.to_numpy())
    assert one.resid.to_numpy() == pytest.approx(two.resid.to_numpy(), abs=1e-12)
    assert one.predict(data).to_numpy() == pytest.approx(one.fittedvalues.to_numpy())


def test_without_intercept_r2_is_about_zero():
    data = {"id": list("aabb"), "t": [1, 2, 1, 2], "y": [1.0, 3.0, 2.0, 2.0]}
    m = mf.lm_list("y ~ 0 + t | id", data)
    # a: slope 7/5, explained 49/5 of 10; b: slope 6/5, explained 36/5 of 8.
    assert m.r2.to_numpy() == pytest.approx([49 / 50, 36 / 40], rel=1e-14)


def test_predictions_are_of_the_own_line_and_nan_where_missing():
    data = {"id": list("aaabbb"), "t": [0, 1, 2] * 2, "y": [1, 2, 3, 2, 0, 4]}
    m = mf.lm_list("y ~ t | id", data)
    new = pd.DataFrame(
        {"id": ["b", "a", "b"], "t": [4.0, 5.0, np.nan]}, index=[7, 8, 9]
    )
    predicted = m.predict(new)
    assert list(predicted.index) == [7, 8, 9]
    assert predicted[:2].to_numpy() == pytest.approx([5.0, 6.0])
    assert np.isnan(predicted[9])


def test_crossed_columns_can_be_the_subject():
    data = uneven().assign(half=lambda d: np.where(d["time"] > 4, 1, 0))
    m = mf.lm_list("y ~ 1 | arm:half", data)
    means = data.groupby(["arm", "half"])["y"].mean()
    assert m.coefficients["Intercept"].to_numpy() == pytest.approx(means.to_numpy())
    assert list(m.coefficients.index[:2]) == ["a:0", "a:1"]


@pytest.mark.slow
def test_many_subjects_take_about_a_second():
    from time import perf_counter

    rng = np.random.default_rng(0)
    m, n = 100_000, 500_000
    data = pd.DataFrame(
        {"id": np.repeat(np.arange(m), 5), "t": np.tile(np.arange(5.0), m)}
    )
    data["y"] = rng.normal(size=n)
    start = perf_counter()
    fit = mf.lm_list("y ~ t + I(t^2) | id", data)
    assert perf_counter() - start < 5.0
    assert fit.df_resid == 2 * m
