"""Two stages against one: where theory says equal, they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.estimate.second_stage import least_squares
from tests.estimate.test_subjects import uneven


def balanced(seed=1, m=24, times=(0.0, 1.0, 2.0, 4.0, 7.0), quadratic=False):
    """Subjects with the same times, in three arms of different sizes."""
    rng = np.random.default_rng(seed)
    T = np.asarray(times)
    arm = np.resize(["a", "b", "c", "b"], m)
    u = rng.normal(size=(m, 3)) * [3.0, 1.0, 0.3 if quadratic else 0.0]
    mean = 5.0 + 2.0 * (arm == "b")[:, None] + T * (1.0 + 0.5 * (arm == "c")[:, None])
    y = mean + u[:, [0]] + u[:, [1]] * T + u[:, [2]] * T**2
    y = y + rng.normal(size=(m, len(T)))
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(m), len(T)),
            "arm": np.repeat(arm, len(T)),
            "time": np.tile(T, m),
            "y": y.ravel(),
        }
    )


def D_of(model, names):
    """The covariance of the random coefficients of a mixed model."""
    table = model.varcorr
    D = pd.DataFrame(np.nan, index=list(names), columns=list(names))
    for row in table[table["grp"] != "Residual"].itertuples():
        other = row.var1 if pd.isna(row.var2) else row.var2
        D.loc[row.var1, other] = D.loc[other, row.var1] = row.vcov
    return D


# Balanced data: every way is the same.


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("quadratic", [False, True])
def test_balanced_two_stages_equal_one(quadratic, seed):
    within = "time + I(time^2)" if quadratic else "time"
    data = balanced(seed, quadratic=quadratic)
    m = mf.lm_list(f"y ~ {within} | id", data)
    both = m.compare("~ arm")
    assert not both.model.singular
    frame = both.frame
    for name in ("gls", "mixed"):
        assert frame[name].to_numpy() == pytest.approx(
            frame["naive"].to_numpy(), rel=1e-9
        )
        assert frame[f"{name}_se"].to_numpy() == pytest.approx(
            frame["naive_se"].to_numpy(), rel=1e-7
        )
    # On the scale of correlations: a covariance can be next to nothing.
    D, mixed = both.second_stage.D, D_of(both.model, m.coefficients.columns)
    sd = np.sqrt(np.diag(D))
    difference = (D - mixed).to_numpy() / np.outer(sd, sd)
    assert difference == pytest.approx(np.zeros_like(difference), abs=1e-7)
    assert m.sigma == pytest.approx(both.model.sigma, rel=1e-8)
    assert both.second_stage.notes == ()


def test_balanced_degrees_of_freedom_are_those_of_the_mixed_model():
    m = mf.lm_list("y ~ time | id", balanced())
    second, model = m.second_stage("~ arm"), m.single_stage("~ arm")
    assert second.gls["df"].to_numpy() == pytest.approx(np.full(6, 21.0), rel=1e-14)
    assert model.ddf.to_numpy() == pytest.approx(np.full(6, 21.0), rel=1e-5)


def test_naive_covariance_is_too_large_by_the_sampling_covariance():
    m = mf.lm_list("y ~ time | id", balanced())
    second = m.second_stage("~ arm")
    Z = np.column_stack([np.ones(5), [0.0, 1.0, 2.0, 4.0, 7.0]])
    expected = m.sigma**2 * np.linalg.inv(Z.T @ Z)
    difference = (second.D_naive - second.D).to_numpy()
    assert difference == pytest.approx(expected, rel=1e-10)


def test_naive_stage_is_a_regression_of_each_coefficient():
    m = mf.lm_list("y ~ time | id", balanced())
    slopes = m.coefficients["time"]
    arm = balanced().groupby("id")["arm"].first()
    table = mf.fit("b ~ arm", pd.DataFrame({"b": slopes.to_numpy(), "arm": arm}))
    naive = m.second_stage("~ arm").naive.loc["time"]
    assert naive["estimate"].to_numpy() == pytest.approx(table.params.to_numpy())
    assert naive["se"].to_numpy() == pytest.approx(table.bse.to_numpy())
    assert naive["p_value"].to_numpy() == pytest.approx(table.pvalues.to_numpy())


def test_a_mean_by_hand():
    # Means 1, 3, 5 of two rows each, deviations 1: D naive 4, sigma^2 = 6/3 = 2, and
    # 2/2 of it is in the means: D = 3, SE of the mean sqrt(4/3).
    data = {"id": list("aabbcc"), "y": [0.0, 2, 2, 4, 4, 6]}
    second = mf.lm_list("y ~ 1 | id", data).second_stage()
    assert second.D_naive.to_numpy() == pytest.approx(np.array([[4.0]]), rel=1e-14)
    assert second.D.to_numpy() == pytest.approx(np.array([[3.0]]), rel=1e-14)
    for table in (second.naive, second.gls):
        row = table[["estimate", "se", "df"]].to_numpy()[0]
        assert row == pytest.approx([3.0, np.sqrt(4 / 3), 2.0], rel=1e-14)


# Unbalanced data.


@pytest.mark.parametrize("within", ["time", "time + I(time^2)", "poly(time, 2)"])
@pytest.mark.parametrize("weights", [None, "w"])
def test_gls_with_the_mixed_models_variances_is_its_gls(within, weights):
    m = mf.lm_list(f"y ~ {within} | id", uneven(), weights=weights)
    model = m.single_stage("~ arm + age")
    D = D_of(model, m.coefficients.columns)
    second = m.second_stage("~ arm + age", D=D, sigma=model.sigma)
    ours, table = second.gls, second.cov_params()
    names = [
        w if z == "Intercept" else z if w == "Intercept" else f"{z}:{w}"
        for z, w in ours.index
    ]
    assert sorted(names) == sorted(model.params.index)
    scale = model.bse[names].to_numpy()
    assert ours["estimate"].to_numpy() == pytest.approx(
        model.params[names].to_numpy(), abs=1e-9 * scale.min(), rel=1e-9
    )
    assert ours["se"].to_numpy() == pytest.approx(scale, rel=1e-9)
    theirs = model.cov_params().loc[names, names].to_numpy()
    assert table.to_numpy() / np.outer(scale, scale) == pytest.approx(
        theirs / np.outer(scale, scale), abs=1e-8
    )


def test_gls_by_dense_algebra():
    data = uneven()
    m = mf.lm_list("y ~ time | id", data)
    D, sigma = np.array([[4.0, 0.5], [0.5, 0.3]]), 1.3
    second = m.second_stage({"time": "~ arm"}, D=D, sigma=sigma)
    A, b = np.zeros((4, 4)), np.zeros(4)
    for name, own in data.groupby("id"):
        Z = np.column_stack([np.ones(len(own)), own["time"]])
        arm = own["arm"].iloc[0]
        W = np.zeros((2, 4))
        W[0, 0] = 1.0
        W[1, 1:] = [1.0, arm == "b", arm == "c"]
        V = D + sigma**2 * np.linalg.inv(Z.T @ Z)
        A += W.T @ np.linalg.inv(V) @ W
        b += W.T @ np.linalg.inv(V) @ m.coefficients.loc[name].to_numpy()
    assert second.gls["estimate"].to_numpy() == pytest.approx(np.linalg.solve(A, b))
    assert second.cov_params().to_numpy() == pytest.approx(np.linalg.inv(A))


def expected_moments(between, D, S):
    """E r_c'r_d of least squares residuals by dense matrices, for each c and d."""
    k, m = len(D), len(S)
    M = [np.eye(m) - A @ np.linalg.pinv(A) for A in between.columns]
    cross = np.empty((k, k))
    divisor = np.empty((k, k))
    for c in range(k):
        for d in range(k):
            V = np.diag(D[c, d] + S[:, c, d])
            cross[c, d] = np.trace(M[c].T @ M[d] @ V)
            divisor[c, d] = np.trace(M[c].T @ M[d])
    return cross, divisor


