"""Supernodes: groups of columns of the factor that are worked as one dense block.

Goes in: the elimination tree and column counts of an ordering. Comes out: which columns
belong together, the tree of these groups, and for each the rows below its columns and
their places in its parent's front.

The front of supernode s is the dense matrix of its w own columns and the u rows below
them. Its first w columns become a panel of the factor, its last u by u corner the
update that s passes on to its parent.

References
----------
Duff, Reid (1983) The multifrontal solution of indefinite sparse symmetric linear
    equations. ACM Trans. Math. Softw. 9, 302-325.
Liu (1990) The role of elimination trees in sparse factorization. SIAM J. Matrix Anal.
    Appl. 11, 134-172.
Ng, Peyton (1993) Block sparse Cholesky algorithms on advanced uniprocessor computers.
    SIAM J. Sci. Comput. 14, 1034-1056.
"""

from __future__ import annotations

import numpy as np

from mixform._jit import Index, Ints, Longs, inlined, kernel

#: A leaf this narrow forms no update: its parent subtracts the rank-one terms itself.
LEAF_WIDTH = 2


@inlined
def model_time(width: Index, below: Index, is_leaf: Index) -> float:
    """Return the nanoseconds that factor and inverse spend on one supernode, roughly.

    Fixed cost, panel entries, the update and its addition to the parent, and flops at
    the speed of hand loops for small fronts and of BLAS for large ones. Measured once;
    only ratios matter.
    """
    w, u = float(width), float(below)
    flops = w * w * w / 3.0 + w * w * u + w * u * u
    update = u * (u + 1.0) / 2.0
    if is_leaf and width <= LEAF_WIDTH:
        return 40.0 + 1.0 * w * (w + u) + 1.0 * w * update
    cost = 80.0 + 0.7 * w * (w + u) + 1.5 * update
    return cost + min(0.4 * flops, 1_500.0 + 0.05 * flops)


@kernel
def merge_supernodes(  # noqa: C901
    parent: Longs, counts: Longs, perm: Longs
) -> tuple[Longs, Longs, Longs, Longs, float]:
    """Return (perm, first, below, parent, time) of supernodes, relabeled.

    Columns with the same rows below form a supernode. A supernode is then merged with
    its parent wherever the modeled time falls, which stores explicit zeros. `first` has
    one entry more than there are supernodes; supernodes are in postorder. `time` is
    the modeled time of them all, which orderings are compared by.
    """
    q = parent.size
    owner = np.empty(q, np.int64)
    n_groups = 0
    for j in range(q):
        starts_new = j == 0 or parent[j - 1] != j or counts[j - 1] != counts[j] + 1
        n_groups += starts_new
        owner[j] = n_groups - 1
    width = np.zeros(n_groups, np.int64)
    below = np.zeros(n_groups, np.int64)
    tree = np.full(n_groups, -1, np.int64)
    for j in range(q):
        width[owner[j]] += 1
        below[owner[j]] = counts[j] - 1
        if parent[j] >= 0:
            tree[owner[j]] = owner[parent[j]]
    for s in range(n_groups):
        if tree[s] == s:
            tree[s] = -1

    child = np.full(n_groups, -1, np.int64)
    last = np.full(n_groups, -1, np.int64)
    sibling = np.full(n_groups, -1, np.int64)
    merged = np.arange(n_groups)
    for s in range(n_groups):
        # Ascending: the children of s are complete, and are now judged one by one.
        c = child[s]
        child[s] = -1
        last[s] = -1
        while c >= 0:
            following = sibling[c]
            apart = model_time(width[c], below[c], child[c] < 0)
            apart += model_time(width[s], below[s], False)
            begin, end = c, c
            if model_time(width[s] + width[c], below[s], False) < apart:
                width[s] += width[c]
                merged[c] = s
                begin, end = child[c], last[c]
            if begin >= 0:
                sibling[end] = child[s]
                child[s] = begin
                if last[s] < 0:
                    last[s] = end
            c = following
        p = tree[s]
        if p >= 0:
            sibling[s] = child[p]
            child[p] = s

    # Postorder of the merged tree.
    position = np.full(n_groups, -1, np.int64)
    kept = np.empty(n_groups, np.int64)
    stack = np.empty(n_groups, np.int64)
    filled = 0
    for root in range(n_groups):
        if tree[root] >= 0:
            continue
        stack[0] = root
        depth = 1
        while depth > 0:
            s = stack[depth - 1]
            if child[s] >= 0:
                c = child[s]
                child[s] = sibling[c]
                stack[depth] = c
                depth += 1
                continue
            depth -= 1
            position[s] = filled
            kept[filled] = s
            filled += 1
    for s in range(n_groups - 1, -1, -1):
        merged[s] = merged[merged[s]]
    first = np.zeros(filled + 1, np.int64)
    final_below = np.empty(filled, np.int64)
    final_parent = np.full(filled, -1, np.int64)
    for f in range(filled):
        s = kept[f]
        first[f + 1] = first[f] + width[s]
        final_below[f] = below[s]
        if tree[s] >= 0:
            final_parent[f] = position[merged[tree[s]]]
    ordered = np.empty(q, np.int64)
    fill = first.copy()
    for j in range(q):
        f = position[merged[owner[j]]]
        ordered[fill[f]] = perm[j]
        fill[f] += 1
    has_children = np.zeros(filled, np.bool_)
    time = 0.0
    for f in range(filled):
        time += model_time(first[f + 1] - first[f], final_below[f], not has_children[f])
        if final_parent[f] >= 0:
            has_children[final_parent[f]] = True
    return ordered, first, final_below, final_parent, time


