"""Profiles that end at a boundary, or start from one; parameters without a profile."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError, MixformWarning
from mixform.inference.profile.profile import profile, profile_interval


def fit(formula, data, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixformWarning)
        return mf.fit(formula, data, **keywords)._fit


@pytest.fixture(scope="module")
def pastes():
    data = mf.datasets.load("Pastes")
    return fit("strength ~ 1 + (1|batch/cask)", data, method="ML")


@pytest.fixture(scope="module")
def singular():
    """Random slopes that are proportional to the intercepts."""
    rng = np.random.default_rng(8)
    codes, x = np.arange(60) % 6, np.arange(60) % 5 - 2.0
    b = 4.0 * rng.normal(size=6)
    y = 10.0 + b[codes] + 0.4 * b[codes] * x + rng.normal(size=60)
    data = pd.DataFrame({"y": y, "x": x, "g": codes})
    result = fit("y ~ x + (x|g)", data)
    assert result.singular_terms == (0,)
    return result, data


def test_a_profile_that_reaches_zero_before_the_cutoff_is_one_sided(pastes):
    table = profile_interval(pastes)
    row = table.loc["sd(batch: Intercept)"]
    assert row["lower"] == 0.0
    assert row["upper"] > row["estimate"]
    assert row["reason"].startswith("lower: one-sided: |zeta| is only 0.63")
    assert table.loc["sd(batch:cask: Intercept)", "reason"] == ""


def test_zeta_at_zero_is_the_likelihood_ratio_of_the_model_without_the_term(pastes):
    data = mf.datasets.load("Pastes")
    without = fit("strength ~ 1 + (1|batch:cask)", data, method="ML")
    zeta = profile(pastes).zeta("sd(batch: Intercept)", [0.0]).item()
    assert zeta == pytest.approx(-np.sqrt(without.criterion - pastes.criterion))


def test_zeta_of_a_slope_at_zero_is_the_model_without_the_slope():
    # Without its standard deviation the slope has no correlation either.
    rng = np.random.default_rng(1)
    codes, x = np.arange(60) % 10, rng.normal(size=60)
    y = 2.0 * rng.normal(size=10)[codes] + rng.normal(size=60)
    y += 0.4 * rng.normal(size=10)[codes] * x
    data = pd.DataFrame({"y": y, "x": x, "g": codes})
    whole = fit("y ~ x + (x|g)", data)
    without = fit("y ~ x + (1|g)", data)
    found = profile(whole, parameters="sd(g: x)")
    zeta = found.zeta("sd(g: x)", [0.0]).item()
    assert zeta == pytest.approx(-np.sqrt(without.criterion - whole.criterion))


def test_a_correlation_that_reaches_one_before_the_cutoff_has_no_limit():
    data = mf.datasets.load("sleepstudy")
    result = fit("Reaction ~ Days + (Days|Subject)", data, method="ML")
    name = "cor(Subject: Intercept, Days)"
    row = profile_interval(result, name, level=0.999).loc[name]
    assert -1.0 < row["lower"] < row["estimate"]
    assert np.isnan(row["upper"])
    reason = "upper: no limit: |zeta| is only 2.978 at a correlation of 1"
    assert row["reason"] == reason
    found = profile(result, parameters=name)
    assert found.conf_int(0.999).loc[name, "reason"] == reason
    # There the model has one random effect, b_1 (1, ratio), for any ratio.
    frame = found.to_frame()
    last = frame.iloc[-1]
    assert last["value"] == last[name] == 1.0
    ratio = last["sd(Subject: Days)"] / last["sd(Subject: Intercept)"]
    data["one"] = 1.0 + ratio * data["Days"]
    one = fit("Reaction ~ Days + (0 + one|Subject)", data, method="ML")
    assert last["criterion"] == pytest.approx(one.criterion, abs=1e-7)


def test_an_estimate_of_zero_has_a_one_sided_interval():
    data = mf.datasets.load("Dyestuff2")
    result = fit("Yield ~ 1 + (1|Batch)", data)
    row = profile_interval(result, "sd(Batch: Intercept)").iloc[0]
    assert row["lower"] == row["estimate"] == 0.0
    assert row["upper"] > 1.0
    assert row["reason"] == "lower: one-sided: the estimate is zero"
    again = profile(result).conf_int().loc["sd(Batch: Intercept)"]
    assert again["lower"] == 0.0
    assert again["upper"] == pytest.approx(row["upper"], rel=1e-4)
    assert again["reason"] == row["reason"]


def test_a_correlation_of_a_singular_term_is_nan_and_says_so(singular):
    result, _ = singular
    name = "cor(g: Intercept, x)"
    reason = "no limits: the covariance of g is singular"
    for table in (profile_interval(result), profile(result).conf_int()):
        assert table.loc[name, ["lower", "upper"]].isna().all()
        assert table.loc[name, "reason"] == reason
    with pytest.raises(InferenceError, match="covariance of g is singular"):
        profile(result).zeta(name)


def test_the_rest_of_a_singular_fit_has_limits(singular):
    table = profile_interval(singular[0]).drop(index="cor(g: Intercept, x)")
    assert not any(table["reason"])
    assert np.all(table["lower"] < table["estimate"])
    assert np.all(table["estimate"] < table["upper"])


def test_a_term_of_zero_variance_that_stays_zero_changes_nothing():
    data = mf.datasets.load("Penicillin")
    data["odd"] = np.random.default_rng(1).permutation(len(data)) % 4
    formula = "diameter ~ 1 + (1|plate) + (1|sample)"
    one = fit(formula, data)
    two = fit(formula + " + (1|odd)", data)
    assert two.singular_terms == (2,)
    names = ["sd(plate: Intercept)", "sigma", "Intercept"]
    less, more = (profile_interval(result, names, 0.5) for result in (one, two))
    for side in ("lower", "upper"):
        assert more[side].to_numpy() == pytest.approx(less[side].to_numpy(), rel=1e-6)


def test_aliased_coefficients_have_no_limits():
    data = mf.datasets.load("sleepstudy").assign(hours=lambda d: 24.0 * d["Days"])
    result = fit("Reaction ~ Days + hours + (1|Subject)", data)
    table = profile_interval(result)
    assert table.loc["hours", ["estimate", "lower", "upper"]].isna().all()
    assert table.loc["hours", "reason"].startswith("aliased")
    plain = profile_interval(fit("Reaction ~ Days + (1|Subject)", data))
    assert table.loc["Days", "upper"] == pytest.approx(plain.loc["Days", "upper"])
    assert "hours" not in profile(result).to_frame().columns


def test_no_fixed_effects():
    data = mf.datasets.load("sleepstudy")
    table = profile_interval(fit("Reaction ~ 0 + (1|Subject)", data))
    assert list(table.index) == ["sd(Subject: Intercept)", "sigma"]
    assert table[["lower", "upper"]].notna().all().all()


@pytest.mark.parametrize("call", [profile, profile_interval])
def test_unknown_parameter_suggests_the_nearest(call, pastes):
    with pytest.raises(InferenceError) as error:
        call(pastes, parameters=["sd(batch: Intercep)"])
    assert "Unknown parameter 'sd(batch: Intercep)'" in str(error.value)
    assert "Did you mean 'sd(batch: Intercept)'?" in str(error.value)


@pytest.mark.parametrize("call", [profile, profile_interval])
@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_level_outside_zero_and_one(call, level, pastes):
    with pytest.raises(InferenceError, match="not between 0 and 1"):
        call(pastes, level=level)


def test_a_fit_that_is_not_at_a_minimum_is_refused():
    data = mf.datasets.load("sleepstudy")
    result = fit(
        "Reaction ~ Days + (Days|Subject)", data, control={"max_evaluations": 2}
    )
    with pytest.raises(InferenceError, match="starts from the minimum"):
        profile_interval(result)


def test_residual_variance_that_vanishes_beside_a_structure():
    """One record in each cell: an autoregression takes all, as one of residuals."""
    rng = np.random.default_rng(5)
    C = 0.6 ** np.abs(np.subtract.outer(range(5), range(5)))
    data = pd.DataFrame({
        "id": np.repeat(np.arange(40), 5),
        "visit": np.tile(np.arange(1, 6), 40),
        "y": (rng.normal(size=(40, 5)) @ np.linalg.cholesky(C).T).ravel(),
    })  # fmt: skip
    m = mf.fit("y ~ visit + ar1(0 + C(visit) | id)", data)
    assert m.sigma < 1e-2 * np.sqrt(m.varcorr["vcov"].iloc[0])
    plain = mf.fit("y ~ visit", data, residual="ar1(visit | id)")
    found, expected = (x.conf_int(method="profile") for x in (m, plain))
    names = ["Intercept", "visit"]
    np.testing.assert_allclose(
        found.loc[names, ["lower", "upper"]].to_numpy(dtype=float),
        expected.loc[names, ["lower", "upper"]].to_numpy(dtype=float),
        rtol=1e-3,
    )