@pytest.mark.parametrize(
    "formula",
    ["~ 1", "~ arm + age", {"Intercept": "~ arm"}, {"time": "~ 0 + age"}],
    ids=str,
)
def test_corrected_covariance_is_unbiased(formula):
    # The estimator is quadratic in the coefficients: its exact expectation is its sum
    # over the columns of a root of their covariance, mean zero.
    m = mf.lm_list("y ~ time | id", uneven(m=25))
    record = m.second_stage(formula)._record
    between, S = record.between, record.S
    D = np.array([[4.0, 0.7], [0.7, 0.3]])
    none = np.zeros_like(S)
    D_naive, count = np.zeros((2, 2)), len(S)
    for i in range(count):
        root = np.linalg.cholesky(D + S[i])
        for column in range(2):
            b = np.zeros((count, 2))
            b[i] = root[:, column]
            D_naive += least_squares(b, none, between).D_naive
    correction = least_squares(np.zeros((count, 2)), S, between).D
    assert D_naive + correction == pytest.approx(D, rel=1e-12)
    cross, divisor = expected_moments(between, D, S)
    assert D_naive == pytest.approx(cross / divisor, rel=1e-12)


def test_without_covariates_the_correction_is_swamys():
    # Sample covariance of the coefficients less the mean of their own covariances.
    m = mf.lm_list("y ~ time | id", uneven(), pool=False)
    second = m.second_stage()
    own = [m.cov(label).to_numpy() for label in m.coefficients.index]
    expected = np.cov(m.coefficients.to_numpy().T) - np.mean(own, axis=0)
    assert second.D.to_numpy() == pytest.approx(expected, rel=1e-11)


