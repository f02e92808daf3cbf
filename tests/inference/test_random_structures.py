"""After the fit of structured random terms: tests, errors, refits, references."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.inference.kenward_roger import kenward_roger
from mixform.inference.satterthwaite import variance_model
from tests import kenward_roger_oracle as oracle
from tests.estimate.test_random_structures import draw, every, formula

REFERENCES = Path(__file__).parents[1] / "references"
RECORD = json.loads((REFERENCES / "random_structures.json").read_text())
MODELS = {model["id"]: model for model in RECORD["models"]}


def numbers(printed):
    return np.array(printed, dtype=float)


@pytest.mark.parametrize("name", MODELS)
def test_criterion_and_estimates_agree_with_glmmtmb_and_nlme(name):
    model = MODELS[name]
    data = (
        mf.datasets.load("machines")
        if model["data"] == "machines"
        else pd.read_csv(REFERENCES / "data" / f"{model['data']}.csv")
    )
    m = mf.fit(model["formula"], data, method=model["method"])
    assert m.convergence.converged
    assert m.criterion <= float(model["criterion"]) + 1e-5
    assert m.criterion == pytest.approx(float(model["criterion"]), abs=1e-5)
    beta = numbers(model["beta"])
    np.testing.assert_array_less(np.abs(m.params - beta), 1e-3 * m.bse)
    if model["package"] == "nlme":  # glmmTMB's take in the variances' uncertainty
        np.testing.assert_allclose(m.bse, numbers(model["se"]), rtol=1e-4)
    assert m.sigma == pytest.approx(float(model["sigma"]), rel=1e-4)
    T = m._fit.T[0]
    theirs = np.array([numbers(row) for row in model["covariance"]])
    variances = m.sigma**2 * T @ T.T
    # A standard error of a variance is at least a tenth of it in data of this size.
    np.testing.assert_allclose(variances, theirs, atol=1e-4 * theirs.max())


def natural_part(m, name):
    """Phi as SAS has it, and V(phi) of the structured term, from definitions."""
    block = m._fit.design.blocks[0]
    table = m.random_parameters()
    values = table["estimate"].to_numpy()
    sd = table["parameter"].str.startswith("sd").to_numpy()
    phi = np.where(sd, values**2, values)
    Z, k = block.Z.toarray(), block.k

    def Sigma(psi):
        if name == "fa1":
            return np.outer(psi[:k], psi[:k]) + np.diag(psi[k:])
        if name == "rr":
            return np.outer(psi, psi)
        if name == "exp":
            return oracle.coordinates("exp", psi, np.arange(float(k))[:, None])
        if name in ("cs", "toep"):
            psi = np.concatenate([psi[:1], psi[:1] * psi[1:]])
        return oracle.positions(name, psi, k)

    def V(psi):
        return Z @ np.kron(np.eye(block.m), Sigma(psi)) @ Z.T

    return phi, V


@every
def test_kenward_roger_is_that_of_dense_matrices(name):
    m = mf.fit(formula(name), draw(31, m=14, n=110))
    fit = m._fit
    phi, V = natural_part(m, name)
    if name in ("cs", "toep"):  # linear in variance and covariances
        by_correlations = V
        phi[1:] *= phi[0]

        phi, V = oracle.added(
            (phi, lambda psi: by_correlations(np.append(psi[:1], psi[1:] / psi[0]))),
            oracle.independent_part(fit),
        )
    else:
        phi, V = oracle.added((phi, V), oracle.independent_part(fit))
    L = np.eye(2)[1:]
    adjusted, f_value, den_df = oracle.dense_kenward_roger(fit, V, phi, L)
    ours = kenward_roger(fit)
    np.testing.assert_allclose(ours.V_beta, adjusted, rtol=1e-6)
    assert ours.f_ddf(L)[0] == pytest.approx(den_df, rel=1e-6)
    assert f_value > 0.0


@every
def test_standard_errors_are_those_of_the_dense_information(name):
    m = mf.fit(formula(name), draw(31, m=14, n=110))
    assert m._fit.interior.all(), "the data were chosen so"
    phi, V_term = natural_part(m, name)
    phi, V = oracle.added((phi, V_term), oracle.independent_part(m._fit))
    X, y = m.design.X.to_numpy(), m._fit.design.y

    def deviance(psi):
        W = V(psi)
        inverse = np.linalg.inv(W)
        XtVinvX = X.T @ inverse @ X
        rest = y - X @ np.linalg.solve(XtVinvX, X.T @ inverse @ y)
        return (
            np.linalg.slogdet(W)[1]
            + np.linalg.slogdet(XtVinvX)[1]
            + rest @ inverse @ rest
        )

    t = len(phi)
    steps = 2e-4 * np.maximum(np.abs(phi), 0.1)
    H = np.empty((t, t))
    for a in range(t):
        for b in range(t):
            one, two = steps[a] * np.eye(t)[a], steps[b] * np.eye(t)[b]
            H[a, b] = (
                deviance(phi + one + two)
                - deviance(phi + one - two)
                - deviance(phi - one + two)
                + deviance(phi - one - two)
            ) / (4.0 * steps[a] * steps[b])
    se = np.sqrt(np.diag(2.0 * np.linalg.inv(H)))[:-1]
    table = m.random_parameters()
    sd = table["parameter"].str.startswith("sd").to_numpy()
    se = np.where(sd, se / (2.0 * table["estimate"]), se)
    np.testing.assert_allclose(table["se"], se, rtol=1e-3)


@every
def test_everything_after_the_fit(name, tmp_path):
    data = draw(31, m=14, n=110)
    data["arm"] = np.where(data["g"] % 2 == 0, "a", "b")
    m = mf.fit(formula(name).replace("x", "x + arm", 1), data)
    assert (m.anova()["den_df"] > 2).all()
    assert len(m.emmeans("arm").pairs().to_frame()) == 1
    pev = m.ranef(pev=True)
    assert len(pev) == 14 * 4
    assert (pev["pev"] >= -1e-12).all()
    np.testing.assert_allclose(m.predict(data), m.fittedvalues.to_numpy(), rtol=1e-10)
    new = data.head(3).assign(g="new")
    assert np.isfinite(m.predict(new, new_levels="population")).all()
    drawn = m.simulate(2, seed=1)
    assert drawn.shape == (len(data), 2)
    again = m.refit(data["y"])
    assert again.criterion == pytest.approx(m.criterion, abs=1e-7)
    replicates = m.bootstrap(3, seed=2)
    assert replicates.n_failed == 0
    smaller = mf.fit("y ~ x + arm + (1 | g)", data)
    table = mf.compare(smaller, m, refit=False)
    assert len(table) == 2
    assert len(m.ranova()) == 2
    path = tmp_path / "model.mixform"
    m.save(path)
    loaded = mf.load(path)
    assert loaded.criterion == pytest.approx(m.criterion, abs=1e-9)
    np.testing.assert_allclose(loaded.theta, m.theta, rtol=1e-12)
    pd.testing.assert_frame_equal(loaded.random_parameters(), m.random_parameters())


@every
def test_bootstrap_refits_are_new_fits(name):
    data = draw(32, m=14, n=110)
    m = mf.fit(formula(name), data)
    y = m.simulate(1, seed=4).iloc[:, 0]
    refitted, fresh = m.refit(y), mf.fit(formula(name), data.assign(y=y))
    assert refitted.criterion == pytest.approx(fresh.criterion, abs=1e-6)


@every
def test_profile_of_a_coefficient_is_that_of_constrained_fits(name):
    data = draw(33, m=14, n=110)
    m = mf.fit(formula(name), data, method="ML")
    limits = m.conf_int(method="profile").loc["x"]
    for value in limits[["lower", "upper"]]:
        fixed = data.assign(y=data["y"] - float(value) * data["x"])
        without = mf.fit(formula(name).replace("x + ", "", 1), fixed, method="ML")
        rise = without.criterion - m.criterion
        assert rise == pytest.approx(3.841458820694124, abs=2e-3)


def test_profile_of_a_common_standard_deviation():
    data = draw(33, m=14, n=110)
    m = mf.fit("y ~ x + ar1(0 + f | g)", data)
    table = m.conf_int(method="profile")
    sds = table[table.index.str.startswith("sd(")]
    assert np.ptp(sds["lower"]) < 1e-6
    assert (sds["lower"] < m.random_parameters()["estimate"][0]).all()
    correlations = table[table.index.str.startswith("cor(")]
    assert correlations["lower"].isna().all()
    assert correlations["reason"].str.contains("ar1").all()


def test_information_is_positive_where_all_parameters_are_inside():
    m = mf.fit("y ~ x + toeph(0 + f | g)", draw(31, m=14, n=110))
    model = variance_model(m._fit)
    assert model.V_phi is not None
    assert len(model.V_phi) == 4 + 3 + 1


def test_summary_prints_the_parameters():
    m = mf.fit("y ~ x + ar1(0 + f | g)", draw(31, m=14, n=110))
    estimate, se = m.random_parameters().loc[1, ["estimate", "se"]]
    assert f" g ar1: rho {estimate:.3f} (SE {se:.3f})" in str(m.summary())


def test_limits_have_no_standard_error_and_a_note():
    data = draw(22, Sigma=np.ones((4, 4)) * 2.0)
    m = mf.fit("y ~ x + exp(0 + f | g)", data)
    data["y"] = data["y"] - m.predict(data) + m.predict(data, random=False)
    m = mf.fit("y ~ x + csh(0 + f | g)", data)
    table = m.random_parameters()
    zero = table[table["parameter"].str.startswith("sd")]["estimate"] == 0.0
    assert table["se"][:4][zero].isna().all()
    if m.singular:
        assert "singular fit" in str(m.summary())


def test_unstructured_terms_have_no_parameters_of_their_own():
    assert len(mf.fit("y ~ x + (1 | g)", draw(1)).random_parameters()) == 0
