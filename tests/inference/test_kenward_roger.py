"""Kenward-Roger: balanced designs exactly, the n x n formulas, pbkrtest."""

import numpy as np
import pandas as pd
import pytest

import mixform as mf
from mixform.errors import InferenceError, SolverError
from mixform.inference.kenward_roger import kenward_roger, matched_f
from mixform.mme import backends
from tests.reference_models import MODELS, fit_reference

WITH_TABLES = sorted(name for name in MODELS if MODELS[name].get("kenward_roger"))


def unbalanced(seed=1, n=70):
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "g": rng.integers(0, 9, n).astype(str),
            "h": rng.integers(0, 6, n).astype(str),
            "trt": rng.choice(list("abc"), n),
            "x": rng.normal(size=n),
            "w": rng.uniform(0.5, 2.0, n),
        }
    )
    effects = rng.normal(size=(9, 2))
    data["y"] = (
        effects[data["g"].astype(int), 0]
        + effects[data["g"].astype(int), 1] * data["x"]
        + rng.normal(size=6)[data["h"].astype(int)]
        + rng.normal(size=n)
    )
    return data


def dense_kenward_roger(fit, L):
    """Return the adjusted covariance, and F, m of L beta = 0, from n x n matrices.

    Kenward and Roger (1997), as they are written there, V linear in its parameters.
    """
    design = fit.design
    X, n = design.fixed.X, len(design.y)
    parts = []
    for block in design.blocks:
        Z = block.Z.toarray().reshape(n, block.m, block.k)
        for a in range(block.k):
            for b in range(a, block.k):
                if a != b and block.term.structure == "diag":
                    continue
                crossed = Z[:, :, a] @ Z[:, :, b].T
                parts.append(crossed if a == b else crossed + crossed.T)
    weights = np.ones(n) if design.weights is None else design.weights
    parts.append(np.diag(1.0 / weights))
    V = fit.sigma**2 * parts[-1]
    for block, T in zip(design.blocks, fit.T, strict=True):
        Z = block.Z.toarray()
        V = V + fit.sigma**2 * Z @ np.kron(np.eye(block.m), T @ T.T) @ Z.T
    V_inv = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ V_inv @ X)
    P = [-X.T @ V_inv @ G @ V_inv @ X for G in parts]
    r = len(parts)
    Q = {}
    information = np.empty((r, r))
    for i in range(r):
        for j in range(r):
            middle = V_inv @ parts[i] @ V_inv @ parts[j]
            Q[i, j] = X.T @ middle @ V_inv @ X
            information[i, j] = np.trace(middle) - np.trace(
                Phi @ (2.0 * Q[i, j] - P[i] @ Phi @ P[j])
            )
    W = 2.0 * np.linalg.inv(information)
    change = sum(
        W[i, j] * (Q[i, j] - P[i] @ Phi @ P[j]) for i in range(r) for j in range(r)
    )
    adjusted = Phi + 2.0 * Phi @ change @ Phi
    q = len(L)
    M = L.T @ np.linalg.inv(L @ Phi @ L.T) @ L
    A1 = A2 = 0.0
    for i in range(r):
        for j in range(r):
            left, right = M @ Phi @ P[i] @ Phi, M @ Phi @ P[j] @ Phi
            A1 += W[i, j] * np.trace(left) * np.trace(right)
            A2 += W[i, j] * np.trace(left @ right)
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    denominator = 3 * q + 2 * (1 - g)
    c1, c2, c3 = (
        g / denominator,
        (q - g) / denominator,
        (q + 2 - g) / denominator,
    )
    E = 1.0 / (1.0 - A2 / q)
    variance = (2.0 / q) * (1 + c1 * B) / ((1 - c2 * B) ** 2 * (1 - c3 * B))
    rho = variance / (2.0 * E**2)
    m = 4.0 + (q + 2.0) / (q * rho - 1.0)
    factor = m / (E * (m - 2.0))
    estimate = L @ fit.beta
    wald = estimate @ np.linalg.solve(L @ adjusted @ L.T, estimate) / q
    return adjusted, factor * wald, m


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ trt + x + (x|g)",
        "y ~ trt * x + (1|g) + (1|h)",
        "y ~ trt + (x||g) + (1|h)",
        "y ~ 0 + trt + (1|g:h) + (1|g)",
        "y ~ trt + x",
    ],
)
@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_agrees_with_the_formulas_on_n_by_n_matrices(formula, weights, backend):
    m = mf.fit(formula, unbalanced(), weights=weights, control={"backend": backend})
    names = m.params.index
    rows = [names.get_loc(name) for name in names if name.startswith("trt")]
    L = np.eye(len(names))[rows]
    adjusted, f_value, den_df = dense_kenward_roger(m._fit, L)
    test = m.test(L, ddf="kenward-roger")
    ours = kenward_roger(m._fit)
    np.testing.assert_allclose(ours.V_beta, adjusted, rtol=1e-7)
    assert test.den_df == pytest.approx(den_df, rel=1e-6)
    assert test.f_value == pytest.approx(f_value, rel=1e-6)