@kernel
def place_rows(  # noqa: C901
    starts: Longs,
    neighbors: Ints,
    entries: Longs,
    indptr: Longs,
    perm: Longs,
    first: Longs,
    below: Longs,
    parent: Longs,
) -> tuple[Longs, Ints, Ints, Longs, Longs]:
    """Return (row_start, rows, relative, panel_start, where) of the supernodes.

    Row i of the factor reaches the supernodes on the paths of the tree from the
    columns of its entries up to itself (Liu 1990), so that climbing those paths with i
    ascending lists the rows of every supernode in order. ``relative`` is the place of
    each row in the parent's front, ``where`` that of each input entry in the factor.
    """
    q = perm.size
    n_nodes = below.size
    place = np.empty(q, np.int64)
    owner = np.empty(q, np.int64)
    row_start = np.zeros(n_nodes + 1, np.int64)
    panel_start = np.zeros(n_nodes + 1, np.int64)
    for s in range(n_nodes):
        w = first[s + 1] - first[s]
        row_start[s + 1] = row_start[s] + below[s]
        panel_start[s + 1] = panel_start[s] + w * (w + below[s])
        for j in range(first[s], first[s + 1]):
            place[perm[j]] = j
            owner[j] = s
    rows = np.empty(row_start[n_nodes], np.int32)
    fill = row_start[:-1].copy()
    mark = np.full(n_nodes, -1, np.int64)
    where = np.empty(indptr[q], np.int64)
    for i in range(q):
        own = owner[i]
        n_rows = first[own + 1] - first[own] + below[own]
        local = i - first[own]
        where[indptr[perm[i]]] = panel_start[own] + local * n_rows + local
        for t in range(starts[perm[i]], starts[perm[i] + 1]):
            j = place[neighbors[t]]
            if j > i:
                continue
            s = owner[j]
            local = i - first[s]
            if s != own:
                c = s
                while c != own and mark[c] != i:
                    mark[c] = i
                    rows[fill[c]] = i
                    fill[c] += 1
                    c = parent[c]
                local = first[s + 1] - first[s] + fill[s] - 1 - row_start[s]
            n_rows = first[s + 1] - first[s] + below[s]
            where[entries[t]] = panel_start[s] + (j - first[s]) * n_rows + local
    relative = np.empty(row_start[n_nodes], np.int32)
    for s in range(n_nodes):
        p = parent[s]
        if p < 0:
            continue
        w = first[p + 1] - first[p]
        at = row_start[p]
        for t in range(row_start[s], row_start[s + 1]):
            i = rows[t]
            if i < first[p + 1]:
                relative[t] = i - first[p]
            else:
                while rows[at] != i:
                    at += 1
                relative[t] = w + at - row_start[p]
    return row_start, rows, relative, panel_start, where
