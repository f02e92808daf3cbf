"""Kernels on Z'Z, held as small dense blocks, one for each pair of levels that meet.

Goes in: per random term the level codes (n,) and the design (n, k) of its rows. Comes
out: Z'Z and what the criterion and its gradient need of it, in one pass over rows or
pairs of levels; Z itself is never formed.

A pair of terms (i, j), i <= j, is held by columns: level a of term i meets the levels
``level[start[a]:start[a + 1]]`` of term j, ascending, and ``G[e]`` (k_j, k_i) is the
block of Z'Z in the rows of level ``level[e]`` and the columns of level a. A term meets
itself only within a level. In the lower triangle of M by columns, row x of block e in
column c of its level is at::

    base[a] + e k_j + x + c length[a] - c (c + 1) / 2

because the columns of one level have the same rows, less one for each column passed.
"""

from __future__ import annotations

import numpy as np

from mixform._jit import Floats, Index, Ints, Longs, inlined, kernel


@kernel
def sum_squares(codes: Ints, design: Floats, m: int) -> Floats:
    """Return the diagonal blocks (m, k, k) of Z'Z of one term."""
    k = design.shape[1]
    G = np.zeros((m, k, k))
    for row in range(codes.size):
        a = codes[row]
        for x in range(k):
            for y in range(x + 1):
                G[a, x, y] += design[row, x] * design[row, y]
    for a in range(m):
        for x in range(k):
            for y in range(x):
                G[a, y, x] = G[a, x, y]
    return G


@inlined
def sort_rows(codes: Ints, m: Index, rows: Ints) -> tuple[Ints, Longs]:
    """Return (`rows` in ascending order of their codes, first of each code); stable."""
    start = np.zeros(m + 1, np.int64)
    for row in range(codes.size):
        start[codes[row] + 1] += 1
    for a in range(m):
        start[a + 1] += start[a]
    fill = start[:-1].copy()
    result = np.empty(rows.size, np.int32)
    for row in rows:
        a = codes[row]
        result[fill[a]] = row
        fill[a] += 1
    return result, start


@kernel
def sum_products(
    codes_i: Ints,
    design_i: Floats,
    m_i: int,
    codes_j: Ints,
    design_j: Floats,
    m_j: int,
) -> tuple[Longs, Ints, Floats]:
    """Return (start, level, G) of a pair of terms; rows are sorted by both codes."""
    n = codes_i.size
    k_i, k_j = design_i.shape[1], design_j.shape[1]
    rows, _ = sort_rows(codes_j, m_j, np.arange(n).astype(np.int32))
    rows, row_start = sort_rows(codes_i, m_i, rows)
    start = np.zeros(m_i + 1, np.int64)
    for a in range(m_i):
        n_blocks = 0
        latest = -1
        for t in range(row_start[a], row_start[a + 1]):
            b = codes_j[rows[t]]
            n_blocks += b != latest
            latest = b
        start[a + 1] = start[a] + n_blocks
    level = np.empty(start[m_i], np.int32)
    G = np.zeros((start[m_i], k_j, k_i))
    for a in range(m_i):
        e = start[a] - 1
        latest = -1
        for t in range(row_start[a], row_start[a + 1]):
            row = rows[t]
            b = codes_j[row]
            if b != latest:
                e += 1
                level[e] = b
                latest = b
            for x in range(k_j):
                for y in range(k_i):
                    G[e, x, y] += design_j[row, x] * design_i[row, y]
    return start, level, G


@kernel
def sum_rows(codes: Ints, design: Floats, X: Floats, ZtX: Floats) -> None:
    """Add the sums of one term's rows, Z'X (m k, p), to `ZtX`."""
    k, p = design.shape[1], X.shape[1]
    for row in range(codes.size):
        for c in range(k):
            d = design[row, c]
            at = codes[row] * k + c
            for x in range(p):
                ZtX[at, x] += d * X[row, x]


