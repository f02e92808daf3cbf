"""Profiles of models with residual structures, by a constrained search."""

import numpy as np
import pytest
from scipy.optimize import minimize

from mixform.estimate.criterion import LOG_2_PI, evaluate, parts_of_gradient
from mixform.inference.natural_parameters import residual_names, residual_values
from tests.residual_models import fit_of, longitudinal, name_of

Z = 1.959963984540054

MODELS = [
    ("y ~ x", "us(visit | id)", None, None),
    ("y ~ x", "toeph(visit | id)", None, "w"),
    ("y ~ x", "ar1(visit | arm/id)", "~ x", None),
    ("y ~ x", "ante1(visit | id)", None, None),
    ("y ~ x", "exp(lat + lon | id)", None, None),
    ("y ~ x + (1 | plot)", "ar1(visit | id)", "~ arm", None),
    ("y ~ x + (1 | site)", "cs(visit | id)", None, None),
]


def deviance(problem, at):
    """The criterion and its gradient by (psi, log sigma)."""
    psi, log_sigma = at[:-1], at[-1]
    here = evaluate(problem, psi)
    sigma2 = np.exp(2.0 * log_sigma)
    df = problem.residual_df
    determinants, quadratic = parts_of_gradient(here, psi)
    value = here.logdets + df * (LOG_2_PI + 2.0 * log_sigma) + here.r2 / sigma2
    by_sigma = 2.0 * (df - here.r2 / sigma2)
    return value, np.append(determinants + quadratic / sigma2, by_sigma)


def constrained(m, read, value):
    """The lowest criterion where read(psi, log sigma) is the value."""
    problem = m._fit.evaluation.problem
    at = np.append(m._fit.scaled_theta, np.log(m.sigma / problem.y_scale))
    at[at == 0.0] = 0.3  # a variance of zero is stationary
    found = minimize(
        lambda v: deviance(problem, v),
        at,
        jac=True,
        method="SLSQP",
        constraints={"type": "eq", "fun": lambda v: read(v) - value},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert found.success, found.message
    return found.fun - m._fit.evaluation.criterion


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_limits_are_where_the_lowest_criterion_has_risen_by_the_quantile(model):
    m = fit_of(model)
    fit, problem = m._fit, m._fit.evaluation.problem
    limits = m.conf_int(method="profile")
    names = residual_names(fit)
    assert list(limits.index[-len(names) - 2 : -2]) == names
    for j, name in enumerate(names):

        def read(at, j=j):
            sigma = np.exp(at[-1]) * problem.y_scale
            return residual_values(fit, at[problem.n_theta : -1], sigma)[j]

        for side in ("lower", "upper"):
            rise = constrained(m, read, limits.loc[name, side])
            assert rise == pytest.approx(Z**2, abs=2e-3), (name, side)


@pytest.mark.parametrize("model", [MODELS[0], MODELS[5]], ids=name_of)
def test_limits_of_a_coefficient_let_rho_vary(model):
    """Under ML: the deviance of the model with the coefficient's share subtracted."""
    data = longitudinal()
    m = fit_of(model, data, method="ML")
    limits = m.conf_int(method="profile", parameters="x").loc["x"]
    formula, residual, dispersion, weights = model
    for side in ("lower", "upper"):
        rest = data.assign(y=data.y - limits[side] * data.x)
        held = (formula.replace("y ~ x", "y ~ 1"), residual, dispersion, weights)
        rise = fit_of(held, rest, method="ML").criterion - m.criterion
        assert rise == pytest.approx(Z**2, abs=1e-3)


def test_variance_of_a_random_term_lets_rho_vary():
    m = fit_of(("y ~ x + (1 | plot)", "ar1(visit | id)", None, None))
    problem = m._fit.evaluation.problem
    limits = m.conf_int(method="profile", parameters="sd(plot: Intercept)").iloc[0]
    scale = float(problem.Z_scales[0][0, 0])
    for side in ("lower", "upper"):
        if limits[side] == 0.0:
            continue
        rise = constrained(
            m,
            lambda at: abs(at[0]) * np.exp(at[-1]) * problem.y_scale / scale,
            limits[side],
        )
        assert rise == pytest.approx(Z**2, abs=2e-3)


def test_profile_shows_all_parameters_along_the_way():
    m = fit_of(("y ~ x", "csh(visit | id)", None, None))
    found = m.profile(["rho", "sd(2)"])
    frame = found.to_frame()
    assert list(frame.columns[5:]) == [*residual_names(m._fit), "Intercept", "x"]
    for name in ("rho", "sd(2)"):
        rows = frame[frame.parameter == name]
        np.testing.assert_allclose(rows[name], rows["value"], rtol=1e-9)
    np.testing.assert_allclose(
        found.conf_int().loc["rho", ["lower", "upper"]].astype(float),
        m.conf_int(method="profile", parameters="rho")
        .loc["rho", ["lower", "upper"]]
        .astype(float),
        atol=1e-3,
    )
    assert found.zeta("rho", [0.4]).notna().all()


def test_range_without_a_limit_says_so():
    m = fit_of(("y ~ x", "mat(lat + lon | arm/site, nu=1.5)", None, None))
    found = m.conf_int(method="profile", parameters=["a:range", "b:range"])
    reasons = " ".join(found.reason)
    assert "edge of its range" in reasons
    assert found.lower.isna().any()
