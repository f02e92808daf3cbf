"""Conjugate gradients against the factorisation, and what they refuse."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_array

import mixform as mf
from mixform.errors import DesignError, SolverError
from mixform.mme import build_equations
from mixform.mme.equations import ZBlock
from tests.estimate.test_held import related_data
from tests.relationship.test_known_variances import animal_model, two_traits

CG = {"backend": "cg"}


def blocks(seed=0, n=80):
    rng = np.random.default_rng(seed)
    K = np.eye(7) + 0.3
    return (
        ZBlock(rng.integers(0, 9, n), rng.normal(size=(n, 2)), 9),
        ZBlock(rng.integers(0, 7, n), np.ones((n, 1)), 7, csc_array(np.linalg.inv(K))),
        ZBlock(rng.integers(0, 5, n), rng.normal(size=(n, 3)), 6),
    )


def test_solutions_and_products_are_those_of_the_dense_backend():
    rng = np.random.default_rng(1)
    T = [np.tril(rng.normal(size=(k, k))) for k in (2, 1, 3)]
    dense, cg = (build_equations(blocks(), name) for name in ("dense", "cg"))
    B = rng.normal(size=(dense.q, 3))
    B[:, 1] = 0.0
    assert cg.q == dense.q
    np.testing.assert_allclose(cg.ZtZ_dot(B), dense.ZtZ_dot(B))
    for transpose in (False, True):
        one, two = (e.Lambda_dot(T, B, transpose=transpose) for e in (cg, dense))
        np.testing.assert_allclose(one, two)
    W = rng.normal(size=(80, 2))
    np.testing.assert_allclose(cg.Zt_dot(W), dense.Zt_dot(W))
    factor = cg.factor(T)
    x = dense.factor(T).solve(B)
    np.testing.assert_allclose(factor.solve(B), x, rtol=1e-7, atol=1e-9)
    assert factor.residual < 1e-10
    assert factor.iterations > 0


def test_the_fit_is_that_of_a_factorisation():
    data, pedigree, _ = related_data()
    held = {"animal": 0.7, "animal.1": 0.2, "residual": 1.1}
    options = {"relationship": {"animal": pedigree}, "varcomp": held}
    formula = "y ~ 1 + (1 | animal) + iid(1 | animal)"
    one = mf.fit(formula, data, **options)
    two = mf.fit(formula, data, control=CG, **options)
    np.testing.assert_allclose(two.params, one.params, rtol=1e-9)
    np.testing.assert_allclose(two.bse, one.bse, rtol=1e-9)
    table, other = two.ranef(), one.ranef()
    np.testing.assert_allclose(table["estimate"], other["estimate"], atol=1e-8)
    assert table["se"].isna().all()
    np.testing.assert_allclose(two.fittedvalues, one.fittedvalues, rtol=1e-8)
    assert "relative residual of" in two.convergence.message
    assert two.converged
    assert np.isnan(two.criterion)
    assert "not computed by conjugate gradients" in str(two.summary())


def test_mrode_by_conjugate_gradients():
    m = animal_model(control=CG)
    assert m.ranef()["estimate"].round(3).tolist() == pytest.approx(
        animal_model().ranef()["estimate"].round(3).tolist()
    )
    with pytest.raises(SolverError, match="conjugate gradients give solutions only"):
        m.ranef(pev=True)
    with pytest.raises(SolverError, match="solutions only"):
        m.leverage()


def test_a_known_ratio_is_enough():
    data = mf.datasets.load("sleepstudy")
    held = {"Subject": mf.ratio([[0.9, 0.0], [0.0, 0.05]])}
    one = mf.fit("Reaction ~ Days + (Days | Subject)", data, varcomp=held)
    two = mf.fit("Reaction ~ Days + (Days | Subject)", data, varcomp=held, control=CG)
    assert two.sigma == pytest.approx(one.sigma, rel=1e-9)
    np.testing.assert_allclose(two.ddf, one.ddf)
    assert two.convergence.message.startswith("relative variances given")


def test_whitened_rows_are_solved_too():
    one = two_traits("5.2")
    two = one.update(control=CG)
    np.testing.assert_allclose(two.params, one.params, rtol=1e-8)
    np.testing.assert_allclose(
        two.ranef()["estimate"], one.ranef()["estimate"], atol=1e-8
    )


def test_a_saved_model_is_solved_again(tmp_path):
    m = animal_model(control=CG)
    m.save(tmp_path / "m.mixform")
    again = mf.load(tmp_path / "m.mixform")
    pd.testing.assert_frame_equal(again.ranef(), m.ranef())


@pytest.mark.parametrize(
    "varcomp", [None, {"residual": 900.0}, {"Subject": 900.0}], ids=str
)
def test_variances_cannot_be_estimated(varcomp):
    data = mf.datasets.load("sleepstudy")
    with pytest.raises(DesignError, match="cannot estimate any"):
        mf.fit("Reaction ~ Days + (1 | Subject)", data, varcomp=varcomp, control=CG)
