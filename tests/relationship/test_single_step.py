"""Single-step relationships: dense formulas, the covariance inverted, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import DesignError
from tests.relationship.test_related_models import (
    PEDIGREE,
    dense,
    records,
)

A = PEDIGREE.A()
RNG = np.random.default_rng(3)
#: Not in the order of the pedigree.
GENOTYPED = [str(i) for i in RNG.permutation(np.arange(15, 60))[:25]]
MARKERS = pd.DataFrame(
    RNG.binomial(2, RNG.uniform(0.1, 0.9, 400), (25, 400)).astype(float),
    index=GENOTYPED,
)
G = mf.genomic(MARKERS)
OPTIONS = {
    "default": {},
    "drift": {"align": "drift", "blend": 0.1},
    "as it is": {"align": "none", "blend": 0.02},
    "scaled": {"tau": 1.1, "omega": 0.8},
}


def dense_H_inverse(blend=0.05, align="means", tau=1.0, omega=1.0):
    """Return H^-1 and G_w from the formulas, by inverting matrices."""
    A22 = A.loc[GENOTYPED, GENOTYPED].to_numpy()
    blended = (1.0 - blend) * G.K.to_numpy() + blend * A22
    off = ~np.eye(25, dtype=bool)
    if align == "means":
        # two equations: diagonal and off-diagonal means
        lhs = [[1.0, np.diag(blended).mean()], [1.0, blended[off].mean()]]
        a, b = np.linalg.solve(lhs, [np.diag(A22).mean(), A22[off].mean()])
    elif align == "drift":
        a = A22.mean() - blended.mean()
        b = 1.0 - a / 2.0
    else:
        a, b = 0.0, 1.0
    G_w = a + b * blended
    out = pd.DataFrame(np.linalg.inv(A), A.index, A.index)
    change = tau * np.linalg.inv(G_w) - omega * np.linalg.inv(A22)
    out.loc[GENOTYPED, GENOTYPED] += change
    return out.to_numpy(), G_w


@pytest.mark.parametrize("case", OPTIONS)
def test_relation_is_that_of_the_dense_formula(case):
    H = mf.single_step(PEDIGREE, G, **OPTIONS[case])
    inverse, _ = dense_H_inverse(**OPTIONS[case])
    covariance = np.linalg.inv(inverse)
    np.testing.assert_allclose(H.precision.todense(), inverse, atol=1e-9)
    np.testing.assert_allclose(H.times(np.eye(60)), covariance, atol=1e-9)
    np.testing.assert_allclose(H.diagonal, covariance.diagonal(), atol=1e-9)
    half = H.half(np.eye(60))
    np.testing.assert_allclose(half @ half.T, covariance, atol=1e-9)
    assert H.logdet == pytest.approx(np.linalg.slogdet(covariance)[1], abs=1e-9)


def test_covariance_is_that_of_legarra():
    # Legarra, Aguilar and Misztal (2009): H11 = A11 + A12 A22^-1 (G - A22) A22^-1 A21,
    # H12 = A12 A22^-1 G, H22 = G
    H = mf.single_step(PEDIGREE, G, blend=0.02, align="none")
    _, G_w = dense_H_inverse(0.02, "none")
    others = [x for x in A.index if x not in GENOTYPED]
    A22 = A.loc[GENOTYPED, GENOTYPED].to_numpy()
    B = A.loc[others, GENOTYPED].to_numpy() @ np.linalg.inv(A22)
    K = pd.DataFrame(H.times(np.eye(60)), A.index, A.index)
    H11 = A.loc[others, others] + B @ (G_w - A22) @ B.T
    np.testing.assert_allclose(K.loc[others, others], H11, atol=1e-10)
    np.testing.assert_allclose(K.loc[others, GENOTYPED], B @ G_w, atol=1e-10)
    np.testing.assert_allclose(K.loc[GENOTYPED, GENOTYPED], G_w, atol=1e-10)


def test_alignment_gives_the_means_of_A22():
    H = mf.single_step(PEDIGREE, G)
    off = ~np.eye(25, dtype=bool)
    assert np.diag(H.H22).mean() == pytest.approx(np.diag(H.A22).mean())
    assert H.H22[off].mean() == pytest.approx(H.A22[off].mean())
    drift = mf.single_step(PEDIGREE, G, align="drift", blend=0.0)
    assert drift.shift == pytest.approx(H.A22.mean() - G.K.to_numpy().mean())


def test_pedigree_relationships_for_G_leave_the_pedigree():
    A22 = A.loc[GENOTYPED, GENOTYPED]
    H = mf.single_step(PEDIGREE, A22)
    np.testing.assert_allclose(
        H.precision.todense(), PEDIGREE.A_inverse().todense(), atol=1e-9
    )


@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_fit_is_that_of_dense_V_and_survives_saving(backend, tmp_path):
    data = records(PEDIGREE)
    H = mf.single_step(PEDIGREE, G)
    m = mf.fit(
        "y ~ x + (1 | animal)",
        data,
        relationship={"animal": H},
        control={"backend": backend},
    )
    K = np.linalg.inv(dense_H_inverse()[0])
    Z = (data["animal"].to_numpy()[:, None] == A.index.to_numpy()).astype(float)
    X = np.column_stack([np.ones(len(data)), data["x"]])
    ratio = m._fit.T[0][0, 0] ** 2
    V = np.eye(len(data)) + ratio * Z @ K @ Z.T
    criterion, beta, _, P = dense(V, data["y"].to_numpy(), X)
    assert m.criterion == pytest.approx(criterion, abs=1e-6)
    np.testing.assert_allclose(m.params, beta, rtol=1e-8)
    table = m.ranef(pev=True, reliability=True)
    np.testing.assert_allclose(
        table["estimate"], ratio * K @ Z.T @ P @ data["y"].to_numpy(), atol=1e-8
    )
    known = 1.0 - table["pev"] / (ratio * m.sigma**2 * K.diagonal())
    np.testing.assert_allclose(table["reliability"], known, atol=1e-8)
    assert "25 genotyped (G_w = " in str(m.summary())
    m.save(tmp_path / "model.mixform")
    again = mf.load(tmp_path / "model.mixform")
    assert again.criterion == pytest.approx(m.criterion, abs=1e-9)
    pd.testing.assert_frame_equal(again.ranef(pev=True), m.ranef(pev=True))


def test_simulated_effects_have_the_covariance_of_H():
    H = mf.single_step(PEDIGREE, G)
    m = mf.fit(
        "y ~ x + (1 | animal)",
        records(PEDIGREE),
        relationship={"animal": H},
        varcomp={"animal": 4.0, "residual": 1.0},
    )
    draws = m.simulate(20_000, seed=1).to_numpy()
    K = np.linalg.inv(dense_H_inverse()[0])
    codes = m._fit.design.blocks[0].codes
    V = 4.0 * K[np.ix_(codes, codes)] + np.eye(len(codes))
    error = np.cov(draws) - V
    scale = np.sqrt((np.outer(V.diagonal(), V.diagonal()) + V**2) / 20_000)
    assert np.abs(error / scale).max() < 5.5


def test_what_is_refused():
    stranger = G.K.rename(index={GENOTYPED[3]: "zz"}, columns={GENOTYPED[3]: "zz"})
    with pytest.raises(DesignError, match="'zz' is not in the pedigree"):
        mf.single_step(PEDIGREE, stranger)
    with pytest.raises(DesignError, match="G_w is not positive definite: its smallest"):
        mf.single_step(PEDIGREE, G, blend=0.0, align="none")
    with pytest.raises(DesignError, match=r"H\^-1 is not positive definite"):
        mf.single_step(PEDIGREE, G, tau=0.2, omega=3.0)
    with pytest.raises(DesignError, match="Unknown align 'mean'"):
        mf.single_step(PEDIGREE, G, align="mean")
    with pytest.raises(DesignError, match="blend is 1"):
        mf.single_step(PEDIGREE, G, blend=1.5)
    with pytest.raises(DesignError, match="cannot be aligned"):
        mf.single_step(PEDIGREE, 0.0 * G.K + 1.0, blend=0.0)


def test_relations_print_on_one_line():
    relations = [
        mf.single_step(PEDIGREE, G),
        mf.precision([[2.0, 0.0], [0.0, 4.0]], ["a", "b"]),
        mf.loading([[2.0], [2.0]], ["a", "b"]),
    ]
    for relation in relations:
        assert repr(relation) == f"<{relation.description}>"
        assert "array" not in repr(relation)
