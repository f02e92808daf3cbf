"""Cluster-robust covariances with residual structures and related levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import sqrtm

import mixform as mf
from mixform.errors import InferenceError
from mixform.inference.diagnostics.robust import robust
from tests import kenward_roger_oracle as oracle
from tests.inference.test_kenward_roger_structures import families, visits

REFERENCE = Path(__file__).parents[2] / "references" / "robust_gls.txt"


def literal(fit, V, codes, kind):
    """The published formulas with n x n matrices: V^R, and p_g for a contrast."""
    X, n = fit.design.fixed.X, fit.n
    W = np.linalg.inv(V)
    M = np.linalg.inv(X.T @ W @ X)
    rest = np.eye(n) - X @ M @ X.T @ W
    halves = []
    for g in range(codes.max() + 1):
        S = np.flatnonzero(codes == g)
        X_g, W_g = X[S], W[np.ix_(S, S)]
        A = np.eye(len(S))
        if kind == "CR2":
            D = np.linalg.cholesky(V[np.ix_(S, S)]).T
            B = D @ (rest[S] @ V @ rest[S].T) @ D.T
            A = D.T @ np.real(sqrtm(np.linalg.pinv(B, rcond=1e-9))) @ D
        elif kind == "CR3":
            A = np.linalg.inv(A - X_g @ M @ X_g.T @ W_g)
        halves.append(rest[S].T @ A.T @ W_g @ X_g @ M)
    scores = np.array([half.T @ (fit.design.y - X @ fit.beta) for half in halves])
    return scores.T @ scores, halves


def check(fit, parts, codes, kind, **options):
    phi, V_of = oracle.added(*parts)
    V = V_of(phi)
    expected, halves = literal(fit, V, codes, kind)
    found = robust(fit, kind=kind, **options)
    np.testing.assert_allclose(found.V_beta, expected, rtol=1e-6, atol=1e-10)
    for ell, den_df in zip(
        np.eye(len(expected)), found.t_ddf(np.eye(len(expected))), strict=True
    ):
        P = np.array([[(a @ ell) @ V @ (b @ ell) for b in halves] for a in halves])
        assert den_df == pytest.approx(np.trace(P) ** 2 / np.sum(P**2), rel=1e-6)


@pytest.mark.parametrize("kind", ["CR0", "CR2", "CR3"])
@pytest.mark.parametrize("name", ["us", "ar1", "toeph", "gau"])
def test_subject_is_the_cluster_without_random_terms(name, kind):
    where = "lat + lon" if name == "gau" else "visit"
    m = mf.fit(
        "y ~ arm + x",
        visits(),
        residual=f"{name}({where} | id)",
        weights="w",
        dispersion="~ sex",
    )
    fit = m._fit
    parts = [oracle.residual_part(fit, name)]
    check(fit, parts, fit.design.residual.subjects, kind)
    check(fit, parts, fit.design.residual.subjects, kind, cluster="id")
    assert robust(fit).cluster == "id"


@pytest.mark.parametrize("kind", ["CR0", "CR2", "CR3"])
@pytest.mark.parametrize("structure", ["ar1(visit | id)", "ar1(visit | site:id)"])
def test_random_term_holds_the_subjects(structure, kind):
    m = mf.fit("y ~ arm + x + (1|site)", visits(), residual=structure, weights="w")
    parts = [oracle.random_part(m._fit), oracle.residual_part(m._fit, "ar1")]
    check(m._fit, parts, m._fit.design.blocks[0].codes, kind)


@pytest.mark.parametrize("kind", ["CR0", "CR2", "CR3"])
def test_unconnected_families_are_clusters(kind):
    pedigree, data = families()
    names = "stuvw"
    pedigree = pd.concat([f + pedigree for f in names])
    data = pd.concat([data.assign(animal=f + data["animal"]) for f in names])
    data["y"] += np.random.default_rng(1).normal(size=len(data))
    m = mf.fit("y ~ arm + x + (1|animal)", data, relationship={"animal": pedigree})
    parts = [oracle.random_part(m._fit), oracle.independent_part(m._fit)]
    family = data["animal"].str[0].to_numpy()
    codes = pd.factorize(family)[0]
    check(m._fit, parts, codes, kind, cluster=family)
    with pytest.raises(InferenceError, match=r"'?animal \(related\) occur in several"):
        robust(m._fit, data["herd"].to_numpy())
    with pytest.raises(InferenceError, match="animal are related or crossed"):
        robust(m._fit)


def test_clusters_within_subjects_are_refused():
    data = visits()
    m = mf.fit("y ~ arm + x", data, residual="us(visit | id)")
    with pytest.raises(InferenceError, match="Levels of id occur in several clusters"):
        robust(m._fit, data["lab"].to_numpy())
    field = mf.fit("y ~ arm + x", data, residual="exp(lat + time)")
    with pytest.raises(InferenceError, match="no grouping factor to cluster by"):
        robust(field._fit)


def test_effect_of_one_cluster_has_no_jackknife():
    data = visits()
    data["only"] = (data["id"] == 3) * data["x"]
    m = mf.fit("y ~ arm + only", data, residual="ar1(visit | id)")
    with pytest.raises(InferenceError, match=r"one cluster alone[\s\S]*CR2"):
        robust(m._fit, kind="CR3")


def recorded():
    """Return the tables of nlme and clubSandwich: (model, kind) -> rows."""
    out: dict[tuple[str, str], list[list[str]]] = {}
    rows: list[list[str]] = []
    for line in REFERENCE.read_text().splitlines()[1:]:
        if line.startswith("##"):
            rows = out.setdefault((line.split()[1], line.split()[2]), [])
        elif line.startswith(("age", "Sex", "(Int", "1", "2", "3", "4")):
            rows.append(line.split()[1:])
    return out


@pytest.mark.parametrize(("name", "kind"), recorded())
def test_agrees_with_clubsandwich_on_gls(name, kind):
    data = mf.datasets.load("Orthodont")
    left_out = [1, 10, 11, 28, 53, 89]
    data = data.drop(index=data.index[left_out])
    m = mf.fit("distance ~ age * Sex", data, residual=f"{name}(age | Subject)")
    table = robust(m._fit, kind=kind).table
    theirs = np.array(recorded()[name, kind], dtype=float)
    np.testing.assert_allclose(table["estimate"], theirs[:, 0], rtol=1e-5)
    np.testing.assert_allclose(table["se"], theirs[:, 1], rtol=1e-5)
    np.testing.assert_allclose(table["df"], theirs[:, 2], rtol=1e-4)
