"""Loops over a pedigree, parents before offspring; a parent of -1 is unknown.

Plain functions: small pedigrees run them as they are, large ones compiled
(`mixform.relationship.compiled`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixform._typing import AnyArray, Codes, Mask, Vector

#: Members whose relationships are found in one pass; a constant, so that the compiled
#: loops over them become vector instructions.
WIDTH = 16


def relate(  # noqa: C901 - two passes, compiled as one
    sire: AnyArray, dam: AnyArray, d: Vector, chosen: Codes, needed: Mask, x: Any
) -> None:
    """Put relationships A[i, chosen] into x (m, WIDTH) for needed i and ancestors.

    A = T D T' applied to unit vectors: up the pedigree from the chosen members (no more
    than WIDTH), times D, and down again, through ancestors only. Rows of x count from
    the start of what they are for; needed (m,) is false, but for the members asked
    for, at the start, and holds their ancestors as well at the end.
    """
    lineage = np.zeros(len(needed), dtype=np.bool_)
    for k in range(len(chosen)):
        i = chosen[k]
        if not lineage[i]:
            lineage[i] = True
            for j in range(WIDTH):
                x[i, j] = 0.0
        x[i, k] = 1.0
    for i in range(len(needed) - 1, -1, -1):
        for parent in (sire[i], dam[i]):
            if parent < 0:
                continue
            if needed[i]:
                needed[parent] = True
            if lineage[i] and lineage[parent]:
                for j in range(WIDTH):
                    x[parent, j] += 0.5 * x[i, j]
            elif lineage[i]:
                lineage[parent] = True
                for j in range(WIDTH):
                    x[parent, j] = 0.5 * x[i, j]
    for i in range(len(needed)):
        if not needed[i]:
            continue
        if lineage[i]:
            for j in range(WIDTH):
                x[i, j] *= d[i]
        else:
            for j in range(WIDTH):
                x[i, j] = 0.0
        for parent in (sire[i], dam[i]):
            if parent >= 0:
                for j in range(WIDTH):
                    x[i, j] += 0.5 * x[parent, j]


def up(sire: Codes, dam: Codes, x: Any) -> None:
    """Replace x (m, c) by T'x, T the matrix of path coefficients: youngest first."""
    m, c = x.shape
    for i in range(m - 1, -1, -1):
        for parent in (sire[i], dam[i]):
            if parent >= 0:
                for k in range(c):
                    x[parent, k] += 0.5 * x[i, k]


def down(sire: Codes, dam: Codes, x: Any) -> None:
    """Replace x (m, c) by T x: oldest first."""
    m, c = x.shape
    for i in range(m):
        for parent in (sire[i], dam[i]):
            if parent >= 0:
                for k in range(c):
                    x[i, k] += 0.5 * x[parent, k]
