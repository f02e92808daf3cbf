"""Orderings: in which sequence to eliminate, so that the factor fills in little.

Goes in: the pattern of a symmetric matrix, as the graph of its off-diagonal entries.
Comes out: a permutation ``perm``; column j of the factor is column ``perm[j]`` of the
matrix. No numerical values here.

References
----------
Amestoy, Davis, Duff (1996) An approximate minimum degree ordering algorithm. SIAM J.
    Matrix Anal. Appl. 17, 886-905.
Ashcraft (1995) Compressed graphs and the minimum degree algorithm. SIAM J. Sci.
    Comput. 16, 1404-1411.
Davis (2006) Direct Methods for Sparse Linear Systems. SIAM.
"""

from __future__ import annotations

import numpy as np

from mixform._jit import Flags, Ints, Longs, kernel


@kernel
def build_graph(indptr: Longs, indices: Ints) -> tuple[Longs, Ints, Longs]:
    """Return the graph (starts, neighbors, entries) of a lower triangle.

    Both halves are stored, without the diagonal; ``entries`` says which entry of the
    input each edge came from. Neighbors are in ascending order.
    """
    q = indptr.size - 1
    starts = np.zeros(q + 1, np.int64)
    for j in range(q):
        for t in range(indptr[j], indptr[j + 1]):
            i = indices[t]
            if i != j:
                starts[i + 1] += 1
                starts[j + 1] += 1
    for j in range(q):
        starts[j + 1] += starts[j]
    neighbors = np.empty(starts[q], np.int32)
    entries = np.empty(starts[q], np.int64)
    fill = starts[:-1].copy()
    # Columns ascending: first the mirrored entries of every vertex arrive in order,
    # and those of its own column, all larger, when its own turn comes.
    for j in range(q):
        for t in range(indptr[j], indptr[j + 1]):
            i = indices[t]
            if i != j:
                neighbors[fill[i]] = j
                entries[fill[i]] = t
                fill[i] += 1
                neighbors[fill[j]] = i
                entries[fill[j]] = t
                fill[j] += 1
    return starts, neighbors, entries


@kernel
def compress_graph(starts: Longs, neighbors: Ints) -> tuple[Ints, Longs]:
    """Return (representative, weight): vertices with equal closed neighborhoods merge.

    Neighborhoods are compared by a 64-bit hash and their size: a collision would merge
    vertices that differ, which costs fill but not correctness. Only a vertex and a
    neighbor of it can be equal, so nothing is sorted. ``weight`` is 0 for a merged one.
    """
    q = starts.size - 1
    hashes = np.empty(q, np.uint64)
    for v in range(q):
        total = np.uint64(0)
        for t in range(starts[v] - 1, starts[v + 1]):
            x = np.uint64(v if t < starts[v] else neighbors[t])
            x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            x ^= x >> np.uint64(31)
            total += x * np.uint64(0xBF58476D1CE4E5B9)
        hashes[v] = total
    representative = np.empty(q, np.int32)
    weight = np.zeros(q, np.int64)
    for v in range(q):
        representative[v] = v
        size = starts[v + 1] - starts[v]
        for t in range(starts[v], starts[v + 1]):
            u = neighbors[t]
            if u >= v:
                break
            if hashes[u] == hashes[v] and starts[u + 1] - starts[u] == size:
                representative[v] = representative[u]
                break
        weight[representative[v]] += 1
    return representative, weight


