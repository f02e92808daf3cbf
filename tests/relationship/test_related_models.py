"""Models of related levels: dense V, and one answer however they are related."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import DesignError, InferenceError
from mixform.estimate.criterion import average_information, evaluate, gradient
from mixform.estimate.problem import build_problem
from mixform.inference.diagnostics.residuals import marginal_variances
from mixform.inference.satterthwaite import variance_model


def family(seed=1, founders=10, m=60):
    rng = np.random.default_rng(seed)
    born = m - founders
    sire = [0] * founders + list(rng.integers(1, founders // 2 + 1, born))
    dam = [0] * founders + list(rng.integers(founders // 2 + 1, founders + 1, born))
    return mf.Pedigree(np.arange(1, m + 1), sire, dam)


def records(pedigree, seed=2, n=90):
    rng = np.random.default_rng(seed)
    A = pedigree.A()
    root = np.linalg.cholesky(A.to_numpy())
    names = [str(i) for i in rng.choice(np.arange(8, len(A) + 1), n)]
    place = A.index.get_indexer(names)
    x = rng.standard_normal(n)
    b = root @ rng.standard_normal((len(A), 2)) * [2.0, 0.8]
    y = 3.0 + x + b[place, 0] + b[place, 1] * x + 1.5 * rng.standard_normal(n)
    return pd.DataFrame(
        {"animal": names, "x": x, "y": y, "dam": rng.permutation(names)}
    )


PEDIGREE = family()
DATA = records(PEDIGREE)
A = PEDIGREE.A()
Z = (DATA["animal"].to_numpy()[:, None] == A.index.to_numpy()[None]).astype(float)
X = np.column_stack([np.ones(len(DATA)), DATA["x"]])


def dense(V, y, X, reml=True):
    """Return criterion, beta, sigma2 and P~ of y ~ N(X beta, sigma2 V)."""
    inverse = np.linalg.inv(V)
    XtVX = X.T @ inverse @ X
    P = inverse - inverse @ X @ np.linalg.solve(XtVX, X.T @ inverse)
    df = len(y) - X.shape[1] * reml
    sigma2 = y @ P @ y / df
    out = np.linalg.slogdet(V)[1] + df * (1.0 + np.log(2.0 * np.pi * sigma2))
    out += np.linalg.slogdet(XtVX)[1] * reml
    return out, np.linalg.solve(XtVX, X.T @ inverse @ y), sigma2, P


def relative_V(fit):
    """V over sigma^2 of the rows, from the T of the terms."""
    V = np.eye(fit.n)
    for block, T in zip(fit.design.blocks, fit.T, strict=True):
        K = np.eye(block.m) if block.relation is None else A.to_numpy()
        G = np.kron(K, T @ T.T)
        V += block.Z @ G @ block.Z.T
    return V


MODELS = {
    "animal": "y ~ x + (1 | animal)",
    "regression": "y ~ x + (x | animal)",
    "independent": "y ~ x + (x || animal)",
    "environment": "y ~ x + (1 | animal) + iid(1 | animal)",
    "maternal": "y ~ x + (1 | animal) + (1 | dam)",
}


def fitted(name, backend="dense", **options):
    both = {"animal": PEDIGREE, "dam": PEDIGREE} if name == "maternal" else None
    return mf.fit(
        MODELS[name],
        DATA,
        relationship=both or {"animal": PEDIGREE},
        control={"backend": backend},
        **options,
    )


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("name", MODELS)
def test_fit_is_that_of_dense_V_and_a_minimum(name, method, backend):
    m = fitted(name, backend, method=method)
    fit = m._fit
    y = DATA["y"].to_numpy()
    V = relative_V(fit)
    criterion, beta, sigma2, P = dense(V, y, X, method == "REML")
    assert m.criterion == pytest.approx(criterion, abs=1e-6)
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-8)
    assert m.sigma**2 == pytest.approx(sigma2)
    for block, T, b in zip(fit.design.blocks, fit.T, fit.b, strict=True):
        K = np.eye(block.m) if block.relation is None else A.to_numpy()
        blup = np.kron(K, T @ T.T) @ block.Z.T @ P @ y
        np.testing.assert_allclose(b.ravel(), blup, atol=1e-8)
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


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("name", MODELS)
def test_gradient_and_average_information_are_those_of_dense_V(name, backend):
    fit = fitted(name)._fit
    problem = build_problem(fit.design, reml=True, backend=backend)
    theta = problem.start() * np.linspace(0.6, 1.2, problem.n_theta)
    here = evaluate(problem, theta)
    n = fit.n
    Q = fit.design.fixed.Q

    def V_at(theta):
        V = np.eye(n)
        for block, own, T in zip(
            fit.design.blocks, problem.blocks, problem.factors(theta), strict=True
        ):
            K = np.eye(block.m) if block.relation is None else A.to_numpy()
            S = np.zeros((n, block.m, block.k))
            S[np.arange(n), own.codes] = own.design
            S = S.reshape(n, -1)
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


def test_one_answer_however_the_relationship_is_given():
    rng = np.random.default_rng(0)
    order = rng.permutation(len(A))
    table = pd.DataFrame(
        {
            "animal": PEDIGREE.labels,
            "sire": [PEDIGREE.labels[s] if s >= 0 else 0 for s in PEDIGREE.sire],
            "dam": [PEDIGREE.labels[d] if d >= 0 else None for d in PEDIGREE.dam],
        }
    ).iloc[order]
    inverse = np.linalg.inv(A.to_numpy())
    given = [
        PEDIGREE,
        table,
        A,
        A.iloc[order, rng.permutation(len(A))],
        mf.precision(inverse, A.index),
        mf.precision(PEDIGREE.A_inverse(), PEDIGREE.labels),
        mf.precision(pd.DataFrame(inverse, A.index, A.index).iloc[order, order]),
    ]
    first = mf.fit(MODELS["regression"], DATA, relationship={"animal": given[0]})
    effects = first.ranef(reliability=True).set_index(["term", "level"])
    for relationship in given[1:]:
        m = mf.fit(MODELS["regression"], DATA, relationship={"animal": relationship})
        assert m.criterion == pytest.approx(first.criterion, abs=1e-8)
        again = m.ranef(reliability=True).set_index(["term", "level"])
        columns = ["estimate", "se", "pev", "reliability", "accuracy"][:2]
        columns += ["reliability", "accuracy"]
        np.testing.assert_allclose(
            again.loc[effects.index, columns], effects[columns], atol=2e-5
        )


def test_identity_is_no_relationship():
    levels = sorted(DATA["animal"].unique())
    K = pd.DataFrame(np.eye(len(levels)), levels, levels)
    related = mf.fit(MODELS["animal"], DATA, relationship={"animal": K})
    plain = mf.fit(MODELS["animal"], DATA)
    assert related.criterion == pytest.approx(plain.criterion, abs=1e-9)
    pd.testing.assert_frame_equal(related.varcorr, plain.varcorr, rtol=1e-7)
    np.testing.assert_allclose(related.ddf, plain.ddf, rtol=1e-5)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("name", ["animal", "maternal", "environment"])
def test_prediction_error_variances_are_those_of_the_inverse_equations(name, backend):
    m = fitted(name, backend)
    fit = m._fit
    y_var = fit.sigma**2 * relative_V(fit)
    inverse = np.linalg.inv(y_var)
    P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    table = m.ranef(pev=True, reliability=True)
    expected, prior = [], []
    for block, T in zip(fit.design.blocks, fit.T, strict=True):
        K = np.eye(block.m) if block.relation is None else A.to_numpy()
        G = fit.sigma**2 * np.kron(K, T @ T.T)
        error = G - G @ block.Z.T @ P @ block.Z @ G
        expected += list(error.diagonal())
        prior += list(G.diagonal())
    np.testing.assert_allclose(table["pev"], expected, atol=1e-8)
    prior = np.array(prior)
    known = prior > 0.0
    reliability = 1.0 - np.array(expected)[known] / prior[known]
    np.testing.assert_allclose(table["reliability"][known], reliability, atol=1e-7)
    np.testing.assert_allclose(table["accuracy"][known] ** 2, reliability, atol=1e-7)


def test_a_member_without_records_is_predicted_and_others_are_refused():
    m = fitted("animal")
    unseen = next(a for a in A.index if a not in set(DATA["animal"]))
    new = pd.DataFrame({"animal": [unseen], "x": [0.0]})
    effects = m.ranef(pev=True).set_index("level")
    expected = m.params["Intercept"] + effects.loc[unseen, "estimate"]
    assert float(m.predict(new).iloc[0]) == pytest.approx(expected)
    stranger = new.assign(animal="nobody")
    with pytest.raises(InferenceError, match="'nobody'"):
        m.predict(stranger)
    with pytest.raises(InferenceError, match="'nobody' is not in the relationship"):
        m.predict(stranger, new_levels="population")
    with pytest.raises(InferenceError, match="'nobody' is not in the relationship"):
        m.simulate(newdata=stranger)
    with pytest.raises(InferenceError, match="depends on the member"):
        m.predict(new, random=False, interval="prediction")


@pytest.mark.parametrize(
    "given",
    [PEDIGREE, A, mf.precision(PEDIGREE.A_inverse(), PEDIGREE.labels)],
    ids=["pedigree", "covariance", "precision"],
)
def test_simulated_responses_have_the_covariance_of_the_model(given):
    m = mf.fit(MODELS["regression"], DATA, relationship={"animal": given})
    draws = m.simulate(20_000, seed=1).to_numpy()
    V = m.sigma**2 * relative_V(m._fit)
    error = np.cov(draws) - V
    # the variance of a sample covariance is (V_ii V_jj + V_ij^2) / draws
    scale = np.sqrt((np.outer(V.diagonal(), V.diagonal()) + V**2) / 20_000)
    assert np.abs(error / scale).max() < 5.5


def test_a_saved_model_keeps_its_relationship(tmp_path):
    for given in (PEDIGREE, A, mf.precision(PEDIGREE.A_inverse(), PEDIGREE.labels)):
        m = mf.fit(MODELS["animal"], DATA, relationship={"animal": given})
        m.save(tmp_path / "model.mixform")
        again = mf.load(tmp_path / "model.mixform")
        assert again.criterion == pytest.approx(m.criterion, abs=1e-9)
        pd.testing.assert_frame_equal(again.ranef(pev=True), m.ranef(pev=True))


def test_update_keeps_the_relationship_of_the_terms_that_stay():
    m = fitted("maternal")
    assert m.update(". - (1 | dam)").criterion == pytest.approx(
        fitted("animal").criterion, abs=1e-8
    )
    assert m.update(". - (1 | dam) - (1 | animal)").nobs == len(DATA)


def test_summary_counts_members_and_records():
    text = str(fitted("animal").summary())
    seen = DATA["animal"].nunique()
    assert f"animal: pedigree of 60 members, {seen} with records." in text


def test_what_takes_levels_as_independent_is_refused():
    m = fitted("animal")
    with pytest.raises(InferenceError, match="'animal' are related"):
        m.influence("animal")


BAD = {
    "strangers": ({"animal": A.iloc[:20, :20]}, "not in its relationship: '21'"),
    "asymmetric": (
        {"animal": A + np.triu(np.full(A.shape, 0.1), 1)},
        "is not symmetric: entries of",
    ),
    "indefinite": ({"animal": A - 0.9 * np.eye(60)}, "smallest eigenvalue is -"),
    "singular": ({"animal": A * 0.0 + 1.0}, "nothing is left to estimate"),
    "unknown key": ({"anmal": PEDIGREE}, "relationship names 'anmal'"),
    "no mapping": (PEDIGREE, "relationship is a Pedigree"),
    "no matrix": ({"animal": "ped.csv"}, "relationship of 'animal' is a str"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_relationships_are_refused(case):
    relationship, message = BAD[case]
    with pytest.raises(DesignError, match=message):
        mf.fit(MODELS["animal"], DATA, relationship=relationship)


def test_bad_precisions_are_refused():
    with pytest.raises(DesignError, match="not positive definite"):
        mf.precision([[1.0, 2.0], [2.0, 1.0]], ["a", "b"])
    with pytest.raises(DesignError, match="not symmetric: entries of 'b' and 'a'"):
        mf.precision([[1.0, 0.5], [0.0, 1.0]], ["a", "b"])
    with pytest.raises(DesignError, match="no labels"):
        mf.precision(np.eye(2))
    with pytest.raises(DesignError, match="'a' is a label of two"):
        mf.precision(np.eye(2), ["a", "a"])


def test_unrelated_animals_with_one_record_each_are_refused():
    data = DATA.drop_duplicates("animal")
    levels = data["animal"]
    K = pd.DataFrame(2.0 * np.eye(len(levels)), levels, levels)
    with pytest.raises(DesignError, match="no two levels of 'animal' are related"):
        mf.fit(MODELS["animal"], data, relationship={"animal": K})
