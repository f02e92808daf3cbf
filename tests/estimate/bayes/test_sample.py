"""Draws against posteriors that are known; options, warnings and refusals."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixform as mf
from mixform.errors import DesignError, MixformError
from mixform.estimate import Control
from mixform.estimate.bayes.nuts import warnings_of
from mixform.estimate.bayes.options import Sampling, resolve_sampling
from mixform.estimate.bayes.sample import sample
from mixform.priors import flat, half_t, inverse_wishart
from tests.estimate.bayes.models import design, pedigree, table

pytest.importorskip("nutpie")

M, N = 8, 4


@pytest.fixture(scope="module")
def one_way():
    """A balanced one-way layout, as Dyestuff."""
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(M), N)
    y = 1500.0 + rng.normal(size=M)[g] * 40.0 + rng.normal(size=M * N) * 50.0
    return pd.DataFrame({"y": y, "g": g})


def sums_of_squares(data):
    groups = data.groupby("g")["y"]
    SSA = N * ((groups.mean() - data["y"].mean()) ** 2).sum()
    SSE = ((data["y"] - groups.transform("mean")) ** 2).sum()
    return SSA, SSE


def analytic(data, log_prior_a, log_prior_e):
    """Posterior of both standard deviations on a grid of their logarithms.

    With tau = sigma_e^2 + n sigma_a^2 the restricted likelihood is proportional to
    sigma_e^-m(n-1) tau^-(m-1)/2 exp(-SSE / 2 sigma_e^2 - SSA / 2 tau) (Box and Tiao
    1973, Hill 1965).
    """
    SSA, SSE = sums_of_squares(data)
    log_a, log_e = np.linspace(-6.0, 9.0, 3001), np.linspace(2.5, 6.0, 701)
    a, e = np.exp(log_a)[:, None], np.exp(log_e)[None, :]
    tau = e**2 + N * a**2
    logs = -M * (N - 1) * np.log(e) - (M - 1) / 2.0 * np.log(tau)
    logs = logs - SSE / (2.0 * e**2) - SSA / (2.0 * tau)
    logs = logs + log_prior_a(a) + np.log(a) + log_prior_e(e) + np.log(e)
    mass = np.exp(logs - logs.max())
    mass /= mass.sum()
    return (np.exp(log_a), mass.sum(axis=1)), (np.exp(log_e), mass.sum(axis=0))


def inverse_gamma(nu, S):
    """Log density at the standard deviation."""
    return lambda sd: stats.invgamma.logpdf(sd**2, nu / 2.0, scale=S / 2.0) + np.log(sd)


PRIORS = {
    "flat sd": (flat(), flat("log"), lambda a: 0.0, lambda e: -np.log(e)),
    "inverse gamma": (
        inverse_wishart(3.0, 2000.0),
        inverse_wishart(2.0, 3000.0),
        inverse_gamma(3.0, 2000.0),
        inverse_gamma(2.0, 3000.0),
    ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_balanced_one_way_layout_has_its_analytic_posterior(one_way, name):
    of_a, of_e, log_a, log_e = PRIORS[name]
    drawn = sample(
        design("y ~ 1 + (1 | g)", one_way),
        prior={"g": of_a, "residual": of_e},
        control={"seed": 5, "draws": 1500, "tune": 300, "chains": 2},
    )
    assert drawn.names == ("sd(g: Intercept)", "sigma")
    exact = analytic(one_way, log_a, log_e)
    for j, (values, mass) in enumerate(exact):
        cdf = np.cumsum(mass) - mass / 2.0
        found, ess = drawn.parameters[:, j], drawn.ess_bulk[j]
        ranks = np.interp(found, values, cdf)
        # Uniform if the posterior is right; every fourth draw is about independent.
        assert stats.kstest(ranks[::4], "uniform").pvalue > 1e-3
        for level in (0.05, 0.25, 0.5, 0.75, 0.95):
            share = np.mean(ranks < level)
            assert abs(share - level) < 4.0 * np.sqrt(level * (1 - level) / ess * 2)
        inside = np.average(np.log(values), weights=mass)
        spread = np.sqrt(np.average((np.log(values) - inside) ** 2, weights=mass))
        error = np.log(found).mean() - inside
        assert abs(error) < 4.0 * spread / np.sqrt(ess) * 1.5


@pytest.fixture(scope="module")
def linear():
    data = table(2, n=30)
    made = design("y ~ x + z", data, weights="w", offset="o")
    prior = {"residual": inverse_wishart(4.0, 100.0)}
    control = {"seed": 2, "draws": 1000, "tune": 300, "chains": 2}
    return made, sample(made, prior=prior, control=control)


def test_general_linear_model_has_its_conjugate_posterior(linear):
    """sigma^2 inverse gamma, beta t with nu + n - p degrees of freedom."""
    made, drawn = linear
    X = made.X.to_numpy() * np.sqrt(made.weights)[:, None]
    y = (made.y - made.offset) * np.sqrt(made.weights)
    XtX = np.linalg.inv(X.T @ X)
    beta = XtX @ X.T @ y
    nu = 4.0 + len(y) - X.shape[1]
    S = 100.0 + np.sum((y - X @ beta) ** 2)
    exact = stats.invgamma(nu / 2.0, scale=S / 2.0)
    assert stats.kstest(drawn.sigma[::4] ** 2, exact.cdf).pvalue > 1e-3
    for j in range(3):
        exact = stats.t(nu, beta[j], np.sqrt(XtX[j, j] * S / nu))
        assert stats.kstest(drawn.beta[::2, j], exact.cdf).pvalue > 1e-3


def test_record_is_complete_and_in_the_users_units():
    data = table()
    made = design("y ~ x + (x | g) + (1 | h)", data)
    control = {"seed": 3, "draws": 40, "tune": 100, "chains": 2, "effects": 10}
    drawn = sample(made, control=control)
    assert drawn.names == (
        "sd(g: Intercept)",
        "sd(g: x)",
        "cor(g: Intercept, x)",
        "sd(h: Intercept)",
        "sigma",
    )
    assert drawn.parameters.shape == (80, 5)
    assert [T.shape for T in drawn.T] == [(80, 2, 2), (80, 1, 1)]
    assert drawn.beta.shape == (10, 2)
    assert [b.shape for b in drawn.b] == [(10, 7, 2), (10, 5, 1)]
    assert drawn.effects.tolist() == np.linspace(0, 79, 10).round().tolist()
    Sigma = drawn.sigma[:, None, None] ** 2 * drawn.T[0] @ drawn.T[0].swapaxes(1, 2)
    sd = np.sqrt(np.diagonal(Sigma, axis1=1, axis2=2))
    assert drawn.parameters[:, :2] == pytest.approx(sd)
    correlation = Sigma[:, 1, 0] / sd[:, 0] / sd[:, 1]
    assert drawn.parameters[:, 2] == pytest.approx(correlation)
    assert drawn.parameters[:, -1] == pytest.approx(drawn.sigma)
    assert np.all(np.isfinite(drawn.log_posterior - drawn.log_prior))
    assert drawn.by_chain(drawn.parameters).shape == (2, 40, 5)
    assert drawn.sample_stats["diverging"].shape == (2, 40)
    # The response is 20 + 1.5 x, effects of 8 and 2, residuals of 5.
    assert drawn.beta[:, 1].mean() == pytest.approx(1.5, abs=2.5)
    assert np.median(drawn.sigma) == pytest.approx(5.0, rel=0.3)


def test_a_seed_gives_the_same_draws_again():
    made = design("y ~ x + (1 | g)", table())
    control = {"seed": 9, "draws": 30, "tune": 60, "chains": 2}
    one, two = sample(made, control=control), sample(made, control=control)
    other = sample(made, control={**control, "seed": 10})
    assert np.array_equal(one.parameters, two.parameters)
    assert np.array_equal(one.beta, two.beta)
    assert np.array_equal(one.b[0], two.b[0])
    assert not np.array_equal(one.parameters, other.parameters)


def test_a_variance_that_reml_puts_at_zero_has_a_posterior():
    data = mf.datasets.load("Dyestuff2")
    control = {"seed": 1, "draws": 500, "tune": 300, "chains": 2}
    drawn = sample(design("Yield ~ 1 + (1 | Batch)", data), control=control)
    sd = drawn.parameters[:, 0]
    assert drawn.fit.T[0][0, 0] == 0.0
    assert np.all(sd > 0.0)
    assert drawn.n_divergent == 0
    assert np.quantile(sd, 0.05) < 0.3 < np.median(sd) < 2.0


def test_chains_at_a_time_draw_what_they_draw_in_turn():
    """Threads share one factorization's memory: a lock keeps them apart."""
    arguments = {"relationship": {"g": pedigree()}}
    made = design("y ~ x + (1 | g) + (1 | h)", table(), **arguments)
    control = {"seed": 6, "draws": 30, "tune": 50, "chains": 2}
    one = sample(made, control={**control, "backend": "sparse"})
    two = sample(made, control={**control, "backend": "sparse", "cores": 2})
    assert np.array_equal(one.parameters, two.parameters)
    assert np.array_equal(one.b[0], two.b[0])
    assert one.fit.evaluation.problem.equations.name == "sparse"


