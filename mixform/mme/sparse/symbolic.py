"""Symbolic analysis: where the factor's entries go, before any number is known.

Goes in: the pattern of a symmetric matrix. Comes out: a `Structure`, that is an
ordering, the tree of supernodes (see `mixform.mme.sparse.supernodes`), and for each the
places of its panel, its rows and its update. No numerical values here.

References
----------
Davis (2006) Direct Methods for Sparse Linear Systems. SIAM.
Liu (1992) The multifrontal method for sparse matrix solution: theory and practice.
    SIAM Review 34, 82-109.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixform._jit import Flags, Ints, Longs, kernel
from mixform.mme.sparse.ordering import (
    build_graph,
    compress_graph,
    order_by_minimum_degree,
)
from mixform.mme.sparse.supernodes import LEAF_WIDTH, merge_supernodes, place_rows
from mixform.mme.sparse.tree import build_tree

#: Entries of a front (512 kB) above which its children are taken column by column.
WIDE_FRONT = 65_536
#: Vertices with fewer neighbors are never left for the end.
MANY_NEIGHBORS = 40.0
#: Minimum degree is given up when a first trial is slower than another ordering by this
#: factor: two wide factors that are crossed densely, where a trial costs most.
HOPELESS = 1.3


@kernel
def place_updates(  # noqa: C901
    first: Longs, below: Longs, parent: Longs, row_start: Longs, relative: Ints
) -> tuple[Longs, Longs, Ints, Ints]:
    """Return (update_start, pair_start, pair_child, pair_row).

    ``update_start`` is the place of each supernode's update in the work space, in
    entries; -1 for narrow leaves, which form none, and the last element is the size.
    Two stacks, one for each parity of the depth in the tree, keep a front and the
    updates of its children apart without moving either.

    The pairs of front s, from ``pair_start[s]`` on, are its children's rows in the
    order in which to add their columns: child by child or, under a wide front, by the
    column they reach, which keeps that column in the cache.
    """
    n_nodes = below.size
    depth = np.zeros(n_nodes, np.int64)
    is_narrow = first[1:] - first[:-1] <= LEAF_WIDTH
    released = np.zeros(n_nodes, np.int64)
    pair_start = np.zeros(n_nodes + 1, np.int64)
    for s in range(n_nodes - 1, -1, -1):
        p = parent[s]
        if p >= 0:
            depth[s] = depth[p] + 1
            pair_start[p + 1] += below[s]
            is_narrow[p] = False
        else:
            is_narrow[s] = False
    for s in range(n_nodes):
        pair_start[s + 1] += pair_start[s]
        if parent[s] >= 0 and not is_narrow[s]:
            released[parent[s]] += below[s] * below[s]
    pair_child = np.empty(pair_start[n_nodes], np.int32)
    pair_row = np.empty(pair_start[n_nodes], np.int32)
    fill = pair_start[:-1].copy()
    for s in range(n_nodes):
        p = parent[s]
        if p >= 0:
            for b in range(below[s]):
                pair_child[fill[p]] = s
                pair_row[fill[p]] = b
                fill[p] += 1
    for s in range(n_nodes):
        n_rows = first[s + 1] - first[s] + below[s]
        begin, end = pair_start[s], pair_start[s + 1]
        if n_rows * n_rows <= WIDE_FRONT or begin == end:
            continue
        child, row = pair_child[begin:end].copy(), pair_row[begin:end].copy()
        column = np.zeros(n_rows + 1, np.int64)
        for t in range(child.size):
            column[relative[row_start[child[t]] + row[t]] + 1] += 1
        for j in range(n_rows):
            column[j + 1] += column[j]
        for t in range(child.size):
            j = relative[row_start[child[t]] + row[t]]
            pair_child[begin + column[j]] = child[t]
            pair_row[begin + column[j]] = row[t]
            column[j] += 1

    update_start = np.full(n_nodes + 1, -1, np.int64)
    top = np.zeros(2, np.int64)
    height = np.zeros(2, np.int64)
    for s in range(n_nodes):
        if is_narrow[s]:
            continue
        side = depth[s] % 2
        update_start[s] = top[side]
        top[side] += below[s] * below[s]
        height[side] = max(height[side], top[side])
        top[1 - side] -= released[s]
    for s in range(n_nodes):
        if update_start[s] >= 0 and depth[s] % 2 == 1:
            update_start[s] += height[0]
    update_start[n_nodes] = height[0] + height[1]
    return update_start, pair_start, pair_child, pair_row


class Structure(NamedTuple):
    """Where everything goes: the result of symbolic analysis, as kernels take it.

    Sizes: q columns, S supernodes in postorder, nnz input entries.

    Attributes
    ----------
    perm : (q,) column j of the factor is column ``perm[j]`` of the matrix
    first : (S + 1,) first column of each supernode
    below : (S,) rows below the columns of each supernode
    parent : (S,) supernode that takes its update, -1 at a root
    row_start, rows : (S + 1,), (sum below,) those rows, ascending
    relative : (sum below,) their places in the parent's front
    panel_start : (S + 1,) place of each panel in the factor, column-major
    where : (nnz,) place of each input entry in the factor
    update_start, pair_start, pair_child, pair_row :
        see `place_updates`
    """

    perm: Longs
    first: Longs
    below: Longs
    parent: Longs
    row_start: Longs
    rows: Ints
    relative: Ints
    panel_start: Longs
    where: Longs
    update_start: Longs
    pair_start: Longs
    pair_child: Ints
    pair_row: Ints


def build_structure(
    indptr: Longs, indices: Ints, candidates: tuple[Longs, ...] = ()
) -> tuple[Structure, int, float]:
    """Order a symmetric matrix and lay out its factor; return that, nnz and flops.

    ``nnz`` counts the entries of the factor and ``flops`` the multiplications to form
    it, both without the explicit zeros that merging supernodes stores.

    The ordering with the least modeled time is taken: the natural one, those of
    `candidates`, and approximate minimum degree, which is not tried where one of the
    others fills in nothing.

    Parameters
    ----------
    indptr, indices : (q + 1,), (nnz,) lower triangle by columns, rows ascending, with
        the whole diagonal
    candidates : permutations (q,) to consider besides
    """
    starts, neighbors, entries = build_graph(indptr, indices)
    best = _plan(starts, neighbors, np.arange(indptr.size - 1))
    for candidate in candidates:
        best = min(best, _plan(starts, neighbors, candidate), key=_modeled_time)
    if best.nnz > indices.size:
        merged, weight = compress_graph(starts, neighbors)
        for is_last in _left_for_the_end(starts, best):
            order, finished = order_by_minimum_degree(
                starts, neighbors, merged, weight, is_last, best.flops
            )
            if not finished:
                break
            trial = _plan(starts, neighbors, order)
            if trial.time > HOPELESS * best.time:
                break
            best = min(best, trial, key=_modeled_time)
    perm, first, below, tree = best.perm, best.first, best.below, best.parent
    rows = place_rows(starts, neighbors, entries, indptr, perm, first, below, tree)
    row_start, row_list, relative, panel_start, where = rows
    updates = place_updates(first, below, tree, row_start, relative)
    structure = Structure(
        perm, first, below, tree, row_start, row_list, relative, panel_start, where,
        *updates,
    )  # fmt: skip
    return structure, int(best.nnz), best.flops


class _Plan(NamedTuple):
    """An ordering with its supernodes (see `merge_supernodes`), to be compared."""

    perm: Longs
    first: Longs
    below: Longs
    parent: Longs
    time: float
    nnz: float
    flops: float
    n_partial: int


def _plan(starts: Longs, neighbors: Ints, perm: Longs) -> _Plan:
    """Return what an ordering comes to."""
    perm, parent, counts, nnz, flops = build_tree(starts, neighbors, perm)
    is_partial = counts != perm.size - np.arange(perm.size)
    n_partial = int(np.flatnonzero(is_partial).max(initial=-1)) + 1
    return _Plan(*merge_supernodes(parent, counts, perm), nnz, flops, n_partial)


def _modeled_time(plan: _Plan) -> float:
    """Return what orderings are compared by."""
    return plan.time


def _left_for_the_end(starts: Longs, plan: _Plan) -> list[Flags]:
    """Return the sets of vertices to try to eliminate last, (q,) each.

    Minimum degree is myopic where a few vertices have very many neighbors, as in
    crossed factors with some large levels. Left for the end are those of degree above
    2 sqrt(q), and in a second trial those above 0.7 sqrt(q) that belong to the full
    block at the end of the best ordering so far: among crossed factors, all but the
    levels of the widest. On simulated designs one or the other saves up to one half of
    the flops.
    """
    q = plan.perm.size
    degree = np.diff(starts)
    in_full_block = np.zeros(q, np.bool_)
    in_full_block[plan.perm[plan.n_partial :]] = True
    trials = [degree > max(MANY_NEIGHBORS, 2.0 * np.sqrt(q))]
    second = in_full_block & (degree > max(MANY_NEIGHBORS, 0.7 * np.sqrt(q)))
    if np.any(second != trials[0]):
        trials.append(second)
    return trials
