"""Leverages against the dense hat matrix, published sums, and between backends."""

from __future__ import annotations

import numpy as np
import pytest

import mixform as mf


def hat_diagonal(m):
    """Diagonal of the matrix that maps y to fitted values, from dense G and R."""
    X, Z = m.design.X.to_numpy(), m.design.Z.toarray()
    weights = m.design.weights if m.design.weights is not None else np.ones(len(X))
    G = np.zeros((Z.shape[1], Z.shape[1]))
    start = 0
    for block, T in zip(m.design.blocks, m._fit.T, strict=True):
        size = block.m * block.k
        G[start : start + size, start : start + size] = np.kron(
            np.eye(block.m), T @ T.T
        )
        start += size
    V = Z @ G @ Z.T + np.diag(1.0 / weights)
    V_inverse = np.linalg.inv(V)
    beta = np.linalg.solve(X.T @ V_inverse @ X, X.T @ V_inverse)
    fitted = X @ beta + Z @ G @ Z.T @ V_inverse @ (np.eye(len(X)) - X @ beta)
    return np.diag(fitted)


MODELS = [
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)", None),
    ("sleepstudy", "Reaction ~ Days + (Days || Subject)", "Days"),
    ("Penicillin", "diameter ~ 1 + (1|plate) + (1|sample)", None),
    ("Pastes", "strength ~ cask + (1|batch/cask)", None),
    ("Machines", "score ~ Machine + (0 + Machine|Worker)", None),
    ("pigs", "gain ~ group", None),
]


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize(("name", "formula", "weights"), MODELS)
def test_leverage_is_the_diagonal_of_the_hat_matrix(name, formula, weights, backend):
    data = mf.datasets.load(name)
    w = None if weights is None else 1.0 + data[weights]
    m = mf.fit(formula, data, weights=w, control={"backend": backend})
    np.testing.assert_allclose(m.leverage(), hat_diagonal(m), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "formula", "total"),
    [  # sums of MixedModels.jl, test/pls.jl
        ("Dyestuff", "Yield ~ 1 + (1|Batch)", 4.695160),
        ("sleepstudy", "Reaction ~ Days + (Days|Subject)", 28.611653),
    ],
)
def test_leverages_sum_to_the_published_effective_parameters(name, formula, total):
    m = mf.fit(formula, mf.datasets.load(name), method="ML")
    # 1e-4: their optimizer stops about 5e-6 from the optimum in theta.
    assert m.leverage().sum() == pytest.approx(total, abs=1e-4)


def test_zero_variance_gives_the_leverage_of_least_squares():
    m = mf.fit("Yield ~ 1 + (1|Batch)", mf.datasets.load("Dyestuff2"))
    np.testing.assert_allclose(m.leverage(), 1.0 / 30.0)
