"""V^-1/2 of diagonals, dense and sparse matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array

from mixform.errors import DesignError
from mixform.mme.whitener import whitener


def tridiagonal(n=9):
    return 2.0 * np.eye(n) - 0.7 * (np.eye(n, k=1) + np.eye(n, k=-1))


KINDS = {
    "number": (2.5, 2.5 * np.eye(9)),
    "diagonal": (np.arange(1.0, 10.0), np.diag(np.arange(1.0, 10.0))),
    "dense": (tridiagonal(), tridiagonal()),
    "dense diagonal": (np.diag(np.arange(1.0, 10.0)), np.diag(np.arange(1.0, 10.0))),
    "sparse": (csr_array(tridiagonal()), tridiagonal()),
    "sparse diagonal": (diags_array(np.full(9, 0.5)), 0.5 * np.eye(9)),
    "none": (None, np.eye(9)),
}


@pytest.mark.parametrize(("V", "dense"), KINDS.values(), ids=KINDS)
def test_whitened_products_are_those_with_the_inverse(V, dense):
    A = np.random.default_rng(0).normal(size=(9, 3))
    root = whitener(V, 9)
    W = root.whiten(A)
    np.testing.assert_allclose(W.T @ W, A.T @ np.linalg.solve(dense, A), rtol=1e-12)
    np.testing.assert_allclose(root.whiten(A[:, 0]), W[:, 0], rtol=1e-12)
    assert root.logdet == pytest.approx(np.linalg.slogdet(dense)[1])


BAD = tridiagonal()
BAD[0, 1] = 0.0


@pytest.mark.parametrize(
    ("V", "message"),
    [
        (np.eye(3), r"V has shape \(3, 3\); y has 9 rows"),
        (np.ones(4), r"V has shape \(4,\); y has 9 rows"),
        (csr_array(np.eye(3)), r"V has shape \(3, 3\)"),
        (BAD, "V is not symmetric"),
        (csr_array(BAD), "V is not symmetric"),
        (np.ones((9, 9)) - 0.5 * np.eye(9), "V is not positive definite"),
        (csr_array(tridiagonal() - np.eye(9)), "V is not positive definite"),
        (np.r_[np.ones(8), 0.0], "the variance of row 9 is 0"),
        (-1.0, "the variance of row 1 is -1"),
        (np.full((9, 9), np.nan), "not finite"),
        ("abc", "no matrix of numbers"),
    ],
)
def test_what_is_no_covariance_is_refused(V, message):
    with pytest.raises(DesignError, match=message):
        whitener(V, 9)
