"""Mixed model equations from codes and designs, against Z formed in full."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import linalg, sparse

from mixform.mme import ZBlock
from mixform.mme.sparse.assembly import ZtX
from mixform.mme.sparse.backend import SparseEquations
from tests.mme.sparse.patterns import Dense, pedigree

N = 240


def block(m: int, k: int, seed: int, *, related: bool = False) -> ZBlock:
    """Return a random term; some of its levels may have no rows."""
    rng = np.random.default_rng(seed)
    precision = sparse.csc_array(pedigree(m)) if related else None
    codes = rng.integers(0, m, N).astype(np.int32)
    return ZBlock(codes, rng.normal(size=(N, k)), m, precision)


def same_levels(seed: int) -> list[ZBlock]:
    """Return intercept and slope of one factor as two terms."""
    first = block(25, 1, seed)
    design = np.random.default_rng(seed).normal(size=(N, 1))
    return [first, ZBlock(first.codes, design, first.m)]


TERMS: dict[str, list[ZBlock]] = {
    "one intercept": [block(30, 1, 0)],
    "one slope": [block(30, 2, 1)],
    "crossed intercepts": [block(40, 1, 2), block(25, 1, 3), block(4, 1, 4)],
    "narrow before wide": [block(4, 1, 5), block(90, 1, 6)],
    "crossed, unequal widths": [block(20, 2, 7), block(15, 3, 8), block(5, 1, 9)],
    "two terms of one factor": same_levels(10),
    "levels without rows": [block(500, 2, 11), block(300, 1, 12)],
    "one level": [block(1, 1, 13), block(1, 4, 14)],
    "related": [block(60, 1, 15, related=True), block(8, 1, 16)],
    "related slopes": [block(9, 1, 17), block(40, 2, 18, related=True)],
}
each_model = pytest.mark.parametrize("blocks", TERMS.values(), ids=TERMS)


class Oracle:
    """Dense algebra of the same model."""

    def __init__(self, blocks: Sequence[ZBlock], T: Sequence[Dense]) -> None:
        self.Z = np.hstack([dense_Z(b) for b in blocks])
        levels = [np.eye(b.m) for b in blocks]
        self.Lambda = linalg.block_diag(*map(np.kron, levels, T))
        self.P = linalg.block_diag(*map(dense_precision, blocks))
        self.ZtZ = self.Z.T @ self.Z
        self.M = self.Lambda.T @ self.ZtZ @ self.Lambda + self.P
        self.inverse = np.linalg.inv(self.M)

    def logdet(self) -> float:
        """Return log|M|."""
        return float(np.linalg.slogdet(self.M)[1])


def dense_Z(b: ZBlock) -> Dense:
    """Return the columns of one term, level by level."""
    Z = np.zeros((N, b.m, b.k))
    Z[np.arange(N), b.codes] = b.design
    return Z.reshape(N, b.q)


def dense_precision(b: ZBlock) -> Dense:
    """Return A^-1 (x) I_k, or the identity."""
    return (
        np.eye(b.q)
        if b.precision is None
        else np.kron(b.precision.toarray(), np.eye(b.k))
    )


def random_T(blocks: Sequence[ZBlock], seed: int) -> list[Dense]:
    """Return full, not triangular, matrices."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(b.k, b.k)) for b in blocks]


def level_blocks(A: Dense, blocks: Sequence[ZBlock]) -> list[Dense]:
    """Return the (m, k, k) diagonal blocks of A for each term."""
    result: list[Dense] = []
    first = 0
    for b in blocks:
        own = A[first : first + b.q, first : first + b.q].reshape(b.m, b.k, b.m, b.k)
        result.append(np.einsum("iaib->iab", own))
        first += b.q
    return result


def assert_equations_are_right(blocks: Sequence[ZBlock], seed: int) -> None:
    """Assert every quantity of one evaluation."""
    equations, T = SparseEquations(blocks), random_T(blocks, seed)
    factor, oracle = equations.factor(T), Oracle(blocks, T)
    assert factor.logdet == pytest.approx(oracle.logdet(), rel=1e-10, abs=1e-10)
    tolerance = {"rtol": 0.0, "atol": 1e-10 * max(1.0, abs(oracle.ZtZ).max())}
    B = np.random.default_rng(seed).normal(size=(equations.q, 3))
    assert_allclose(factor.solve(B), oracle.inverse @ B, **tolerance)
    C = oracle.ZtZ @ oracle.Lambda @ oracle.inverse
    expected = [own.sum(axis=0) for own in level_blocks(C, blocks)]
    for trace, sum_ in zip(factor.traces(), expected, strict=True):
        assert_allclose(trace, sum_, rtol=1e-9, atol=1e-9)
    inverses = level_blocks(oracle.inverse, blocks)
    for own, inverse in zip(factor.inverse_blocks(), inverses, strict=True):
        assert_allclose(own, inverse, **tolerance)