def test_one_chain_has_no_rhat():
    made = design("y ~ x + (1 | g)", table())
    control = {"seed": 3, "draws": 300, "tune": 100, "chains": 1}
    drawn = sample(made, control=control)
    assert np.all(np.isnan(drawn.rhat))
    assert drawn.warnings == ()


def test_too_few_draws_are_said_to_be_too_few():
    made = design("y ~ x + (x | g)", table())
    control = {"seed": 3, "draws": 20, "tune": 50, "chains": 2}
    text = " ".join(sample(made, control=control).warnings)
    assert "effective size of" in text
    assert "below 100 for each chain" in text


def test_warnings_name_the_worst_parameter():
    options = Sampling(chains=2)
    stats_ = {"diverging": np.array([[True, False], [True, False]])}
    good = np.array([1.0, 1.0])
    rhat, ess = np.array([1.0, 1.2]), np.array([150.0, 500.0])
    names = ("sd(g: x)", "sigma")
    rows = warnings_of(names, options, stats_, (rhat, ess, ess))
    assert "R-hat of sigma is 1.200" in rows[0]
    assert "sd(g: x) is 150" in rows[1]
    assert "2 transitions diverged" in rows[2]
    calm = {"diverging": np.zeros((2, 2), bool)}
    assert warnings_of(names, options, calm, (good, ess * 3, ess * 3)) == ()


