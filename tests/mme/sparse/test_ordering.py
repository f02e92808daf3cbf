"""Orderings are permutations, symbolic counts are exact, and fill is what it can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mixform.mme.sparse.cholesky import analyze
from mixform.mme.sparse.ordering import (
    build_graph,
    compress_graph,
    order_by_minimum_degree,
    order_by_size,
)
from mixform.mme.sparse.tree import build_tree
from tests.mme.sparse.patterns import (
    PATTERNS,
    Dense,
    arrow,
    crossed,
    from_factors,
    grid,
    lower_triangle,
)

each_pattern = pytest.mark.parametrize("M", PATTERNS.values(), ids=PATTERNS)


def minimum_degree(M: Dense) -> np.ndarray:
    """Return the approximate minimum degree ordering of a pattern."""
    is_last = np.zeros(M.shape[0], np.bool_)
    indptr, indices, _ = lower_triangle(M)
    starts, neighbors, _ = build_graph(indptr, indices)
    merged, weight = compress_graph(starts, neighbors)
    perm, finished = order_by_minimum_degree(
        starts, neighbors, merged, weight, is_last, np.inf
    )
    assert finished
    return perm


def count_by_elimination(M: Dense, perm: np.ndarray) -> np.ndarray:
    """Return the entries of each column of the factor, by eliminating the pattern."""
    filled = M[np.ix_(perm, perm)] != 0.0
    counts = np.empty(perm.size, np.int64)
    for j in range(perm.size):
        rows = j + np.flatnonzero(filled[j:, j])
        counts[j] = rows.size
        filled[np.ix_(rows, rows)] = True
    return counts


@each_pattern
def test_minimum_degree_is_a_permutation(M: Dense) -> None:
    assert_array_equal(np.sort(minimum_degree(M)), np.arange(M.shape[0]))


@each_pattern
def test_column_counts_are_those_of_elimination(M: Dense) -> None:
    indptr, indices, _ = lower_triangle(M)
    starts, neighbors, _ = build_graph(indptr, indices)
    shuffled = np.random.default_rng(0).permutation(M.shape[0])
    perm, _, counts, nnz, flops = build_tree(starts, neighbors, shuffled)
    expected = count_by_elimination(M, perm)
    assert_array_equal(counts, expected)
    assert (nnz, flops) == (expected.sum(), (expected.astype(float) ** 2).sum())


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.floats(0.0, 0.2))
@settings(max_examples=100, deadline=None)
def test_minimum_degree_orders_random_graphs(seed: int, q: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    M = np.eye(q) + (rng.random((q, q)) < density)
    M = M + M.T
    assert_array_equal(np.sort(minimum_degree(M)), np.arange(q))


def test_minimum_degree_finds_an_ordering_without_fill() -> None:
    for M in (arrow(50, head_first=True), arrow(900, head_first=True)):
        counts = count_by_elimination(M, minimum_degree(M))
        assert counts.sum() == np.count_nonzero(np.tril(M))


@each_pattern
def test_chosen_vertices_come_last(M: Dense) -> None:
    q = M.shape[0]
    last = np.arange(0, q, 7)
    is_last = np.zeros(q, np.bool_)
    is_last[last] = True
    starts, neighbors, _ = build_graph(*lower_triangle(M)[:2])
    themselves, weight = np.arange(q, dtype=np.int32), np.ones(q, np.int64)
    perm, _ = order_by_minimum_degree(
        starts, neighbors, themselves, weight, is_last, np.inf
    )
    assert_array_equal(np.sort(perm), np.arange(q))
    assert_array_equal(np.sort(perm[-last.size :]), last)


def test_large_levels_of_crossed_factors_are_left_for_the_end() -> None:
    rng = np.random.default_rng(0)
    share = rng.lognormal(0.0, 2.0, 300)
    items = rng.choice(300, 10_000, p=share / share.sum())
    M = from_factors(
        [rng.integers(0, 900, 10_000), np.unique(items, return_inverse=True)[1]]
    )
    indptr, indices, _ = lower_triangle(M)
    starts, neighbors, _ = build_graph(indptr, indices)
    plain = build_tree(starts, neighbors, minimum_degree(M))[4]
    natural = build_tree(starts, neighbors, np.arange(M.shape[0]))[4]
    assert analyze(indptr, indices).flops < min(plain, natural)


def test_minimum_degree_on_a_grid_is_near_nested_dissection() -> None:
    # A band would hold q^1.5 = 22 q entries, dissection some multiple of q log q.
    counts = count_by_elimination(grid(22), minimum_degree(grid(22)))
    assert counts.sum() < 10 * 22**2


def test_the_ordering_stops_at_the_flop_limit() -> None:
    indptr, indices, _ = lower_triangle(crossed(60, 40))
    starts, neighbors, _ = build_graph(indptr, indices)
    merged, weight = compress_graph(starts, neighbors)
    is_last = np.zeros(starts.size - 1, np.bool_)
    trial = order_by_minimum_degree(starts, neighbors, merged, weight, is_last, 10.0)
    assert not trial[1]


def test_a_candidate_is_taken_where_it_has_the_fewest_flops() -> None:
    M = crossed(3, 200, n=600)
    indptr, indices, _ = lower_triangle(M)
    sizes = np.array([3, 200])
    widest_first = order_by_size(sizes, sizes)
    assert_array_equal(widest_first, [*range(3, 203), 0, 1, 2])
    starts, neighbors, _ = build_graph(indptr, indices)
    natural = build_tree(starts, neighbors, np.arange(203))
    assert natural[4] > 1e6
    assert analyze(indptr, indices, (widest_first,)).nnz_L <= indices.size + 3


@each_pattern
def test_memory_and_work_are_known_before_factoring(M: Dense) -> None:
    indptr, indices, values = lower_triangle(M)
    symbolic = analyze(indptr, indices)
    panels = symbolic.factor(values).panels
    assert symbolic.nnz_L <= panels.size
    assert symbolic.bytes >= 2 * panels.nbytes
    assert symbolic.flops >= symbolic.nnz_L
