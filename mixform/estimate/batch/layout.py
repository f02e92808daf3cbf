"""The mixed model equations of a small problem as a stack of independent blocks.

Levels that no row connects do not meet in M. Goes in: a problem. Comes out: its
connected components, all of one shape, those with equal Z'R^-1Z side by side: what
depends on theta alone is then worked out once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixform._typing import AnyArray, Matrix, Stack
from mixform.estimate.problem import Problem
from mixform.mme import ZBlock

#: Entries of Z'R^-1Z that differ by no more than this, relative, are equal: rounding.
EQUAL = 1e-12
#: Numbers in the largest array of a layout.
LARGEST = 1e7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Where the levels of one random term stand in a component.

    Attributes
    ----------
    start : first of its positions
    levels : number of levels (the most that a component has)
    k : coefficients of each
    """

    start: int
    levels: int
    k: int

    @property
    def rows(self) -> slice:
        """The positions."""
        return slice(self.start, self.start + self.levels * self.k)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """A problem's components in d slots of w each, s random effects in each.

    A component with fewer levels than others has empty ones, for which Z'Z is zero
    and M the identity; a slot that is not full has zeros for Z'W. Neither adds
    anything to a sum.

    Attributes
    ----------
    pieces : one for each random term
    C : (d, s, s) Z'R^-1Z of the components of a slot
    counts : (d,) number of components in each slot
    where : (q,) place of each random effect in an array (d, s, w)
    w : width of a slot
    ZtX : (d * s * w, p)
    XX : (d * s * s, p * p) sums over the slot of the products of rows of Z'X
    """

    pieces: tuple[Piece, ...]
    C: Stack
    counts: AnyArray
    where: AnyArray
    w: int
    ZtX: Matrix
    XX: Matrix

    @property
    def shape(self) -> tuple[int, int, int]:
        """(d, s, w)."""
        return (*self.C.shape[:2], self.w)

    def place(self, ZtY: Matrix) -> AnyArray:
        """Return Z'Y (q, r) as (r, d, s, w)."""
        out = np.zeros((ZtY.shape[1], int(np.prod(self.shape))))
        out[:, self.where] = ZtY.T
        return out.reshape(-1, *self.shape)


def build_layout(problem: Problem, limit: float = np.inf) -> Layout | None:
    """Return the components of a problem with random terms.

    Parameters
    ----------
    limit : of `work_of`; None is returned for more
    """
    blocks, p = problem.blocks, problem.p
    level_component = _components(blocks)
    n_components = 1 + max(int(part.max()) for part in level_component)
    pieces, effects = _positions(blocks, level_component, n_components)
    s = pieces[-1].rows.stop
    if work_of(1, s) > limit or n_components * s * s > LARGEST:
        return None
    C = _cross_products(blocks, effects, n_components, s)
    slot, column, w = _slots(C)
    first = np.unique(slot, return_index=True)[1]
    d = len(first)
    if work_of(d, s) > limit or d * s * s * max(p, 1) ** 2 > LARGEST:
        return None
    component, position = np.concatenate([e.reshape(-1, 2) for e in effects]).T
    where = (slot[component] * s + position) * w + column[component]
    ZtX = np.zeros((d * s * w, p))
    ZtX[where] = problem.ZtX
    cut = ZtX.reshape(d, s, w, p)
    XX = np.einsum("dawi,dbwj->dabij", cut, cut, optimize=True)
    return Layout(
        pieces=pieces,
        C=C[first],
        counts=np.bincount(slot, minlength=d),
        where=where,
        w=w,
        ZtX=ZtX,
        XX=XX.reshape(d * s * s, p * p),
    )


def work_of(d: int, s: int) -> float:
    """Return the multiplications of one evaluation, about: d factorisations of s x s.

    75 s are what the passes over small arrays cost beside them.
    """
    return float(d) * (float(s) ** 3 + 75.0 * s)


def _components(blocks: Sequence[ZBlock]) -> list[AnyArray]:
    """Return for each block the component of each level, (m,)."""
    starts = np.cumsum([0, *(block.m for block in blocks)])
    nodes = [block.codes + start for block, start in zip(blocks, starts, strict=False)]
    edges = [(nodes[0], other) for other in nodes]
    rows = np.concatenate([one for one, _ in edges])
    columns = np.concatenate([two for _, two in edges])
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(starts[-1],) * 2)
    labels = connected_components(graph, directed=False)[1]
    return np.split(labels, starts[1:-1])


def _positions(
    blocks: Sequence[ZBlock], level_component: Sequence[AnyArray], n_components: int
) -> tuple[tuple[Piece, ...], list[AnyArray]]:
    """Return the pieces, and for each block (m, k, 2): component and position."""
    pieces: list[Piece] = []
    effects: list[AnyArray] = []
    start = 0
    for block, component in zip(blocks, level_component, strict=True):
        sizes = np.bincount(component, minlength=n_components)
        piece = Piece(start=start, levels=int(sizes.max()), k=block.k)
        order = np.argsort(component, kind="stable")
        rank = np.empty(block.m, dtype=np.int64)
        rank[order] = np.arange(block.m) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        own = np.empty((block.m, block.k, 2), dtype=np.int64)
        own[:, :, 0] = component[:, None]
        own[:, :, 1] = start + rank[:, None] * block.k + np.arange(block.k)
        pieces.append(piece)
        effects.append(own)
        start = piece.rows.stop
    return tuple(pieces), effects


def _cross_products(
    blocks: Sequence[ZBlock], effects: Sequence[AnyArray], n_components: int, s: int
) -> Stack:
    """Return Z'R^-1Z of each component, (n_components, s, s)."""
    values = np.hstack([block.design for block in blocks])
    places = [own[b.codes] for own, b in zip(effects, blocks, strict=True)]
    component = places[0][:, 0, 0]
    position = np.hstack([place[:, :, 1] for place in places])
    C = np.zeros(n_components * s * s)
    for a in range(values.shape[1]):
        for b in range(values.shape[1]):
            cells = (component * s + position[:, a]) * s + position[:, b]
            C += np.bincount(cells, values[:, a] * values[:, b], minlength=len(C))
    return C.reshape(n_components, s, s)


def _slots(C: Stack) -> tuple[AnyArray, AnyArray, int]:
    """Return slot and column of each component, and the width of the slots.

    Components with equal C share slots; the width is where the work is least.
    """
    s = C.shape[1]
    size = max(float(np.abs(C).max()), 1e-300)
    keys = np.round(C.reshape(len(C), -1) / size, -int(np.log10(EQUAL))) + 0.0
    kind = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    counts = np.bincount(kind)

    def work(width: int) -> float:
        return float(np.sum(-(-counts // width))) * (20.0 * s * s + 10.0 * s * width)

    w = min(np.unique(counts).tolist(), key=work)
    order = np.argsort(kind, kind="stable")
    rank = np.empty(len(C), dtype=np.int64)
    rank[order] = np.arange(len(C)) - np.repeat(np.cumsum(counts) - counts, counts)
    n_slots = -(-counts // w)
    slot = (np.cumsum(n_slots) - n_slots)[kind] + rank // w
    return slot, rank % w, w