def test_options_are_read_from_control():
    options, search = resolve_sampling({"draws": 7, "backend": "dense", "seed": 4})
    assert (options.draws, options.seed, options.chains) == (7, 4, 4)
    assert search.backend == "dense"
    assert resolve_sampling(Control(tolerance=1e-8))[1].tolerance == 1e-8
    assert Sampling(draws=10, chains=2, effects=100).n_effects == 20


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ({"draw": 10}, "Did you mean 'draws'"),
        ({"draws": 0}, "draws must be a whole number of at least 4, got 0"),
        ({"chains": True}, "chains must be a whole number"),
        ({"tune": 2.5}, "tune must be a whole number"),
        ({"seed": "a"}, "seed must be a whole number"),
        ({"target_accept": 1.0}, "target_accept must lie between 0 and 1"),
        ([1], "control is a list, not a mapping"),
    ],
)
def test_a_wrong_option_is_refused(control, message):
    with pytest.raises(DesignError, match=message):
        resolve_sampling(control)


@pytest.mark.parametrize(
    ("formula", "arguments", "message"),
    [
        ("y ~ cs(0 + h | g)", {}, "no priors for the structure of cs"),
        ("y ~ (1 | g)", {"residual": "cs(h | g)"}, "residual structure"),
        ("y ~ (1 | g)", {"dispersion": "~ x"}, "residual structure or dispersion"),
    ],
)
def test_a_structure_without_priors_is_refused(formula, arguments, message):
    data = table().drop_duplicates(["g", "h"]).astype({"h": str})
    with pytest.raises(DesignError, match=message) as failure:
        sample(design(formula, data, **arguments))
    assert "REML" in str(failure.value)


def test_missing_sampler_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nutpie", None)
    with pytest.raises(MixformError, match=r'pip install "mixform\[bayes\]"'):
        sample(design("y ~ (1 | g)", table()), prior={"g": half_t()})
