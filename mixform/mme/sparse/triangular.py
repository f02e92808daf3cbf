"""Solves with the factor, for one or many right-hand sides.

Goes in: a `Structure`, the panels of its factor and right-hand sides in the factor's
order, one row per column of M (C order, so that a supernode's rows are one block).
They are overwritten by the solution.
"""

from __future__ import annotations

from mixform._jit import Floats, kernel
from mixform.mme.sparse.blas import L, N, R, T, dgemm, dtrsm
from mixform.mme.sparse.symbolic import Structure

#: Multiplications below which loops are faster than calls of BLAS.
SMALL = 2_000


@kernel
def solve_lower(  # noqa: C901
    structure: Structure, panels: Floats, x: Floats, buffer: Floats
) -> None:
    """Overwrite x (q, r) with L^-1 x; `buffer` holds (largest `below`, r)."""
    rows, row_start = structure.rows, structure.row_start
    r = x.shape[1]
    panel_address, x_address = panels.ctypes.data, x.ctypes.data
    buffer_address = buffer.ctypes.data
    for s in range(structure.below.size):
        first, base = structure.first[s], structure.panel_start[s]
        w, u = structure.first[s + 1] - first, structure.below[s]
        n_rows = w + u
        at = row_start[s]
        if w * n_rows * r < SMALL:
            for j in range(w):
                column = base + j * n_rows
                pivot = panels[column + j]
                for c in range(r):
                    x[first + j, c] /= pivot
                for i in range(j + 1, w):
                    for c in range(r):
                        x[first + i, c] -= panels[column + i] * x[first + j, c]
                for i in range(u):
                    entry, row = panels[column + w + i], rows[at + i]
                    for c in range(r):
                        x[row, c] -= entry * x[first + j, c]
            continue
        corner, block = panel_address + 8 * base, x_address + 8 * r * first
        dtrsm(R, L, T, N, r, w, 1.0, corner, n_rows, block, r)
        if u > 0:
            edge = corner + 8 * w
            dgemm(N, T, r, u, w, 1.0, block, r, edge, n_rows, 0.0, buffer_address, r)
            for i in range(u):
                for c in range(r):
                    x[rows[at + i], c] -= buffer[i, c]


@kernel
def solve_upper(  # noqa: C901
    structure: Structure, panels: Floats, x: Floats, buffer: Floats
) -> None:
    """Overwrite x (q, r) with L'^-1 x; `buffer` holds (largest `below`, r)."""
    rows, row_start = structure.rows, structure.row_start
    r = x.shape[1]
    panel_address, x_address = panels.ctypes.data, x.ctypes.data
    buffer_address = buffer.ctypes.data
    for s in range(structure.below.size - 1, -1, -1):
        first, base = structure.first[s], structure.panel_start[s]
        w, u = structure.first[s + 1] - first, structure.below[s]
        n_rows = w + u
        at = row_start[s]
        if w * n_rows * r < SMALL:
            for j in range(w - 1, -1, -1):
                column = base + j * n_rows
                for i in range(u):
                    entry, row = panels[column + w + i], rows[at + i]
                    for c in range(r):
                        x[first + j, c] -= entry * x[row, c]
                for i in range(j + 1, w):
                    for c in range(r):
                        x[first + j, c] -= panels[column + i] * x[first + i, c]
                pivot = panels[column + j]
                for c in range(r):
                    x[first + j, c] /= pivot
            continue
        corner, block = panel_address + 8 * base, x_address + 8 * r * first
        if u > 0:
            for i in range(u):
                for c in range(r):
                    buffer[i, c] = x[rows[at + i], c]
            edge = corner + 8 * w
            dgemm(N, N, r, w, u, -1.0, buffer_address, r, edge, n_rows, 1.0, block, r)
        dtrsm(R, L, N, N, r, w, 1.0, corner, n_rows, block, r)
