"""The bootstrap finds known sampling distributions, and counts what goes wrong."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError
from mixform.estimate.refit import refit
from mixform.inference.resampling.bootstrap import bootstrap, parameter_names
from mixform.inference.resampling.simulation import simulate
from mixform.progress import Progress
from mixform.report.bootstrap import printed_bootstrap

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return mf.fit(FORMULA, mf.datasets.load("sleepstudy"))._fit


@pytest.fixture(scope="module")
def dyestuff():
    return mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff"))._fit


# The known sampling distribution of the balanced one-way layout.


def test_balanced_one_way_has_the_distribution_of_its_mean_squares():
    """MSB ~ (sigma^2 + n s^2) chi^2(5) / 5, MSW ~ sigma^2 chi^2(24) / 24.

    Here n s^2 is so large that MSB < MSW all but never happens.
    """
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(range(12), 5)})
    data["y"] = 6.0 * rng.normal(size=12)[data["g"]] + rng.normal(size=60)
    fit = mf.fit("y ~ 1 + (1 | g)", data)._fit
    nsim = 2000
    draws = bootstrap(fit, nsim, seed=1)
    frame = draws.replicates
    sigma2, s2 = fit.sigma**2, (fit.sigma * fit.T[0][0, 0]) ** 2
    between = sigma2 + 5.0 * s2
    expected = {
        "Intercept": (fit.beta[0], between / 60.0),
        "within": (sigma2, 2.0 * sigma2**2 / 48.0),
        "between": (s2, (2.0 * between**2 / 11 + 2.0 * sigma2**2 / 48) / 25.0),
    }
    found = {
        "Intercept": frame["Intercept"],
        "within": frame["sigma"] ** 2,
        "between": frame["sd(g: Intercept)"] ** 2,
    }
    for name, (mean, variance) in expected.items():
        values = found[name]
        assert abs(values.mean() - mean) < 4.0 * np.sqrt(variance / nsim), name
        # A chi-square with 11 df has kurtosis 3 + 12 / 11.
        error = variance * np.sqrt((2.0 + 12.0 / 11.0) / nsim)
        assert abs(values.var() - variance) < 4.0 * error, name
    assert draws.n_singular == draws.n_failed == 0
    assert draws.notes == ()


def test_fixed_effects_scatter_as_their_standard_errors_say(sleepstudy):
    """Balanced: beta is least squares whatever theta is, so V_beta is exact."""
    draws = bootstrap(sleepstudy, 2000, seed=3)
    se = np.sqrt(np.diag(sleepstudy.V_beta))
    ours = draws.se[["Intercept", "Days"]].to_numpy()
    np.testing.assert_allclose(ours, se, rtol=4.0 / np.sqrt(2 * 2000))


def test_replicates_are_refits_of_the_simulated_responses(sleepstudy):
    draws = bootstrap(sleepstudy, 6, seed=9).replicates
    responses = simulate(sleepstudy, 6, seed=9)
    for j in range(6):
        again = refit(sleepstudy, responses.iloc[:, j].to_numpy())
        np.testing.assert_allclose(draws["Days"][j], again.beta[1], rtol=1e-6)
        np.testing.assert_allclose(draws["sigma"][j], again.sigma, rtol=1e-5)
        sd = again.sigma * np.sqrt(np.sum(again.T[0] ** 2, axis=1))
        np.testing.assert_allclose(draws["sd(Subject: Days)"][j], sd[1], rtol=1e-4)


def test_estimates_are_those_of_the_variance_components(sleepstudy):
    estimate = bootstrap(sleepstudy, 2, seed=1).estimate
    table = mf.fit(FORMULA, mf.datasets.load("sleepstudy")).varcorr["sdcor"]
    assert list(estimate.index) == parameter_names(sleepstudy)
    assert list(estimate.index) == [
        "Intercept",
        "Days",
        "sd(Subject: Intercept)",
        "sd(Subject: Days)",
        "cor(Subject: Intercept, Days)",
        "sigma",
    ]
    np.testing.assert_allclose(estimate.to_numpy()[2:], table, rtol=1e-12)


def test_kept_effects_leave_the_residual_only(dyestuff):
    fresh = bootstrap(dyestuff, 200, seed=1).se["Intercept"]
    kept = bootstrap(dyestuff, 200, seed=1, use_u=True).se["Intercept"]
    assert kept == pytest.approx(dyestuff.sigma / np.sqrt(30), rel=0.2)
    assert fresh > 1.5 * kept


def test_semiparametric_draws_take_the_residuals_of_the_fit(dyestuff):
    draws = bootstrap(dyestuff, 200, seed=1, use_u=True, kind="semiparametric")
    assert draws.se["Intercept"] == pytest.approx(dyestuff.sigma / np.sqrt(30), rel=0.2)
    assert draws.kind == "semiparametric"


# The same seed, the same answer.


def test_answer_does_not_depend_on_the_workers(dyestuff, monkeypatch):
    monkeypatch.setattr("mixform.inference.resampling.simulation.CHUNK", 7)
    one = bootstrap(dyestuff, 30, seed=2).replicates
    pd.testing.assert_frame_equal(
        bootstrap(dyestuff, 30, seed=2, workers=map).replicates, one
    )

    def backwards(function, chunks):
        return [function(chunk) for chunk in reversed(chunks)][::-1]

    pd.testing.assert_frame_equal(
        bootstrap(dyestuff, 30, seed=2, workers=backwards).replicates, one
    )


@pytest.mark.slow
def test_answer_does_not_depend_on_joblib(dyestuff, monkeypatch):
    pytest.importorskip("joblib")
    monkeypatch.setattr("mixform.inference.resampling.simulation.CHUNK", 7)
    one = bootstrap(dyestuff, 30, seed=2).replicates
    two = bootstrap(dyestuff, 30, seed=2, workers=2).replicates
    pd.testing.assert_frame_equal(two, one)


def test_other_seed_other_answer(dyestuff):
    one, two = (bootstrap(dyestuff, 5, seed=s).replicates for s in (1, 2))
    assert not np.allclose(one, two)


def test_missing_joblib_names_the_command(dyestuff, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(InferenceError, match=r"pip install 'mixform\[parallel\]'"):
        bootstrap(dyestuff, 5, workers=2)


@pytest.mark.parametrize("workers", [0, "two", True])
def test_unusable_workers_are_refused(dyestuff, workers):
    with pytest.raises(InferenceError, match="workers is"):
        bootstrap(dyestuff, 5, workers=workers)


# Statistics of the user.


def slope(fit):
    return fit.beta[1]


def test_statistic_may_return_number_array_mapping_or_series(sleepstudy):
    expected = bootstrap(sleepstudy, 4, seed=1).replicates["Days"].to_numpy()
    kinds = {
        "statistic": slope,
        "statistic[1]": lambda fit: fit.beta,
        "b": lambda fit: {"a": 0.0, "b": fit.beta[1]},
        "c": lambda fit: pd.Series({"c": fit.beta[1]}),
    }
    for name, statistic in kinds.items():
        found = bootstrap(sleepstudy, 4, seed=1, statistic=statistic)
        np.testing.assert_allclose(found.replicates[name], expected, rtol=1e-5)
        assert found.estimate[name] == pytest.approx(sleepstudy.beta[1])


def test_statistic_gets_what_the_wrapper_makes(sleepstudy):
    found = bootstrap(
        sleepstudy, 3, seed=1, statistic=lambda r: r["beta"], wrap=lambda f: vars_of(f)
    )
    assert found.replicates.shape == (3, 2)


def vars_of(fit):
    return {"beta": fit.beta}


def test_statistic_that_raises_in_some_draws_is_counted(sleepstudy):
    def picky(fit):
        if fit.beta[1] > sleepstudy.beta[1] + 1e-6:
            raise ZeroDivisionError("too steep")
        return fit.beta[1]

    found = bootstrap(sleepstudy, 40, seed=1, statistic=picky)
    failed = found.replicates["statistic"].isna()
    assert 5 < found.n_failed == failed.sum() < 35
    assert any(
        f"{found.n_failed} of 40 draws failed: ZeroDivisionError: too steep" in note
        for note in found.notes
    )
    assert np.isfinite(found.se["statistic"])
    assert np.all(np.isfinite(found.conf_int()))


def test_statistic_that_raises_in_all_draws_is_an_error(sleepstudy):
    calls = []

    def once(fit):
        calls.append(fit)
        if len(calls) > 1:
            raise ValueError("no more")
        return 1.0

    with pytest.raises(InferenceError, match=r"failed in all 5 draws.*no more"):
        bootstrap(sleepstudy, 5, seed=1, statistic=once)


def test_statistic_that_raises_on_the_fit_is_an_error_at_once(sleepstudy):
    with pytest.raises(InferenceError, match="fails on the fit itself: KeyError"):
        bootstrap(sleepstudy, 5, statistic=lambda _: {}["x"])


def test_statistic_of_changing_length_is_a_failure(sleepstudy):
    def growing(fit):
        return np.zeros(2 if fit.design is sleepstudy.design else 3)

    with pytest.raises(InferenceError, match="3 values, named otherwise"):
        bootstrap(sleepstudy, 3, seed=1, statistic=growing)


def test_statistic_must_be_a_function(sleepstudy):
    with pytest.raises(InferenceError, match="is a str, not a function"):
        bootstrap(sleepstudy, 3, statistic="Days")


# Interruption.


def test_interrupt_keeps_what_is_done(sleepstudy, monkeypatch):
    monkeypatch.setattr("mixform.estimate.batch.batch.STACK_SIZE", 0.0)  # 16 at a time
    steps = []

    def interrupt(self, n=1, note=None):
        steps.append(n)
        if len(steps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", interrupt)
    found = bootstrap(sleepstudy, 100, seed=1)
    assert found.nsim == 48
    assert "Interrupted after 48 of 100 draws." in found.notes
    monkeypatch.undo()
    whole = bootstrap(sleepstudy, 100, seed=1)
    np.testing.assert_allclose(
        found.replicates["Days"], whole.replicates["Days"][:48], rtol=1e-9
    )


def test_interrupt_before_anything_is_done_is_an_interrupt(sleepstudy):
    def never(function, chunks):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bootstrap(sleepstudy, 5, workers=never)


# Intervals.


def test_intervals_follow_from_the_replicates(dyestuff):
    draws = bootstrap(dyestuff, 99, seed=1)
    values = np.sort(draws.replicates["Intercept"])
    estimate = draws.estimate["Intercept"]
    # (99 + 1) 0.05 and 0.95: the 5th smallest and the 95th.
    lower, upper = draws.conf_int(0.9).loc["Intercept"]
    assert (lower, upper) == pytest.approx((values[4], values[94]))
    lower, upper = draws.conf_int(0.9, "basic").loc["Intercept"]
    expected = 2 * estimate - values[94], 2 * estimate - values[4]
    assert (lower, upper) == pytest.approx(expected)
    lower, upper = draws.conf_int(0.9, "normal").loc["Intercept"]
    half = 1.6448536269514722 * values.std(ddof=1)
    center = 2 * estimate - values.mean()
    assert (lower, upper) == pytest.approx((center - half, center + half))


def test_unknown_interval_and_level_are_refused(dyestuff):
    draws = bootstrap(dyestuff, 5, seed=1)
    with pytest.raises(InferenceError, match="Unknown bootstrap interval 'percent'"):
        draws.conf_int(method="percent")
    with pytest.raises(InferenceError, match="level"):
        draws.conf_int(95)


# Notes and printing.


def test_singular_refits_are_counted_and_undefined_correlations_named():
    data = mf.datasets.load("sleepstudy")
    data = data[data["Subject"].isin(sorted(set(data["Subject"]))[:6])]
    rng = np.random.default_rng(1)
    data = data.assign(y=200.0 + 10.0 * data["Days"] + 20.0 * rng.normal(size=60))
    fit = mf.fit("y ~ Days + (Days | Subject)", data)._fit
    found = bootstrap(fit, 60, seed=1)
    assert found.n_singular > 20
    assert f"{found.n_singular} of 60 refits are singular." in found.notes
    name = "cor(Subject: Intercept, Days)"
    undefined = int(found.replicates[name].isna().sum())
    assert any(f"{name} is undefined in {undefined} draws" in n for n in found.notes)


def test_bootstrap_prints_a_table(dyestuff):
    draws = printed_bootstrap(bootstrap(dyestuff, 20, seed=1))
    text = str(draws)
    assert "Parametric bootstrap, 20 draws" in text
    assert "sd(Batch: Intercept)" in text
    assert "2.5 %" in text
    assert "97.5 %" in text
    assert "<table" in draws._repr_html_()
    assert draws.nsim == 20
    again = pickle.loads(pickle.dumps(draws))
    pd.testing.assert_frame_equal(again.replicates, draws.replicates)


@pytest.mark.parametrize("nsim", [0, -1, 1.5])
def test_number_of_draws_must_be_positive(dyestuff, nsim):
    with pytest.raises(InferenceError, match="nsim must be"):
        bootstrap(dyestuff, nsim)


def test_unknown_kind_is_refused(dyestuff):
    with pytest.raises(InferenceError, match="Unknown kind of bootstrap 'wild'"):
        bootstrap(dyestuff, 5, kind="wild")
    with pytest.raises(InferenceError, match="keeps the random effects"):
        bootstrap(dyestuff, 5, kind="semiparametric")