# D by REML and ML of the coefficients.


def deviance(D, m, second, reml):
    """-2 log likelihood of the coefficients with known sampling covariances."""
    record = second._record
    W, S = record.between.stacked(), record.S
    V = D + S
    inverse = np.linalg.inv(V)
    B = record.fits.coefficients
    A = np.einsum("ica,icd,idb->ab", W, inverse, W)
    beta = np.linalg.solve(A, np.einsum("ica,icd,id->a", W, inverse, B))
    rest = B - W @ beta
    out = np.linalg.slogdet(V)[1].sum() + np.einsum("ic,icd,id", rest, inverse, rest)
    return out + (np.linalg.slogdet(A)[1] if reml else 0.0)


@pytest.mark.parametrize("correct", ["reml", "ml"])
@pytest.mark.parametrize("pool", [True, False])
def test_likelihood_estimates_minimize_the_deviance_of_the_coefficients(correct, pool):
    m = mf.lm_list("y ~ time | id", uneven(), pool=pool)
    second = m.second_stage("~ arm", correct=correct)
    D = second.D.to_numpy()

    def f(D):
        return deviance(D, m, second, correct == "reml")

    # sigma^2 of subjects with one df can be tiny: a proper minimum all the same.
    for i, j in ((0, 0), (0, 1), (1, 1)):
        step = np.zeros((2, 2))
        step[i, j] = step[j, i] = 1e-4 * np.sqrt(D[i, i] * D[j, j])
        slope = (f(D + step) - f(D - step)) / 2e-4
        assert slope == pytest.approx(0.0, abs=2e-3)
        assert f(D + 30 * step) > f(D)
        assert f(D - 30 * step) > f(D)


def test_balanced_reml_of_coefficients_is_the_moment_estimate():
    m = mf.lm_list("y ~ time | id", balanced())
    reml = m.second_stage("~ arm", correct="reml")
    assert reml.D.to_numpy() == pytest.approx(reml.D_moment.to_numpy(), rel=1e-7)


# Where the corrected D is no covariance matrix.


def without_slopes(seed=4):
    rng = np.random.default_rng(seed)
    data = balanced(m=12, times=(0.0, 1.0, 2.0))
    rng_y = rng.normal(size=len(data))
    level = np.repeat(rng.normal(size=12), 3)
    return data.assign(y=rng_y + 2.0 * level)


def test_indefinite_covariance_is_shown_as_it_is():
    data = without_slopes()
    m = mf.lm_list("y ~ time | id", data)
    second = m.second_stage()
    assert np.linalg.eigvalsh(second.D)[0] < 0.0
    assert any("is shown as it is" in note for note in second.notes)
    assert "is shown as it is" in str(second)
    # D + S is the naive D here: definite, and so least squares goes on.
    assert second.gls["estimate"].to_numpy() == pytest.approx(
        second.naive["estimate"].to_numpy(), rel=1e-9
    )


def test_no_least_squares_with_an_indefinite_covariance_of_a_subject():
    m = mf.lm_list("y ~ time | id", uneven())
    second = m.second_stage("~ arm", D=np.diag([4.0, -1.0]))
    assert second.gls[["estimate", "se", "t_value", "p_value"]].isna().all().all()
    assert second.cov_params().isna().all().all()
    assert any("is not positive definite for" in note for note in second.notes)
    assert any(
        "the given D has negative variances (time -1)" in n for n in second.notes
    )
    assert np.isfinite(second.naive["se"]).all()


# Invariance.


def test_units_of_time_and_response_carry_over():
    data = uneven()
    one = mf.lm_list("y ~ time | id", data).second_stage("~ arm")
    other = data.assign(y=1e4 * data["y"], time=1e-3 * data["time"])
    two = mf.lm_list("y ~ time | id", other).second_stage("~ arm")
    scale = np.repeat([1e4, 1e7], 3)
    assert two.gls["estimate"].to_numpy() == pytest.approx(
        scale * one.gls["estimate"].to_numpy(), rel=1e-9
    )
    assert two.gls["t_value"].to_numpy() == pytest.approx(
        one.gls["t_value"].to_numpy(), rel=1e-8
    )


