"""The elimination tree of an ordering, and how many entries its factor has.

Goes in: the graph of a symmetric matrix and an ordering. Comes out: the tree along
which the columns of the factor depend on each other, and their exact sizes, in little
more time than it takes to read the pattern. This is what orderings are compared by.

References
----------
Gilbert, Ng, Peyton (1994) An efficient algorithm to compute row and column counts for
    sparse Cholesky factorization. SIAM J. Matrix Anal. Appl. 15, 1075-1091.
Liu (1990) The role of elimination trees in sparse factorization. SIAM J. Matrix Anal.
    Appl. 11, 134-172.
"""

from __future__ import annotations

import numpy as np

from mixform._jit import Ints, Longs, kernel


@kernel
def build_tree(  # noqa: C901
    starts: Longs, neighbors: Ints, perm: Longs
) -> tuple[Longs, Longs, Longs, float, float]:
    """Return (perm, parent, counts, nnz, flops) of the factor under an ordering.

    The returned permutation is `perm` in a postorder of its elimination tree, which
    has the same fill; `parent` is that tree and `counts` the entries of each column,
    diagonal included. Elimination tree after Liu (1990), counts after Gilbert, Ng and
    Peyton (1994).
    """
    q = perm.size
    place = np.empty(q, np.int64)
    for j in range(q):
        place[perm[j]] = j
    tree = np.full(q, -1, np.int64)
    ancestor = np.full(q, -1, np.int64)
    for j in range(q):
        for t in range(starts[perm[j]], starts[perm[j] + 1]):
            i = place[neighbors[t]]
            while i >= 0 and i < j:
                above = ancestor[i]
                ancestor[i] = j
                if above < 0:
                    tree[i] = j
                i = above

    # Postorder, by first child and next sibling.
    child = np.full(q, -1, np.int64)
    sibling = np.full(q, -1, np.int64)
    for j in range(q - 1, -1, -1):
        if tree[j] >= 0:
            sibling[j] = child[tree[j]]
            child[tree[j]] = j
    ordered = np.empty(q, np.int64)
    label = np.empty(q, np.int64)
    stack = ancestor
    filled = 0
    for root in range(q):
        if tree[root] >= 0:
            continue
        stack[0] = root
        depth = 1
        while depth > 0:
            j = stack[depth - 1]
            if child[j] >= 0:
                stack[depth] = child[j]
                depth += 1
                child[j] = -1
                continue
            depth -= 1
            label[j] = filled
            ordered[filled] = perm[j]
            filled += 1
            if sibling[j] >= 0:
                stack[depth] = sibling[j]
                depth += 1
    parent = np.full(q, -1, np.int64)
    for j in range(q):
        if tree[j] >= 0:
            parent[label[j]] = label[tree[j]]
    for j in range(q):
        place[ordered[j]] = j

    # Column counts: +1 where j is a leaf of the row subtree of i, -1 where two leaves'
    # paths join, summed up the tree.
    first = np.full(q, -1, np.int64)
    counts = np.zeros(q, np.int64)
    for j in range(q):
        if first[j] < 0:
            first[j] = j
            counts[j] = 1
        if parent[j] >= 0 and first[parent[j]] < 0:
            first[parent[j]] = first[j]
    newest = np.full(q, -1, np.int64)  # largest first descendant seen in row i
    leaf = np.full(q, -1, np.int64)  # latest leaf of row i
    union = np.arange(q)
    for j in range(q):
        if parent[j] >= 0:
            counts[parent[j]] -= 1
        for t in range(starts[ordered[j]], starts[ordered[j] + 1]):
            i = place[neighbors[t]]
            if i <= j or first[j] <= newest[i]:
                continue
            newest[i] = first[j]
            counts[j] += 1
            if leaf[i] >= 0:
                top = leaf[i]
                while union[top] != top:
                    top = union[top]
                walk = leaf[i]
                while walk != top:
                    above = union[walk]
                    union[walk] = top
                    walk = above
                counts[top] -= 1
            leaf[i] = j
        if parent[j] >= 0:
            union[j] = parent[j]
    nnz = 0.0
    flops = 0.0
    for j in range(q):
        if parent[j] >= 0:
            counts[parent[j]] += counts[j]
        nnz += counts[j]
        flops += float(counts[j]) * float(counts[j])
    return ordered, parent, counts, nnz, flops
