"""The dense backend against the matrices written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csc_array

from mixform.errors import SolverError
from mixform.mme import DenseEquations, ZBlock
from tests.mme.test_equations import blocks_and_factors, dense_Z, each_level


def related(blocks, seed=7):
    """Give the first block a relationship between its levels."""
    A = np.random.default_rng(seed).normal(size=(blocks[0].m, blocks[0].m))
    precision = A @ A.T + np.eye(len(A))
    first = ZBlock(
        codes=blocks[0].codes,
        design=blocks[0].design,
        m=blocks[0].m,
        precision=csc_array(precision),
    )
    return (first, *blocks[1:]), precision


@pytest.fixture(params=["independent", "related"])
def system(request):
    """Blocks, T's, Z'Z Lambda, M."""
    blocks, factors = blocks_and_factors()
    Z, Lambda = dense_Z(blocks), each_level(blocks, factors)
    P = np.eye(Z.shape[1])
    if request.param == "related":
        blocks, precision = related(blocks)
        P[: len(precision), : len(precision)] = precision
    ZtZ_Lambda = Z.T @ Z @ Lambda
    return blocks, factors, ZtZ_Lambda, Lambda.T @ ZtZ_Lambda + P


def test_log_determinant_is_that_of_M(system):
    blocks, factors, _, M = system
    factor = DenseEquations(blocks).factor(factors)
    assert factor.logdet == pytest.approx(np.linalg.slogdet(M)[1])


def test_solve_solves_the_equations(system):
    blocks, factors, _, M = system
    B = np.random.default_rng(4).normal(size=(len(M), 3))
    X = DenseEquations(blocks).factor(factors).solve(B)
    np.testing.assert_allclose(M @ X, B, atol=1e-9)


def test_traces_are_level_sums_of_the_product_with_the_inverse(system):
    blocks, factors, ZtZ_Lambda, M = system
    product = ZtZ_Lambda @ np.linalg.inv(M)
    start = 0
    traces = DenseEquations(blocks).factor(factors).traces()
    for block, trace in zip(blocks, traces, strict=True):
        expected = np.zeros((block.k, block.k))
        for _ in range(block.m):
            own = slice(start, start + block.k)
            expected += product[own, own]
            start += block.k
        np.testing.assert_allclose(trace, expected, rtol=1e-9, atol=1e-9)


def test_inverse_blocks_are_the_levels_diagonal_blocks(system):
    blocks, factors, _, M = system
    inverse = np.linalg.inv(M)
    start = 0
    stacks = DenseEquations(blocks).factor(factors).inverse_blocks()
    for block, stack in zip(blocks, stacks, strict=True):
        assert stack.shape == (block.m, block.k, block.k)
        for level in stack:
            own = slice(start, start + block.k)
            np.testing.assert_allclose(level, inverse[own, own], atol=1e-10)
            start += block.k


def test_factoring_again_does_not_change_the_first_factor():
    blocks, factors = blocks_and_factors()
    equations = DenseEquations(blocks)
    first = equations.factor(factors)
    before = first.logdet
    equations.factor(tuple(2.0 * T for T in factors))
    assert first.logdet == before


def test_zero_T_gives_the_identity():
    blocks, factors = blocks_and_factors()
    zero = tuple(np.zeros_like(T) for T in factors)
    factor = DenseEquations(blocks).factor(zero)
    B = np.ones((factor.solve(np.ones((25, 1))).shape[0], 1))
    assert factor.logdet == 0.0
    np.testing.assert_array_equal(factor.solve(B), B)


def test_model_without_random_effects_is_empty():
    factor = DenseEquations(()).factor(())
    assert factor.logdet == 0.0
    assert factor.solve(np.empty((0, 2))).shape == (0, 2)


def test_relationship_that_is_not_positive_definite_is_an_error_that_shows_T():
    blocks, factors = blocks_and_factors()
    blocks, precision = related(blocks)
    wrong = ZBlock(
        codes=blocks[0].codes,
        design=blocks[0].design,
        m=blocks[0].m,
        precision=csc_array(-1e6 * precision),
    )
    with pytest.raises(SolverError, match=r"not positive definite at T = \[\[\["):
        DenseEquations((wrong, *blocks[1:])).factor(factors)