@kernel
def fill_rows(
    start: Longs,
    level: Ints,
    base: Longs,
    length: Longs,
    k_i: int,
    k_j: int,
    first: int,
    indices: Ints,
) -> None:
    """Write the row indices of a pair of terms into the pattern of M."""
    for a in range(base.size):
        for e in range(start[a], start[a + 1]):
            at = base[a] + e * k_j
            for c in range(k_i):
                for x in range(k_j):
                    indices[at + x] = first + level[e] * k_j + x
                at += length[a] - c - 1


@kernel
def refill_pair(  # noqa: C901
    is_diagonal: bool,
    start: Longs,
    base: Longs,
    length: Longs,
    G: Floats,
    T_i: Floats,
    T_j: Floats,
    precision: Floats,
    values: Floats,
) -> None:
    """Write T_j' G T_i of every block of a pair into the values of M.

    On the diagonal, ``precision`` (m,) is added to it and the upper halves left out.
    """
    k_i, k_j = T_i.shape[0], T_j.shape[0]
    if k_i == 1 and k_j == 1:
        t = T_i[0, 0] * T_j[0, 0]
        for a in range(base.size):
            at = base[a]
            for e in range(start[a], start[a + 1]):
                values[at + e] = t * G[e, 0, 0]
            if is_diagonal:
                values[at + start[a]] += precision[a]
        return
    if is_diagonal and k_i == 2:
        t00, t01, t10, t11 = T_i[0, 0], T_i[0, 1], T_i[1, 0], T_i[1, 1]
        for a in range(base.size):
            g00, g10, g11 = G[a, 0, 0], G[a, 1, 0], G[a, 1, 1]
            u0, u1 = g00 * t00 + g10 * t10, g10 * t00 + g11 * t10
            at = base[a] + 2 * a
            values[at] = t00 * u0 + t10 * u1 + precision[a]
            values[at + 1] = t01 * u0 + t11 * u1
            u0, u1 = g00 * t01 + g10 * t11, g10 * t01 + g11 * t11
            values[at + length[a]] = t01 * u0 + t11 * u1 + precision[a]
        return
    GT = np.empty((k_j, k_i))
    for a in range(base.size):
        for e in range(start[a], start[a + 1]):
            for x in range(k_j):
                for y in range(k_i):
                    total = 0.0
                    for z in range(k_i):
                        total += G[e, x, z] * T_i[z, y]
                    GT[x, y] = total
            at = base[a] + e * k_j
            for y in range(k_i):
                for x in range(y if is_diagonal else 0, k_j):
                    total = precision[a] if is_diagonal and x == y else 0.0
                    for z in range(k_j):
                        total += T_j[z, x] * GT[z, y]
                    values[at + x] = total
                at += length[a] - y - 1


