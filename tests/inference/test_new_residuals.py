"""Predictions with residual structures: new rows and kriging, by dense algebra."""

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.call import design_of
from mixform.errors import DesignError, InferenceError
from mixform.estimate.criterion import evaluate
from mixform.inference.new_residuals import new_errors
from mixform.inference.new_rows import NewRows
from mixform.inference.satterthwaite import variance_model
from mixform.residual.model import build_residual_model
from tests.residual_models import MODELS, dense, dense_G, fit_of, longitudinal, name_of

#: With correlated residuals.
CORRELATED = [
    model for model in MODELS if model[1] is not None and "diag" not in model[1]
]


def joint_R(m, data, new):
    """Var(e) over sigma^2 of the rows of the fit and new ones: one design of both.

    Rows of `new` must not repeat a position of their subject.
    """
    both = pd.concat([data, new], ignore_index=True)
    both["y"] = np.append(data.y, np.arange(len(new)) % 2)
    model = m._call.changed(data=both)
    design = design_of(model)

    half = build_residual_model(design.residual).at(m._fit.rho).color(np.eye(len(both)))
    R = half @ half.T
    if design.weights is not None:
        R /= np.sqrt(np.outer(design.weights, design.weights))
    return R, design


def missing_visits(data):
    """The rows of the full data set that are not in a sample of it."""
    full = longitudinal(share=1.0)
    keys = set(zip(data.id, data.visit, strict=True))
    out = [(i, v) not in keys for i, v in zip(full.id, full.visit, strict=True)]
    return full[out].reset_index(drop=True)


@pytest.mark.parametrize("model", CORRELATED, ids=name_of)
def test_new_rows_of_known_subjects_are_predicted_by_universal_kriging(model):
    """BLUP of y_new and its error variance from the joint V, beta by GLS."""
    data = longitudinal()
    new = missing_visits(data)
    m = fit_of(model, data)
    R, design = joint_R(m, data, new)
    n, sigma2 = len(data), m.sigma**2
    Z = design.Z.toarray()
    V = sigma2 * (R + Z @ dense_G(m) @ Z.T)
    X, y = design.fixed.X, m.design.y
    Vi = np.linalg.inv(V[:n, :n])
    A = np.linalg.inv(X[:n].T @ Vi @ X[:n])
    beta = A @ X[:n].T @ Vi @ y
    k = V[n:, :n] @ Vi
    expected = X[n:] @ beta + k @ (y - X[:n] @ beta)
    left = X[n:] - k @ X[:n]
    variance = np.diag(V[n:, n:] - k @ V[:n, n:] + left @ A @ left.T)
    found = m.predict(new, residual=True, se=True)
    np.testing.assert_allclose(found.estimate, expected, atol=1e-8)
    np.testing.assert_allclose(found.se, np.sqrt(variance), rtol=1e-7)
    np.testing.assert_allclose(m.predict(new, residual=True), expected, atol=1e-8)


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_new_observation_has_the_variance_of_its_position(model):
    """In the rows of the fit: Var of x'b^ + z'u^ - (x'b + z'u), and R_ii."""
    data = longitudinal()
    m = fit_of(model, data)
    R, V, _, X = dense(m)
    Z, G = m.design.Z.toarray(), dense_G(m)
    Vi = np.linalg.inv(V)
    A = np.linalg.inv(X.T @ Vi @ X)
    left = X - Z @ G @ Z.T @ Vi @ X
    error = Z @ G @ Z.T - Z @ G @ Z.T @ Vi @ Z @ G @ Z.T + left @ A @ left.T
    variance = m.sigma**2 * np.diag(error + R)
    own = m.predict(interval="prediction")
    new = m.predict(data, interval="prediction")
    np.testing.assert_allclose(own.se, np.sqrt(variance), rtol=1e-8)
    np.testing.assert_allclose(new, own, rtol=1e-8)


@pytest.mark.parametrize("model", CORRELATED, ids=name_of)
def test_observed_residual_is_itself(model):
    if "nugget" in model[1]:
        pytest.skip("a nugget is drawn anew")
    data = longitudinal()
    found = fit_of(model, data).predict(data, residual=True, se=True)
    np.testing.assert_allclose(found.estimate, data.y, atol=1e-9)
    np.testing.assert_allclose(found.se, 0.0, atol=1e-9)


