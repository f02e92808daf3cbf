"""Functions of variance components: closed forms, the dense oracle, bad expressions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.diagnostics.component_expression import evaluate
from mixform.inference.diagnostics.component_functions import Components
from mixform.inference.diagnostics.vcfun import (
    component_labels,
    variance_covariance,
    vcfun,
)
from mixform.inference.variance_components import varcorr
from tests import dense_oracle as oracle
from tests.diagnostics_references import oracle_of, reference_fit

TWO = Components(
    values={"a": 4.0, "b:c": 9.0, "s[Intercept]": 2.0, "s[x]": 3.0,
            "s[Intercept, x]": -1.0, "Residual": 5.0},
    columns={"a": ("Intercept",), "b:c": ("Intercept",), "s": ("Intercept", "x")},
)  # fmt: skip
VALUES = np.array(list(TWO.values.values()))


@pytest.fixture(scope="module")
def rail():
    return mf.fit("travel ~ 1 + (1|Rail)", mf.datasets.load("Rail"))._fit


def test_balanced_components_have_the_covariance_of_mean_squares(rail):
    # sigma^2 = MSE, v = (MSA - MSE) / 3 with independent mean squares: Var(MS) =
    # 2 E(MS)^2 / df, df 5 and 12 (Searle, Casella and McCulloch 1992, section 3.5).
    table = varcorr(rail)["vcov"].to_numpy()
    error, between = table[1], 3.0 * table[0] + table[1]
    var_error, var_between = 2.0 * error**2 / 12.0, 2.0 * between**2 / 5.0
    expected = [
        [(var_between + var_error) / 9.0, -var_error / 3.0],
        [-var_error / 3.0, var_error],
    ]
    found = variance_covariance(rail)
    assert list(found.columns) == ["Rail", "Residual"]
    size = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        found / np.outer(size, size), expected / np.outer(size, size), atol=1e-6
    )
    icc = vcfun(rail, "Rail / (Rail + residual)")
    v, e = table
    slope = np.array([e, -v]) / (v + e) ** 2
    se = np.sqrt(slope @ np.array(expected) @ slope)
    assert icc.estimate == pytest.approx(v / (v + e), rel=1e-9)
    assert icc.se == pytest.approx(se, rel=1e-6)
    width = ndtri(0.975) * se
    assert icc.upper - icc.lower == pytest.approx(2.0 * width, rel=1e-6)


def components(model, phi):
    """Components in the order of `varcorr`, sigma^2 last."""
    out = []
    for term, T in zip(model.terms, model.Ts(phi[:-1]), strict=True):
        Sigma = phi[-1] ** 2 * T @ T.T
        out += [Sigma[c, c] for c in range(term.k)]
        if not term.diagonal:
            out += [Sigma[r, c] for c in range(term.k) for r in range(c + 1, term.k)]
    return np.array([*out, phi[-1] ** 2])


@pytest.mark.parametrize("name", ["sleep_weighted", "oats", "penicillin"])
def test_covariance_is_the_inverse_hessian_of_the_dense_deviance(name):
    fit = reference_fit(name)
    model, phi = oracle_of(fit), np.append(fit.theta, fit.sigma)
    H = oracle.hessian(lambda at: oracle.deviance(model, at), phi)
    J = oracle.derivatives(lambda at: components(model, at), phi)
    expected = J.T @ (2.0 * np.linalg.inv(H)) @ J
    size = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        variance_covariance(fit) / np.outer(size, size),
        expected / np.outer(size, size),
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("expression", "function"),
    [
        ("a / (a + residual)", lambda v: v[0] / (v[0] + v[5])),
        ("sqrt(`b:c`) * 2 - exp(-a)", lambda v: 2 * v[1] ** 0.5 - np.exp(-v[0])),
        ("s[x, Intercept] / sqrt(s[Intercept] * s[x])",
         lambda v: v[4] / (v[2] * v[3]) ** 0.5),
        ("log(s[`x`]) ** 3 + a ** Residual",
         lambda v: np.log(v[3]) ** 3 + v[0] ** v[5]),
        ("s[Intercept, x]^2 - +1.5e1", lambda v: v[4] ** 2 - 15.0),
        ("a[Intercept] + 0 * RESIDUAL", lambda v: v[0]),
    ],
)  # fmt: skip
def test_expressions_and_their_derivatives(expression, function):
    value, gradient = evaluate(expression, TWO)
    assert value == pytest.approx(function(VALUES))
    steps = 1e-6 * np.eye(6)
    expected = [
        (function(VALUES + step) - function(VALUES - step)) / 2e-6 for step in steps
    ]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("a / (a + residul)", r"component 'residul'(.|\n)*Did you mean 'Residual'"),
        ("s / a", r"'s' has 2 random coefficients(.|\n)*Write s\[Intercept\]"),
        ("s[slope]", r"'s' has no random coefficient 'slope'"),
        ("s[Intercept, x, x]", "is no component"),
        ("d[x]", "component 'd'"),
        ("a +", "cannot be read"),
        ("b:c", "backticks"),
        ("", "not arithmetic on components"),
        ("a; b", "cannot be read"),
        ("a == 4", "a == 4 in 'a == 4' is not arithmetic"),
        ("a.real", "is not arithmetic"),
        ("__import__('os').getcwd()", "is not arithmetic"),
        ("open('x')", "is not arithmetic"),
        ("lambda: a", "is not arithmetic"),
        ("sqrt(a, a)", "is not arithmetic"),
        ("a % 2", "is not arithmetic"),
        ("True + a", "is not arithmetic"),
        ("'a'", "is not arithmetic"),
        ("a / (a - 4)", r"a / \(a - 4\) in .* divides by zero"),
        ("sqrt(3 - `b:c`)", r"sqrt\(3 - `b:c`\) in .* its argument is -6"),
        ("log(a - 4)", "its argument is 0"),
        ("(3 - a) ** 0.5", "the base is -1"),
        ("0 ** (-a)", "the base is 0"),
        ("exp(1000 * a)", "has no value at the estimates"),
    ],
)
def test_bad_expressions_are_refused(expression, message):
    with pytest.raises(InferenceError, match=message):
        evaluate(expression, TWO)


def test_what_is_not_a_string_is_refused(rail):
    with pytest.raises(InferenceError, match="The expression is 3"):
        vcfun(rail, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InferenceError, match="confidence level"):
        vcfun(rail, "Rail", level=95)


def test_labels_of_slopes_nesting_and_diagonal_terms():
    assert component_labels(reference_fit("sleep")) == (
        "Subject[Intercept]", "Subject[Days]", "Subject[Intercept, Days]", "Residual",
    )  # fmt: skip
    assert component_labels(reference_fit("oats"))[0] == "Block"
    data = mf.datasets.load("sleepstudy")
    m = mf.fit("Reaction ~ Days + (Days || Subject)", data)
    assert component_labels(m._fit) == (
        "Subject[Intercept]", "Subject[Days]", "Residual",
    )  # fmt: skip
    found = vcfun(m._fit, "sqrt(Subject[Days])")
    assert found.estimate == pytest.approx(np.sqrt(m.varcorr["vcov"].iloc[1]))
    nested = vcfun(reference_fit("oats"), "`Block:Variety` + Block")
    table = varcorr(reference_fit("oats"))
    assert nested.estimate == pytest.approx(table["vcov"].iloc[:2].sum())


def test_functions_do_not_depend_on_the_units_of_a_covariate():
    data = mf.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    share = "Subject[Days] / residual"
    first = vcfun(mf.fit(formula, data)._fit, share)
    hours = mf.fit(formula, data.assign(Days=24.0 * data["Days"] + 1e4))._fit
    second = vcfun(hours, share)
    assert second.estimate * 24.0**2 == pytest.approx(first.estimate, rel=1e-5)
    assert second.se * 24.0**2 == pytest.approx(first.se, rel=1e-4)


def test_a_variance_of_zero_has_no_standard_error_and_says_why():
    fit = mf.fit("Yield ~ 1 + (1|Batch)", mf.datasets.load("Dyestuff2"))._fit
    found = vcfun(fit, "Batch / (Batch + residual)")
    assert found.estimate == 0.0
    assert np.isnan([found.se, found.lower, found.upper]).all()
    assert "covariance of 'Batch' is singular" in found.notes[0]
    assert vcfun(fit, "sqrt(residual)").se > 0.0
    covariance = variance_covariance(fit)
    assert covariance.loc["Batch"].isna().all()
    assert covariance.loc["Residual", "Residual"] > 0.0
    assert "singular" in covariance.attrs["notes"][0]


def test_a_variance_near_zero_is_noted():
    fit = mf.fit("strength ~ 1 + (1|batch/cask)", mf.datasets.load("Pastes"))._fit
    found = vcfun(fit, "batch / residual")
    assert "'batch' is not 2 standard errors above zero" in found.notes[0]
    assert "batch / residual = " in str(found)
    assert vcfun(fit, "residual").notes == ()


def test_a_negative_variance_is_not_said_to_be_near_zero():
    """Its standard error is small: that of the small mean square of Batch."""
    data = mf.datasets.load("Dyestuff2")
    data["Yield"] -= 0.9 * data.groupby("Batch")["Yield"].transform("mean")
    fit = mf.fit("Yield ~ 1 + (1 | Batch)", data, method="ANOVA")._fit
    found = vcfun(fit, "Batch")
    assert found.estimate < -2.0 * found.se
    assert "'Batch' is not 2 standard errors above zero" in found.notes[0]


def test_a_model_without_random_effects_has_the_residual_variance():
    data = mf.datasets.load("sleepstudy")
    fit = mf.fit("Reaction ~ Days", data)._fit
    found = vcfun(fit, "residual")
    assert found.se == pytest.approx(found.estimate * np.sqrt(2.0 / 178.0), rel=1e-9)
