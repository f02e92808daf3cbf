"""The bootstrap likelihood-ratio test, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import InferenceError
from mixform.estimate.refit import refit
from mixform.inference.resampling.bootstrap_test import bootstrap_lrt
from mixform.inference.resampling.simulation import simulate
from mixform.report.bootstrap import printed_bootstrap_test


def fit(formula, data=None, **keywords):
    data = mf.datasets.load("sleepstudy") if data is None else data
    return mf.fit(formula, data, **keywords)._fit


def test_statistics_are_those_of_pairs_of_refits():
    smaller = fit("Reaction ~ Days + (1 | Subject)")
    larger = fit("Reaction ~ Days + (Days | Subject)")
    test = bootstrap_lrt(smaller, larger, 4, seed=3)
    assert test.method == "REML"
    assert test.num_df == 2
    assert test.statistic == pytest.approx(smaller.criterion - larger.criterion)
    draws = simulate(smaller, 4, seed=3)
    for j, found in enumerate(test.replicates):
        y = draws.iloc[:, j].to_numpy()
        pair = [refit(f, y, start=None).criterion for f in (smaller, larger)]
        assert found == pytest.approx(pair[0] - pair[1], abs=1e-6)


def test_p_value_counts_the_fit_among_the_draws():
    smaller = fit("Reaction ~ Days + (1 | Subject)")
    larger = fit("Reaction ~ Days + (Days | Subject)")
    test = bootstrap_lrt(smaller, larger, 99, seed=1)
    assert test.p_value == 0.01
    assert test.p_chi2 == pytest.approx(stats.chi2.sf(test.statistic, 2))
    mean = test.replicates.mean()
    assert test.p_bartlett == pytest.approx(stats.chi2.sf(2 * test.statistic / mean, 2))


def test_different_fixed_effects_are_compared_by_ml():
    smaller = fit("Reaction ~ 1 + (Days | Subject)")
    larger = fit("Reaction ~ Days + (Days | Subject)")
    test = bootstrap_lrt(smaller, larger, 19, seed=1)
    assert test.method == "ML"
    assert "Refitted by ML." in test.notes
    ml = [refit(f, method="ML").criterion for f in (smaller, larger)]
    assert test.statistic == pytest.approx(ml[0] - ml[1])


def test_other_coding_of_the_same_fixed_effects_keeps_reml():
    data = mf.datasets.load("sleepstudy")
    smaller = fit("Reaction ~ Days + (1 | Subject)", data)
    larger = fit("Reaction ~ I(3 * Days - 1) + (Days | Subject)", data)
    same = fit("Reaction ~ Days + (Days | Subject)", data)
    test = bootstrap_lrt(smaller, larger, 9, seed=1)
    assert test.method == "REML"
    expected = bootstrap_lrt(smaller, same, 9, seed=1)
    assert test.statistic == pytest.approx(expected.statistic, abs=1e-7)
    np.testing.assert_allclose(test.replicates, expected.replicates, atol=1e-6)


def test_variance_that_is_not_there_has_half_its_draws_at_zero():
    """The null distribution is 0.5 chi^2(0) + 0.5 chi^2(1), roughly (6 groups)."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"y": rng.normal(size=90), "g": np.repeat(range(15), 6)})
    smaller, larger = fit("y ~ 1", data), fit("y ~ 1 + (1 | g)", data)
    test = bootstrap_lrt(smaller, larger, 400, seed=1)
    zero = np.mean(test.replicates < 1e-6)
    # P(MSB < MSW) for 14 and 75 df.
    exact = stats.f.cdf(1.0, 14, 75)
    assert zero == pytest.approx(exact, abs=4.0 * np.sqrt(0.25 / 400))
    assert np.all(test.replicates > -1e-6)
    assert test.p_value <= 1.0


def test_draw_of_a_balanced_layout_is_the_f_test():
    """Here the statistic is a monotone function of F = MSB / MSW."""
    data = mf.datasets.load("Dyestuff")
    smaller, larger = fit("Yield ~ 1", data), fit("Yield ~ 1 + (1 | Batch)", data)
    nsim = 2000
    test = bootstrap_lrt(smaller, larger, nsim, seed=1)
    cells = data["Yield"].to_numpy().reshape(6, 5)
    exact = stats.f_oneway(*cells).pvalue
    error = np.sqrt(exact * (1.0 - exact) / nsim)
    assert test.p_value == pytest.approx(exact, abs=4.0 * error + 1.0 / nsim)


def test_prints_the_p_values():
    smaller = fit("Reaction ~ Days + (1 | Subject)")
    larger = fit("Reaction ~ Days + (Days | Subject)")
    text = str(printed_bootstrap_test(bootstrap_lrt(smaller, larger, 19, seed=1)))
    for part in ("19 draws (REML)", "Chi-square", "Bartlett", "0.0500", "42.8"):
        assert part in text


def test_models_of_different_rows_are_refused():
    data = mf.datasets.load("sleepstudy")
    smaller = fit("Reaction ~ Days + (1 | Subject)", data.iloc[:170])
    with pytest.raises(InferenceError, match="different rows"):
        bootstrap_lrt(smaller, fit("Reaction ~ Days + (Days | Subject)", data), 5)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + (1 | Subject)"),
        ("Reaction ~ I(Days ** 2) + (1 | Subject)", "Reaction ~ Days + (Days|Subject)"),
    ],
)
def test_models_that_are_not_nested_are_refused(small, large):
    with pytest.raises(InferenceError, match="is not part of"):
        bootstrap_lrt(fit(small), fit(large), 5)


def test_larger_model_that_fits_worse_is_refused():
    data = mf.datasets.load("sleepstudy").assign(h=np.arange(180) % 6)
    with pytest.raises(InferenceError, match="fits worse"):
        bootstrap_lrt(
            fit("Reaction ~ Days + (1 | Subject)", data),
            fit("Reaction ~ Days + (Days | h)", data),
            5,
        )


def test_number_of_draws_must_be_positive():
    smaller = fit("Reaction ~ Days + (1 | Subject)")
    with pytest.raises(InferenceError, match="nsim must be"):
        bootstrap_lrt(smaller, fit("Reaction ~ Days + (Days | Subject)"), 0)