@pytest.mark.parametrize(
    "model", [MODELS[0], MODELS[10], MODELS[-3], MODELS[-2]], ids=name_of
)
def test_df_follow_the_residual_parameters(model):
    """Satterthwaite's, by differences of the variance over all parameters."""
    data = longitudinal()
    new = missing_visits(data).iloc[:4]
    m = fit_of(model, data)
    fit = m._fit

    table = NewRows(fit, new, [], errors="variances")
    errors, V_phi = new_errors(fit, table), variance_model(fit).V_phi
    at = m.predict(new, interval="prediction", random=False)

    def variances(psi):
        here = evaluate(fit.evaluation.problem, psi)
        half = np.linalg.solve(fit.design.fixed.R.T, table.X().T).T @ here.R_inverse
        total = errors.variances(here) + (half**2).sum(axis=1)
        for block, T in zip(m.design.blocks, here.T, strict=True):
            C = here.problem.Z_scales[list(m.design.blocks).index(block)]
            z = np.column_stack([np.ones(len(new)), new.x])[:, : block.k]
            total = total + ((z @ np.linalg.solve(C, T)) ** 2).sum(axis=1)
        return total

    psi, free = fit.scaled_theta, np.flatnonzero(fit.interior)
    slopes = [
        (variances(psi + 1e-4 * e) - variances(psi - 1e-4 * e)) / 2e-4
        for e in np.eye(len(psi))[free]
    ]
    v = variances(psi)
    g = np.array([*slopes, 2.0 * v])
    np.testing.assert_allclose(at.se, fit.sigma * np.sqrt(v), rtol=1e-9)
    expected = 2.0 * v**2 / np.einsum("tr,ts,sr->r", g, V_phi, g)
    np.testing.assert_allclose(at.df, expected, rtol=1e-4)


def field(seed=4, n=60):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.uniform(0.0, 10.0, (n, 2)), columns=["lat", "lon"])
    apart = np.linalg.norm(frame.to_numpy()[:, None] - frame.to_numpy(), axis=2)
    e = np.linalg.cholesky(np.exp(-apart / 3.0)) @ rng.normal(size=n)
    return frame.assign(y=2.0 + 0.5 * frame.lat + e)


def test_universal_kriging_is_that_of_a_text_book():
    """Weights from the bordered system of Cressie (1993): [C F; F' 0] (w, m) = (c, f).

    The variance is C(0) - w'c - m'f.
    """
    data, new = field(), field(9, 15).drop(columns="y")
    m = mf.fit("y ~ lat", data, residual="exp(lat + lon)")
    scale = float(m.residual_parameters().estimate["range"])

    def covariance(a, b):
        a, b = a[["lat", "lon"]].to_numpy(), b[["lat", "lon"]].to_numpy()
        apart = np.linalg.norm(a[:, None] - b, axis=2)
        return m.sigma**2 * np.exp(-apart / scale)

    F = np.column_stack([np.ones(len(data)), data.lat])
    f = np.column_stack([np.ones(len(new)), new.lat])
    bordered = np.block([[covariance(data, data), F], [F.T, np.zeros((2, 2))]])
    right = np.vstack([covariance(data, new), f.T])
    solved = np.linalg.solve(bordered, right)
    found = m.predict(new, residual=True, interval="prediction")
    expected = solved[: len(data)].T @ data.y.to_numpy()
    np.testing.assert_allclose(found.estimate, expected, atol=1e-9)
    variance = m.sigma**2 - np.einsum("ij,ij->j", solved, right)
    np.testing.assert_allclose(found.se, np.sqrt(variance), rtol=1e-9)
    again = m.predict(new, residual=True, interval="confidence")
    pd.testing.assert_frame_equal(found, again)


def test_far_from_all_the_prediction_is_that_without_residuals():
    data = field()
    m = mf.fit("y ~ lat", data, residual="exp(lat + lon)")
    far = pd.DataFrame({"lat": [1e6], "lon": [0.0]})
    alone = m.predict(far, interval="prediction")
    pd.testing.assert_frame_equal(
        m.predict(far, residual=True, interval="prediction"), alone
    )


