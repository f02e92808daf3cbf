"""Products with Z and Lambda by blocks against the matrices written out."""

from __future__ import annotations

import numpy as np
import pytest

from mixform.mme import DenseEquations, ZBlock


def blocks_and_factors(seed=0, n=25):
    """Return blocks with k = 1, 2, 3, one unused level among them, and any T."""
    rng = np.random.default_rng(seed)
    blocks, factors = [], []
    for m, k in ((4, 1), (3, 2), (5, 3)):
        codes = rng.integers(0, m - (m == 5), n)
        design = rng.normal(size=(n, k))
        blocks.append(ZBlock(codes=codes, design=design, m=m))
        factors.append(rng.normal(size=(k, k)))
    return tuple(blocks), tuple(factors)


def dense_Z(blocks):
    parts = []
    for block in blocks:
        Z = np.zeros((len(block.codes), block.m, block.k))
        Z[np.arange(len(Z)), block.codes] = block.design
        parts.append(Z.reshape(len(Z), -1))
    return np.hstack(parts)


def each_level(blocks, matrices):
    """Return the block diagonal matrix with I_m (x) matrix for each block."""
    size = sum(block.m * block.k for block in blocks)
    out, start = np.zeros((size, size)), 0
    for block, matrix in zip(blocks, matrices, strict=True):
        for _ in range(block.m):
            own = slice(start, start + block.k)
            out[own, own] = matrix
            start += block.k
    return out


@pytest.fixture(scope="module", params=[DenseEquations], ids=["dense"])
def system(request):
    blocks, factors = blocks_and_factors()
    return request.param(blocks), blocks, factors


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def test_number_of_random_effects_is_that_of_all_blocks(system):
    equations, blocks, _ = system
    assert equations.q == dense_Z(blocks).shape[1] == 25


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("r", [1, 2, 40])
def test_Lambda_dot_multiplies_by_Lambda(system, transpose, r):
    equations, blocks, factors = system
    Lambda, B = each_level(blocks, factors), draw(equations.q, r)
    expected = (Lambda.T if transpose else Lambda) @ B
    found = equations.Lambda_dot(factors, B, transpose=transpose)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_Zt_dot_multiplies_by_Z_transposed(system):
    equations, blocks, _ = system
    W = draw(25, 3)
    expected = dense_Z(blocks).T @ W
    np.testing.assert_allclose(equations.Zt_dot(W), expected, atol=1e-12)


def test_ZtZ_dot_multiplies_by_the_cross_products(system):
    equations, blocks, _ = system
    Z, H = dense_Z(blocks), draw(equations.q, 2)
    np.testing.assert_allclose(equations.ZtZ_dot(H), Z.T @ (Z @ H), atol=1e-10)


def test_level_sums_add_the_products_of_levels(system):
    equations, blocks, _ = system
    A, B = draw(equations.q, 3), draw(equations.q + 1, 3)[:-1]
    start = 0
    for block, found in zip(blocks, equations.level_sums(A, B), strict=True):
        expected = np.zeros((block.k, block.k))
        for _ in range(block.m):
            own = slice(start, start + block.k)
            expected += A[own] @ B[own].T
            start += block.k
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_level_products_multiply_each_level_by_each_matrix(system):
    equations, blocks, factors = system
    stacks = [np.stack([S + S.T] * 2) * [[[1.0]], [[2.0]]] for S in factors]
    a = draw(equations.q)
    columns = []
    for j, stack in enumerate(stacks):
        for S in stack:
            only = [S if i == j else 0.0 * other for i, other in enumerate(factors)]
            columns.append(each_level(blocks, only) @ a)
    found = equations.level_products(stacks, a)
    np.testing.assert_allclose(found, np.column_stack(columns), atol=1e-12)
