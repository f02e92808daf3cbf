"""Power by simulation against the exact power of balanced designs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import DesignError, InferenceError
from mixform.inference.resampling.bootstrap import parameter_names
from mixform.inference.resampling.power import changed_parameters, power, read_test
from mixform.report.bootstrap import printed_power


@pytest.fixture(scope="module")
def paired():
    """10 subjects, 3 rows under each of two treatments, no interaction."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": np.repeat(range(10), 6), "trt": np.tile(list("ab"), 30)})
    data["y"] = 2.0 * rng.normal(size=10)[data["id"]] + rng.normal(size=60)
    return mf.fit("y ~ trt + (1 | id)", data)._fit


def exact_power(effect, sigma, ddf, se_factor):
    """Of the two-sided t test with standard error sigma * se_factor."""
    noncentral = effect / (sigma * se_factor)
    limit = stats.t.ppf(0.975, ddf)
    return stats.nct.sf(limit, ddf, noncentral) + stats.nct.cdf(-limit, ddf, noncentral)


@pytest.mark.parametrize("effect", [0.0, 0.7])
def test_power_of_a_within_comparison_is_that_of_the_t_test(paired, effect):
    nsim = 400
    params = {"trt[T.b]": effect, "sigma": 1.0}
    found = power(paired, "trt", nsim, params=params, seed=1)
    # 60 rows, 10 subjects, one treatment: 49 df; Var = sigma^2 (1/30 + 1/30).
    exact = exact_power(effect, 1.0, 49, np.sqrt(2 / 30))
    assert found.power == pytest.approx(exact, abs=4 * np.sqrt(0.25 / nsim))
    assert found.lower <= found.power <= found.upper
    interval = stats.binomtest(found.n_rejected, nsim).proportion_ci(method="exact")
    assert (found.lower, found.upper) == (interval.low, interval.high)
    assert found.n_tested == nsim
    np.testing.assert_allclose(found.effect, effect)


@pytest.mark.parametrize("method", ["asymptotic", "lr", "kenward-roger"])
def test_methods_agree_where_df_are_many(paired, method):
    params = {"trt[T.b]": 0.7, "sigma": 1.0}
    exact = exact_power(0.7, 1.0, 49, np.sqrt(2 / 30))
    nsim = 60 if method == "kenward-roger" else 400
    found = power(paired, "trt[T.b]", nsim, params=params, method=method, seed=1)
    slack = 0.03 + 4 * np.sqrt(0.25 / nsim)
    assert found.power == pytest.approx(exact, abs=slack)


def test_more_groups_give_the_power_of_the_larger_design(paired):
    nsim = 300
    larger = pd.DataFrame(
        {"id": np.repeat([f"new {i}" for i in range(25)], 6), "trt": list("ab") * 75}
    )
    params = {"trt[T.b]": 0.5, "sigma": 1.0, "sd(id: Intercept)": 3.0}
    found = power(
        paired, "trt", nsim, params=params, newdata=larger, method="lr", seed=1
    )
    exact = exact_power(0.5, 1.0, 124, np.sqrt(2 / 75))
    assert found.power == pytest.approx(exact, abs=0.02 + 4 * np.sqrt(0.25 / nsim))
    small = power(paired, "trt", nsim, params=params, method="lr", seed=1)
    assert small.power < found.power - 0.1


def test_hypothesis_with_a_value_is_tested_against_it(paired):
    params = {"trt[T.b]": 2.0}
    for method in ("satterthwaite", "lr", "asymptotic"):
        true = power(
            paired, "trt[T.b] = 2", 60, params=params, method=method, seed=1
        ).power
        false = power(
            paired, "trt[T.b] = 0", 60, params=params, method=method, seed=1
        ).power
        assert true < 0.2
        assert false == 1.0


def test_same_seed_same_answer_by_any_map(paired, monkeypatch):
    monkeypatch.setattr("mixform.inference.resampling.simulation.CHUNK", 7)
    one = power(paired, "trt", 20, seed=3)
    two = power(paired, "trt", 20, seed=3, workers=map)
    pd.testing.assert_series_equal(one.p_values, two.p_values)


