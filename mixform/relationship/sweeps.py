"""Loops over a pedigree, parents before offspring; a parent of -1 is unknown.

Plain functions: small pedigrees run them as they are, large ones compiled
(`mixform.relationship.compiled`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixform._typing import Codes, Mask, Vector


def relate(  # noqa: C901 - two passes, compiled as one
    sire: Codes, dam: Codes, d: Vector, chosen: Codes, needed: Mask, x: Any
) -> None:
    """Put relationships A[i, chosen] into x (m, c) for needed i and their ancestors.

    A = T D T' applied to unit vectors: up the pedigree from the chosen members, times
    D, and down again, through ancestors only. x is zero and needed (m,) is false, but
    for the members asked for, at the start; needed then holds their ancestors as well.
    """
    m, c = x.shape
    lineage = np.zeros(m, dtype=np.bool_)
    for k in range(c):
        lineage[chosen[k]] = True
        x[chosen[k], k] = 1.0
    for i in range(m - 1, -1, -1):
        for parent in (sire[i], dam[i]):
            if parent >= 0:
                needed[parent] |= needed[i]
                if lineage[i]:
                    lineage[parent] = True
                    for k in range(c):  # compiled, a sum of rows would make copies
                        x[parent, k] += 0.5 * x[i, k]
    for i in range(m):
        if lineage[i]:
            for k in range(c):
                x[i, k] *= d[i]
        if needed[i]:
            for parent in (sire[i], dam[i]):
                if parent >= 0:
                    for k in range(c):
                        x[i, k] += 0.5 * x[parent, k]


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
