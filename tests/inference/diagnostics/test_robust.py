"""Cluster-robust covariances: the formulas with n x n matrices, and clubSandwich."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import sqrtm

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.diagnostics import robust as module
from mixform.inference.diagnostics.robust import robust
from tests.diagnostics_references import MODELS, matrix, numbers, reference_fit

RECORDED = [name for name, model in MODELS.items() if "robust" in model]


def dense_V(fit):
    """V relative to sigma^2, from the blocks' Z and T."""
    weights = np.ones(fit.n) if fit.design.weights is None else fit.design.weights
    V = np.diag(1.0 / weights)
    for block, T in zip(fit.design.blocks, fit.T, strict=True):
        Z = block.Z.toarray() @ np.kron(np.eye(block.m), T)
        V += Z @ Z.T
    return V


def literal(fit, codes, kind):
    """The published formulas with matrices of n rows: V^R, and p_g for a contrast."""
    V, X, n = dense_V(fit), fit.design.fixed.X, fit.n
    W = np.linalg.inv(V)
    M = np.linalg.inv(X.T @ W @ X)
    offset = 0.0 if fit.design.offset is None else fit.design.offset
    e = fit.design.y - offset - X @ fit.beta
    rest = np.eye(n) - X @ M @ X.T @ W
    halves = []
    for g in range(codes.max() + 1):
        S = np.flatnonzero(codes == g)
        A = np.eye(len(S))
        if kind == "CR2":
            D = np.linalg.cholesky(V[np.ix_(S, S)]).T
            B = D @ (rest[S] @ V @ rest[S].T) @ D.T
            A = D.T @ np.real(sqrtm(np.linalg.pinv(B, rcond=1e-9))) @ D
        halves.append(rest[S].T @ A.T @ W[np.ix_(S, S)] @ X[S] @ M)  # (n, p)
    scores = np.array([half.T @ e for half in halves])
    return scores.T @ scores, halves, V


def literal_df(halves, V, ell):
    P = np.array([[(a @ ell) @ V @ (b @ ell) for b in halves] for a in halves])
    return np.trace(P) ** 2 / np.sum(P**2)


def literal_eta(halves, V, L):
    """q (q + 1) / the total variance of the scaled covariance of L beta."""
    Omega = sum(L @ half.T @ V @ half @ L.T for half in halves)
    values, vectors = np.linalg.eigh(Omega)
    scaled = vectors @ np.diag(values**-0.5) @ vectors.T @ L
    q, total = len(L), 0.0
    parts = [half @ scaled.T for half in halves]
    for a in parts:
        for b in parts:
            P = a.T @ V @ b
            total += np.sum(np.outer(np.diag(P), np.diag(P))) + np.sum(P * P.T)
    return q * (q + 1) / total


def unbalanced(weighted=False):
    data = mf.datasets.load("Oats").sample(frac=0.7, random_state=2).sort_index()
    data["w"] = 1.0 + np.arange(len(data)) % 4
    formula = "yield ~ nitro + Variety + (1 | Block/Variety)"
    return mf.fit(formula, data, weights="w" if weighted else None)._fit


@pytest.mark.parametrize("kind", ["CR0", "CR2"])
@pytest.mark.parametrize("weighted", [False, True])
def test_covariance_and_df_are_the_published_formulas(kind, weighted):
    fit = unbalanced(weighted)
    codes = next(b for b in fit.design.blocks if b.term.group == ("Block",)).codes
    V_beta, halves, V = literal(fit, codes, kind)
    found = robust(fit, kind=kind)
    assert (found.cluster, found.n_clusters) == ("Block", 6)
    np.testing.assert_allclose(found.V_beta, V_beta, rtol=1e-6)
    L = np.vstack([np.eye(4), [0.0, 1.0, -2.0, 0.5]])
    expected = [literal_df(halves, V, ell) for ell in L]
    np.testing.assert_allclose(found.t_ddf(L), expected, rtol=1e-6)
    eta = literal_eta(halves, V, L[1:4])
    np.testing.assert_allclose(
        found.f_ddf(L[1:4]), [eta - 2.0, (eta - 2.0) / eta], rtol=1e-6
    )


@pytest.mark.parametrize("name", RECORDED)
def test_robust_tests_agree_with_clubsandwich(name):
    fit = reference_fit(name)
    for reference in MODELS[name]["robust"]:
        found = robust(fit, kind=reference["kind"])
        size = np.sqrt(np.diag(found.V_beta))
        np.testing.assert_allclose(
            found.V_beta / np.outer(size, size),
            matrix(reference["V"]) / np.outer(size, size),
            atol=1e-5,
        )
        table = found.table
        np.testing.assert_allclose(table["df"], numbers(reference["df"]), rtol=1e-4)
        np.testing.assert_allclose(
            table["p_value"], numbers(reference["p"]), rtol=1e-3, atol=1e-14
        )
        if not reference.get("test"):
            continue
        expected = reference["test"]
        L = np.eye(len(fit.beta))[np.array(expected["rows"]) - 1]
        test = found.test(L)
        assert test.f_value == pytest.approx(float(expected["F"]), rel=1e-4)
        assert test.den_df == pytest.approx(float(expected["den_df"]), rel=1e-4)
        assert test.p_value == pytest.approx(float(expected["p"]), rel=1e-3)