def test_changed_parameters_are_those_asked_for():
    fit = mf.fit(
        "Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy")
    )._fit
    changes = {
        "Days": 5.0,
        "sd(Subject: Days)": 3.0,
        "cor(Subject: Intercept, Days)": -0.5,
        "sigma": 20.0,
    }
    truth = changed_parameters(fit, changes)
    np.testing.assert_allclose(truth.beta, [fit.beta[0], 5.0])
    assert truth.sigma == 20.0
    Sigma = truth.sigma**2 * truth.T[0] @ truth.T[0].T
    sd = fit.sigma * fit.T[0][0, 0]
    np.testing.assert_allclose(Sigma, [[sd**2, -1.5 * sd], [-1.5 * sd, 9.0]])
    np.testing.assert_array_equal(np.triu(truth.T[0], 1), 0.0)


def test_parameters_unchanged_are_those_of_the_fit():
    fit = mf.fit("score ~ Machine + (Machine | Worker)", mf.datasets.load("Machines"))
    fit = fit._fit
    name = parameter_names(fit)[0]
    truth = changed_parameters(fit, {name: fit.beta[0]})
    np.testing.assert_allclose(truth.T[0], fit.T[0], rtol=1e-10)


def test_variance_of_zero_is_drawn_with():
    fit = mf.fit("Yield ~ 1 + (1 | Batch)", mf.datasets.load("Dyestuff"))._fit
    truth = changed_parameters(fit, {"sd(Batch: Intercept)": 0.0})
    np.testing.assert_array_equal(truth.T[0], 0.0)


def test_prints_the_power_in_words(paired):
    found = power(paired, "trt", 20, params={"trt[T.b]": 9.0}, seed=1)
    text = str(printed_power(found))
    assert "Power of the test of trt: 100.00 % (83.16, 100.00)" in text
    assert "Satterthwaite" in text
    assert "20 rejections in 20 draws" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": "drug"}, "drug"),
        ({"params": {"trt[T.c]": 1.0}}, r"no parameter 'trt\[T.c\]'"),
        ({"params": {"trt[T.b]": "big"}}, "is 'big', not a number"),
        ({"params": {"sigma": 0.0}}, "sigma is 0; it must be positive"),
        ({"params": {"sd(id: Intercept)": -1.0}}, "are no covariance"),
        ({"method": "wald"}, "Unknown method 'wald'"),
        ({"nsim": 0}, "nsim must be"),
        ({"alpha": 5.0}, "alpha"),
    ],
)
def test_unusable_arguments_are_refused(paired, arguments, message):
    arguments = {"test": "trt", "nsim": 5} | arguments
    with pytest.raises(InferenceError, match=message):
        power(paired, **arguments)


def test_correlation_outside_its_range_is_refused():
    fit = mf.fit(
        "Reaction ~ Days + (Days | Subject)", mf.datasets.load("sleepstudy")
    )._fit
    with pytest.raises(InferenceError, match="are no covariance"):
        changed_parameters(fit, {"cor(Subject: Intercept, Days)": 1.5})


def test_design_that_lacks_a_level_is_refused(paired):
    rows = pd.DataFrame({"id": [1, 1, 2, 2], "trt": ["b", "b", "b", "b"]})
    with pytest.raises(InferenceError, match="do not determine the coefficients"):
        power(paired, "trt", 5, newdata=rows)


def test_design_without_a_column_is_refused(paired):
    with pytest.raises(DesignError, match="'trt'"):
        power(paired, "trt", 5, newdata=pd.DataFrame({"id": [1, 2]}))


def test_kenward_roger_by_ml_is_refused_at_once(paired):
    from mixform.estimate.refit import refit

    with pytest.raises(InferenceError, match="REML"):
        power(refit(paired, method="ML"), "trt", 5, method="kenward-roger")


def test_term_coefficient_and_contrast_are_read(paired):
    for test in ("trt", "trt[T.b]", "trt[T.b] = 0", {"trt[T.b]": 1.0}, [[0.0, 1.0]]):
        L, rhs, _ = read_test(paired, test)
        np.testing.assert_allclose(np.abs(L / np.abs(L).max()), [[0.0, 1.0]], atol=1e-9)
        np.testing.assert_array_equal(rhs, 0.0)
