"""Leverages, residuals and deletions under residual structures, by n x n algebra."""

import numpy as np
import pytest

from mixform.errors import InferenceError
from mixform.inference.diagnostics.residuals import LEVELS
from tests.residual_models import MODELS, dense, dense_G, fit_of, longitudinal, name_of

CLOSE = {"rtol": 0.0, "atol": 1e-9}


@pytest.fixture(scope="module", params=MODELS, ids=name_of)
def fitted(request):
    m = fit_of(request.param)
    return m, *dense(m)


def without(m, V, X, keep):
    """GLS of the rows kept, the variances held: beta, sigma, X'V^-1X."""
    y = m.design.y[keep]
    Vi = np.linalg.inv(V[np.ix_(keep, keep)])
    A = X[keep].T @ Vi @ X[keep]
    beta = np.linalg.solve(A, X[keep].T @ Vi @ y)
    e = y - X[keep] @ beta
    return beta, np.sqrt(e @ Vi @ e / (keep.sum() - len(beta))), A, Vi @ e


def test_leverage_is_the_derivative_of_the_fitted_value(fitted):
    m, R, _, P, _ = fitted
    np.testing.assert_allclose(m.leverage(), 1.0 - np.diag(R @ P), **CLOSE)


def test_conditional_residuals_are_divided_by_their_errors(fitted):
    m, R, _, P, _ = fitted
    e = R @ P @ m.design.y / m.sigma
    scaled = e / np.sqrt(np.diag(R))
    np.testing.assert_allclose(m.residuals("pearson"), scaled, **CLOSE)
    np.testing.assert_allclose(m.residuals("scaled"), scaled, **CLOSE)
    own = e / np.sqrt(np.diag(R @ P @ R))
    np.testing.assert_allclose(m.residuals("studentized"), own, **CLOSE)


def test_deleted_residual_is_that_of_a_parameter_for_the_row(fitted):
    """t of a column for row i beside X, sigma without the row."""
    m, _, V, _, X = fitted
    found = m.residuals("deleted").to_numpy()
    y, n = m.design.y, m.nobs
    Vi = np.linalg.inv(V)
    for i in range(0, n, 13):
        more = np.column_stack([X, np.eye(n)[i]])
        A = np.linalg.inv(more.T @ Vi @ more)
        beta = A @ more.T @ Vi @ y
        e = y - more @ beta
        # The parameter counts as one more: df of the method, less one.
        sigma2 = e @ Vi @ e / (m.df_resid - 1)
        expected = beta[-1] / np.sqrt(sigma2 * A[-1, -1])
        assert found[i] == pytest.approx(expected, abs=1e-9)


def test_marginal_residuals_are_divided_by_their_errors(fitted):
    m, R, V, _, X = fitted
    e = (m.design.y - X @ m.params) / m.sigma
    hat = X @ np.linalg.solve(X.T @ np.linalg.inv(V) @ X, X.T)
    for kind, variance in (("scaled", R), ("pearson", V), ("studentized", V - hat)):
        np.testing.assert_allclose(
            m.residuals(kind, "marginal"), e / np.sqrt(np.diag(variance)), **CLOSE
        )


def test_normalized_residuals_have_the_sum_of_squares_of_R(fitted):
    m, R, _, _, _ = fitted
    e = m.resid.to_numpy() / m.sigma
    z = m.residuals("normalized").to_numpy()
    assert z @ z == pytest.approx(e @ np.linalg.solve(R, e), rel=1e-10)


