"""What users may give as priors, what they get by default, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.integrate import trapezoid

import mixform as mf
from mixform.errors import DesignError
from mixform.estimate.bayes.propriety import infinite_moments, require_proper
from mixform.estimate.bayes.resolved import resolve_priors
from mixform.priors import flat, half_t, inverse_wishart, lkj
from tests.estimate.bayes.models import density_of, design, log_density, table


def lines(formula, prior=None, data=None, size=10.0, **arguments):
    made = design(formula, table() if data is None else data, **arguments)
    return dict(resolve_priors(made, prior, size).lines)


def test_default_is_half_t_of_the_size_of_the_response():
    data = table()
    made = design("y ~ x + (x | g)", data)
    priors = resolve_priors(made, None, 10.0)
    sd_x = data["x"].std(ddof=0)
    intercept, x = priors.terms[0].sds
    assert (intercept.df, intercept.scale) == (3.0, pytest.approx(25.0))
    assert (x.df, x.scale) == (3.0, pytest.approx(25.0 / sd_x))
    assert priors.residual == half_t(3, 25.0)
    assert priors.terms[0].correlation == lkj(1.0)
    assert "sd(g: Intercept)  half_t(3, 25)" in str(priors)
    assert "cor(g)            lkj(1)" in str(priors)
    assert "fixed effects     flat" in str(priors)


def test_priors_are_given_by_label():
    found = lines(
        "y ~ (x | g) + (1 | h)",
        {
            "g": [half_t(5, 4.0), lkj(3)],
            "g[x]": flat(),
            "h": inverse_wishart(4, 9.0),
            "Residual": flat("log"),
        },
    )
    assert found["sd(g: Intercept)"] == "half_t(5, 4)"
    assert found["sd(g: x)"] == 'flat("sd")'
    assert found["cor(g)"] == "lkj(3)"
    assert found["sd(h: Intercept)"] == "inverse_wishart(4, 9)"
    assert found["sigma"] == 'flat("log")'
    whole = lines("y ~ (x | g)", {"g": inverse_wishart(3, np.eye(2))})
    assert whole["cov(g)"] == "inverse_wishart(3, [[1.0, 0.0], [0.0, 1.0]])"


def test_inverse_wishart_of_one_variance_is_the_inverse_gamma():
    for sd in (0.3, 1.7):
        value, slope = log_density(inverse_wishart(5.0, 4.0), np.log(sd))
        exact = stats.invgamma(2.5, scale=2.0).logpdf(sd**2) + np.log(2.0 * sd**2)
        assert value == pytest.approx(exact)
        wishart = stats.invwishart(5.0, 4.0).logpdf(sd**2)
        assert value == pytest.approx(float(wishart) + np.log(2.0 * sd**2))
        assert slope == pytest.approx(-5.0 + 4.0 / sd**2)


@pytest.mark.parametrize("degrees", [1.0, 3.0, np.inf])
def test_half_t_integrates_to_one(degrees):
    at = np.linspace(-30.0, 30.0, 60_001)
    logs = [log_density(half_t(degrees, 2.0), one)[0] for one in at]
    assert trapezoid(np.exp(logs), at) == pytest.approx(1.0, abs=1e-8)


def test_extreme_values_have_a_density():
    for prior in (half_t(3, 1.0), half_t(np.inf, 1.0), inverse_wishart(3, 1.0)):
        for log_sd in (-900.0, 900.0):
            value, _ = log_density(prior, log_sd)
            assert value < -500.0 or np.isneginf(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: half_t(0), "half_t: df must be a positive number, got 0"),
        (lambda: half_t(3, -1.0), "half_t: scale must be a positive number"),
        (lambda: half_t("3"), "half_t: df must be a positive number, got '3'"),
        (lambda: half_t(3, np.inf), "half_t: scale must be a positive"),
        (lambda: lkj(0), "lkj: eta must be a positive number"),
        (lambda: flat("sds"), "Did you mean 'sd'"),
        (lambda: inverse_wishart(1, np.eye(2)), "df must be above 1"),
        (lambda: inverse_wishart(3, -1.0), "not positive definite"),
        (lambda: inverse_wishart(3, "one"), "the scale is a str, no matrix"),
        (lambda: inverse_wishart(3, [[1.0, 2.0], [0.0, 1.0]]), "square and symmetric"),
        (lambda: inverse_wishart(3, [[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
    ],
)
def test_a_prior_that_is_none_is_refused(make, message):
    with pytest.raises(DesignError, match=message):
        make()


@pytest.mark.parametrize(
    ("formula", "prior", "message"),
    [
        ("y ~ (x | g)", {"G": half_t()}, "prior names 'G'.*\nDid you mean 'g'"),
        ("y ~ (x | g)", {"g[X]": half_t()}, "Did you mean 'g\\[x\\]'"),
        ("y ~ (x | g)", [half_t()], "prior is a list, not a mapping"),
        ("y ~ (x | g)", {"g": 3.0}, "The prior of 'g' is 3.0, a float"),
        ("y ~ (x | g)", {"g": [lkj(1), lkj(2)]}, "two priors of the same: lkj"),
        ("y ~ (x | g)", {"g": [half_t(), flat()]}, "two priors of the same: half_t"),
        ("y ~ (x | g)", {"g[x]": lkj(1)}, "has one prior, of a standard deviation"),
        ("y ~ (x | g)", {"g[x]": [flat(), half_t()]}, "has one prior"),
        ("y ~ (x || g)", {"g": lkj(1)}, "has no correlations; lkj"),
        ("y ~ (x || g)", {"g": inverse_wishart(4, np.eye(2))}, "has no correlations"),
        ("y ~ (1 | g)", {"g": lkj(1)}, "has no correlations"),
        ("y ~ (x | g)", {"g": inverse_wishart(4, np.eye(3))}, "is of 3 coefficients"),
        ("y ~ (x | g)", {"g": inverse_wishart(4, 2.0)}, "is of 1 coefficients"),
        (
            "y ~ (x | g)",
            {"g": inverse_wishart(4, np.eye(2)), "g[x]": half_t()},
            "its whole covariance; no other",
        ),
        ("y ~ (x | g)", {"residual": lkj(1)}, "The residual has one prior"),
        ("y ~ (1 | g)", {"residual": [flat(), flat()]}, "The residual has one prior"),
    ],
)
def test_a_prior_that_does_not_fit_is_refused(formula, prior, message):
    with pytest.raises(DesignError, match=message):
        lines(formula, prior)


def groups(m, n=5):
    rng = np.random.default_rng(m)
    g, x = np.repeat(np.arange(m), n), np.tile(np.arange(n) * 1.0, m)
    y = rng.normal(size=m * n) + rng.normal(size=m)[g]
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": x.astype(int) % 2})


def proper(formula, data, prior, **arguments):
    made = design(formula, data, **arguments)
    try:
        require_proper(made, resolve_priors(made, prior, 1.0))
    except DesignError as failure:
        return "improper" not in str(failure)
    return True


@pytest.mark.parametrize(
    ("formula", "prior", "least"),
    [
        # Gelman (2006): a flat standard deviation needs 3 groups; Hobert and Casella
        # (1996): m > 1 - 2 a for p(sigma^2) = sigma^-2(a + 1), a = -1 flat on it.
        ("y ~ 1 + (1 | g)", flat(), 3),
        ("y ~ 1 + (1 | g)", flat("variance"), 4),
        ("y ~ 0 + (1 | g)", flat("variance"), 3),
        ("y ~ x + (x || g)", flat(), 3),
        ("y ~ x + (x || g)", flat("variance"), 4),
        ("y ~ 1 + (x || g)", flat("variance"), 4),
        ("y ~ x + (x | g)", flat(), 3),
        # Sigma given the groups' coefficients is inverse Wishart with m - k - 2 degrees
        # of freedom, which must be above k - 1: m > 2 k + 1.
        ("y ~ x + (x | g)", flat("covariance"), 6),
        ("y ~ x + I(x^2) + (x + I(x^2) | g)", flat("covariance"), 8),
    ],
)
def test_flat_priors_need_enough_groups(formula, prior, least):
    assert not proper(formula, groups(least - 1), {"g": prior})
    assert proper(formula, groups(least), {"g": prior})


def test_tail_of_the_one_way_posterior_falls_as_the_condition_says():
    """The posterior of sigma_a falls as its power 1 - (m - 1) under a flat variance."""
    for m in (3, 6):
        density = density_of(design("y ~ 1 + (1 | g)", groups(m)))
        logs = [density.log_likelihood(np.array([t, 0.0])) for t in (10.0, 12.0)]
        assert (logs[1] - logs[0]) / 2.0 == pytest.approx(-(m - 1), abs=1e-4)


def test_flat_priors_of_several_terms_share_the_data():
    data = groups(3)
    assert proper("y ~ 1 + (1 | g)", data, {"g": flat()})
    # Two levels of h have one contrast.
    assert not proper("y ~ 1 + (1 | g) + (1 | h)", data, {"h": flat()})
    assert proper("y ~ 1 + (1 | g) + (1 | h)", data, {"g": flat()})
    # g within two arms: three groups have one contrast beyond the arm.
    data["arm"] = np.where(data["g"] == 0, "a", "b")
    assert not proper("y ~ arm + (1 | g)", data, {"g": flat()})


def test_flat_logarithm_is_for_the_residual_only():
    made = design("y ~ 1 + (1 | g)", groups(9))
    priors = resolve_priors(made, {"g": flat("log")}, 1.0)
    with pytest.raises(DesignError, match="infinite mass at zero"):
        require_proper(made, priors)
    assert proper("y ~ 1 + (1 | g)", groups(9), {"residual": flat("log")})


def test_flat_residual_needs_residual_degrees_of_freedom():
    data = groups(1, 4)
    cubic = "y ~ x + I(x^2)"  # n - p = 1
    assert proper(cubic, data, {"residual": flat("log")})
    assert not proper(cubic, data, {"residual": flat()})
    assert proper("y ~ x", data, {"residual": flat()})
    assert not proper("y ~ x", data, {"residual": flat("variance")})
    assert proper("y ~ 1", data, {"residual": flat("variance")})
    assert proper(cubic, data, {"residual": half_t()})


def test_flat_log_residual_is_improper_where_effects_fit_any_response():
    data = groups(6, 1)
    labels = [str(i) for i in range(6)]
    K = pd.DataFrame(0.5 * np.eye(6) + 0.5, index=labels, columns=labels)
    K.iloc[0, 0] = 2.0
    arguments = {"relationship": {"g": K}}
    formula = "y ~ 1 + (1 | g)"
    assert not proper(formula, data, {"residual": flat("log")}, **arguments)
    assert proper(formula, data, {"residual": flat()}, **arguments)


@pytest.mark.parametrize(
    ("formula", "prior", "m", "moment"),
    [
        # sigma^2 given the groups' means is inverse gamma of shape (m - 2) / 2, or of
        # (m - 3) / 2 if it is flat on the variance; E sigma^r needs more than r / 2.
        ("y ~ 1 + (1 | g)", flat(), 3, "mean"),
        ("y ~ 1 + (1 | g)", flat(), 4, "standard deviation"),
        ("y ~ 1 + (1 | g)", flat(), 5, None),
        ("y ~ 1 + (1 | g)", flat("variance"), 4, "mean"),
        ("y ~ 1 + (1 | g)", flat("variance"), 5, "standard deviation"),
        ("y ~ 1 + (1 | g)", flat("variance"), 6, None),
        # Each variance of an inverse Wishart (k, k) of m - k - 2 degrees of freedom is
        # inverse gamma of shape (m - 2 k - 1) / 2.
        ("y ~ x + (x | g)", flat("covariance"), 6, "mean"),
        ("y ~ x + (x | g)", flat("covariance"), 7, "standard deviation"),
        ("y ~ x + (x | g)", flat("covariance"), 8, None),
        ("y ~ 1 + (1 | g)", half_t(1), 2, None),
    ],
)
def test_infinite_moments_are_those_of_the_inverse_gamma(formula, prior, m, moment):
    made = design(formula, groups(m))
    found = infinite_moments(made, resolve_priors(made, {"g": prior}, 1.0))
    assert [one[1:] for one in found] == ([] if moment is None else [(moment, m - 1)])


def test_infinite_moment_of_the_residual():
    """By OLS sigma^2 is inverse gamma of shape (n - p - 1) / 2, flat on sigma."""
    for n, moment in ((4, "mean"), (5, "standard deviation"), (6, None)):
        made = design("y ~ x", groups(1, n))
        priors = resolve_priors(made, {"residual": flat()}, 1.0)
        wanted = [] if moment is None else [("sigma", moment, n - 2)]
        assert infinite_moments(made, priors) == wanted


def test_message_says_how_many_contrasts_there_are():
    made = design("y ~ 1 + (1 | g)", groups(3))
    priors = resolve_priors(made, {"g": flat("variance")}, 1.0)
    with pytest.raises(DesignError) as failure:
        require_proper(made, priors)
    text = str(failure.value)
    assert "flat prior of sd(g: Intercept)" in text
    assert "have 2 contrasts" in text
    assert "more than 2" in text
    assert "half_t()" in text


def test_module_is_public():
    assert mf.priors.half_t is half_t