@kernel
def order_by_minimum_degree(  # noqa: C901
    starts: Longs,
    neighbors: Ints,
    representative: Ints,
    initial_weight: Longs,
    is_last: Flags,
    flop_limit: float,
) -> tuple[Longs, bool]:
    """Return (perm, finished): approximate minimum degree (Amestoy, Davis, Duff 1996).

    The graph of what is left is held as a quotient graph: an eliminated pivot becomes
    an element, whose list of variables stands for the clique its elimination created.
    Variables that have become indistinguishable are merged, elements contained in a
    newer one absorbed. The vertices `is_last` (q,) are left for the end. `finished` is
    False when the flops pass `flop_limit`, and `perm` is then unfit for use.
    """
    q = starts.size - 1
    LIVE, ELEMENT, DEAD = 0, 1, 2
    kind = np.zeros(q, np.int8)
    weight = initial_weight.copy()  # columns a variable stands for; < 0: in the pivot
    begin = np.zeros(q, np.int64)
    length = np.zeros(q, np.int64)
    n_elements = np.zeros(q, np.int64)  # a variable's list: elements, then variables
    degree = np.zeros(q, np.int64)
    tail = np.arange(q)  # members of a merged variable, a linked list
    member = np.full(q, -1, np.int64)
    next_v = np.full(q, -1, np.int64)  # doubly linked lists of equal degree
    previous_v = np.full(q, -1, np.int64)
    head = np.full(q + 1, -1, np.int64)
    bucket = np.full(q, -1, np.int64)  # hash buckets within one pivot
    bucket_next = np.full(q, -1, np.int64)
    hash_of = np.zeros(q, np.int64)
    stamp = np.zeros(q, np.int64)  # of an element: tag + |its variables not in pivot|
    seen = np.full(q, -1, np.int64)
    pivots = np.empty(q, np.int64)
    n_pivots = 0

    for v in range(q):
        if representative[v] != v:
            kind[v] = DEAD
            r = representative[v]
            member[tail[r]] = v
            tail[r] = v
    n_left = 0
    n_last = 0
    for v in range(q):
        if kind[v] == LIVE:
            if is_last[v]:
                kind[v] = DEAD
                n_last += 1
                pivots[q - n_last] = v
                weight[v] = 0
            else:
                n_left += weight[v]
    total_left = n_left
    work = np.empty(starts[q] + starts[q] // 4 + q + 1, np.int32)
    free = 0
    for v in range(q):
        if kind[v] == LIVE:
            begin[v] = free
            for t in range(starts[v], starts[v + 1]):
                u = neighbors[t]
                if kind[u] == LIVE:
                    work[free] = u
                    free += 1
                    degree[v] += weight[u]
            length[v] = free - begin[v]
            d = degree[v]
            next_v[v] = head[d]
            if head[d] >= 0:
                previous_v[head[d]] = v
            head[d] = v

    lowest = 0
    tag = 1
    mark = 0
    eliminated = 0
    flops = 0.0
    while eliminated < total_left:
        while head[lowest] < 0:
            lowest += 1
        p = head[lowest]
        head[lowest] = next_v[p]
        if next_v[p] >= 0:
            previous_v[next_v[p]] = -1

        # Room for the new element: compact the work space, larger where needed.
        need = length[p]
        for t in range(begin[p], begin[p] + n_elements[p]):
            need += length[work[t]]
        if free + need > work.size:
            live = need
            for v in range(q):
                if kind[v] != DEAD:
                    live += length[v]
            fresh = np.empty(max(work.size, live + live // 4), np.int32)
            free = 0
            for v in range(q):
                if kind[v] != DEAD:
                    for t in range(length[v]):
                        fresh[free + t] = work[begin[v] + t]
                    begin[v] = free
                    free += length[v]
            work = fresh

        # The new element: variables next to p, and those of the elements next to p.
        own = weight[p]
        weight[p] = -own
        first = free
        size = 0
        for t in range(begin[p], begin[p] + length[p]):
            e = work[t]
            is_element = t < begin[p] + n_elements[p]
            source = begin[e] if is_element else t
            stop = begin[e] + length[e] if is_element else t + 1
            for s in range(source, stop):
                v = work[s]
                if weight[v] > 0:
                    size += weight[v]
                    weight[v] = -weight[v]
                    work[free] = v
                    free += 1
                    if next_v[v] >= 0:
                        previous_v[next_v[v]] = previous_v[v]
                    if previous_v[v] >= 0:
                        next_v[previous_v[v]] = next_v[v]
                    else:
                        head[degree[v]] = next_v[v]
            if is_element:
                kind[e] = DEAD
        kind[p] = ELEMENT
        begin[p] = first
        length[p] = free - first
        n_elements[p] = 0
        pivots[n_pivots] = p
        n_pivots += 1

        # For every element e touching the pivot: |variables of e outside the pivot|.
        for t in range(first, free):
            v = work[t]
            for s in range(begin[v], begin[v] + n_elements[v]):
                e = work[s]
                if kind[e] == DEAD:
                    continue
                if stamp[e] < tag:
                    stamp[e] = degree[e] + tag
                stamp[e] += weight[v]  # negative here
        # Degrees, with elements inside the pivot absorbed, and hash keys.
        n_mass = 0
        for t in range(first, free):
            v = work[t]
            out = begin[v]
            outside = 0
            key = 0
            for s in range(begin[v], begin[v] + n_elements[v]):
                e = work[s]
                if kind[e] == DEAD:
                    continue
                left = stamp[e] - tag
                if left > 0:
                    outside += left
                    key += e
                    work[out] = e
                    out += 1
                else:
                    kind[e] = DEAD
            n_kept = out - begin[v]
            for s in range(begin[v] + n_elements[v], begin[v] + length[v]):
                u = work[s]
                if weight[u] > 0:
                    outside += weight[u]
                    key += u
                    work[out] = u
                    out += 1
            if outside == 0 and n_kept == 0:
                # Nothing outside the pivot: v can be eliminated with it.
                n_mass += -weight[v]
                own += -weight[v]
                size += weight[v]
                member[tail[p]] = v
                tail[p] = tail[v]
                weight[v] = 0
                kind[v] = DEAD
                continue
            # v has lost p itself or an element next to p, so there is room for p.
            work[out] = work[begin[v] + n_kept]
            work[begin[v] + n_kept] = p
            n_elements[v] = n_kept + 1
            length[v] = out + 1 - begin[v]
            degree[v] = min(degree[v], outside)
            slot = (key + p) % q
            hash_of[v] = slot
            bucket_next[v] = bucket[slot]
            bucket[slot] = v
        # Indistinguishable variables: same lists. Compare within each bucket.
        for t in range(first, free):
            v = work[t]
            if kind[v] == DEAD or bucket[hash_of[v]] < 0:
                continue
            a = bucket[hash_of[v]]
            bucket[hash_of[v]] = -1
            while a >= 0:
                if bucket_next[a] >= 0:
                    mark += 1
                    for s in range(begin[a], begin[a] + length[a]):
                        seen[work[s]] = mark
                before = a
                b = bucket_next[a]
                while b >= 0:
                    same = length[a] == length[b] and n_elements[a] == n_elements[b]
                    s = begin[b]
                    while same and s < begin[b] + length[b]:
                        same = seen[work[s]] == mark
                        s += 1
                    if same:
                        weight[a] += weight[b]
                        weight[b] = 0
                        kind[b] = DEAD
                        member[tail[a]] = b
                        tail[a] = tail[b]
                        bucket_next[before] = bucket_next[b]
                    else:
                        before = b
                    b = bucket_next[b]
                a = bucket_next[a]

        # Put the variables of the pivot back in line with their new degrees.
        eliminated += own
        n_left -= own
        out = first
        for t in range(first, free):
            v = work[t]
            if kind[v] == DEAD:
                continue
            weight[v] = -weight[v]
            d = min(degree[v] + size - weight[v], n_left - weight[v])
            d = max(d, 0)
            degree[v] = d
            next_v[v] = head[d]
            previous_v[v] = -1
            if head[d] >= 0:
                previous_v[head[d]] = v
            head[d] = v
            lowest = min(lowest, d)
            work[out] = v
            out += 1
        free = out
        length[p] = out - first
        degree[p] = size
        weight[p] = 0
        if length[p] == 0:
            kind[p] = DEAD
        tag += q + 1
        height = float(size + own)
        flops += own * (height * height - height * own + own * own / 3.0)
        if flops > flop_limit:
            return pivots, False

    perm = np.empty(q, np.int64)
    filled = 0
    for s in range(n_pivots + n_last):
        v = pivots[s] if s < n_pivots else pivots[q - 1 - (s - n_pivots)]
        while v >= 0:
            perm[filled] = v
            filled += 1
            v = member[v]
    return perm, True


def order_by_size(sizes: Longs, widths: Longs) -> Longs:
    """Return the permutation that puts blocks of columns in order, widest first.

    Parameters
    ----------
    sizes : (B,) number of columns of each block, in the given order
    widths : (B,) key to sort by, descending; ties keep the given order
    """
    block = np.repeat(np.arange(sizes.size), sizes)
    return np.argsort(-widths[block], kind="stable")