def test_labels_and_order_of_subjects_do_not_matter():
    data = uneven()
    one = mf.lm_list("y ~ time | id", data).second_stage("~ arm + age")
    relabelled = data.assign(id=[f"x{99 - int(i[1:])}" for i in data["id"]])
    two = mf.lm_list("y ~ time | id", relabelled).second_stage("~ arm + age")
    pd.testing.assert_frame_equal(one.gls, two.gls, rtol=1e-9)


# The mixed model of both stages.


@pytest.mark.parametrize(
    ("within", "between", "formula"),
    [
        ("time", "~ arm", "y ~ time * arm + (time | id)"),
        ("time", "~ 1", "y ~ time + (time | id)"),
        ("1", "~ arm", "y ~ arm + (1 | id)"),
        ("time", "~ arm * age", "y ~ time * (arm + age + arm:age) + (time | id)"),
        ("0 + time", "~ arm", "y ~ 0 + time + time:arm + (0 + time | id)"),
        ("time", "~ 0 + arm", "y ~ 0 + arm + time:arm + (time | id)"),
        ("time", {"time": "~ arm"}, "y ~ time + time:arm + (time | id)"),
        ("time", {"1": "~ arm"}, "y ~ arm + time + (time | id)"),
        (
            "time + I(time^2)",
            {"I(time^2)": "~ age", "time": "~ 0 + age"},
            "y ~ time:age + I(time^2) + I(time^2):age + (time + I(time^2) | id)",
        ),
        ("late", "~ arm", "y ~ late * arm + (late | id)"),
        (
            "poly(time, 2) + offset(age)",
            "~ C(arm)",
            "y ~ poly(time, 2) * C(arm) + offset(age) + (poly(time, 2) | id)",
        ),
        ("log(time + 1)", "~ scale(age)", None),
    ],
    ids=str,
)
def test_single_stage_is_written_and_fitted_as_one_formula(within, between, formula):
    data = uneven(m=60)
    data["late"] = np.where(
        data["time"] > data.groupby("id")["time"].transform("median"), "yes", "no"
    )
    m = mf.lm_list(f"y ~ {within} | id", data)
    model = m.single_stage(between)
    if formula is not None:
        assert model.formula == formula
    record = m.second_stage(between)._record
    assert len(model.params) == record.between.width
    again = mf.fit(model.formula, data)
    assert again.criterion == pytest.approx(model.criterion, rel=1e-12)


def test_single_stage_by_ml():
    model = mf.lm_list("y ~ time | id", uneven()).single_stage("~ arm", method="ML")
    assert model.method == "ML"
    direct = mf.fit("y ~ time * arm + (time | id)", uneven(), method="ML")
    assert model.llf == pytest.approx(direct.llf, rel=1e-12)


def test_single_stage_keeps_weights_and_subset():
    data = uneven()
    m = mf.lm_list("y ~ time | id", data, weights="w", subset="age > 45")
    model = m.single_stage("~ arm")
    direct = mf.fit(
        "y ~ time * arm + (time | id)", data, weights="w", subset="age > 45"
    )
    assert model.criterion == pytest.approx(direct.criterion, rel=1e-12)


def test_without_residual_degrees_of_freedom_only_the_mixed_model_has_a_sigma():
    # Two rows for each line, at times of their own: the lines fit exactly.
    data = uneven(m=60)
    data = data.sort_values(["id", "time"]).groupby("id").head(2)
    m = mf.lm_list("y ~ time | id", data)
    assert np.isnan(m.sigma)
    assert m.df_resid == 0
    assert m.bse.isna().all().all()
    with pytest.raises(mf.InferenceError, match="No subject has more rows"):
        m.second_stage("~ arm")
    assert m.second_stage("~ arm", sigma=0.5).gls["se"].notna().all()
    direct = mf.fit("y ~ time * arm + (time | id)", data)
    assert m.single_stage("~ arm").criterion == pytest.approx(direct.criterion)


def test_comparison_prints_all_three_and_the_formula():
    m = mf.lm_list("y ~ time | id", uneven())
    both = m.compare("~ arm")
    text = str(both)
    for piece in (both.formula, "naive", "GLS", "mixed model", "arm[T.b]", "Residual"):
        assert piece in text
    assert list(both.frame.columns) == [
        "naive", "naive_se", "gls", "gls_se", "mixed", "mixed_se",
    ]  # fmt: skip
    model = both.model
    assert (
        both.frame.loc[("time", "arm[T.b]"), "mixed"] == model.params["time:arm[T.b]"]
    )
    assert both.D.loc[("Residual", ""), "mixed"] == pytest.approx(model.sigma**2)
    assert "<table" in both._repr_html_()
    assert "tabular" in both.summary().as_latex()
