"""Profile intervals: closed forms, dense minimization, invariance, lme4's limits."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import ndtri

import mixform as mf
from mixform.inference.profile.criterion import value_at
from mixform.inference.profile.parameters import Profiler, list_parameters
from mixform.inference.profile.profile import profile, profile_interval
from tests import dense_oracle as oracle

Q = float(ndtri(0.975))


def fit(formula, data, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mf.RankDeficiencyWarning)
        return mf.fit(formula, data, **keywords)._fit


def limits(table, name):
    return table.loc[name, "lower"], table.loc[name, "upper"]


# The linear model, by hand: r^2(c) = r^2 + (c - b)^2 / [(X'WX)^-1]_jj.


@pytest.fixture(scope="module")
def line():
    rng = np.random.default_rng(3)
    x = rng.normal(size=20) + 5.0
    data = pd.DataFrame({"x": x, "y": 3.0 + 2.0 * x + rng.normal(size=20)})
    data["w"] = rng.uniform(0.5, 2.0, 20)
    return data


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("method", ["ML", "REML"])
def test_linear_model_has_closed_limits(line, method, weights):
    w = np.ones(20) if weights is None else line["w"].to_numpy()
    X = np.column_stack([np.ones(20), line["x"]])
    inverse = np.linalg.inv(X.T @ (w[:, None] * X))
    b = inverse @ X.T @ (w * line["y"])
    r2 = np.sum(w * (line["y"] - X @ b) ** 2)
    d = 20 if method == "ML" else 18
    table = profile_interval(fit("y ~ x", line, method=method, weights=weights))
    half = np.sqrt(np.diag(inverse) * r2 * np.expm1(Q**2 / d))
    for j, name in enumerate(["Intercept", "x"]):
        expected = (b[j] - half[j], b[j] + half[j])
        assert limits(table, name) == pytest.approx(expected, rel=1e-8)
    s2 = r2 / d

    def rise(sigma):
        return d * (np.log(sigma**2 / s2) + s2 / sigma**2 - 1.0) - Q**2

    s = np.sqrt(s2)
    expected = brentq(rise, 0.3 * s, s, xtol=1e-14), brentq(rise, s, 4 * s, xtol=1e-14)
    assert limits(table, "sigma") == pytest.approx(expected, rel=1e-8)


def test_linear_model_zeta_is_a_transform_of_t(line):
    # zeta = sign(t) sqrt(n log(1 + t^2 / (n - p)))
    result = mf.fit("y ~ x", line, method="REML")
    found = profile(fit("y ~ x", line, method="ML")).zeta("x")
    t = (found.index - result.params["x"]) / result.bse["x"]
    expected = np.sign(t) * np.sqrt(20 * np.log1p(t**2 / 18))
    assert found.to_numpy() == pytest.approx(np.asarray(expected), abs=1e-7)


# Balanced one-way ANOVA: the criterion is a function of two sums of squares.


def one_way(data, y, group, method):
    """-2 log L(sigma^2, lambda) up to a constant, lambda = sigma^2 + m sigma_b^2."""
    table = data.groupby(group, observed=True)[y]
    a, m = len(table), int(table.size().iloc[0])
    ssb = m * float(((table.mean() - data[y].mean()) ** 2).sum())
    ssw = float(((data[y] - table.transform("mean")) ** 2).sum())
    between = a if method == "ML" else a - 1

    def criterion(sigma2, lam, shift=0.0):
        return (
            a * (m - 1) * np.log(sigma2)
            + between * np.log(lam)
            + ssw / sigma2
            + (ssb + a * m * shift**2) / lam
        )

    return criterion, ssb, ssw, a, m, between


@pytest.mark.parametrize("method", ["ML", "REML"])
def test_dyestuff_mean_has_closed_limits(method):
    # Inside: lambda = (SSB + n (c - mean)^2) / a, so zeta^2 = a log(1 + n d^2 / SSB).
    data = mf.datasets.load("Dyestuff")
    _, ssb, _, a, m, between = one_way(data, "Yield", "Batch", method)
    half = np.sqrt(ssb * np.expm1(Q**2 / between) / (a * m))
    table = profile_interval(fit("Yield ~ 1 + (1|Batch)", data, method=method))
    assert limits(table, "Intercept") == pytest.approx(
        (1527.5 - half, 1527.5 + half), rel=1e-9
    )


@pytest.mark.parametrize("method", ["ML", "REML"])
@pytest.mark.parametrize("dataset", ["Dyestuff", "Dyestuff2"])
def test_one_way_variances_against_the_sums_of_squares(dataset, method):
    data = mf.datasets.load(dataset)
    criterion, ssb, ssw, a, m, between = one_way(data, "Yield", "Batch", method)
    lam, sigma2 = ssb / between, ssw / (a * (m - 1))
    if lam < sigma2:
        lam = sigma2 = (ssb + ssw) / (a * (m - 1) + between)
    lowest = criterion(sigma2, lam)

    def given_sd(sd):
        best = minimize_scalar(
            lambda s: criterion(np.exp(s), np.exp(s) + m * sd**2),
            bounds=np.log([0.1 * sigma2, 10 * sigma2]),
            options={"xatol": 1e-12},
        )
        return best.fun - lowest

    def given_sigma(sigma):
        # lambda is at its own optimum, or where the variance between is zero.
        return criterion(sigma**2, max(sigma**2, ssb / between)) - lowest

    table = profile_interval(fit("Yield ~ 1 + (1|Batch)", data, method=method))
    lower, upper = limits(table, "sd(Batch: Intercept)")
    assert given_sd(upper) == pytest.approx(Q**2, abs=1e-5)
    if given_sd(0.0) > Q**2:
        assert given_sd(lower) == pytest.approx(Q**2, abs=1e-5)
    else:
        assert lower == 0.0
    for sigma in limits(table, "sigma"):
        assert given_sigma(sigma) == pytest.approx(Q**2, abs=1e-5)


@pytest.mark.parametrize("method", ["ML", "REML"])
def test_a_variance_of_zero_becomes_positive_along_a_path(method):
    # Dyestuff2 is fitted with no variance between batches; a mean far from the
    # average of the batches makes all of them differ from it alike.
    data = mf.datasets.load("Dyestuff2")
    criterion, ssb, ssw, a, m, between = one_way(data, "Yield", "Batch", method)
    n, mean = a * m, data["Yield"].mean()
    pooled = (ssb + ssw) / (a * (m - 1) + between)
    lowest = criterion(pooled, pooled)

    def rise(c):
        shift = c - mean
        lam = (ssb + n * shift**2) / between
        sigma2 = ssw / (a * (m - 1))
        if lam < sigma2:
            lam = sigma2 = (ssb + ssw + n * shift**2) / (a * (m - 1) + between)
        return criterion(sigma2, lam, shift) - lowest

    result = fit("Yield ~ 1 + (1|Batch)", data, method=method)
    assert result.singular_terms == (0,)
    for c in limits(profile_interval(result), "Intercept"):
        assert rise(c) == pytest.approx(Q**2, abs=1e-6)
    found = profile(result, parameters="Intercept")
    frame = found.to_frame()
    expected = [rise(c) for c in frame["value"]]
    assert frame["zeta"].to_numpy() ** 2 == pytest.approx(expected, abs=1e-6)
    sds = frame["sd(Batch: Intercept)"]
    assert sds[frame["zeta"] == 0.0].item() == 0.0
    assert sds.iloc[0] > 1.0


# Dense minimization over everything that is free.


def constrained(model, theta, sigma2, which=None, value=0.0):
    """-2 log L by dense algebra, beta profiled out but for one fixed coefficient."""
    V = model.relative_V(theta)
    inverse, X = np.linalg.inv(V), model.X
    XtVinvX = X.T @ inverse @ X
    beta = np.linalg.solve(XtVinvX, X.T @ inverse @ model.y)
    rest = model.y - X @ beta
    r2 = rest @ inverse @ rest
    if which is not None:
        r2 = r2 + (value - beta[which]) ** 2 / np.linalg.inv(XtVinvX)[which, which]
    out = oracle.log_determinant(V)
    if model.reml and len(beta):
        out = out + oracle.log_determinant(XtVinvX)
    d = model.residual_df
    if sigma2 is None:
        sigma2 = r2 / d
    return out + d * np.log(2.0 * np.pi * sigma2) + r2 / sigma2


def lowest(model, parameter, value, start):
    """Minimize over all parameters but one, by SciPy."""

    def criterion(theta):
        if parameter.kind == "fixed":
            return constrained(model, theta, None, parameter.place[0], value)
        if parameter.kind == "sigma":
            return constrained(model, theta, value**2)
        if parameter.kind == "cor":
            return constrained(model, theta, None)
        j, c = parameter.place
        row = model.Ts(theta)[j][c]
        return constrained(model, theta, value**2 / np.sum(row**2))

    def correlation(theta):
        j, c, r = parameter.place
        T = model.Ts(theta)[j]
        return T[c] @ T[r] / np.sqrt((T[c] @ T[c]) * (T[r] @ T[r])) - value

    def slopes(theta):
        return oracle.derivatives(criterion, theta)

    if parameter.kind != "cor":
        return minimize(
            lambda at: np.real(criterion(at)), start, jac=slopes, options={"gtol": 1e-6}
        ).fun
    return minimize(
        lambda at: np.real(criterion(at)),
        start,
        jac=slopes,
        method="SLSQP",
        constraints={
            "type": "eq",
            "fun": correlation,
            "jac": lambda at: oracle.derivatives(correlation, at),
        },
        options={"ftol": 1e-12, "maxiter": 200},
    ).fun


@pytest.fixture(scope="module", params=[(3, True), (2, False)], ids=["REML", "ML"])
def slopes_model(request):
    """Two covariates with a random slope each, weights and an offset."""
    seed, reml = request.param
    rng = np.random.default_rng(seed)
    m, n = 12, 72
    codes = np.arange(n) % m
    x, w = rng.normal(size=n) * 10.0, rng.uniform(0.5, 2.0, n)
    offset = rng.normal(size=n)
    b = rng.normal(size=(m, 2)) @ np.array([[3.0, 0.1], [0.0, 0.3]])
    y = 5.0 + 0.5 * x + b[codes, 0] + b[codes, 1] * x + rng.normal(size=n) / np.sqrt(w)
    data = pd.DataFrame({"y": y + offset, "x": x, "w": w, "o": offset, "g": codes})
    X = np.column_stack([np.ones(n), x])
    model = oracle.Model(y, X, (oracle.Term(codes, X),), w, reml)
    keywords = {"weights": "w", "offset": "o", "method": "REML" if reml else "ML"}
    return model, fit("y ~ x + (x|g)", data, **keywords)


def test_limits_against_dense_minimization(slopes_model):
    model, result = slopes_model
    table = profile_interval(result)
    assert not any(table["reason"])
    for parameter in list_parameters(result):
        for value in limits(table, parameter.name):
            found = lowest(model, parameter, value, result.theta)
            assert found - result.criterion == pytest.approx(Q**2, abs=1e-5)


def test_points_against_dense_minimization(slopes_model):
    model, result = slopes_model
    frame = profile(result).to_frame()
    parameters = {p.name: p for p in list_parameters(result)}
    for row in frame.iloc[::9].to_dict("records"):
        parameter = parameters[row["parameter"]]
        if parameter.kind in ("sd", "cor") and abs(row["value"]) in (0.0, 1.0):
            continue
        found = lowest(model, parameter, row["value"], result.theta)
        assert row["criterion"] == pytest.approx(found, abs=2e-5)
        assert row["zeta"] ** 2 == pytest.approx(found - result.criterion, abs=2e-5)
        assert row[row["parameter"]] == pytest.approx(row["value"], rel=1e-8)


def test_gradient_by_differences(slopes_model):
    _, result = slopes_model
    problem, profiler = result.evaluation.problem, Profiler(result)
    for parameter in list_parameters(result):
        path = profiler.path(parameter)
        scale = 1.0 / np.sqrt(path.origin.curvature)
        at = np.append(path.origin.kappa + 0.7 * scale, path.origin.x + 0.05)
        value = value_at(problem, path.coordinates, at[0], at[1:])
        for i, slope in enumerate([value.slope, *value.gradient]):
            step = np.zeros_like(at)
            step[i] = 1e-5 * (scale if i == 0 else 1.0)
            sides = [
                value_at(problem, path.coordinates, moved[0], moved[1:]).criterion
                for moved in (at + step, at - step)
            ]
            difference = (sides[0] - sides[1]) / (2.0 * step[i])
            assert slope == pytest.approx(difference, rel=1e-5, abs=1e-5 / scale)


def test_curvature_at_the_estimates_is_that_of_the_profile(slopes_model):
    # zeta is close to (value - estimate) / se near the estimate.
    _, result = slopes_model
    profiler = Profiler(result)
    for parameter in list_parameters(result):
        path = profiler.path(parameter)
        first = path.first()
        kappa = first.kappa + 0.02 / first.slope
        knot = path.knot(kappa, [first])
        assert knot.zeta == pytest.approx(0.02, rel=0.02)


# Invariance.


def test_limits_follow_the_units_and_not_the_order_of_rows():
    data = mf.datasets.load("sleepstudy")
    moved = data.sample(frac=1.0, random_state=0)
    moved = moved.assign(Reaction=moved["Reaction"] / 1e3, Days=moved["Days"] * 24.0)
    formula = "Reaction ~ Days + (Days|Subject)"
    one = profile_interval(fit(formula, data))
    two = profile_interval(fit(formula, moved))
    unit = pd.Series(1e-3, index=one.index)
    unit[["sd(Subject: Days)", "Days"]] = 1e-3 / 24.0
    unit["cor(Subject: Intercept, Days)"] = 1.0
    for side in ("lower", "upper"):
        assert (two[side] / unit).to_numpy() == pytest.approx(
            one[side].to_numpy(), rel=1e-5
        )


def test_limits_do_not_change_with_a_factor_of_the_weights_but_sigma():
    data = mf.datasets.load("sleepstudy")
    data["w"] = 1.0 + data["Days"] % 3
    data["w4"] = 4.0 * data["w"]
    one, two = (
        profile_interval(fit("Reaction ~ Days + (1|Subject)", data, weights=w))
        for w in ("w", "w4")
    )
    unit = np.where(one.index == "sigma", 2.0, 1.0)
    for side in ("lower", "upper"):
        assert two[side].to_numpy() == pytest.approx(
            one[side].to_numpy() * unit, rel=1e-6
        )


def test_sparse_backend_gives_the_same_limits():
    data = mf.datasets.load("Penicillin")
    formula = "diameter ~ 1 + (1|plate) + (1|sample)"
    one, two = (
        profile_interval(fit(formula, data, control={"backend": backend}))
        for backend in ("dense", "sparse")
    )
    for side in ("lower", "upper"):
        assert two[side].to_numpy() == pytest.approx(one[side].to_numpy(), rel=1e-7)


def test_a_covariate_far_from_its_origin():
    # The search then works on orthogonal columns; the limits are the user's.
    data = mf.datasets.load("sleepstudy").assign(year=lambda d: d["Days"] + 2000.0)
    result = fit("Reaction ~ year + (year|Subject)", data, method="ML")
    table = profile_interval(
        result, ["sd(Subject: year)", "sigma", "year", ".sig02"], level=0.9
    )
    plain = profile_interval(
        fit("Reaction ~ Days + (Days|Subject)", data, method="ML"),
        ["sd(Subject: Days)", "sigma", "Days"],
        level=0.9,
    )
    for one, two in zip(table.index[:3], plain.index, strict=True):
        assert limits(table, one) == pytest.approx(limits(plain, two), rel=1e-5)


# lme4 1.1-31: confint(profile(lmer(formula, data, REML = FALSE))), R 4.2. lme4
# interpolates between the points of its profile, which costs the fourth digit where
# they are far apart.
FULL = "Reaction ~ Days + (Days|Subject)"
LME4 = {
    ("sleepstudy", FULL): {
        ".sig01": ("14.381481116", "37.716018740"),
        ".sig02": ("-0.481500443", "0.684986139"),
        ".sig03": ("3.801164762", "8.753366659"),
        ".sigma": ("22.898266215", "28.857997323"),
        "(Intercept)": ("237.680695469", "265.129514692"),
        "Days": ("7.358653295", "13.575918741"),
    },
    ("sleepstudy", "Reaction ~ Days + (1|Subject)"): {
        ".sig01": ("26.0071", "52.9360"),
        ".sigma": ("27.8138", "34.5910"),
        "(Intercept)": ("231.9923", "270.8179"),
        "Days": ("8.8866", "12.0480"),
    },
    ("sleepstudy", "Reaction ~ Days + (Days||Subject)"): {
        ".sig01": ("15.25864617", "37.78646394"),
        ".sig02": ("3.96407437", "8.76916043"),
        ".sigma": ("22.88055468", "28.78759756"),
    },
    ("Penicillin", "diameter ~ 1 + (1|plate) + (1|sample)"): {
        ".sig01": ("0.633565966", "1.182103985"),
        ".sig02": ("1.095789397", "3.556291778"),
        ".sigma": ("0.485845400", "0.629453479"),
        "(Intercept)": ("21.266627383", "24.677817616"),
    },
    ("Pastes", "strength ~ 1 + (1|batch/cask)"): {
        ".sig01": ("2.157933738", "4.05358880"),
        ".sig02": ("0.000000000", "2.94659126"),
        ".sigma": ("0.652023356", "1.08544809"),
        "(Intercept)": ("58.663650379", "61.44301637"),
    },
    ("Dyestuff", "Yield ~ 1 + (1|Batch)"): {
        ".sig01": ("12.1985352", "84.0630467"),
        ".sigma": ("38.2299849", "67.6576962"),
        "(Intercept)": ("1486.4515000", "1568.5484944"),
    },
    ("Dyestuff2", "Yield ~ 1 + (1|Batch)"): {
        ".sig01": ("0.00000000", "2.08404349"),
        ".sigma": ("2.89283102", "4.81583255"),
        "(Intercept)": ("4.31210022", "7.01909235"),
    },
}


@pytest.mark.parametrize(("dataset", "formula"), LME4, ids=" ".join)
def test_limits_agree_with_lme4(dataset, formula):
    result = fit(formula, mf.datasets.load(dataset), method="ML")
    printed = LME4[dataset, formula]
    table = profile_interval(result, list(printed))
    for row, expected in zip(table.itertuples(), printed.values(), strict=True):
        assert (row.lower, row.upper) == pytest.approx(
            tuple(map(float, expected)), rel=2e-4
        )
