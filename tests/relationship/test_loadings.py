"""Singular and low-rank covariances: dense V, and one answer by every route."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import DesignError, InferenceError
from mixform.estimate import related
from mixform.estimate.criterion import average_information, evaluate, gradient
from mixform.estimate.problem import build_problem
from mixform.inference.diagnostics.residuals import marginal_variances
from mixform.inference.satterthwaite import variance_model
from mixform.inference.selection.comparison import random_change
from mixform.relationship import resolve_relationship
from tests.relationship.test_related_models import PEDIGREE, dense, records

RNG = np.random.default_rng(11)
NAMES = [str(i) for i in range(1, 41)]
MARKERS = pd.DataFrame(RNG.integers(0, 3, (40, 70)).astype(float), index=NAMES)
MARKERS.loc["2"] = MARKERS.loc["1"]  # clones
G = mf.genomic(MARKERS).K
FEW = mf.genomic(MARKERS.iloc[:, :12]).K
N = 110


def phenotypes():
    rng = np.random.default_rng(5)
    names = rng.choice(NAMES[:30], N)
    root = np.linalg.cholesky(G.to_numpy() + 1e-9 * np.eye(len(G)))
    place = G.index.get_indexer(names)
    x = rng.standard_normal(N)
    b = root @ rng.standard_normal((len(G), 2)) * [2.0, 0.8]
    y = 3.0 + x + b[place, 0] + b[place, 1] * x + 1.5 * rng.standard_normal(N)
    herd = rng.integers(0, 6, N)
    return pd.DataFrame(
        {
            "animal": names,
            "dam": rng.choice(NAMES, N),
            "herd": herd,
            "x": x,
            "y": y + rng.standard_normal(6)[herd],
            "w": rng.uniform(0.5, 2.0, N),
        }
    )


DATA = phenotypes()
X = np.column_stack([np.ones(N), DATA["x"]])
MODELS = {
    "animal": "y ~ x + (1 | animal)",
    "regression": "y ~ x + (x | animal)",
    "independent": "y ~ x + (x || animal)",
    "crossed": "y ~ x + (1 | herd) + (x | animal) + iid(1 | animal)",
    "two": "y ~ x + (1 | animal) + (1 | herd) + (1 | dam)",
}


def fitted(name, K=G, **options):
    relationship = {"animal": K}
    if "dam" in MODELS[name]:
        relationship["dam"] = FEW
    return mf.fit(MODELS[name], DATA, relationship=relationship, **options)


def level_covariances(fit):
    """Var(b) of each term over sigma^2, (m k, m k)."""
    for block, T in zip(fit.design.blocks, fit.T, strict=True):
        eye = np.eye(block.m)
        K = eye if block.relation is None else block.relation.times(eye)
        yield np.kron(K, T @ T.T)


def relative_V(fit):
    V = np.eye(fit.n)
    if fit.design.weights is not None:
        V = np.diag(1.0 / fit.design.weights)
    for block, cov in zip(fit.design.blocks, level_covariances(fit), strict=True):
        V += block.Z @ cov @ block.Z.T
    return V


def test_the_matrices_are_singular_and_the_factor_returns_them():
    for K, rank in ((G, 38), (FEW, 12)):
        relation = resolve_relationship({"animal": K})["animal"]
        assert relation.loading.shape == (40, rank)
        np.testing.assert_allclose(relation.times(np.eye(40)), K, atol=1e-12)
        np.testing.assert_allclose(relation.diagonal, np.diag(K), atol=1e-12)
        half = relation.half(np.eye(40))
        np.testing.assert_allclose(half @ half.T, K, atol=1e-12)
        assert relation.precision is None
        assert f"covariance of rank {rank} of 40 members" in relation.description


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("name", MODELS)
def test_fit_is_that_of_dense_V_and_a_minimum(name, method, weights):
    m = fitted(name, method=method, weights=weights)
    fit = m._fit
    y = DATA["y"].to_numpy()
    V = relative_V(fit)
    criterion, beta, sigma2, P = dense(V, y, X, method == "REML")
    assert m.criterion == pytest.approx(criterion, abs=1e-6)
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-8)
    assert m.sigma**2 == pytest.approx(sigma2)
    for block, cov, b in zip(
        fit.design.blocks, level_covariances(fit), fit.b, strict=True
    ):
        np.testing.assert_allclose(b.ravel(), cov @ block.Z.T @ P @ y, atol=1e-8)
    np.testing.assert_allclose(
        marginal_variances(fit), sigma2 * V.diagonal(), rtol=1e-9
    )
    assert fit.convergence.converged
    for k in np.flatnonzero(fit.interior):
        for step in (0.05, -0.05):
            theta = fit.scaled_theta.copy()
            theta[k] += step
            there = evaluate(fit.evaluation.problem, theta)
            assert there.criterion > fit.evaluation.criterion


@pytest.mark.parametrize("name", MODELS)
def test_gradient_and_average_information_are_those_of_dense_V(name):
    fit = fitted(name)._fit
    problem = build_problem(fit.design, reml=True)
    theta = problem.start() * np.linspace(0.6, 1.2, problem.n_theta)
    here = evaluate(problem, theta)
    Q = fit.design.fixed.Q

    def V_at(theta):
        V = np.eye(N)
        for block, own, T in zip(
            fit.design.blocks, problem.blocks, problem.factors(theta), strict=True
        ):
            K = np.eye(block.m)
            K = K if block.relation is None else block.relation.times(K)
            S = np.zeros((N, block.m, block.k))
            S[np.arange(N), own.codes] = own.design
            S = S.reshape(N, -1)
            V += S @ np.kron(K, T @ T.T) @ S.T
        return V

    rest = DATA["y"] - Q @ (Q.T @ DATA["y"])
    y = rest.to_numpy() / problem.y_scale
    criterion, _, sigma2, P = dense(V_at(theta), y, Q)
    assert here.criterion == pytest.approx(criterion, abs=1e-6)
    step, slopes, dV = 1e-6, [], []
    for k in range(len(theta)):
        move = np.eye(len(theta))[k] * step
        high, low = V_at(theta + move), V_at(theta - move)
        dV.append((high - low) / (2.0 * step))
        slopes.append((dense(high, y, Q)[0] - dense(low, y, Q)[0]) / (2.0 * step))
    np.testing.assert_allclose(gradient(here, theta), slopes, atol=2e-6)
    q = np.column_stack([d @ P @ y for d in dV])
    line = q.T @ P @ y
    information = (q.T @ P @ q - np.outer(line, line) / (y @ P @ y)) / sigma2
    np.testing.assert_allclose(
        average_information(here, theta), information, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_of_V_beta_are_those_of_dense_V(name):
    fit = fitted(name)._fit
    slopes = variance_model(fit).dV_beta
    problem = fit.evaluation.problem
    for row, k in enumerate(np.flatnonzero(fit.interior)):
        sides = []
        for sign in (1.0, -1.0):
            theta = fit.scaled_theta.copy()
            theta[k] += sign * 1e-6
            here = evaluate(problem, theta)
            half = np.linalg.solve(fit.design.fixed.R, here.R_inverse)
            sides.append(fit.sigma**2 * half @ half.T)
        np.testing.assert_allclose(
            slopes[row], (sides[0] - sides[1]) / 2e-6, rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("name", MODELS)
def test_prediction_errors_and_leverages_are_those_of_dense_V(name, weights):
    m = fitted(name, weights=weights)
    fit = m._fit
    V = fit.sigma**2 * relative_V(fit)
    inverse = np.linalg.inv(V)
    P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    table = m.ranef(pev=True, reliability=True)
    Z = np.hstack([block.Z.toarray() for block in fit.design.blocks])
    parts = [fit.sigma**2 * cov for cov in level_covariances(fit)]
    size = sum(map(len, parts))
    prior, at = np.zeros((size, size)), 0
    for part in parts:
        prior[at : at + len(part), at : at + len(part)] = part
        at += len(part)
    error = prior - prior @ Z.T @ P @ Z @ prior
    given_beta = prior - prior @ Z.T @ inverse @ Z @ prior
    # The table goes coefficient by coefficient, the columns of Z level by level.
    order, at = [], 0
    for block in fit.design.blocks:
        order += list(at + np.arange(block.m * block.k).reshape(-1, block.k).T.ravel())
        at += block.m * block.k
    np.testing.assert_allclose(table["pev"], error.diagonal()[order], atol=1e-8)
    np.testing.assert_allclose(
        table["se"] ** 2, given_beta.diagonal()[order], atol=1e-8
    )
    before = prior.diagonal()[order]
    known = before > 0.0
    share = 1.0 - error.diagonal()[order][known] / before[known]
    np.testing.assert_allclose(table["reliability"][known], share, atol=1e-7)
    # Var of x'beta^ + z'b^ around the truth: of all rows, and of some as new data.
    R = fit.sigma**2 * (np.ones(N) if weights is None else 1.0 / DATA["w"].to_numpy())
    hat = np.eye(N) - R[:, None] * P
    np.testing.assert_allclose(m.leverage(), hat.diagonal(), atol=1e-8)
    of_rows = (hat * R).diagonal()
    se = m.predict(se=True)["se"]
    np.testing.assert_allclose(se**2, of_rows, atol=1e-8)
    some = DATA.iloc[3:20]
    again = m.predict(some, se=True, random=True)
    np.testing.assert_allclose(again["se"] ** 2, of_rows[3:20], atol=1e-8)


def test_predictions_of_members_without_records():
    m = fitted("animal")
    effects = m.ranef(pev=True).set_index("level")
    # 1 and 2 are clones: one effect, whether or not both have records.
    pd.testing.assert_series_equal(
        effects.loc["1"], effects.loc["2"], check_names=False
    )
    unseen = pd.DataFrame({"animal": ["35"], "x": [0.0]})
    expected = m.params["Intercept"] + effects.loc["35", "estimate"]
    assert float(m.predict(unseen).iloc[0]) == pytest.approx(expected)
    with pytest.raises(InferenceError, match="'nobody' is not in the relationship"):
        m.predict(unseen.assign(animal="nobody"), new_levels="population")


def test_clones_are_one_level_with_the_records_of_both():
    joined = DATA.assign(animal=DATA["animal"].replace("2", "1"))
    K = G.drop(index="2", columns="2")
    one = mf.fit(MODELS["regression"], joined, relationship={"animal": K})
    two = fitted("regression")
    assert two.criterion == pytest.approx(one.criterion, abs=1e-8)
    np.testing.assert_allclose(two.varcorr["vcov"], one.varcorr["vcov"], rtol=1e-6)


def test_one_answer_by_every_route():
    data = records(PEDIGREE)
    A = PEDIGREE.A()
    root = np.linalg.cholesky(A.to_numpy())
    turned = root @ np.linalg.qr(np.random.default_rng(0).standard_normal(A.shape))[0]
    wide = np.hstack([turned / np.sqrt(2.0), turned / np.sqrt(2.0)])
    given = {
        "pedigree": PEDIGREE,
        "covariance": A,
        "precision": mf.precision(PEDIGREE.A_inverse(), PEDIGREE.labels),
        "Cholesky factor": mf.loading(root, A.index),
        "another factor": mf.loading(pd.DataFrame(turned, A.index)),
        "wide factor": mf.loading(wide, A.index),
    }
    formula = "y ~ x + (x | animal)"
    fits = {
        (name, backend): mf.fit(
            formula,
            data,
            relationship={"animal": value},
            control={"backend": backend, "tolerance": 1e-13},
        )
        for name, value in given.items()
        for backend in ("dense", "sparse")
        if backend == "dense" or name != "another factor"
    }
    first = fits["pedigree", "dense"]
    effects = first.ranef(pev=True, reliability=True).set_index(["term", "level"])
    columns = ["estimate", "se", "pev", "reliability", "accuracy"]
    for m in fits.values():
        assert m.criterion == pytest.approx(first.criterion, abs=1e-8)
        again = m.ranef(pev=True, reliability=True).set_index(["term", "level"])
        np.testing.assert_allclose(
            again.loc[effects.index, columns], effects[columns], atol=2e-6
        )
    known = {"animal": [[4.0, 0.5], [0.5, 0.6]], "residual": 2.0}
    solved = [
        mf.fit(formula, data, relationship={"animal": value}, varcomp=known)
        for value in given.values()
    ]
    for m in solved[1:]:
        assert m.criterion == pytest.approx(solved[0].criterion, abs=1e-8)
        again = m.ranef(pev=True, reliability=True).set_index(["term", "level"])
        expected = solved[0].ranef(pev=True, reliability=True)
        expected = expected.set_index(["term", "level"])
        np.testing.assert_allclose(
            again.loc[expected.index, columns], expected[columns], atol=1e-8
        )


@pytest.mark.parametrize("small", [1e-6, 1e-9, 1e-10, 1e-12, 1e-14])
def test_no_digits_are_lost_near_singularity(small):
    K = G + small * np.eye(40)
    fit = fitted("animal", K)._fit
    theta = fit.scaled_theta
    V = np.eye(N) + fit.T[0][0, 0] ** 2 * fit.design.blocks[0].Z @ K @ (
        fit.design.blocks[0].Z.T
    )
    criterion = dense(V, DATA["y"].to_numpy(), X)[0]
    assert fit.criterion == pytest.approx(criterion, abs=1e-9)
    assert np.all(np.isfinite(theta))


def test_a_covariance_rounded_to_nine_digits_says_what_it_takes_as_zero():
    rounded = G.round(9)
    m = fitted("animal", rounded)
    assert "eigenvalues below 1e-08 of the largest" in str(m.summary())
    assert m.criterion == pytest.approx(fitted("animal").criterion, abs=1e-6)


def test_scan_profile_simulation_and_anova_work():
    m = fitted("animal")
    scan = mf.scan(m, MARKERS.iloc[:, :5], by="animal")
    V = m.sigma**2 * relative_V(m._fit)
    marker = MARKERS[0].loc[DATA["animal"]].to_numpy()
    W = np.column_stack([X, marker])
    half = np.linalg.solve(V, W)
    effect = np.linalg.solve(W.T @ half, half.T @ DATA["y"])[2]
    assert scan["effect"].iloc[0] == pytest.approx(effect, rel=1e-8)
    table = m.profile().conf_int()
    assert table.loc["x", "lower"] < m.params["x"] < table.loc["x", "upper"]
    assert 0.0 < m.anova()["p_value"].iloc[0] < 1.0
    draws = m.simulate(20_000, seed=1).to_numpy()
    error = np.cov(draws) - V
    scale = np.sqrt((np.outer(V.diagonal(), V.diagonal()) + V**2) / 20_000)
    assert np.abs(error / scale).max() < 5.5
    assert m.refit(draws[:, 0]).converged
    assert "3 draws" in str(m.bootstrap(3, seed=1))


def test_a_saved_model_keeps_its_covariance(tmp_path):
    for K in (G, G + np.eye(40), mf.loading(G.to_numpy()[:, :5], G.index)):
        m = fitted("animal", K)
        m.save(tmp_path / "model.mixform")
        again = mf.load(tmp_path / "model.mixform")
        assert again.criterion == pytest.approx(m.criterion, abs=1e-9)
        pd.testing.assert_frame_equal(again.ranef(pev=True), m.ranef(pev=True))
        assert str(again.summary()) == str(m.summary())


def test_the_route_follows_the_other_terms(monkeypatch):
    definite = G + np.eye(40)
    monkeypatch.setattr(related, "FEW_OTHERS", 5)
    many = DATA.assign(herd=np.arange(N) // 2)  # 55 herds
    formula = "y ~ x + (1 | animal) + (1 | herd)"
    dense_fit = mf.fit(
        formula, many, relationship={"animal": definite}, control={"backend": "dense"}
    )
    fits = {
        name: mf.fit(formula, many, relationship={"animal": K})
        for name, K in (("definite", definite), ("singular", G))
    }
    routes = {n: m._fit.evaluation.problem.blocks[0].loading for n, m in fits.items()}
    assert routes["definite"] is None
    assert routes["singular"] is not None
    assert fits["definite"].criterion == pytest.approx(dense_fit.criterion, abs=1e-8)
    monkeypatch.setattr(related, "SINGULAR_LIMIT", 50)
    with pytest.raises(DesignError, match="has no inverse, which 95 random effects"):
        mf.fit(formula, many, relationship={"animal": G})


def test_what_cannot_be_is_refused():
    with pytest.raises(DesignError, match="has no inverse, which 40 random"):
        fitted("animal", control={"backend": "sparse"})
    with pytest.raises(DesignError, match="smallest eigenvalue is -"):
        fitted("animal", G - 0.01 * np.eye(40))
    with pytest.raises(DesignError, match="no positive variance"):
        fitted("animal", 0.0 * G)
    with pytest.raises(DesignError, match="has no labels"):
        mf.loading(np.eye(3))
    with pytest.raises(DesignError, match="loading of 'b' has missing"):
        mf.loading([[1.0], [np.nan]], ["a", "b"])
    with pytest.raises(DesignError, match="not numeric"):
        mf.loading([["x"]], ["a"])
    with pytest.raises(DesignError, match=r"shape \(2,\), not \(members"):
        mf.loading([1.0, 2.0], ["a", "b"])
    with pytest.raises(DesignError, match="'a' is a label of two"):
        mf.loading(np.eye(2), ["a", "a"])


def test_a_centred_identity_cannot_be_told_from_the_residual():
    data = DATA.drop_duplicates("animal")
    m = len(data)
    K = pd.DataFrame(np.eye(m) - 1.0 / m, data["animal"], data["animal"])
    with pytest.raises(DesignError, match="no two levels of 'animal' are related"):
        mf.fit("y ~ 1 + (1 | animal)", data, relationship={"animal": K})


def test_models_with_one_covariance_are_nested_and_others_are_not():
    large = fitted("regression")._fit.design
    assert random_change(fitted("animal")._fit.design, large) == "one"
    assert random_change(fitted("animal", FEW)._fit.design, large) == "other"


def test_influence_of_a_row_is_that_of_leaving_it_out_of_V():
    m = fitted("crossed", weights="w")
    V = relative_V(m._fit)
    found = m.influence()
    rest = np.arange(N) != 7
    inverse = np.linalg.inv(V[np.ix_(rest, rest)])
    y = DATA["y"].to_numpy()
    without = np.linalg.solve(
        X[rest].T @ inverse @ X[rest], X[rest].T @ inverse @ y[rest]
    )
    np.testing.assert_allclose(
        found.dfbeta.to_numpy()[7], without - m.params.to_numpy(), atol=1e-8
    )


def test_one_answer_by_loading_and_precision_with_correlated_residuals():
    data = records(PEDIGREE).assign(
        plot=np.arange(90) // 6, time=np.tile(np.arange(6), 15)
    )
    fits = [
        mf.fit(
            "y ~ x + (x | animal)",
            data,
            relationship={"animal": given},
            residual="ar1(time | plot)",
            control={"tolerance": 1e-12},
        )
        for given in (PEDIGREE, PEDIGREE.A())
    ]
    loading = fits[1]._fit.evaluation.problem.blocks[0].loading
    assert loading is not None
    assert fits[1].criterion == pytest.approx(fits[0].criterion, abs=1e-7)
    np.testing.assert_allclose(
        fits[1].varcorr["vcov"], fits[0].varcorr["vcov"], rtol=1e-5
    )
    tables = [m.ranef(pev=True).set_index(["term", "level"]) for m in fits]
    columns = ["estimate", "se", "pev"]
    np.testing.assert_allclose(
        tables[1].loc[tables[0].index, columns], tables[0][columns], atol=1e-5
    )