def test_without_random_effects_cr0_is_the_sandwich_of_statsmodels():
    import statsmodels.formula.api as smf

    data = mf.datasets.load("sleepstudy")
    found = robust(mf.fit("Reaction ~ Days", data)._fit, data["Subject"], kind="cr0")
    groups = {"groups": data["Subject"].astype(int), "use_correction": False}
    ols = smf.ols("Reaction ~ Days", data).fit(cov_type="cluster", cov_kwds=groups)
    np.testing.assert_allclose(found.cov_params(), ols.cov_params(), rtol=1e-9)


def test_cr2_is_unbiased_where_the_working_model_holds():
    fit = unbalanced()
    found = robust(fit)
    own = found.D - np.einsum("gqp,gqr->gpr", found.H, found.H)
    # E V^R = M sum_g (D_g - H_g'H_g) M = M, in the scale where M = I.
    np.testing.assert_allclose(own.sum(axis=0), np.eye(4), atol=1e-8)


def test_robust_covariance_does_not_depend_on_coding_or_row_order():
    data = mf.datasets.load("Oats").iloc[:65]
    formula = "yield ~ Variety + (1 | Block)"
    first = robust(mf.fit(formula, data)._fit).test("Variety[T.Victory]")
    again = mf.fit(
        formula, data.sample(frac=1.0, random_state=3), contrasts={"Variety": "sum"}
    )._fit
    victory = {"Variety[S.Golden Rain]": -2.0, "Variety[S.Marvellous]": -1.0}
    second = robust(again).test(victory)
    assert second.den_df == pytest.approx(first.den_df, rel=1e-5)
    assert second.f_value == pytest.approx(first.f_value, rel=1e-5)


def test_more_fixed_effects_than_clusters_are_noted():
    data = mf.datasets.load("Oats")
    fit = mf.fit("yield ~ Variety * C(nitro) + (1 | Block)", data)._fit
    found = robust(fit)
    assert found.note is not None
    assert "6 clusters cannot determine the covariance of 12 fixed" in found.note
    assert robust(reference_fit("sleep")).note is None


def test_aliased_coefficients_are_nan():
    data = mf.datasets.load("sleepstudy").assign(
        twice=lambda frame: 2.0 * frame["Days"]
    )
    with pytest.warns(mf.RankDeficiencyWarning):
        fit = mf.fit("Reaction ~ Days + twice + (1|Subject)", data)._fit
    found = robust(fit)
    assert found.table.loc["twice"].isna().all()
    assert found.cov_params().loc["twice"].isna().all()


def test_crossed_clusters_are_refused_with_the_factor_that_crosses():
    fit = reference_fit("penicillin")
    with pytest.raises(InferenceError, match="plate, sample are crossed"):
        robust(fit)
    with pytest.raises(InferenceError, match="Levels of plate occur in several"):
        robust(fit, "sample")
    oats = reference_fit("oats")
    with pytest.raises(InferenceError, match="Levels of Block occur in several"):
        robust(oats, "Block:Variety")


def test_bad_arguments_are_refused(monkeypatch):
    fit = reference_fit("oats")
    with pytest.raises(InferenceError, match=r"Unknown kind 'CR5'"):
        robust(fit, kind="CR5")
    with pytest.raises(InferenceError, match=r"no grouping factor 'Bloc'"):
        robust(fit, "Bloc")
    with pytest.raises(InferenceError, match="one cluster"):
        robust(fit, pd.Series("a", index=fit.design.row_index))
    plain = mf.fit("Reaction ~ Days", mf.datasets.load("sleepstudy"))._fit
    with pytest.raises(InferenceError, match="no grouping factor to cluster by"):
        robust(plain)
    monkeypatch.setattr(module, "LARGEST_CLUSTER", 5)
    with pytest.raises(InferenceError, match=r"has 11 rows: CR2 would need .* GB"):
        robust(fit)
    assert robust(fit, kind="CR0").n_clusters == 6


def test_printout_shows_the_tests_and_no_arrays():
    m = mf.fit("Reaction ~ Days + (1 | Subject)", mf.datasets.load("sleepstudy"))
    lines = str(m.robust()).splitlines()
    assert lines[0] == "Cluster-robust tests (CR2), 18 clusters of Subject"
    assert lines[1].split() == ["estimate", "se", "df", "t_value", "p_value"]
    assert [line.split()[0] for line in lines[2:]] == ["Intercept", "Days"]


def test_hypothesis_with_more_rows_than_clusters_can_tell_is_refused():
    data = mf.datasets.load("Oats")
    m = mf.fit("yield ~ Variety * C(nitro) + (1 | Block)", data)
    with pytest.raises(InferenceError, match=r"CR0 by Block has rank \d along the 6"):
        m.anova(ddf=m.robust("Block", kind="CR0"))