def test_next_step_of_an_autoregression():
    """e_(t + h) is rho^h e_t on average, with variance sigma^2 (1 - rho^2h)."""
    rng = np.random.default_rng(1)
    e = np.zeros(80)
    for t in range(1, 80):
        e[t] = 0.7 * e[t - 1] + rng.normal()
    data = pd.DataFrame({"y": e, "t": np.arange(80), "id": 1})
    m = mf.fit("y ~ 0", data, residual="ar1(t | id)")
    rho = float(m.rho["rho"])
    new = pd.DataFrame({"t": [80, 83, 81], "id": [1, 1, 2]})
    found = m.predict(new, residual=True, se=True)
    last = m.design.y[-1]
    np.testing.assert_allclose(found.estimate, [rho * last, rho**4 * last, 0.0])
    share = np.array([1.0 - rho**2, 1.0 - rho**8, 1.0])
    np.testing.assert_allclose(found.se, m.sigma * np.sqrt(share), rtol=1e-9)


def test_rows_in_no_order_and_missing_values_keep_their_place():
    data = longitudinal()
    m = fit_of(("y ~ x + (1 | id)", "ar1(visit | id)", None, None), data)
    new = missing_visits(data)
    expected = m.predict(new, residual=True)
    mixed = new.iloc[::-1].assign(id=lambda d: d.id.astype(float))
    mixed.loc[3, "id"] = np.nan
    found = m.predict(mixed, residual=True)
    assert np.isnan(found[3])
    kept = found.index[found.index != 3]
    np.testing.assert_allclose(found[kept], expected[kept])


def test_columns_that_do_not_matter_are_not_needed():
    data = longitudinal()
    m = fit_of(("y ~ x", "ar1(visit | id)", None, None), data)
    found = m.predict(data[["x"]], interval="prediction")
    np.testing.assert_allclose(found, m.predict(interval="prediction"))
    with pytest.raises(DesignError, match="'id'"):
        m.predict(data[["x", "visit"]], residual=True)


def test_any_visit_is_as_good_with_compound_symmetry():
    data = longitudinal()
    m = fit_of(("y ~ x", "cs(visit | id)", None, None), data)
    new = data.drop_duplicates("id").iloc[:5]
    seen = m.predict(missing_visits(data).iloc[:1], residual=True)
    unseen = m.predict(missing_visits(data).iloc[:1].assign(visit=9), residual=True)
    np.testing.assert_allclose(seen, unseen)
    assert m.simulate(2, newdata=new.assign(visit=9), seed=1).notna().all(axis=None)


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (("y ~ x", "us(visit | id)", None, None), {"visit": 5}, "position '5' of 'v"),
        (("y ~ x", "arh1(visit | id)", None, None), {"visit": 5}, "position '5'"),
        (("y ~ x", "toep(visit | id)", None, None), {"visit": 0}, "position '0'"),
        (("y ~ x", "ar1(visit | id)", None, None), {"visit": 1.5}, "position '1.5'"),
        (("y ~ x", "us(visit | arm/id)", None, None), {"arm": "c"}, "stratum 'c'"),
        (("y ~ x", None, "~ arm", None), {"arm": "c"}, "level 'c'"),
        (("y ~ x", "exp(lat + lon)", None, None), {"lat": np.inf}, "infinite"),
    ],
)
def test_what_the_structure_does_not_know_is_named(model, change, message):
    data = longitudinal()
    m = fit_of(model, data)
    given, new = model[1] is not None, data.assign(**change)
    with pytest.raises((InferenceError, DesignError), match=message):
        m.predict(new, residual=given, interval="prediction")


def test_residuals_that_say_nothing_are_refused():
    data = longitudinal()
    m = fit_of(("y ~ x", "diag(visit | id)", None, None), data)
    with pytest.raises(InferenceError, match="independent"):
        m.predict(data, residual=True)
    m = fit_of(("y ~ x + (1 | id)", "ar1(visit | id)", None, None), data)
    with pytest.raises(InferenceError, match="observed, not predicted"):
        m.predict(residual=True)
    with pytest.raises(InferenceError, match="random=True"):
        m.predict(data, residual=True, random=False)