@kernel
def add_traces(  # noqa: C901
    is_diagonal: bool,
    start: Longs,
    base: Longs,
    length: Longs,
    G: Floats,
    T_i: Floats,
    T_j: Floats,
    selected: Floats,
    B_i: Floats,
    B_j: Floats,
) -> None:
    """Add a pair's part of the sums over levels of Z'Z Lambda M^-1.

    With S the block (k_j, k_i) of M^-1 on the pair: B_j += G T_i S', B_i += G' T_j S.
    """
    k_i, k_j = T_i.shape[0], T_j.shape[0]
    if k_i == 1 and k_j == 1:
        total = 0.0
        for a in range(base.size):
            for e in range(start[a], start[a + 1]):
                total += G[e, 0, 0] * selected[base[a] + e]
        B_j[0, 0] += total * T_i[0, 0]
        if not is_diagonal:
            B_i[0, 0] += total * T_j[0, 0]
        return
    if is_diagonal and k_i == 2:
        # The sums of G[x, y] S[z, w] are all that the data enter: T can wait.
        p00, p01, p02 = 0.0, 0.0, 0.0
        p10, p11, p12 = 0.0, 0.0, 0.0
        p20, p21, p22 = 0.0, 0.0, 0.0
        for a in range(base.size):
            at = base[a] + 2 * a
            s0, s1, s2 = selected[at], selected[at + 1], selected[at + length[a]]
            g0, g1, g2 = G[a, 0, 0], G[a, 1, 0], G[a, 1, 1]
            p00, p01, p02 = p00 + g0 * s0, p01 + g0 * s1, p02 + g0 * s2
            p10, p11, p12 = p10 + g1 * s0, p11 + g1 * s1, p12 + g1 * s2
            p20, p21, p22 = p20 + g2 * s0, p21 + g2 * s1, p22 + g2 * s2
        sums = ((p00, p01, p02), (p10, p11, p12), (p20, p21, p22))
        for x in range(2):
            for z in range(2):
                for y in range(2):
                    for w in range(2):
                        B_j[x, z] += sums[x + y][z + w] * T_i[y, w]
        return
    S = np.empty((k_j, k_i))
    for a in range(base.size):
        for e in range(start[a], start[a + 1]):
            at = base[a] + e * k_j
            for w in range(k_i):
                for z in range(w if is_diagonal else 0, k_j):
                    S[z, w] = selected[at + z]
                    if is_diagonal:
                        S[w, z] = S[z, w]
                at += length[a] - w - 1
            for x in range(k_j):
                for w in range(k_i):
                    g_t, t_s = 0.0, 0.0
                    for y in range(k_i):
                        g_t += G[e, x, y] * T_i[y, w]
                    for z in range(k_j):
                        B_j[x, z] += g_t * S[z, w]
                    if is_diagonal:
                        continue
                    for z in range(k_j):
                        t_s += T_j[x, z] * S[z, w]
                    for y in range(k_i):
                        B_i[y, w] += G[e, x, y] * t_s


@kernel
def add_product(
    is_diagonal: bool,
    start: Longs,
    level: Ints,
    G: Floats,
    H_i: Floats,
    H_j: Floats,
    out_i: Floats,
    out_j: Floats,
) -> None:
    """Add a pair's part of Z'Z H: to the rows of both terms, once on the diagonal."""
    k_j, k_i = G.shape[1], G.shape[2]
    r = H_i.shape[1]
    for a in range(start.size - 1):
        for e in range(start[a], start[a + 1]):
            for x in range(k_j):
                to = level[e] * k_j + x
                for y in range(k_i):
                    g = G[e, x, y]
                    for c in range(r):
                        out_j[to, c] += g * H_i[a * k_i + y, c]
                    if not is_diagonal:
                        for c in range(r):
                            out_i[a * k_i + y, c] += g * H_j[to, c]


@kernel
def add_row_quadratics(
    is_diagonal: bool,
    start: Longs,
    level: Ints,
    base: Longs,
    length: Longs,
    codes_i: Ints,
    rows_i: Floats,
    codes_j: Ints,
    rows_j: Floats,
    selected: Floats,
    out: Floats,
) -> None:
    """Add what a pair of terms gives of v'M^-1 v for each row v of Z Lambda.

    ``rows_i`` (n, k_i) and ``rows_j`` (n, k_j) are a row's entries in the two terms;
    `selected` (nnz,) holds M^-1 on the pattern of M.
    """
    k_i, k_j = rows_i.shape[1], rows_j.shape[1]
    for row in range(out.size):
        a, b = codes_i[row], codes_j[row]
        low, high = start[a], start[a + 1] - 1
        while low < high:
            middle = (low + high) // 2
            if level[middle] < b:
                low = middle + 1
            else:
                high = middle
        at = base[a] + low * k_j
        total = 0.0
        for y in range(k_i):
            for x in range(y if is_diagonal else 0, k_j):
                twice = 1.0 if is_diagonal and x == y else 2.0
                total += twice * rows_j[row, x] * selected[at + x] * rows_i[row, y]
            at += length[a] - y - 1
        out[row] += total
