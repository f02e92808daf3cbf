"""Numerical factorization of a symmetric positive definite matrix, M = P'LL'P.

Goes in: a `Structure` and the values of the matrix. Comes out: the panels of the
factor, one dense column-major block per supernode. Multifrontal: a supernode adds the
updates of its children to its front, factors its own columns, and leaves its own
update for its parent. Small fronts are worked by loops, large ones by BLAS.

References
----------
Duff, Reid (1983) The multifrontal solution of indefinite sparse symmetric linear
    equations. ACM Trans. Math. Softw. 9, 302-325.
Liu (1992) The multifrontal method for sparse matrix solution: theory and practice.
    SIAM Review 34, 82-109.
"""

from __future__ import annotations

import math

import numpy as np

from mixform._jit import Floats, Index, Ints, inlined, kernel
from mixform.mme.sparse.blas import L, N, R, T, dpotrf, dsyrk, dtrsm
from mixform.mme.sparse.symbolic import Structure

#: Multiplications below which loops are faster than calls of BLAS.
SMALL = 2_000.0


@inlined
def add_column(
    target: Floats,
    at: Index,
    work: Floats,
    source: Index,
    relative: Ints,
    r: Index,
    n: Index,
) -> None:
    """Add n entries of a child's update to one column of a front."""
    for a in range(n):
        target[at + relative[r + a]] += work[source + a]


@inlined
def subtract_leaf(
    target: Floats,
    at: Index,
    panels: Floats,
    source: Index,
    stride: Index,
    width: Index,
    relative: Ints,
    r: Index,
    n: Index,
) -> None:
    """Subtract a narrow leaf's outer product from one column of a front."""
    x = panels[source]
    if width == 1:
        for a in range(n):
            target[at + relative[r + a]] -= x * panels[source + a]
    else:
        other = source + stride
        y = panels[other]
        for a in range(n):
            target[at + relative[r + a]] -= (
                x * panels[source + a] + y * panels[other + a]
            )


@inlined
def factor_by_loops(
    panels: Floats, base: Index, w: Index, u: Index, work: Floats, update: Index
) -> None:
    """Factor a small front in place: panel, then update."""
    n_rows = w + u
    for j in range(w):
        column = base + j * n_rows
        for k in range(j):
            x = panels[base + k * n_rows + j]
            for i in range(j, n_rows):
                panels[column + i] -= x * panels[base + k * n_rows + i]
        pivot = np.sqrt(panels[column + j])
        panels[column + j] = pivot
        for i in range(j + 1, n_rows):
            panels[column + i] /= pivot
    if update < 0:
        return
    for b in range(u):
        for k in range(w):
            row = base + k * n_rows + w
            x = panels[row + b]
            for a in range(b, u):
                work[update + b * u + a] -= x * panels[row + a]


@kernel
def factor_panels(  # noqa: C901
    structure: Structure, values: Floats, panels: Floats, work: Floats
) -> tuple[int, float]:
    """Overwrite `panels` with the factor; return (failed column or -1, log|M|).

    Parameters
    ----------
    values : (nnz,) entries of M, as in the analyzed pattern
    panels : (panel_start[-1],) overwritten
    work : (update_start[-1],) overwritten
    """
    first, below, relative = structure.first, structure.below, structure.relative
    row_start, panel_start = structure.row_start, structure.panel_start
    update_start = structure.update_start
    panel_address, work_address = panels.ctypes.data, work.ctypes.data
    logdet, product = 0.0, 1.0
    panels[:] = 0.0
    for t in range(values.size):
        panels[structure.where[t]] = values[t]
    for s in range(below.size):
        base, update = panel_start[s], update_start[s]
        w, u = first[s + 1] - first[s], below[s]
        n_rows = w + u
        if update >= 0:
            for b in range(u):
                work[update + b * (u + 1) : update + (b + 1) * u] = 0.0
        for e in range(structure.pair_start[s], structure.pair_start[s + 1]):
            c, b = structure.pair_child[e], structure.pair_row[e]
            r, n = row_start[c] + b, below[c] - b
            j = relative[r]
            at = base + j * n_rows if j < w else update + (j - w) * u - w
            source = update_start[c]
            if source >= 0:
                source += b * (below[c] + 1)
                if j < w:
                    add_column(panels, at, work, source, relative, r, n)
                else:
                    add_column(work, at, work, source, relative, r, n)
                continue
            wc = first[c + 1] - first[c]
            source, stride = panel_start[c] + wc + b, wc + below[c]
            if j < w:
                subtract_leaf(panels, at, panels, source, stride, wc, relative, r, n)
            else:
                subtract_leaf(work, at, panels, source, stride, wc, relative, r, n)
        if w * (w * w / 3.0 + w * u + u * u) < SMALL:
            factor_by_loops(panels, base, w, u, work, update)
        else:
            corner = panel_address + 8 * base
            if dpotrf(L, w, corner, n_rows) == 0 and u > 0:
                dtrsm(R, L, T, N, u, w, 1.0, corner, n_rows, corner + 8 * w, n_rows)
                if update >= 0:
                    target = work_address + 8 * update
                    dsyrk(L, N, u, w, -1.0, corner + 8 * w, n_rows, 1.0, target, u)
        for j in range(w):
            pivot = panels[base + j * (n_rows + 1)]
            if not (pivot > 0.0 and pivot < np.inf):
                return first[s] + j, np.nan
            # One logarithm for many pivots, as long as their product is in range.
            if 1e-100 < pivot * product < 1e100:
                product *= pivot
            else:
                logdet += math.log(product) + math.log(pivot)
                product = 1.0
    return -1, 2.0 * (logdet + math.log(product))