def test_cooks_distance_is_how_far_beta_and_u_move(fitted):
    """d'C~d / (p sigma^2) of Henderson's equations with a parameter for the row."""
    m, R, _, P, X = fitted
    Z, G = m.design.Z.toarray(), dense_G(m)
    values, vectors = np.linalg.eigh(G)
    half = vectors * np.sqrt(np.where(values > 0.0, values, 0.0))
    W = np.column_stack([X, Z @ half])
    C = W.T @ np.linalg.solve(R, W)
    C[X.shape[1] :, X.shape[1] :] += np.eye(Z.shape[1])
    y, found = m.design.y, m.cooks_distance().to_numpy()
    for i in range(0, m.nobs, 13):
        delta = (P @ y)[i] / P[i, i]
        d = np.linalg.solve(C, W.T @ np.linalg.solve(R, np.eye(m.nobs)[i]) * delta)
        expected = d @ C @ d / (X.shape[1] * m.sigma**2)
        assert found[i] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("group", ["row", "id", "site", "visit"])
def test_influence_is_that_of_the_rows_left(fitted, group):
    m, _, V, _, X = fitted
    data = longitudinal()
    labels = None if group == "row" else data[group]
    found = m.influence(labels)
    codes = data.index if labels is None else labels
    for level in found.table.index[::9]:
        keep = (codes != level).to_numpy() if group != "row" else codes != level
        beta, sigma, A, _ = without(m, V, X, keep)
        change = beta - m.params
        np.testing.assert_allclose(found.dfbeta.loc[level], change, **CLOSE)
        assert found.table.loc[level, "sigma"] == pytest.approx(sigma, abs=1e-9)
        se = sigma * np.sqrt(np.diag(np.linalg.inv(A)))
        np.testing.assert_allclose(found.dfbetas.loc[level], change / se, **CLOSE)


def test_random_effects_without_a_group_are_those_of_the_rows_left(fitted):
    m, _, V, _, X = fitted
    if not m.design.blocks:
        pytest.skip("no random effects")
    visit = longitudinal().visit
    keep = (visit != 2).to_numpy()
    _, _, _, Vie = without(m, V, X, keep)
    b = dense_G(m) @ m.design.Z.toarray()[keep].T @ Vie
    parts, start = [], 0
    for block in m.design.blocks:
        end = start + block.m * block.k
        parts.append(b[start:end].reshape(block.m, block.k).T.ravel())
        start = end
    found = m.ranef_without(visit, 2).estimate
    np.testing.assert_allclose(found, np.concatenate(parts), **CLOSE)


def test_subject_of_the_structure_names_groups():
    m = fit_of(("y ~ x", "us(visit | arm/id)", None, None))
    assert len(m.influence("id").table) == len(m.influence("arm:id").table) == 24
    with pytest.raises(InferenceError, match=r"'ids'.*\n.*arm:id"):
        m.influence("ids")


def test_influence_by_refit_is_that_of_a_fit_without_the_rows():
    data = longitudinal()
    m = fit_of(("y ~ x", "csh(visit | id)", "~ arm", "w"), data)
    found = m.influence("id", refit=True)
    level = found.table.index[3]
    rest = data[data.id.astype(str) != level]
    own = fit_of(("y ~ x", "csh(visit | id)", "~ arm", "w"), rest)
    np.testing.assert_allclose(
        found.dfbeta.loc[level], own.params - m.params, rtol=1e-4
    )
    expected = own.residual_parameters().estimate
    np.testing.assert_allclose(
        found.variances.loc[level, expected.index], expected, rtol=1e-4
    )


def test_position_that_is_lost_leaves_no_answer():
    data = longitudinal()
    data.loc[data.visit == 4, "plot"] = 9
    m = fit_of(("y ~ x", "us(visit | id)", None, None), data)
    found = m.influence(data["plot"], refit=True)
    assert np.isnan(found.table.loc[9, "cook"])
    assert "no row at position '4' of residual is left" in found.notes[0]


@pytest.mark.parametrize("kind", ["normalized", "deleted"])
def test_kinds_of_conditional_residuals_only(kind):
    m = fit_of(("y ~ x", "ar1(visit | id)", None, None))
    assert "marginal" in LEVELS
    with pytest.raises(InferenceError, match=f"{kind.capitalize()} residuals"):
        m.residuals(kind, "marginal")