def test_many_unconnected_groups_share_columns_and_change_nothing():
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 6, 40)
    data = pd.DataFrame({"a": np.repeat(np.arange(40), sizes)})
    data["b"] = rng.integers(0, 3, len(data))
    data["x"] = rng.normal(size=len(data))
    data["y"] = rng.normal(size=40)[data["a"]] + rng.normal(size=len(data))
    m = mf.fit("y ~ x + (1|a/b)", data)
    adjusted, _, den_df = dense_kenward_roger(m._fit, np.eye(2)[1:])
    np.testing.assert_allclose(kenward_roger(m._fit).V_beta, adjusted, rtol=1e-8)
    assert m.test({"x": 1.0}, ddf="kenward-roger").den_df == pytest.approx(den_df)


def test_balanced_split_plot_has_the_df_of_its_strata():
    m = mf.fit("Y ~ A * B + (1|Block) + (1|A:Block)", mf.datasets.load("stroup"))
    table = m.anova(ddf="kenward-roger")
    np.testing.assert_allclose(table["den_df"], [6.0, 9.0, 9.0], rtol=1e-6)
    np.testing.assert_allclose(
        table["f_value"], [4.069574, 19.388724, 4.019288], rtol=1e-6
    )


def test_linear_model_is_exact():
    data = unbalanced()
    m = mf.fit("y ~ trt + x", data)
    table = m.anova(ddf="kenward-roger")
    np.testing.assert_allclose(table["den_df"], len(data) - 4)
    np.testing.assert_allclose(table["f_value"], m.anova()["f_value"], rtol=1e-10)
    np.testing.assert_allclose(kenward_roger(m._fit).V_beta, m.cov_params(), rtol=1e-10)


@pytest.mark.parametrize("name", WITH_TABLES)
def test_agrees_with_pbkrtest(name):
    m, theirs = fit_reference(name), MODELS[name]["kenward_roger"]
    approximation = kenward_roger(m._fit)
    se = np.sqrt(np.diag(approximation.V_beta))
    np.testing.assert_allclose(
        se, [float(row["se"]) for row in theirs["fixed"]], rtol=1e-6
    )
    np.testing.assert_allclose(
        approximation.t_ddf(np.eye(len(se))),
        [float(row["df"]) for row in theirs["fixed"]],
        rtol=1e-5,
    )
    table = m.anova(ddf="kenward-roger")
    for ours, row in zip(table.itertuples(), theirs["anova_III"]["rows"], strict=True):
        assert ours.num_df == int(row["NumDF"])
        assert ours.f_value == pytest.approx(float(row["F"]), rel=1e-5)
        assert ours.den_df == pytest.approx(float(row["DenDF"]), rel=1e-5)
        # lmerTest's mean square is that of the F statistic before it is scaled.
        assert ours.mean_sq == pytest.approx(ours.f_value * m.sigma**2)


def test_does_not_depend_on_the_units():
    data = unbalanced()
    one = mf.fit("y ~ trt + x + (x|g)", data).anova(ddf="kenward-roger")
    moved = data.assign(y=1e4 * data["y"] + 7.0, x=data["x"] / 1e3)
    two = mf.fit("y ~ trt + x + (x|g)", moved).anova(ddf="kenward-roger")
    for column in ("f_value", "den_df"):
        np.testing.assert_allclose(one[column], two[column], rtol=1e-5)


def test_refuses_a_fit_by_ml():
    m = mf.fit("y ~ x + (1|g)", unbalanced(), method="ML")
    with pytest.raises(InferenceError, match=r"derived for REML[\s\S]*method=\"REML\""):
        m.anova(ddf="kenward-roger")


def test_unknown_method_is_named():
    m = mf.fit("y ~ x + (1|g)", unbalanced())
    with pytest.raises(InferenceError, match=r"Did you mean 'kenward-roger'"):
        m.anova(ddf="kenward roger")


def test_says_how_much_memory_is_missing(monkeypatch):
    m = mf.fit("y ~ x + (1|g)", unbalanced())
    monkeypatch.setattr(backends.os, "sysconf", lambda _: 16)
    with pytest.raises(SolverError, match=r"9 random effects need .* GB"):
        m.anova(ddf="kenward-roger")


def test_moments_of_an_estimate_without_error_give_a_chi_square():
    assert matched_f(0.0, 0.0, 3) == (np.inf, 1.0)


@pytest.mark.parametrize("q", [1, 2, 3])
def test_four_degrees_of_freedom_are_an_ordinary_case(q):
    # A variance estimated with 4 df: A1 = 2 q^2 / 4, A2 = 2 q / 4. F has no variance.
    m, factor = matched_f(q**2 / 2.0, q / 2.0, q)
    assert m == pytest.approx(4.0)
    assert factor == pytest.approx(1.0)