@each_model
def test_one_evaluation_equals_dense_algebra(blocks: list[ZBlock]) -> None:
    assert_equations_are_right(blocks, 0)


SIZES = st.tuples(st.integers(1, 30), st.integers(1, 3), st.booleans())


@given(st.lists(SIZES, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_random_models_equal_dense_algebra(
    sizes: list[tuple[int, int, bool]], seed: int
) -> None:
    blocks = [
        block(m, k, seed % 1000 + i, related=related and m >= 20)
        for i, (m, k, related) in enumerate(sizes)
    ]
    assert_equations_are_right(blocks, seed)


@each_model
def test_products_with_ZtZ(blocks: list[ZBlock]) -> None:
    equations = SparseEquations(blocks)
    Z = np.hstack([dense_Z(b) for b in blocks])
    H = np.random.default_rng(0).normal(size=(equations.q, 3))
    assert_allclose(equations.ZtZ_dot(H), Z.T @ Z @ H, rtol=1e-10, atol=1e-10)
    assert_allclose(
        equations.ZtZ_dot(H[:, 1]), Z.T @ Z @ H[:, 1], rtol=1e-10, atol=1e-10
    )
    X = np.random.default_rng(1).normal(size=(N, 5))
    assert_allclose(ZtX(blocks, X), Z.T @ X, rtol=1e-10, atol=1e-10)


@each_model
def test_traces_are_the_gradient_of_logdet(blocks: list[ZBlock]) -> None:
    equations, T = SparseEquations(blocks), random_T(blocks, 2)
    step = [1e-5 * direction for direction in random_T(blocks, 3)]
    ahead = equations.factor([t + d for t, d in zip(T, step, strict=True)]).logdet
    behind = equations.factor([t - d for t, d in zip(T, step, strict=True)]).logdet
    traces = equations.factor(T).traces()
    slope = sum(2.0 * float(np.sum(d * B)) for d, B in zip(step, traces, strict=True))
    assert (ahead - behind) / 2.0 == pytest.approx(slope, rel=1e-6, abs=1e-9)


@each_model
def test_zero_variance_leaves_the_precision(blocks: list[ZBlock]) -> None:
    factor = SparseEquations(blocks).factor([np.zeros((b.k, b.k)) for b in blocks])
    expected = sum(np.linalg.slogdet(dense_precision(b))[1] for b in blocks)
    assert factor.logdet == pytest.approx(expected, abs=1e-9)


def test_refactoring_at_the_first_theta_gives_the_first_answer() -> None:
    blocks = TERMS["related slopes"]
    equations, T = SparseEquations(blocks), random_T(blocks, 4)
    first = equations.factor(T)
    equations.factor(random_T(blocks, 5))
    assert equations.factor(T).logdet == first.logdet


def test_row_order_does_not_matter() -> None:
    blocks, order = (
        TERMS["crossed, unequal widths"],
        np.random.default_rng(0).permutation(N),
    )
    T = random_T(blocks, 6)
    shuffled = [ZBlock(b.codes[order], b.design[order], b.m) for b in blocks]
    logdet = SparseEquations(shuffled).factor(T).logdet
    assert logdet == pytest.approx(SparseEquations(blocks).factor(T).logdet, rel=1e-12)


def test_a_column_is_located_by_block_level_and_coefficient() -> None:
    equations = SparseEquations(TERMS["crossed, unequal widths"])
    assert equations.locate(0) == (0, 0, 0)
    assert equations.locate(2 * 20 + 3 * 4 + 1) == (1, 4, 1)
    assert equations.locate(equations.q - 1) == (2, 4, 0)


def test_work_is_known_before_factoring() -> None:
    work = SparseEquations(TERMS["crossed intercepts"]).work
    assert work.flops > work.nnz_L > 0
    assert work.bytes > 8 * work.nnz_L


def test_codes_outside_the_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="range from 0 to 3, not within 0 to 2"):
        ZBlock(np.array([0, 3], np.int32), np.ones((2, 1)), 3)


def test_codes_and_design_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same rows"):
        ZBlock(np.array([0, 1], np.int32), np.ones((3, 1)), 3)
