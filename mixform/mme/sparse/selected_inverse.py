"""Selected inverse: the entries of M^-1 where the factor has entries.

Goes in: a `Structure` and the panels of its factor. Comes out: panels of the same
layout with the entries of M^-1. With L = [L11; L21] the panel of a supernode, and Z22
the inverse on its rows below, known from its parent::

    Y = L21 L11^-1,   Z21 = -Z22 Y,   Z11 = (L11 L11')^-1 - Y' Z21

This is the exact mirror of the factorization: from the roots down, on the same offsets,
a supernode hands Z22 to its children where they had left their updates.

References
----------
Takahashi, Fagan, Chen (1973) Formation of a sparse bus impedance matrix and its
    application to short circuit study. 8th PICA Conference, 63-69.
Erisman, Tinney (1975) On computing certain elements of the inverse of a sparse matrix.
    Commun. ACM 18, 177-179.
Masuda, Aguilar, Tsuruta, Misztal (2015) Technical note: acceleration of sparse
    operations for average-information REML analyses with supernodal methods and
    sparse-storage refinements. J. Anim. Sci. 93, 4670-4674.
"""

from __future__ import annotations

from mixform._jit import Floats, Index, Ints, inlined, kernel
from mixform.mme.sparse.blas import L, N, R, T, dgemm, dpotri, dsymm, dtrsm
from mixform.mme.sparse.supernodes import LEAF_WIDTH
from mixform.mme.sparse.symbolic import Structure

#: Multiplications below which loops are faster than calls of BLAS.
SMALL = 2_000.0


@inlined
def take_column(
    source: Floats,
    at: Index,
    work: Floats,
    target: Index,
    relative: Ints,
    r: Index,
    n: Index,
) -> None:
    """Hand n entries of one column of a front to a child."""
    for a in range(n):
        work[target + a] = source[at + relative[r + a]]


@inlined
def multiply_symmetric(
    source: Floats, at: Index, n: Index, x: Floats, x_at: Index, z: Floats, z_at: Index
) -> None:
    """Subtract from z the product of x and one column of a symmetric matrix.

    The column is stored from its diagonal down and stands for its row as well.
    """
    head = x[x_at]
    total = source[at] * head
    for a in range(1, n):
        z[z_at + a] -= source[at + a] * head
        total += source[at + a] * x[x_at + a]
    z[z_at] -= total


@inlined
def multiply_leaf(
    source: Floats,
    at: Index,
    panels: Floats,
    inverse: Floats,
    leaf: Index,
    stride: Index,
    width: Index,
    relative: Ints,
    r: Index,
    n: Index,
) -> None:
    """Subtract from a narrow leaf's Z21 one column of Z22 times L21, both halves."""
    entry = source[at + relative[r]]
    if width == 1:
        x = panels[leaf]
        total = entry * x
        for a in range(1, n):
            entry = source[at + relative[r + a]]
            inverse[leaf + a] -= entry * x
            total += entry * panels[leaf + a]
        inverse[leaf] -= total
    else:
        other = leaf + stride
        x, y = panels[leaf], panels[other]
        total_x, total_y = entry * x, entry * y
        for a in range(1, n):
            entry = source[at + relative[r + a]]
            inverse[leaf + a] -= entry * x
            inverse[other + a] -= entry * y
            total_x += entry * panels[leaf + a]
            total_y += entry * panels[other + a]
        inverse[leaf] -= total_x
        inverse[other] -= total_y


@inlined
def finish_leaf(
    panels: Floats, inverse: Floats, base: Index, w: Index, u: Index
) -> None:
    """Turn -Z22 L21 of a narrow supernode into Z21, and form Z11."""
    n_rows = w + u
    d = panels[base]
    if w == 1:
        total = 1.0
        for a in range(1, n_rows):
            inverse[base + a] /= d
            total -= inverse[base + a] * panels[base + a] * d
        inverse[base] = total / (d * d)
        return
    edge, other = panels[base + 1], base + n_rows
    f = panels[other + 1]
    # The columns of Y, and with them Z11 (see the module).
    z00 = 1.0 / (d * d) + (edge / (d * f)) ** 2
    z10 = -edge / (d * f * f)
    z11 = 1.0 / (f * f)
    for a in range(2, n_rows):
        z1 = inverse[other + a] / f
        z0 = (inverse[base + a] - z1 * edge) / d
        y1 = panels[other + a] / f
        y0 = (panels[base + a] - y1 * edge) / d
        inverse[base + a], inverse[other + a] = z0, z1
        z00 -= y0 * z0
        z10 -= y1 * z0
        z11 -= y1 * z1
    inverse[base], inverse[base + 1], inverse[other + 1] = z00, z10, z11


