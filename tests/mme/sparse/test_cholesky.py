"""The factor against dense algebra, on every pattern and on random ones."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mixform.mme.sparse.cholesky import NotPositiveDefiniteError, analyze
from tests.mme.sparse.patterns import PATTERNS, Dense, lower_triangle

each_pattern = pytest.mark.parametrize("M", PATTERNS.values(), ids=PATTERNS)


def assert_close(actual: Dense, expected: Dense) -> None:
    """Assert equality to 1e-10 of the largest entry."""
    assert_allclose(actual, expected, rtol=0.0, atol=1e-10 * abs(expected).max())


def assert_factor_is_right(M: Dense) -> None:
    """Assert that determinant, solutions and inverse equal those of dense algebra."""
    indptr, indices, values = lower_triangle(M)
    factor = analyze(indptr, indices).factor(values)
    inverse = np.linalg.inv(M)
    assert factor.logdet == pytest.approx(np.linalg.slogdet(M)[1], rel=1e-10, abs=1e-10)
    columns = np.repeat(np.arange(M.shape[0]), np.diff(indptr))
    assert_close(factor.selected_inverse(), inverse[indices, columns])
    B = np.random.default_rng(0).normal(size=(M.shape[0], 3))
    assert_close(factor.solve(B), inverse @ B)


@each_pattern
def test_factor_equals_dense_algebra(M: Dense) -> None:
    assert_factor_is_right(M)


@st.composite
def random_matrices(draw: st.DrawFn) -> Dense:
    """Draw a diagonally dominant matrix with a random pattern."""
    q = draw(st.integers(1, 40))
    density = draw(st.sampled_from([0.0, 0.03, 0.1, 0.3, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    A = np.tril(rng.normal(size=(q, q)) * (rng.random((q, q)) < density), -1)
    A = A + A.T
    return A + np.diag(1.0 + abs(A).sum(axis=1))


@given(random_matrices())
@settings(max_examples=150, deadline=None)
def test_factor_equals_dense_algebra_on_random_patterns(M: Dense) -> None:
    assert_factor_is_right(M)


@each_pattern
@pytest.mark.parametrize("r", [1, 2, 50])
def test_many_right_hand_sides_are_solved_at_once(M: Dense, r: int) -> None:
    indptr, indices, values = lower_triangle(M)
    factor = analyze(indptr, indices).factor(values)
    B = np.random.default_rng(r).normal(size=(M.shape[0], r))
    assert_close(factor.solve(B), np.linalg.solve(M, B))
    assert_close(factor.solve(B[:, 0]), np.linalg.solve(M, B[:, 0]))


@each_pattern
def test_half_solve_squares_to_the_quadratic_form(M: Dense) -> None:
    indptr, indices, values = lower_triangle(M)
    factor = analyze(indptr, indices).factor(values)
    B = np.random.default_rng(1).normal(size=(M.shape[0], 4))
    half = factor.half_solve(B)
    assert_close(half.T @ half, B.T @ np.linalg.solve(M, B))


@each_pattern
def test_diagonal_of_the_inverse(M: Dense) -> None:
    indptr, indices, values = lower_triangle(M)
    factor = analyze(indptr, indices).factor(values)
    assert_close(factor.diagonal_inverse(), np.diag(np.linalg.inv(M)))


@each_pattern
def test_any_ordering_gives_the_same_answers(M: Dense) -> None:
    indptr, indices, values = lower_triangle(M)
    reverse = np.arange(M.shape[0])[::-1].copy()
    factor = analyze(indptr, indices, (reverse,)).factor(values)
    assert factor.logdet == pytest.approx(np.linalg.slogdet(M)[1], rel=1e-10, abs=1e-10)


def test_a_factor_outlives_later_ones() -> None:
    indptr, indices, values = lower_triangle(PATTERNS["crossed"])
    symbolic = analyze(indptr, indices)
    first = symbolic.factor(values)
    x = first.solve(np.ones(symbolic.q))
    second = symbolic.factor(4.0 * values)
    second.selected_inverse()
    assert_allclose(first.solve(np.ones(symbolic.q)), x, rtol=0.0, atol=0.0)
    assert_allclose(second.solve(np.ones(symbolic.q)), x / 4.0, rtol=1e-12)


def test_memory_of_a_dropped_factor_is_used_again() -> None:
    indptr, indices, values = lower_triangle(PATTERNS["nested"])
    symbolic = analyze(indptr, indices)
    factor = symbolic.factor(values)
    address = factor.panels.ctypes.data
    del factor
    gc.collect()
    assert symbolic.factor(values).panels.ctypes.data == address


@pytest.mark.parametrize("q", [5, 80])
@pytest.mark.parametrize("bad", [-1.0, 0.0, np.nan])
def test_not_positive_definite_names_the_column(q: int, bad: float) -> None:
    M = np.diag(np.arange(1.0, q + 1.0)) if q < 10 else dense_with_bad_pivot(q)
    indptr, indices, values = lower_triangle(M)
    values[indptr[3]] = bad
    with pytest.raises(
        NotPositiveDefiniteError, match="not positive definite"
    ) as caught:
        analyze(indptr, indices).factor(values)
    if q < 10:
        assert caught.value.column == 3
    assert 0 <= caught.value.column < q
    assert pickle.loads(pickle.dumps(caught.value)).column == caught.value.column


def dense_with_bad_pivot(q: int) -> Dense:
    """Return a full matrix, which goes through BLAS."""
    return np.ones((q, q)) + np.eye(q)


def test_a_failed_factorization_leaves_the_next_one_intact() -> None:
    M = PATTERNS["crossed"]
    indptr, indices, values = lower_triangle(M)
    symbolic = analyze(indptr, indices)
    with pytest.raises(NotPositiveDefiniteError):
        symbolic.factor(-values)
    logdet = symbolic.factor(values).logdet
    assert logdet == pytest.approx(np.linalg.slogdet(M)[1], rel=1e-12)


def test_a_pattern_without_a_diagonal_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="diagonal"):
        analyze(np.array([0, 1, 2]), np.array([1, 1], np.int32))


def test_values_of_another_pattern_are_refused() -> None:
    symbolic = analyze(np.array([0, 1]), np.array([0], np.int32))
    with pytest.raises(ValueError, match="1 entries, but 2 values"):
        symbolic.factor(np.ones(2))
