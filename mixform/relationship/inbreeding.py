"""Inbreeding of a whole pedigree, generation by generation, a few sires at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from mixform._typing import Codes, Vector
from mixform.relationship.sweeps import WIDTH


def inbreeding(
    sire: Codes, dam: Codes, sizes: Codes, relate: Callable[..., Any]
) -> tuple[Vector, Vector]:
    """Return F (m,) and the within-family variances d (m,).

    F is half the relationship of the parents; d = 1 - (1 + F_sire)/4 - (1 + F_dam)/4, a
    term for each known parent. The relationships of all mates of a few sires come from
    one pass over their ancestors (Colleau 2002, Genet. Sel. Evol. 34, 409; by sires as
    in Sargolzaei, Iwaisaki and Colleau 2005, J. Anim. Breed. Genet. 122, 325), in a
    pedigree of parents only, as nobody else is an ancestor.

    Parameters
    ----------
    sire, dam : (m,) positions, -1 if unknown, ordered by generation
    sizes : members of each generation
    relate : `mixform.relationship.sweeps.relate`, compiled or not
    """
    m = len(sire)
    F, d = np.zeros(m + 1), np.ones(m)
    F[-1] = -1.0  # of an unknown parent: no share
    is_parent = np.zeros(m + 1, dtype=np.bool_)
    is_parent[sire] = is_parent[dam] = True
    is_parent[-1] = False
    place = np.cumsum(is_parent) - 1  # among the parents
    place[-1] = -1
    parents = np.flatnonzero(is_parent)
    # Half the memory of int64: what the passes wait for.
    sire_of, dam_of = (place[side[parents]].astype(np.int32) for side in (sire, dam))
    d_of, x = np.empty(len(parents)), np.empty((len(parents), WIDTH))
    for start, end in pairwise([0, *np.cumsum(sizes).tolist()]):
        d[start:end] -= (2.0 + F[sire[start:end]] + F[dam[start:end]]) / 4.0
        older, upto = np.searchsorted(parents, [start, end])
        d_of[older:upto] = d[parents[older:upto]]
        bred = start + np.flatnonzero((sire[start:end] >= 0) & (dam[start:end] >= 0))
        one, other = place[sire[bred]], place[dam[bred]]
        if len(np.unique(other)) < len(np.unique(one)):
            one, other = other, one
        order = np.argsort(one, kind="stable")
        bred, one, other = bred[order], one[order], other[order]
        chosen, firsts = np.unique(one, return_index=True)
        firsts = np.append(firsts, len(one))
        for first in range(0, len(chosen), WIDTH):
            batch = chosen[first : first + WIDTH]
            edges = firsts[first : first + len(batch) + 1]
            rows = slice(int(edges[0]), int(edges[-1]))
            needed = np.zeros(older, dtype=np.bool_)
            needed[other[rows]] = True
            relate(sire_of, dam_of, d_of, batch, needed, x)
            column = np.repeat(np.arange(len(batch)), np.diff(edges))
            F[bred[rows]] = 0.5 * x[other[rows], column]
    return F[:-1], d