@inlined
def invert_by_loops(
    panels: Floats,
    inverse: Floats,
    base: Index,
    w: Index,
    u: Index,
    work: Floats,
    update: Index,
) -> None:
    """Invert a small front column by column, the last one first."""
    n_rows = w + u
    for j in range(w - 1, -1, -1):
        x = base + j * n_rows
        for i in range(j + 1, n_rows):
            inverse[x + i] = 0.0
        for k in range(j + 1, w):
            at = base + k * n_rows + k
            multiply_symmetric(inverse, at, n_rows - k, panels, x + k, inverse, x + k)
        for b in range(u):
            at, i = update + b * (u + 1), x + w + b
            multiply_symmetric(work, at, u - b, panels, i, inverse, i)
        d = panels[x + j]
        total = 1.0 / d
        for i in range(j + 1, n_rows):
            inverse[x + i] /= d
            total -= inverse[x + i] * panels[x + i]
        inverse[x + j] = total / d


@kernel
def invert_panels(  # noqa: C901
    structure: Structure,
    panels: Floats,
    inverse: Floats,
    work: Floats,
    buffer: Floats,
) -> None:
    """Overwrite `inverse` with the entries of M^-1, in the layout of `panels`.

    Parameters
    ----------
    panels : (panel_start[-1],) the factor
    inverse : (panel_start[-1],) overwritten; upper corners are left undefined
    work : (update_start[-1],) overwritten
    buffer : (largest w * u,) overwritten
    """
    first, below, relative = structure.first, structure.below, structure.relative
    row_start, panel_start = structure.row_start, structure.panel_start
    update_start = structure.update_start
    panel_address, work_address = panels.ctypes.data, work.ctypes.data
    inverse_address, buffer_address = inverse.ctypes.data, buffer.ctypes.data
    for s in range(below.size - 1, -1, -1):
        base, update = panel_start[s], update_start[s]
        if update < 0:
            continue  # a narrow leaf: its parent has done it
        w, u = first[s + 1] - first[s], below[s]
        n_rows = w + u
        if u == 0 and w <= LEAF_WIDTH:
            finish_leaf(panels, inverse, base, w, u)
        elif w * (w * w / 3.0 + w * u + u * u) < SMALL:
            invert_by_loops(panels, inverse, base, w, u, work, update)
        else:
            for t in range(base, base + w * n_rows):
                inverse[t] = panels[t]
            corner, z11 = panel_address + 8 * base, inverse_address + 8 * base
            y = z11 + 8 * w
            z22 = work_address + 8 * update
            dpotri(L, w, z11, n_rows)
            if u > 0:
                dtrsm(R, L, N, N, u, w, 1.0, corner, n_rows, y, n_rows)
                dsymm(L, L, u, w, -1.0, z22, u, y, n_rows, 0.0, buffer_address, u)
                dgemm(
                    T, N, w, w, u, -1.0, y, n_rows, buffer_address, u, 1.0, z11, n_rows
                )
                for j in range(w):
                    for i in range(u):
                        inverse[base + j * n_rows + w + i] = buffer[j * u + i]
        begin, end = structure.pair_start[s], structure.pair_start[s + 1]
        for e in range(begin, end):
            c = structure.pair_child[e]
            if structure.pair_row[e] == 0 and update_start[c] < 0:
                inverse[panel_start[c] : panel_start[c + 1]] = 0.0
        for e in range(begin, end):
            c, b = structure.pair_child[e], structure.pair_row[e]
            r, n = row_start[c] + b, below[c] - b
            j = relative[r]
            at = base + j * n_rows if j < w else update + (j - w) * u - w
            target = update_start[c]
            if target >= 0:
                target += b * (below[c] + 1)
                if j < w:
                    take_column(inverse, at, work, target, relative, r, n)
                else:
                    take_column(work, at, work, target, relative, r, n)
                continue
            wc = first[c + 1] - first[c]
            leaf, stride = panel_start[c] + wc + b, wc + below[c]
            if j < w:
                multiply_leaf(
                    inverse, at, panels, inverse, leaf, stride, wc, relative, r, n
                )
            else:
                multiply_leaf(
                    work, at, panels, inverse, leaf, stride, wc, relative, r, n
                )
        for e in range(begin, end):
            c = structure.pair_child[e]
            if structure.pair_row[e] == 0 and update_start[c] < 0:
                wc = first[c + 1] - first[c]
                finish_leaf(panels, inverse, panel_start[c], wc, below[c])
